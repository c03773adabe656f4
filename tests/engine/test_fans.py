"""Many sends to one node on processes have no tasks of their own until something happens to one of them: nobody can tell."""

from __future__ import annotations

import operator
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

from mpflow._core.fan import Fan
from mpflow._exec.process import WorkerPool
from mpflow.config import get_stream_writer
from mpflow.func import task
from mpflow.graph import START, StateGraph
from mpflow.types import Command, FailureRecord, Overwrite, RetryPolicy, Send
from tests.colours import Run

pytestmark = pytest.mark.warm_pool
COUNT = 300


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    total: Annotated[int, operator.add]
    last: str


class Broken(Exception):
    pass


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool


@pytest.fixture(autouse=True)
def fans(monkeypatch: pytest.MonkeyPatch) -> list[Fan]:
    """The fans that a test makes."""
    made: list[Fan] = []
    start = Fan.start

    def started(self: Fan, facts: Any) -> Any:
        made.append(self)
        return start(self, facts)

    monkeypatch.setattr(Fan, "start", started)
    return made


def fan_out(node: Any, pool: WorkerPool, count: int = COUNT, **options: Any) -> Any:
    compiling = {name: options.pop(name) for name in ("on_error", "fail_fast", "checkpointer") if name in options}
    graph = StateGraph(State).add_node("node", node, executor="process", **options)
    graph.add_conditional_edges(START, lambda state: [Send("node", {"i": i}) for i in range(count)], ["node"])
    return graph.compile(pool=pool, **compiling)


def told(value: Any) -> Any:
    return {"log": [value["i"]]}


def test_results_are_merged_in_the_order_of_the_sends(run: Run, pool: WorkerPool, fans: list[Fan]) -> None:
    assert run.invoke(fan_out(told, pool), {})["log"] == list(range(COUNT))
    assert len(fans) == 1 and not fans[0].is_spread and len(fans[0].made) < COUNT


def test_sends_that_are_made_while_they_run(run: Run, pool: WorkerPool, fans: list[Fan]) -> None:
    def node(x: Any) -> Any:
        if x["i"] == 1_100:
            raise Broken
        return {"log": [x["i"]], "total": 1}

    graph = StateGraph(State).add_node("node", node, executor="process")
    graph.add_conditional_edges(START, lambda state: (Send("node", {"i": i}) for i in range(2_000)), ["node"])
    found = run.invoke(graph.compile(pool=pool, on_error="record"), {"total": 0})
    assert [type(value) for value in found["log"]].index(FailureRecord) == 1_100
    assert found["total"] == 1_999 and len(fans) == 4 and sum(fan.is_spread for fan in fans) == 1


def test_writes_to_several_channels_and_edges_behind_them(run: Run, pool: WorkerPool, fans: list[Fan]) -> None:
    graph = StateGraph(State)
    graph.add_node("node", lambda x: {"log": [x["i"]], "total": x["i"]}, executor="process")
    graph.add_node("after", lambda state: {"last": f"{len(state['log'])} {state['total']}"})
    graph.add_conditional_edges(START, lambda state: [Send("node", {"i": i}) for i in range(COUNT)], ["node"])
    graph.add_edge("node", "after")
    assert run.invoke(graph.compile(pool=pool), {})["last"] == f"{COUNT} {sum(range(COUNT))}"
    assert len(fans) == 1 and not fans[0].is_spread


def test_one_that_fails_ends_the_run_with_its_error(run: Run, pool: WorkerPool, fans: list[Fan]) -> None:
    def node(x: Any) -> Any:
        if x["i"] == 200:
            raise Broken("here")
        return told(x)

    with pytest.raises(Broken, match="here") as caught:
        run.invoke(fan_out(node, pool), {})
    assert "During task with name 'node'" in caught.value.__notes__[0] if hasattr(caught.value, "__notes__") else True
    assert fans[0].is_spread


def test_failures_on_record_keep_their_places(run: Run, pool: WorkerPool) -> None:
    def node(x: Any) -> Any:
        if x["i"] % 100 == 50:
            raise Broken(x["i"])
        return told(x)

    log = run.invoke(fan_out(node, pool, on_error="record"), {})["log"]
    assert [i for i, value in enumerate(log) if isinstance(value, FailureRecord)] == [50, 150, 250]
    assert [value for value in log if type(value) is int] == [i for i in range(COUNT) if i % 100 != 50]


def test_one_that_is_tried_again(run: Run, pool: WorkerPool, tmp_path: Path) -> None:
    def node(x: Any) -> Any:
        if x["i"] == 7 and not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch()
            raise Broken
        return told(x)

    app = fan_out(node, pool, retry_policy=RetryPolicy(initial_interval=0.01, jitter=False, retry_on=Broken))
    assert run.invoke(app, {})["log"] == list(range(COUNT))
    (tmp_path / "tried").unlink()


