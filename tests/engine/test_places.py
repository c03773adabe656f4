"""Where nodes run, how many at once, and what goes with them (AS-*, D-1, D-2, D-5)."""

from __future__ import annotations

import asyncio
import multiprocessing
import operator
import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar
from operator import itemgetter
from typing import Annotated, Any, TypedDict

import langchain_core.runnables as langchain_runnables
import pytest

from mpflow._exec.process import WorkerPool
from mpflow._exec.thread import default_threads
from mpflow.errors import PoolClosedError
from mpflow.graph import START, StateGraph
from mpflow.runnables import RunnableLambda, RunnablePassthrough
from mpflow.types import Command, Send
from tests.colours import Run

pytestmark = pytest.mark.warm_pool

COLOUR: ContextVar[str] = ContextVar("COLOUR", default="none")


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]


def star(options: dict[str, Any] | None = None, **actions: Any) -> Any:
    graph = StateGraph(State)
    for name, action in actions.items():
        graph.add_node(name, action).add_edge(START, name)
    return graph.compile(**(options or {}))


def fan(action: Any, count: int, options: dict[str, Any] | None = None, **node: Any) -> Any:
    graph = StateGraph(State).add_node("w", action, **node)
    graph.add_conditional_edges(START, lambda state: [Send("w", number) for number in range(count)])
    return graph.compile(**(options or {}))


def whereabouts(state: Any) -> dict:
    return {"log": [(os.getpid(), threading.current_thread() is threading.main_thread())]}


def square(number: int) -> dict:
    return {"log": [number * number]}


def meeting(count: int) -> Any:
    """A node that ends when `count` of its tasks are there."""
    barrier = threading.Barrier(count)

    def meet(state: Any) -> None:
        barrier.wait(30)

    return meet


# -- concurrency -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["thread", None])
def test_ex1_the_tasks_of_a_step_really_run_at_once(run: Run, executor: Any) -> None:
    meet = meeting(4)
    run.invoke(fan(meet, 4, {"executor": executor}), {})
    run.invoke(star({"executor": executor}, a=meet, b=meet, c=meet, d=meet), {})


def test_as1_async_nodes_are_gathered_on_the_loop() -> None:
    async def main() -> None:
        arrived: list[int] = []
        everybody = asyncio.Event()

        async def meet(number: int) -> dict:
            arrived.append(number)
            if len(arrived) == 50:
                everybody.set()
            await everybody.wait()
            return {"log": [threading.current_thread() is threading.main_thread()]}

        assert (await fan(meet, 50).ainvoke({}))["log"] == [True] * 50

    asyncio.run(main())


@pytest.mark.parametrize(
    ("config", "node"),
    [({"max_concurrency": 2}, {}), ({"configurable": {"max_concurrency": 2}}, {}), ({}, {"max_concurrency": 2})],
    ids=["run", "configurable", "node"],
)
def test_as2_no_more_run_at_once_than_were_asked_for(run: Run, config: Any, node: Any) -> None:
    lock, running, most = threading.Lock(), 0, 0
    two = threading.Barrier(2)

    def work(number: int) -> dict:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        two.wait(30)
        with lock:
            running -= 1
        return {"log": [number]}

    assert run.invoke(fan(work, 8, **node), {}, config)["log"] == list(range(8))
    assert most == 2


@pytest.mark.parametrize("limit", [0, -1, "two"])
def test_as2_a_limit_is_a_count(run: Run, limit: Any) -> None:
    with pytest.raises(ValueError, match="'max_concurrency' must be a count of at least 1"):
        run.invoke(star(n=whereabouts), {}, {"max_concurrency": limit})


def test_as3_a_batch_keeps_the_order_of_its_inputs_and_runs_them_at_once(run: Run) -> None:
    graph = star(n=meeting(3))
    inputs = [{"log": [number]} for number in range(3)]
    assert run.batch(graph, inputs, {"max_concurrency": 3}) == inputs
    assert run.batch(graph, iter(inputs), {"max_concurrency": 3}) == inputs
    assert run.batch(graph, []) == []
    with pytest.raises(ValueError, match="3 inputs but 1 configs"):
        run.batch(graph, inputs, [{}])


