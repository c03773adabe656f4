"""Failures and retries: what is raised, what is waited for, what is kept (ER-*, RY-*, D-7)."""

from __future__ import annotations

import asyncio
import operator
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict

import pytest

from mpflow import WorkerPool
from mpflow._engine.places import Places
from mpflow._engine.run import Run as EngineRun
from mpflow._engine.timers import Timers
from mpflow.errors import NodeCancelledError, NodeNotPicklableError, PoolClosedError, ReducerError
from mpflow.graph import START, StateGraph
from mpflow.types import FailureRecord, RetryPolicy, Send
from tests.colours import Run
from tests.exec.pooling import wait_until


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]


class Broken(Exception):
    pass


def star(options: dict[str, Any] | None = None, **actions: Any) -> Any:
    """All nodes in one step. An action is a function, or one with the options of its node."""
    graph = StateGraph(State)
    for name, action in actions.items():
        function, node = action if isinstance(action, tuple) else (action, {})
        graph.add_node(name, function, **node).add_edge(START, name)
    return graph.compile(**(options or {}))


def raises(error: BaseException | type[BaseException]) -> Any:
    def action(state: State) -> dict:
        raise error

    return action


@pytest.fixture
def given_up(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the run has given up its step and cancels what is left of it."""
    event = threading.Event()
    cancel = Places.cancel

    def seen(self: Any, attempts: Any, *, kill: bool) -> None:
        cancel(self, attempts, kill=kill)
        event.set()

    monkeypatch.setattr(Places, "cancel", seen)
    return event


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only waiting moves: runs ask it for the time, and waiting for a retry puts it forward."""
    now = [0.0]
    made = EngineRun.__init__

    def init(self: Any, *args: Any, **kw: Any) -> None:
        made(self, *args, **kw)
        self.clock = lambda: now[0]
        self.dice = lambda: 0.5

    monkeypatch.setattr(EngineRun, "__init__", init)
    timeout_of = Timers.timeout_s

    def timeout_s(timers: Timers) -> float | None:
        wanted = timeout_of(timers)
        if not wanted or timers.run.scheduler.running:
            return wanted
        now[0] += wanted
        return 0.0

    only_of = Timers.take_only

    def take_only(timers: Timers) -> tuple[Any, float] | None:
        only = only_of(timers)
        if only is None:
            return None
        now[0] += only[1]
        return only[0], 0.0

    monkeypatch.setattr(Timers, "timeout_s", timeout_s)
    monkeypatch.setattr(Timers, "take_only", take_only)
    return now


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["thread", "inline"])
def test_er1_the_nodes_own_exception_comes_out_with_a_note(run: Run, executor: str) -> None:
    error = Broken("why")
    with pytest.raises(Broken) as caught:
        run.invoke(star({"executor": executor}, a=lambda s: None, b=raises(error)), {})
    assert caught.value is error
    assert any(note.startswith("During task with name 'b' and id '") for note in error.__notes__)


def test_er1_an_error_that_tasks_share_has_one_note(run: Run) -> None:
    error = Broken("why")
    with pytest.raises(Broken):
        run.invoke(star({"executor": "inline"}, a=raises(error), b=raises(error)), {})
    assert len(error.__notes__) == 1


def test_er1_the_first_failure_in_time_wins(run: Run, given_up: threading.Event) -> None:
    def second(state: State) -> dict:
        assert given_up.wait(30)
        raise KeyError("second")

    with pytest.raises(Broken):
        run.invoke(star(a=second, b=raises(Broken)), {})


def test_er2_running_siblings_are_waited_for_and_waiting_ones_dropped(run: Run, given_up: threading.Event) -> None:
    started, ended = threading.Event(), []

    def slow(state: State) -> dict:
        started.set()
        assert given_up.wait(30)
        ended.append("slow")
        return {"log": ["slow"]}

    def fails(state: State) -> dict:
        assert started.wait(30)
        raise Broken

    graph = star(slow=slow, fails=fails, zz=lambda state: ended.append("zz"))
    with pytest.raises(Broken):
        run.invoke(graph, {}, {"max_concurrency": 2})
    assert ended == ["slow"]


