"""RunnableParallel: branches side by side on the engine's places, in graphs and out of them."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from typing import Any, TypedDict

import pytest

from mpflow import WorkerPool
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.config import get_config, get_stream_writer
from mpflow.graph import START, StateGraph
from mpflow.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from mpflow.types import Command, interrupt
from tests.colours import Run

WAIT_S = 20


class State(TypedDict, total=False):
    x: int
    a: Any
    b: Any


def double(x: Any) -> Any:
    return x * 2


def pid(x: Any) -> int:
    return os.getpid()


def letters(word: str) -> Any:
    yield from word


def one_node(node: Any, **options: Any) -> Any:
    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    return graph.compile(**options)


def test_all_forms_of_giving_branches(run: Run) -> None:
    for branches in (
        RunnableParallel(a=double, b=itemgetter(0)),
        RunnableParallel({"a": double, "b": itemgetter(0)}),
        RunnableParallel({"a": double}, b=itemgetter(0)),
    ):
        assert run.invoke(branches, (1,)) == {"a": (1, 1), "b": 1}
    nested = RunnableParallel(a={"c": double, "d": RunnablePassthrough()}, b=lambda x: None)
    assert run.invoke(nested, 2) == {"a": {"c": 4, "d": 2}, "b": None}
    assert run.invoke(RunnableParallel(), 1) == {}
    assert run.invoke(RunnableParallel(a=lambda x: x is None), None) == {"a": True}
    assert list(run.invoke(RunnableParallel(z=double, a=double), 1)) == ["z", "a"]


@pytest.mark.parametrize("key", ["__start__", "__input__", "a:b|c", ""])
def test_any_string_names_a_branch(run: Run, key: str) -> None:
    assert run.invoke(RunnableParallel({key: double, "b": double}), 1) == {key: 2, "b": 2}


def test_branches_run_at_the_same_time(run: Run) -> None:
    barrier = threading.Barrier(3)

    def meet(x: Any) -> int:
        barrier.wait(WAIT_S)
        return 1

    assert run.invoke(RunnableParallel(a=meet, b=meet, c=meet, d=RunnablePassthrough()), 0) == {
        "a": 1,
        "b": 1,
        "c": 1,
        "d": 0,
    }


def test_the_calling_thread_performs_what_no_other_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpflow._exec.thread.THREADS.start", lambda job: None)
    branches = {key: lambda x: threading.current_thread() for key in "abc"}
    assert set(RunnableParallel(branches).invoke(1).values()) == {threading.current_thread()}


def test_async_branches_share_the_event_loop() -> None:
    async def meet(x: Any) -> str:
        arrived.append(x)
        if len(arrived) == 2:
            both.set()
        await asyncio.wait_for(both.wait(), WAIT_S)
        return threading.current_thread().name

    async def main() -> Any:
        nonlocal both
        both = asyncio.Event()
        return await RunnableParallel(a=meet, b=meet).ainvoke(1)

    arrived: list[Any] = []
    both: Any = None
    assert asyncio.run(main()) == dict.fromkeys("ab", threading.current_thread().name)


def test_a_failure_names_its_branch(run: Run) -> None:
    def fails(x: Any) -> Any:
        raise KeyError(x)

    with pytest.raises(KeyError) as failure:
        run.invoke(RunnableLambda(double) | RunnableParallel(good=double, bad=fails), 3)
    assert failure.value.args == (6,)
    assert any("'bad'" in note for note in failure.value.__notes__)


def test_it_is_known_by_its_branches() -> None:
    assert RunnableParallel(a=double, b=double).get_name() == "RunnableParallel<a,b>"


# -- places ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool() -> Any:
    with WorkerPool(1) as pool:
        yield pool


@pytest.mark.warm_pool
def test_branches_run_in_processes(run: Run, pool: WorkerPool) -> None:
    everywhere = RunnableParallel(a=pid, b=lambda x: os.getpid(), executor="process", pool=pool)
    assert os.getpid() not in run.invoke(everywhere, 0).values()
    some = RunnableParallel({"away": pid, "here": pid}, executor={"away": "process"}, pool=pool)
    found = run.invoke(some, 0)
    assert found["away"] != os.getpid() == found["here"]
    mapped = run.invoke(RunnableLambda(pid).map(executor="process", pool=pool), [1, 2])
    assert len(mapped) == 2 and os.getpid() not in mapped


@pytest.mark.warm_pool
def test_pieces_come_from_processes_as_they_are_made(run: Run, pool: WorkerPool) -> None:
    away = RunnableParallel({"a": RunnableLambda(letters), "b": double}, executor={"a": "process"}, pool=pool)
    chunks = run.stream(RunnableLambda(lambda x: x) | away, "xy")
    assert [chunk["a"] for chunk in chunks if "a" in chunk] == ["x", "y"]
    assert {"b": "xyxy"} in chunks


@pytest.mark.warm_pool
def test_a_composite_within_a_worker_stays_there(run: Run, pool: WorkerPool) -> None:
    inner = RunnableParallel(a=pid, b=pid, executor="process")
    found = run.invoke(RunnableParallel(outer=inner, own=pid, executor="process", pool=pool), 0)
    assert found["outer"]["a"] == found["outer"]["b"] != os.getpid()


@pytest.mark.warm_pool
def test_what_a_branch_in_a_process_writes_is_streamed_by_the_graph_around(run: Run, pool: WorkerPool) -> None:
    def tell(x: Any) -> int:
        get_stream_writer()(("told", get_config()["configurable"]["user"]))
        return 1

    graph = one_node(RunnableParallel({"a": tell}, executor="process", pool=pool))
    config = {"configurable": {"user": "u"}}
    assert run.stream(graph, {"x": 1}, config, stream_mode="custom") == [("told", "u")]


def test_an_executor_of_the_users() -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as executor:
        names = RunnableParallel(a=lambda x: threading.current_thread().name, executor=executor).invoke(0)
    assert names["a"].startswith("mine")


@pytest.mark.parametrize("executor", ["nowhere", {"a": "nowhere"}, {"b": "process"}, 3])
def test_places_that_are_none_are_refused(executor: Any) -> None:
    with pytest.raises(ValueError, match="RunnableParallel"):
        RunnableParallel({"a": double}, executor=executor)


# -- streams -----------------------------------------------------------------------------------------------------------


def test_chunks_are_told_by_branch_before_the_others_are_done() -> None:
    go_on = threading.Event()

    def waits(x: Any) -> str:
        assert go_on.wait(WAIT_S)
        return "late"

    chunks = RunnableParallel(slow=waits, quick=RunnableLambda(letters)).stream("xy")
    assert [next(chunks) for _ in range(2)] == [{"quick": "x"}, {"quick": "y"}]
    go_on.set()
    assert list(chunks) == [{"slow": "late"}]


def test_chunks_reach_the_branches_before_the_input_is_complete(run: Run) -> None:
    chain = RunnableLambda(letters) | RunnableParallel(same=RunnablePassthrough(), all=lambda word: word)
    chunks = run.stream(chain, "xyz")
    assert [chunk["same"] for chunk in chunks if "same" in chunk] == ["x", "y", "z"]
    assert {"all": "xyz"} in chunks


def test_a_stream_left_early_leaves_nothing(run: Run) -> None:
    stream = RunnableParallel(a=RunnableLambda(letters), b=RunnableLambda(letters)).stream("xyz")
    assert set(next(stream)) <= {"a", "b"}
    stream.close()


def test_a_branch_that_fails_ends_the_stream(run: Run) -> None:
    def fails(x: Any) -> Any:
        yield "first"
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run.stream(RunnableParallel(a=RunnableLambda(fails), b=double), "x")


# -- in graphs ---------------------------------------------------------------------------------------------------------


def test_a_composite_is_a_node_and_leaves_no_trace_of_its_own(run: Run) -> None:
    graph = one_node(RunnableParallel(a=lambda s: s["x"] + 1, b=lambda s: get_config()["metadata"]["langgraph_node"]))
    chunks = run.stream(graph, {"x": 1}, stream_mode=["updates", "tasks"], subgraphs=True)
    assert [chunk[:2] for chunk in chunks] == [((), "tasks"), ((), "updates"), ((), "tasks")]
    assert run.invoke(graph, {"x": 1}) == {"x": 1, "a": 2, "b": "node"}


def test_what_branches_write_is_streamed(run: Run) -> None:
    graph = one_node(RunnableParallel(a=lambda s: get_stream_writer()("chunk")))
    assert run.stream(graph, {"x": 1}, stream_mode="custom") == ["chunk"]


def test_a_branch_asks_for_the_task_it_is_part_of(run: Run) -> None:
    graph = one_node(
        RunnableParallel(a=lambda s: interrupt("how many?"), b=lambda s: s["x"]), checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "1"}}
    (question,) = run.invoke(graph, {"x": 5}, config)["__interrupt__"]
    assert question.value == "how many?"
    assert run.invoke(graph, Command(resume=3), config) == {"x": 5, "a": 3, "b": 5}


def test_a_graph_in_a_branch_is_the_graph_it_is_alone(run: Run) -> None:
    graph = one_node(lambda s: {"a": s["x"]}, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    assert run.invoke(RunnableParallel(g=graph, n=itemgetter("x")), {"x": 1}, config)["g"] == {"x": 1, "a": 1}
    assert run.get_state(graph, config).values == {"x": 1, "a": 1}


def test_compiled_graphs_are_runnables(run: Run) -> None:
    graph = one_node(lambda s: {"a": s["x"] + 1})
    assert run.invoke(RunnableLambda(lambda x: {"x": x}) | graph | itemgetter("a"), 1) == 2
    assert run.invoke(graph.pick("a"), {"x": 2}) == 3
    assert run.stream({"x": lambda x: x} | graph, 1) == [{"node": {"a": 2}}]