def test_as3_results_come_as_they_are_completed(run: Run) -> None:
    first = threading.Event()

    def work(state: State) -> None:
        if state["log"] == [0]:
            assert first.wait(30)

    found = []
    if run.colour == "sync":
        for index, _ in star(n=work).batch_as_completed([{"log": [0]}, {"log": [1]}]):
            found.append(index)
            first.set()
    else:

        async def main() -> None:
            async for index, _ in star(n=work).abatch_as_completed([{"log": [0]}, {"log": [1]}]):
                found.append(index)
                first.set()

        asyncio.run(main())
    assert found == [1, 0]


def test_as6_a_graph_may_be_run_from_many_threads_at_once() -> None:
    graph = star(n=meeting(4), m=lambda state: {"log": [state["log"][0] + 10]})
    with ThreadPoolExecutor(4) as threads:
        results = threads.map(lambda number: graph.invoke({"log": [number]})["log"], range(4))
        assert list(results) == [[number, number + 10] for number in range(4)]


# -- places ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executor", "same_process", "main_thread"),
    [("inline", True, True), ("thread", True, False), ("process", False, True)],
)
def test_d1_a_node_runs_where_it_is_placed(run: Run, executor: str, same_process: bool, main_thread: bool) -> None:
    by_graph = run.invoke(star({"executor": executor}, a=whereabouts, b=whereabouts), {})["log"]
    by_node = run.invoke(fan(whereabouts, 2, executor=executor), {})["log"]
    for pid, main in by_graph + by_node:
        assert (pid == os.getpid()) is same_process
        assert not same_process or main is main_thread


def test_a_nodes_own_place_goes_before_the_graphs(run: Run) -> None:
    (away, here) = run.invoke(
        StateGraph(State)
        .add_node("a", whereabouts)
        .add_node("b", whereabouts, executor="inline")
        .add_edge(START, "a")
        .add_edge(START, "b")
        .compile(executor="process"),
        {},
    )["log"]
    assert (away[0] == os.getpid(), here) == (False, (os.getpid(), True))


def executors() -> list[Any]:
    from loky import get_reusable_executor

    spawn = multiprocessing.get_context("spawn")
    return [
        pytest.param(lambda: ThreadPoolExecutor(2), id="threads"),
        pytest.param(lambda: ProcessPoolExecutor(1, mp_context=spawn), id="processes"),
        pytest.param(lambda: get_reusable_executor(max_workers=1, timeout=30), id="loky"),
    ]


@pytest.mark.parametrize("make", executors())
def test_any_executor_is_a_place_to_run(run: Run, make: Any) -> None:
    def fails(number: int) -> dict:
        raise KeyError(number)

    def routes(state: State) -> Any:
        return Command(update={"log": ["routed"]}, goto=Send("w", 3))

    executor = make()
    try:
        assert run.invoke(fan(square, 5, {"executor": executor}), {})["log"] == [0, 1, 4, 9, 16]
        with pytest.raises(KeyError, match="0"):
            run.invoke(fan(fails, 1, executor=executor), {})
        graph = StateGraph(State).add_node("a", routes).add_node("w", square).add_edge(START, "a")
        graph.add_conditional_edges("w", lambda state: "last").add_node("last", lambda state: {"log": ["last"]})
        assert run.invoke(graph.compile(executor=executor), {})["log"] == ["routed", 9, "last"]
        assert executor.submit(int).result() == 0  # it is the user's, and still open
    finally:
        executor.shutdown(wait=True)


def test_a_graph_may_bring_its_own_pool_and_a_closed_one_is_refused(run: Run) -> None:
    with WorkerPool(1) as pool:
        graph = fan(square, 3, {"executor": "process", "pool": pool})
        assert run.invoke(graph, {})["log"] == [0, 1, 4]
    with pytest.raises(PoolClosedError, match="open a new one"):
        run.invoke(graph, {})


def test_d2_threads_share_the_state_and_processes_get_copies(run: Run) -> None:
    def scribble(state: State) -> dict:
        state["log"].append("scribbled")
        return {}

    graph = StateGraph(State).add_node("a", scribble).add_node("b", lambda state: {"log": [len(state["log"])]})
    graph.add_edge(START, "a").add_edge("a", "b")
    assert run.invoke(graph.compile(executor="thread"), {"log": [1]})["log"] == [1, "scribbled", 2]
    assert run.invoke(graph.compile(executor="process"), {"log": [1]})["log"] == [1, 1]


