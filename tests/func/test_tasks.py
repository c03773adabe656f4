"""Tasks: how they are called, run, kept and told of (FN-1, FN-3, FN-4, FN-6 to FN-9)."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, TypedDict

import pytest

from mpflow._wire import pickling
from mpflow.cache.memory import InMemoryCache
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.config import get_config, get_stream_writer
from mpflow.func import entrypoint, task
from mpflow.graph import START, StateGraph
from mpflow.types import CachePolicy, Command, RetryPolicy, TimeoutPolicy, interrupt
from tests.colours import Run

HERE: dict[str, Any] = {"configurable": {"thread_id": "1"}}
AT_ONCE = RetryPolicy(initial_interval=0.0, jitter=False, retry_on=Exception)


@task
def double(x: Any) -> Any:
    return 2 * x


@task
async def adouble(x: Any) -> Any:
    await asyncio.sleep(0)
    return 2 * x


@task(executor="process")
def pid_of(x: int) -> tuple[int, int]:
    return x, os.getpid()


class State(TypedDict):
    x: Any


def one_node(function: Any, **options: Any) -> Any:
    return StateGraph(State).add_node("n", function, **options).add_edge(START, "n").add_edge("n", "__end__").compile()


# -- calling ----------------------------------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_calls(run: Run) -> None:
    gates = [threading.Event() for _ in range(3)]

    @task
    def wait(i: int) -> int:
        if i < 2:
            assert gates[i + 1].wait(10)  # the later ones end first, so they must run side by side
        gates[i].set()
        return i

    @entrypoint()
    def graph(n: int) -> list[int]:
        return [future.result() for future in [wait(i) for i in range(n)]]

    assert run.invoke(graph, 3) == [0, 1, 2]
    told = run.stream(graph, 3, stream_mode=["updates", "values"])
    assert told[3:] == [("updates", {"graph": [0, 1, 2]}), ("values", [0, 1, 2])]
    assert sorted(chunk["wait"] for _, chunk in told[:3]) == [0, 1, 2]


def test_async_entrypoints_await_tasks_of_either_kind() -> None:
    @entrypoint()
    async def graph(x: int) -> list[int]:
        first = adouble(x)
        gathered = await asyncio.gather(double(x), adouble(x + 1), asyncio.wait_for(double(x + 2), 10))
        return [await first, *gathered]

    assert asyncio.run(graph.ainvoke(1)) == [2, 2, 4, 6]
    with pytest.raises(TypeError, match="No synchronous function"):
        graph.invoke(1)


def test_an_async_task_needs_an_async_run() -> None:
    @entrypoint()
    def graph(x: int) -> Any:
        return adouble(x).result()

    with pytest.raises(RuntimeError, match="'adouble' is async"):
        graph.invoke(1)
    assert asyncio.run(graph.ainvoke(1)) == 2  # on the event loop, while the entrypoint waits in its thread


def test_a_call_outside_of_a_run_is_refused() -> None:
    with pytest.raises(RuntimeError, match="outside of a runnable context"):
        double(1)


def test_tasks_call_tasks_however_deep(run: Run) -> None:
    @task
    def fold(n: int) -> int:
        return 0 if n == 0 else n + fold(n - 1).result()

    @entrypoint()
    def graph(n: int) -> int:
        return fold(n).result()

    assert run.invoke(graph, 50) == 1275  # more than a run has threads
    assert run.invoke(graph, 20, {"max_concurrency": 1}) == 210


def test_max_concurrency_counts_called_tasks_and_not_who_waits_for_them(run: Run) -> None:
    lock = threading.Lock()
    now, most = 0, 0

    @task
    def busy(x: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.005)
        with lock:
            now -= 1
        return x

    @entrypoint()
    def graph(n: int) -> list[int]:
        return [future.result() for future in [busy(i) for i in range(n)]]

    assert run.invoke(graph, 8, {"max_concurrency": 2}) == list(range(8))
    assert most == 2


def test_nodes_call_tasks_as_well(run: Run) -> None:
    graph = one_node(lambda state: {"x": [double(1).result(), double(2).result()]})
    assert run.invoke(graph, {"x": 0}) == {"x": [2, 4]}
    assert [list(chunk) for chunk in run.stream(graph, {"x": 0})] == [["double"], ["double"], ["n"]]


class Tools:
    """Holds what a node's code does not name."""

    def __init__(self, **held: Any) -> None:
        self.held = held

    def __call__(self, state: State) -> Any:
        return {"x": [self.held["work"](state["x"]).result(), interrupt("sure?")]}


