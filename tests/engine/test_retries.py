"""What retries cost and tell: which policy governs, what an attempt knows, what is left of failed ones (RY-2 to RY-6)."""

from __future__ import annotations

import asyncio
import operator
import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from mpflow.errors import NodeCancelledError
from mpflow.graph import START, StateGraph
from mpflow.runtime import Runtime
from mpflow.types import RetryPolicy


class State(TypedDict):
    x: Annotated[list[Any], operator.add]


def at_once(**options: Any) -> RetryPolicy:
    return RetryPolicy(initial_interval=0.0, jitter=False, **options)


def graph_of(action: Any, **options: Any) -> StateGraph[Any]:
    return StateGraph(State).add_node("a", action, **options).add_edge(START, "a")


class Failing:
    """A node that raises these errors, one at each attempt, and then returns what its attempts were told."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.told: list[tuple[int, float]] = []

    def __call__(self, state: State, runtime: Runtime) -> State:
        info = runtime.execution_info
        assert info is not None and info.node_first_attempt_time is not None
        self.told.append((info.node_attempt, info.node_first_attempt_time))
        if self.errors:
            raise self.errors.pop(0)
        return {"x": ["done"]}


def test_the_first_policy_that_matches_governs_and_failures_add_up(run: Any) -> None:
    """RY-2: the third failure is the second KeyError, and over the limit of its policy."""
    node = Failing(KeyError(1), ValueError(2), KeyError(3))
    policies = [at_once(retry_on=KeyError, max_attempts=2), at_once(retry_on=Exception, max_attempts=9)]
    with pytest.raises(KeyError, match="3"):
        run.invoke(graph_of(node, retry_policy=policies).compile(), {"x": []})
    assert [number for number, _ in node.told] == [1, 2, 3]


def test_attempts_know_their_number_and_when_the_first_began(run: Any) -> None:
    """RY-6"""
    node = Failing(ConnectionError(), ConnectionError())
    before = time.time()
    assert run.invoke(graph_of(node, retry_policy=at_once()).compile(), {"x": []}) == {"x": ["done"]}
    numbers, times = zip(*node.told, strict=True)
    assert numbers == (1, 2, 3)
    assert len(set(times)) == 1 and before <= times[0] <= time.time()


def test_an_only_attempt_knows_when_it_began(run: Any) -> None:
    """RY-6"""
    node = Failing()
    before = time.time()
    run.invoke(graph_of(node).compile(), {"x": []})
    ((number, began),) = node.told
    assert number == 1 and before <= began <= time.time()


def noting(state: State, runtime: Runtime) -> State:
    """Leaves what it is told in a file; fails, then dies, then returns."""
    notes = Path(state["x"][0])
    info = runtime.execution_info
    assert info is not None
    with notes.open("a") as file:
        file.write(f"{info.node_attempt} {info.node_first_attempt_time}\n")
    if info.node_attempt == 1:
        raise ConnectionError
    if info.node_attempt == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"x": []}


@pytest.mark.warm_pool
def test_workers_are_told_too_whatever_ended_the_attempts(run: Any, tmp_path: Path) -> None:
    """RY-6"""
    notes = tmp_path / "notes"
    run.invoke(graph_of(noting, retry_policy=at_once(), executor="process").compile(), {"x": [str(notes)]})
    lines = [line.split() for line in notes.read_text().splitlines()]
    assert [number for number, _ in lines] == ["1", "2", "3"]
    assert len({began for _, began in lines}) == 1


def test_a_failed_attempt_leaves_no_writes(run: Any) -> None:
    """RY-5: what a branch wrote before another failed is not merged."""
    asked: list[int] = []

    def route(state: State) -> str:
        asked.append(1)
        if len(asked) == 1:
            raise ConnectionError
        return "b"

    runs: list[int] = []

    def node(state: State) -> State:
        runs.append(1)
        return {"x": [len(runs)]}

    builder = graph_of(node, retry_policy=at_once()).add_node("b", lambda state: {"x": ["b"]})
    builder.add_conditional_edges("a", route, ["b"])
    assert run.invoke(builder.compile(), {"x": []}) == {"x": [2, "b"]}


def test_the_last_error_is_raised_as_it_was_with_a_note(run: Any) -> None:
    """ER-1, RY-5"""
    last = ConnectionError("second")
    node = Failing(ConnectionError("first"), last)
    with pytest.raises(ConnectionError) as caught:
        run.invoke(graph_of(node, retry_policy=at_once(max_attempts=2)).compile(), {"x": []})
    assert caught.value is last
    assert caught.value.__notes__[0].startswith("During task with name 'a' and id '")


def test_a_graph_may_have_policies_for_all_its_nodes(run: Any) -> None:
    """GB-11: those of a node come first."""
    node, strict = Failing(ConnectionError()), Failing(ConnectionError())
    builder = graph_of(node).set_node_defaults(retry_policy=[at_once()])
    assert run.invoke(builder.compile(), {"x": []}) == {"x": ["done"]}
    builder = graph_of(strict, retry_policy=at_once(max_attempts=1)).set_node_defaults(retry_policy=at_once())
    with pytest.raises(ConnectionError):
        run.invoke(builder.compile(), {"x": []})


def test_a_node_that_raises_cancelled_error_has_failed() -> None:
    """ER-7"""

    async def node(state: State) -> State:
        raise asyncio.CancelledError

    with pytest.raises(NodeCancelledError, match="'a'"):
        asyncio.run(graph_of(node).compile().ainvoke({"x": []}))


def test_a_step_that_takes_too_long_raises() -> None:
    """EX-15"""

    async def node(state: State) -> State:
        await asyncio.sleep(60)
        return {"x": []}

    graph = graph_of(node).compile()
    graph.step_timeout = 0.02
    with pytest.raises(TimeoutError, match=r"step_timeout of 0\.02 s; still running: 'a'"):
        asyncio.run(graph.ainvoke({"x": []}))


def test_a_run_that_only_waits_for_a_retry_sleeps_its_interval(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """RY-4: by the sleep that users put another one in the place of, to test their graphs at full speed."""
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)

    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    policy = RetryPolicy(initial_interval=1000.0, backoff_factor=2.0, max_interval=10_000.0, jitter=False)
    run.invoke(
        graph_of(Failing(KeyError(1), KeyError(2)), retry_policy=[policy._replace(retry_on=KeyError)]).compile(),
        {"x": []},
    )
    assert slept == [1000.0, 2000.0]