@pytest.mark.parametrize("executor", ["inline", "thread", "process"])
def test_d5_config_context_and_attempt_go_with_the_node(run: Run, executor: str) -> None:
    def tells(state: State, config, runtime: Any) -> dict:  # type: ignore[no-untyped-def]
        metadata = config["metadata"]
        return {
            "log": [
                metadata["langgraph_node"],
                metadata["langgraph_step"],
                metadata["mine"],
                config["configurable"]["own"],
                config["tags"],
                runtime.context,
                runtime.execution_info.node_attempt,
            ]
        }

    graph = StateGraph(State).add_node("n", tells, metadata={"mine": 1}).add_edge(START, "n")
    given = {"configurable": {"own": 2}, "tags": ["t"]}
    result = run.invoke(graph.compile(executor=executor), {}, given, context={"user": 3})
    assert result["log"] == ["n", 1, 1, 2, ["t"], {"user": 3}, 1]


@pytest.mark.parametrize("executor", ["inline", "thread", "process"])
def test_as1_context_variables_go_with_the_node_and_do_not_come_back(run: Run, executor: str) -> None:
    def paints(state: State) -> dict:
        seen = COLOUR.get()
        COLOUR.set("painted")
        return {"log": [seen]}

    token = COLOUR.set("red")
    try:
        graph = star({"executor": executor}, a=paints, b=paints)
        assert run.invoke(graph, {})["log"] == ["red", "red"]
        assert COLOUR.get() == "red"
    finally:
        COLOUR.reset(token)


def nest(depth: int, executor: str) -> Any:
    """Graphs in graphs, each called by a node of the one around it."""
    if depth == 0:
        return star({"executor": executor}, n=square_of_log)
    below = nest(depth - 1, executor)

    def call(state: State) -> dict:
        return {"log": below.invoke({"log": state["log"][:1]})["log"][1:]}

    return star({"executor": executor}, left=call, right=call)


def square_of_log(state: State) -> dict:
    return {"log": [state["log"][0] ** 2]}


@pytest.mark.parametrize("executor", ["inline", "thread", "process"])
def test_fault31_graphs_called_three_deep_come_to_an_end(run: Run, executor: str) -> None:
    assert run.invoke(nest(3, executor), {"log": [3]})["log"] == [3] + [9] * 8


@pytest.mark.parametrize("executor", ["inline", "thread", "process"])
def test_an_async_node_runs_in_any_place_of_an_async_run(executor: str) -> None:
    async def later(state: State) -> dict:
        await asyncio.sleep(0)
        return {"log": [os.getpid() == here]}

    here = os.getpid()
    result = asyncio.run(star({"executor": executor}, a=later, b=later).ainvoke({}))
    assert result["log"] == [executor != "process"] * 2


async def _later(state: State) -> dict:
    await asyncio.sleep(0)
    return {"log": [os.getpid()]}


async def _by_and_by(state: State) -> Any:
    yield await _later(state)


@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize(
    "node",
    [
        _by_and_by,
        RunnableLambda(_later),
        langchain_runnables.RunnableLambda(_later) | RunnablePassthrough(),
        RunnableLambda(_later).with_config(tags=["x"]),
        RunnablePassthrough.assign(log=RunnableLambda(_later) | itemgetter("log")),
    ],
    ids=["generator", "function", "sequence", "configured", "assigned"],
)
def test_as1_runnables_that_can_only_be_awaited_run_in_any_place_too(node: Any, executor: str) -> None:
    result = asyncio.run(star({"executor": executor}, a=node).ainvoke({"log": []}))
    assert [pid == os.getpid() for pid in result["log"]] == [executor != "process"]


@pytest.mark.parametrize(("processors", "threads"), [(1, 5), (4, 8), (64, 32)])
def test_a_run_uses_a_few_threads_more_than_processors(
    monkeypatch: pytest.MonkeyPatch, processors: int, threads: int
) -> None:
    """AS-4"""
    monkeypatch.setattr("mpflow._exec.cpu.cpu_count", lambda: processors)
    default_threads.cache_clear()
    try:
        assert default_threads() == threads
    finally:
        default_threads.cache_clear()