@pytest.mark.parametrize("hidden", ["in an object", "behind an object"])
def test_a_call_that_no_code_names_is_the_runs(run: Run, hidden: str) -> None:
    """FN-4, FN-6"""
    calls: list[int] = []

    @task
    def work(x: int) -> int:
        calls.append(x)
        return x + 1

    tools = Tools(work=work)
    node = tools if hidden == "in an object" else lambda state: tools(state)
    graph = StateGraph(State).add_node("n", node).add_edge(START, "n").compile(checkpointer=InMemorySaver())
    first, _ = run.stream(graph, {"x": 1}, HERE, stream_mode="updates")
    assert first == {"work": 2}
    assert run.invoke(graph, Command(resume="yes"), HERE) == {"x": [2, "yes"]}
    assert calls == [1]


@pytest.mark.parametrize("place", ["inline", "process"])
def test_where_nobody_serves_a_call_it_is_run_in_place(run: Run, place: str) -> None:
    failed: list[int] = []

    @task(retry_policy=AT_ONCE)
    def flaky(x: int) -> int:
        if not failed:
            failed.append(1)
            raise ConnectionError("once")
        return x

    graph = one_node(lambda state: {"x": [double(1).result(), flaky(7).result()]}, executor=place)
    assert run.invoke(graph, {"x": 0}) == {"x": [2, 7]}


def test_calls_may_come_from_threads_of_the_caller(run: Run) -> None:
    @entrypoint()
    def graph(x: int) -> list[int]:
        with ThreadPoolExecutor(2) as pool:
            contexts = [contextvars.copy_context() for _ in range(4)]
            return [f.result().result() for f in [pool.submit(c.run, double, i) for i, c in enumerate(contexts)]]

    assert sorted(run.invoke(graph, 1)) == [0, 2, 4, 6]


def test_a_task_can_run_in_a_worker_process(run: Run) -> None:
    @entrypoint()
    def graph(x: int) -> list[Any]:
        return [future.result() for future in [pid_of(x), pid_of(x + 1)]]

    first, second = run.invoke(graph, 1)
    assert (first[0], second[0]) == (1, 2)
    assert os.getpid() not in (first[1], second[1])


def test_tasks_are_given_what_they_ask_for(run: Run) -> None:
    @task
    def asking(x, config=None, *, writer, store=None):  # type: ignore[no-untyped-def]
        writer(("said", x))
        return config, get_config()["metadata"]["langgraph_node"]

    @entrypoint()
    def graph(x: int) -> Any:
        get_stream_writer()("first")
        return asking(x, "mine").result()

    assert run.invoke(graph, 1) == ("mine", "asking")
    assert run.stream(graph, 1, stream_mode="custom") == ["first", ("said", 1)]


def test_methods_partials_and_names() -> None:
    from functools import partial

    class Adder:
        def __init__(self, by: int) -> None:
            self.by = by

        @task
        def add(self, x: int) -> int:
            return x + self.by

        def sub(self, x: int) -> int:
            return x - self.by

    renamed = task(name="less")(Adder(1).sub)
    ten = task(partial(max, 10))

    @entrypoint()
    def graph(x: int) -> list[Any]:
        return [Adder(3).add(x).result(), renamed(x).result(), ten(x).result()]

    assert list(graph.stream(1)) == [{"add": 4}, {"less": 0}, {"max": 10}, {"graph": [4, 0, 10]}]


# -- failing ----------------------------------------------------------------------------------------------------------


def test_a_failure_is_raised_by_result_and_may_be_caught_there(run: Run) -> None:
    @task
    def fail(x: int) -> None:
        raise ValueError(x)

    @entrypoint()
    def catching(x: int) -> Any:
        future = fail(x)
        try:
            return future.result()
        except ValueError as error:
            return error.args

    @entrypoint()
    def passing(x: int) -> Any:
        return fail(x).result()

    assert run.invoke(catching, 1) == (1,)
    with pytest.raises(ValueError, match="1"):
        run.invoke(passing, 1)


def test_a_task_is_tried_again_by_itself(run: Run) -> None:
    tries: list[int] = []

    @task(retry_policy=AT_ONCE)
    def flaky(x: int) -> int:
        tries.append(x)
        if len(tries) % 3:
            raise ConnectionError
        return x

    @entrypoint()
    def graph(x: int) -> int:
        return flaky(x).result()

    assert run.invoke(graph, 5) == 5
    assert tries == [5, 5, 5]