@pytest.mark.parametrize("begun", [True, False])
def test_er2_async_siblings_are_cancelled_at_once(begun: bool) -> None:
    seen: list[str] = []

    async def main() -> None:
        started = asyncio.Event()

        async def forever(state: State) -> dict:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("cancelled")
            return {}

        async def fails(state: State) -> dict:
            if begun:
                await started.wait()
            raise Broken

        with pytest.raises(Broken):
            await star(a=fails, b=forever, c=forever).ainvoke({})

    asyncio.run(main())
    assert seen == ["cancelled"] * len(seen)
    assert not begun or seen


def test_er7_a_node_that_cancels_itself_is_told_by_name() -> None:
    async def odd(state: State) -> dict:
        raise asyncio.CancelledError

    with pytest.raises(NodeCancelledError) as caught:
        asyncio.run(star(odd=odd).ainvoke({}))
    assert caught.value.node == "odd"


def test_fault26_a_failing_reducer_is_named(run: Run) -> None:
    schema: Any = TypedDict("schema", {"x": Annotated[int, lambda a, b: 1 // b]})  # type: ignore[misc]
    graph = StateGraph(schema).add_node("n", lambda state: {"x": 0}).add_edge(START, "n").compile()
    with pytest.raises(ReducerError, match="channel 'x'"):
        run.invoke(graph, {"x": 1})


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("executor", ["thread", "inline"])
def test_what_ends_more_than_a_task_ends_the_run(run: Run, error: type[BaseException], executor: str) -> None:
    graph = star({"executor": executor}, a=raises(error), b=(lambda state: {"log": ["b"]}))
    with pytest.raises(error):
        run.invoke(graph, {})


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
def test_an_error_that_ends_iterators_names_its_node(run: Run, error: type[Exception]) -> None:
    def stop(state: State) -> None:
        raise error

    with pytest.raises(RuntimeError, match=f"node 'stop' raised {error.__name__}"):
        run.invoke(StateGraph(State).add_node("stop", stop).set_entry_point("stop").compile(), {"log": []})


def test_ex15_a_step_that_takes_too_long_is_told_with_who_is_late(
    run: Run, clock: list[float], given_up: threading.Event
) -> None:
    passed = threading.Event()

    def late(state: State) -> dict:
        clock[0] = 100.0
        passed.set()
        assert given_up.wait(30)
        return {}

    graph = star(late=late, quick=lambda state: passed.wait(30) and None)
    graph.step_timeout = 5
    with pytest.raises(TimeoutError, match=r"step_timeout of 5 s; still running: 'late'"):
        run.invoke(graph, {})


# -- failures as records -----------------------------------------------------------------------------------------------


def test_a_failed_send_is_recorded_where_its_result_would_be(run: Run) -> None:
    def work(arg: int) -> dict:
        if arg == 1:
            raise Broken
        return {"log": [arg]}

    graph = StateGraph(State).add_node("w", work, on_error="record")
    graph.add_conditional_edges(START, lambda state: [Send("w", n) for n in range(3)])
    zero, record, two = run.invoke(graph.compile(), {})["log"]
    assert (zero, two) == (0, 2)
    assert isinstance(record, FailureRecord)
    assert (record.node, record.input, type(record.error), record.attempts) == ("w", 1, Broken, 1)


def test_as3_a_failed_input_of_a_batch_is_recorded_or_returned(run: Run) -> None:
    def work(state: State) -> dict:
        if state["log"] == [1]:
            raise Broken
        return {"log": ["ok"]}

    inputs = [{"log": [n]} for n in range(3)]
    kept = run.batch(star({"on_error": "record"}, w=work), inputs)
    assert [type(item) for item in kept] == [dict, FailureRecord, dict]
    assert [type(item) for item in run.batch(star(w=work), inputs, return_exceptions=True)] == [dict, Broken, dict]
    with pytest.raises(Broken):
        run.batch(star(w=work), inputs)


# -- retries -----------------------------------------------------------------------------------------------------------


class Flaky:
    def __init__(self, failures: int, error: Any = Broken) -> None:
        self.left = failures
        self.error = error
        self.attempts: list[int] = []

    def __call__(self, state: State, runtime: Any) -> dict:
        self.attempts.append(runtime.execution_info.node_attempt)
        if self.left:
            self.left -= 1
            raise self.error
        return {"log": ["done"]}


@pytest.mark.parametrize("executor", ["thread", "inline"])
def test_ry1_ry6_a_failed_node_is_tried_again(run: Run, clock: list[float], executor: str) -> None:
    flaky = Flaky(2)
    graph = star({"executor": executor}, n=(flaky, {"retry_policy": RetryPolicy()}))
    assert run.invoke(graph, {})["log"] == ["done"]
    assert flaky.attempts == [1, 2, 3]
    assert clock[0] == 0.5 + 0.5 + 1.0 + 0.5  # each pause and its jitter (RY-4)


def test_ry1_the_last_failure_is_raised_as_it_is(run: Run, clock: list[float]) -> None:
    flaky = Flaky(9)
    with pytest.raises(Broken):
        run.invoke(star(n=(flaky, {"retry_policy": RetryPolicy(max_attempts=2)})), {})
    assert flaky.attempts == [1, 2]


@pytest.mark.parametrize(
    ("policies", "error", "attempts"),
    [
        ([RetryPolicy(retry_on=KeyError, max_attempts=4), RetryPolicy(retry_on=Broken, max_attempts=2)], Broken, 2),
        ([RetryPolicy(retry_on=(KeyError, Broken), max_attempts=4), RetryPolicy(max_attempts=2)], Broken, 4),
        ([RetryPolicy(retry_on=lambda e: False)], Broken, 1),
        ([RetryPolicy()], ValueError, 1),
        ([RetryPolicy()], OSError, 1),
        ([RetryPolicy()], ConnectionError, 3),
    ],
)
def test_ry2_ry3_the_first_policy_that_matches_governs(
    run: Run, clock: list[float], policies: list[RetryPolicy], error: Any, attempts: int
) -> None:
    flaky = Flaky(9, error)
    with pytest.raises(error):
        run.invoke(star(n=(flaky, {"retry_policy": policies})), {})
    assert len(flaky.attempts) == attempts


def test_ry5_sends_that_fail_at_one_moment_are_all_tried_again(run: Run, clock: list[float]) -> None:
    left = dict.fromkeys(range(5), 1)

    def work(arg: int) -> dict:
        if left[arg]:
            left[arg] = 0
            raise Broken
        return {"log": [arg]}

    graph = StateGraph(State).add_node("w", work, retry_policy=RetryPolicy(jitter=False), executor="inline")
    graph.add_conditional_edges(START, lambda state: [Send("w", n) for n in range(5)])
    assert run.invoke(graph.compile(), {})["log"] == [0, 1, 2, 3, 4]


# -- places that refuse ------------------------------------------------------------------------------------------------


def test_a_node_that_cannot_travel_is_named_with_the_path_to_the_culprit(run: Run) -> None:
    lock = threading.Lock()
    graph = star({"executor": "process"}, n=lambda state: {"log": [lock]})
    with pytest.raises(NodeNotPicklableError, match=r"'n'.*executor='thread'") as caught:
        run.invoke(graph, {})
    assert "lock" in caught.value.path
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), NodeNotPicklableError)


def test_a_pool_that_is_closed_under_a_run_is_named_as_the_cause(run: Run) -> None:
    pool = WorkerPool(1)

    def close(state: State) -> None:
        assert wait_until(lambda: bool(pool.stats()["running"]), 30.0)
        pool.close(kill=True)

    graph = StateGraph(State).add_node("slow", lambda state: time.sleep(60), executor="process")
    graph.add_node("close", close, executor="thread").add_edge(START, "slow").add_edge(START, "close")
    with pytest.raises(PoolClosedError, match="closed while tasks of a run waited or ran"):
        run.invoke(graph.compile(pool=pool), {"log": []})


def test_an_executor_that_is_shut_down_fails_the_run(run: Run) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        run.invoke(star({"executor": executor}, n=lambda state: None), {})