def test_a_worker_that_dies_loses_nothing(run: Run, pool: WorkerPool, fans: list[Fan], tmp_path: Path) -> None:
    def node(x: Any) -> Any:
        if x["i"] in (20, 280) and not (tmp_path / str(x["i"])).exists():
            (tmp_path / str(x["i"])).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return told(x)

    assert run.invoke(fan_out(node, pool), {})["log"] == list(range(COUNT))
    assert fans[0].is_spread
    for path in tmp_path.iterdir():
        path.unlink()


def test_one_whose_result_cannot_be_encoded_fails_alone(run: Run, pool: WorkerPool) -> None:
    def node(x: Any) -> Any:
        return {"log": [(n for n in ())] if x["i"] == 3 else [x["i"]]}

    log = run.invoke(fan_out(node, pool, on_error="record"), {})["log"]
    assert isinstance(log[3], FailureRecord) and log[4:] == list(range(4, COUNT))


def test_one_whose_input_cannot_travel_fails_alone(run: Run, pool: WorkerPool) -> None:
    graph = StateGraph(State).add_node("node", told, executor="process")
    sends = [Send("node", {"i": i}) for i in range(COUNT)]
    sends[5] = Send("node", {"i": (n for n in ())})
    graph.add_conditional_edges(START, lambda state: sends, ["node"])
    log = run.invoke(graph.compile(pool=pool, on_error="record"), {})["log"]
    assert isinstance(log[5], FailureRecord) and log[6:] == list(range(6, COUNT))


def test_one_that_calls_a_task_and_one_that_writes_to_the_stream(run: Run, pool: WorkerPool) -> None:
    @task
    def double(i: int) -> int:
        return 2 * i

    def node(x: Any) -> Any:
        if x["i"] == 11:
            get_stream_writer()("eleven")
        return {"log": [double(x["i"]).result() if x["i"] % 100 == 0 else x["i"]]}

    app = fan_out(node, pool)
    assert run.stream(app, {}, stream_mode="custom") == ["eleven"]
    assert run.invoke(app, {})["log"] == [2 * i if i % 100 == 0 else i for i in range(COUNT)]


def test_a_sibling_that_fails_ends_the_step(run: Run, pool: WorkerPool, fans: list[Fan]) -> None:
    def broken(state: State) -> None:
        raise Broken("beside")

    graph = StateGraph(State).add_node("node", told, executor="process").add_node("broken", broken)
    graph.add_conditional_edges(START, lambda state: [Send("node", {"i": i}) for i in range(COUNT)], ["node"])
    graph.add_edge(START, "broken")
    with pytest.raises(Broken, match="beside"):
        run.invoke(graph.compile(pool=pool), {})
    assert len(fans) == 1


def test_commands_and_overwrites_and_nothing_at_all(run: Run, pool: WorkerPool) -> None:
    def node(x: Any) -> Any:
        if x["i"] == 1:
            return Command(update={"log": ["command"]}, goto="after")
        if x["i"] == 2:
            return None
        return {"log": Overwrite(["all"])} if x["i"] == 40 else told(x)

    graph = StateGraph(State).add_node("node", node, executor="process", destinations=("after",))
    graph.add_node("after", lambda state: {"log": ["after"]})
    graph.add_conditional_edges(START, lambda state: [Send("node", {"i": i}) for i in range(COUNT)], ["node"])
    assert run.invoke(graph.compile(pool=pool), {})["log"] == ["all", "after"]


def test_with_a_limit_a_stream_or_two_nodes_each_send_is_a_task(run: Run, pool: WorkerPool, fans: list[Fan]) -> None:
    app = fan_out(told, pool, 40)
    assert run.invoke(app, {}, {"max_concurrency": 3})["log"] == list(range(40))
    assert len(run.stream(app, {}, stream_mode="updates")) == 40
    graph = StateGraph(State).add_node("a", told, executor="process").add_node("b", told, executor="process")
    graph.add_conditional_edges(START, lambda state: [Send("ab"[i % 2], {"i": i}) for i in range(40)], ["a", "b"])
    assert run.invoke(graph.compile(pool=pool), {})["log"] == list(range(40))
    assert not fans


def test_a_run_that_is_left_cancels_what_has_not_started(pool: WorkerPool, tmp_path: Path) -> None:
    def node(x: Any) -> Any:
        (tmp_path / str(x["i"])).touch()
        if x["i"] == 0:
            raise KeyboardInterrupt
        return told(x)

    with pytest.raises(KeyboardInterrupt):
        fan_out(node, pool, 20_000).invoke({})
    assert pool.stats()["queued"] == 0 and len(list(tmp_path.iterdir())) < 20_000
    for path in tmp_path.iterdir():
        path.unlink()