def test_what_is_not_awaited_is_waited_for(run: Run) -> None:
    ended: list[int] = []
    go = threading.Event()

    @task
    def late(x: int) -> None:
        assert go.wait(10)
        ended.append(x)

    @task
    def fail(x: int) -> None:
        raise ValueError

    @entrypoint()
    def graph(x: int) -> int:
        late(x)
        fail(x)
        go.set()
        return x

    assert run.invoke(graph, 5) == 5
    assert ended == [5]


def test_a_caller_is_released_when_the_run_is_abandoned() -> None:
    go, ended = threading.Event(), threading.Event()

    @task
    def slow() -> None:
        go.wait(10)

    @entrypoint()
    def graph(x: int) -> Any:
        try:
            double(x).result()
            return slow().result()
        finally:
            ended.set()

    chunks = graph.stream(1)
    assert next(chunks) == {"double": 2}
    chunks.close()  # type: ignore[attr-defined]
    assert ended.wait(10)
    go.set()


def test_cancelling_a_future_cancels_the_task() -> None:
    async def scenario() -> list[str]:
        told: list[str] = []

        @task
        async def forever() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                told.append("cancelled")
                raise

        @entrypoint()
        async def graph(x: int) -> Any:
            try:
                await asyncio.wait_for(forever(), 0.01)
            except asyncio.TimeoutError:
                told.append("too late")
            return x

        assert await graph.ainvoke(3) == 3
        return told

    assert sorted(asyncio.run(scenario())) == ["cancelled", "too late"]


# -- keeping ----------------------------------------------------------------------------------------------------------


def test_a_retried_caller_finds_what_its_tasks_returned(run: Run) -> None:
    calls: list[int] = []

    @task
    def once(x: int) -> int:
        calls.append(x)
        return x

    tries = 0

    @entrypoint(retry_policy=AT_ONCE)
    def graph(x: int) -> list[int]:
        nonlocal tries
        tries += 1
        found = [once(x).result(), once(x + 1).result()]
        if tries % 2:
            raise ConnectionError
        return [*found, once(x + 2).result()]

    assert run.invoke(graph, 1) == [1, 2, 3]
    assert calls == [1, 2, 3]


def test_a_resumed_entrypoint_finds_what_its_tasks_returned(run: Run) -> None:
    calls: list[Any] = []

    @task
    def once(x: int) -> int:
        calls.append(x)
        return x

    @entrypoint(checkpointer=InMemorySaver())
    def graph(x: int) -> Any:
        found = [future.result() for future in [once(x), once(x + 1)]]
        return [*found, interrupt("more?")]

    paused = run.invoke(graph, 1, HERE)
    assert [question.value for question in paused["__interrupt__"]] == ["more?"]
    assert run.stream(graph, Command(resume="no"), HERE) == [{"graph": [1, 2, "no"]}]
    assert sorted(calls) == [1, 2]
    assert run.get_state(graph, HERE).values == [1, 2, "no"]


def test_a_failed_run_goes_on_where_it_failed(run: Run) -> None:
    calls: list[Any] = []

    @task
    def once(x: int) -> int:
        calls.append(x)
        if len(calls) == 2:
            raise ConnectionError
        return x

    @entrypoint(checkpointer=InMemorySaver())
    def graph(x: int) -> Any:
        return [once(x).result(), once(x + 1).result()]

    with pytest.raises(ConnectionError):
        run.invoke(graph, 1, HERE)
    assert run.invoke(graph, None, HERE) == [1, 2]
    assert calls == [1, 2, 2]


def test_a_task_may_ask_and_is_told_of_once(run: Run) -> None:
    @task
    def ask(question: str) -> Any:
        return interrupt(question)

    @entrypoint(checkpointer=InMemorySaver())
    def graph(x: int) -> Any:
        return [ask("a").result(), double(x).result(), ask("b").result()]

    first = run.stream(graph, 4, HERE)
    assert [[item.value for item in chunk["__interrupt__"]] for chunk in first] == [["a"]]
    second = run.stream(graph, Command(resume="A"), HERE)
    assert second[:2] == [{"ask": "A"}, {"double": 8}]
    assert [item.value for item in second[2]["__interrupt__"]] == ["b"]
    assert run.invoke(graph, Command(resume="B"), HERE) == ["A", 8, "B"]


def test_called_tasks_show_as_tasks(run: Run) -> None:
    @entrypoint()
    def graph(x: int) -> Any:
        return double(x).result()

    told = run.stream(graph, 1, stream_mode="tasks")
    assert [(chunk["name"], "result" in chunk) for chunk in told] == [
        ("graph", False),
        ("double", False),
        ("double", True),
        ("graph", True),
    ]
    assert (told[1]["input"], told[1]["triggers"]) == (((1,), {}), ("__pregel_push",))
    assert told[2]["result"] == {"__return__": 2}


def test_a_task_with_a_cache_policy_runs_once_for_the_same_arguments(run: Run) -> None:
    cache = InMemoryCache()
    calls: list[Any] = []

    @task(cache_policy=CachePolicy())
    def once(x: int, *, by: int) -> int:
        calls.append((x, by))
        return x * by

    @entrypoint(cache=cache)
    def graph(x: int) -> Any:
        return [once(x, by=2).result(), once(x, by=3).result()]

    assert [run.invoke(graph, 1), run.invoke(graph, 1)] == [[2, 3]] * 2
    assert calls == [(1, 2), (1, 3)]
    once.clear_cache(cache)
    assert run.invoke(graph, 1) == [2, 3]
    assert len(calls) == 4


@pytest.mark.parametrize(
    "declare",
    [
        lambda f: task(f, timeout=TimeoutPolicy(idle_timeout=1)),
        lambda f: entrypoint(timeout=TimeoutPolicy(idle_timeout=1))(f),
        lambda f: entrypoint(timeout=1)(f),
    ],
)
def test_timeouts_that_nothing_can_hold_a_sync_function_to_are_refused(declare: Any) -> None:
    """TO-2, D-4"""
    with pytest.raises(ValueError, match=r"only supported for async nodes.* Node 'slow' is sync"):

        @declare
        def slow(x: int) -> int:
            return x


def test_a_caller_that_waits_performs_what_nobody_has_begun() -> None:
    go, held, release = threading.Event(), threading.Event(), threading.Event()

    @task
    def fails() -> None:
        go.wait(30)
        raise ValueError

    @task
    def where() -> int:
        return threading.get_ident()

    def hold(_: Any) -> None:  # called by the run when it tells of the failure
        held.set()
        release.wait(30)

    @entrypoint()
    def waits(_: int) -> bool:
        fails().add_done_callback(hold)
        go.set()
        held.wait(30)
        performed_by = where().result()
        release.set()
        return performed_by == threading.get_ident()

    assert waits.invoke(0)


def test_tasks_that_are_called_before_their_caller_waits_run_side_by_side() -> None:
    meeting = threading.Barrier(3, timeout=30)

    @task
    def meets(x: int) -> int:
        meeting.wait()
        return x

    @entrypoint()
    def calls(count: int) -> list[int]:
        futures = [meets(n) for n in range(count)]
        return [future.result() for future in futures]

    assert calls.invoke(3) == [0, 1, 2]


def test_what_a_task_calls_while_its_caller_performs_it_is_the_runs() -> None:
    meeting = threading.Barrier(2, timeout=30)

    @task
    def inner(x: int) -> int:
        meeting.wait()
        return x

    @task
    def outer(x: int) -> int:
        first, second = inner(x), inner(x + 1)
        return first.result() + second.result()

    @task
    def deep(x: int) -> int:
        return deep(x - 1).result() + 1 if x else 0

    @entrypoint()
    def calls(count: int) -> tuple[int, int]:
        return sum(outer(n).result() for n in range(count)), deep(100).result()

    assert calls.invoke(20) == (400, 100)


def test_what_fails_in_the_thread_of_its_caller_fails_to_its_caller() -> None:
    @task
    def fails(x: int) -> int:
        raise ValueError(f"no {x}")

    @entrypoint()
    def calls(count: int) -> list[str]:
        return [str(fails(n).exception()) for n in range(count)]

    assert calls.invoke(50) == [f"no {n}" for n in range(50)]


def test_a_task_of_a_program_travels_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker knows as the main module is another one, so that a task of it cannot be found there by its name."""
    main = ModuleType("__mp_main__")
    monkeypatch.setitem(sys.modules, "__mp_main__", main)
    exec("from mpflow.func import task\n@task\ndef again(n):\n    return again", main.__dict__)
    data = pickling.dumps(main.again)
    monkeypatch.delitem(sys.modules, "__mp_main__")
    found = pickling.loads(data)
    assert (found.name, found.func(1).name) == ("again", "again")
