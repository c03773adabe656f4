"""Graphs within nodes on worker processes: what they save, ask, stream and look up is the parent's, as it is in threads."""

from __future__ import annotations

import operator
import os
import signal
import threading
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest

from mpflow._exec.process import WorkerPool
from mpflow.cache.memory import InMemoryCache
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.config import get_store, get_stream_writer
from mpflow.graph import END, START, StateGraph
from mpflow.runtime import Runtime
from mpflow.store.memory import InMemoryStore
from mpflow.types import CachePolicy, Command, interrupt
from tests.colours import Run

pytestmark = pytest.mark.warm_pool
PLACES = pytest.mark.parametrize("place", ["thread", "process"])
THREAD: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict):
    log: Annotated[list[Any], operator.add]


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool


def around(inner: Any, place: str, pool: WorkerPool, **options: Any) -> Any:
    """A graph whose one node calls another graph."""

    def caller(state: State) -> State:
        return {"log": inner.invoke({"log": []})["log"]}

    graph = StateGraph(State).add_node("caller", caller, executor=place).add_edge(START, "caller")
    return graph.compile(pool=pool, **options)


def asking() -> Any:
    def first(state: State) -> State:
        return {"log": ["first"]}

    def second(state: State) -> State:
        return {"log": [interrupt("one?"), interrupt("two?")]}

    return StateGraph(State).add_sequence([first, second]).add_edge(START, "first").compile()


@PLACES
def test_a_graph_within_a_node_asks_and_is_answered(run: Run, pool: WorkerPool, place: str) -> None:
    """IN-2, SG-4: two questions of a nested graph, each answered by a run of its own."""
    graph = around(asking(), place, pool, checkpointer=InMemorySaver())
    questions = [run.invoke(graph, {"log": []}, THREAD)["__interrupt__"][0].value]
    questions.append(run.invoke(graph, Command(resume=1), THREAD)["__interrupt__"][0].value)
    assert questions == ["one?", "two?"]
    assert run.invoke(graph, Command(resume=2), THREAD)["log"] == ["first", 1, 2]


@PLACES
def test_an_answer_by_id_reaches_a_graph_within_a_node(run: Run, pool: WorkerPool, place: str) -> None:
    graph = around(asking(), place, pool, checkpointer=InMemorySaver())
    for answer in (1, 2):
        last = run.invoke(graph, {"log": []} if answer == 1 else None, THREAD)["__interrupt__"][0].id
        result = run.invoke(graph, Command(resume={last: answer}), THREAD)
        if answer == 1:
            assert result["__interrupt__"][0].value == "two?"
    assert result["log"] == ["first", 1, 2]


def test_both_places_save_the_same_checkpoints(run: Run, pool: WorkerPool) -> None:
    kept = []
    for place in ("thread", "process"):
        saver = InMemorySaver()
        run.invoke(around(asking(), place, pool, checkpointer=saver), {"log": []}, THREAD)
        kept.append(
            [
                (saved.config["configurable"]["checkpoint_ns"].split(":")[0], saved.metadata["step"],
                 saved.metadata["source"], saved.checkpoint["channel_values"], len(saved.pending_writes or ()))
                for saved in run.listed(saver, "list", None)
            ]
        )  # fmt: skip
    assert kept[0] == kept[1] and {ns for ns, *_ in kept[0]} == {"", "caller"}


@PLACES
def test_what_a_graph_within_a_node_finished_does_not_run_again(
    run: Run, pool: WorkerPool, place: str, tmp_path: Any
) -> None:
    ran = tmp_path / "ran"

    def first(state: State) -> State:
        with open(ran, "a") as file:
            file.write("x")
        return {"log": ["first"]}

    def second(state: State) -> State:
        return {"log": [interrupt("?")]}

    inner = StateGraph(State).add_sequence([first, second]).add_edge(START, "first").compile()
    graph = around(inner, place, pool, checkpointer=InMemorySaver())
    run.invoke(graph, {"log": []}, THREAD)
    assert run.invoke(graph, Command(resume="!"), THREAD)["log"] == ["first", "!"]
    assert ran.read_text() == "x"


@PLACES
def test_the_state_of_a_graph_within_a_node_is_shown(run: Run, pool: WorkerPool, place: str) -> None:
    inner = asking()
    graph = (
        StateGraph(State).add_node("inner", inner, executor=place).add_edge(START, "inner")
    ).compile(checkpointer=InMemorySaver(), pool=pool)  # fmt: skip
    run.invoke(graph, {"log": []}, THREAD)
    [task] = run.get_state(graph, THREAD, subgraphs=True).tasks
    assert task.state.values == {"log": ["first"]} and task.state.next == ("second",)
    assert [question.value for question in task.interrupts] == ["one?"]


@PLACES
def test_a_graph_that_keeps_its_own_thread_does_so_in_a_worker(run: Run, pool: WorkerPool, place: str) -> None:
    """SG-4: `checkpointer=True` keeps the nested state from one run to the next."""

    def count(state: State) -> State:
        return {"log": [len(state["log"])]}

    inner = StateGraph(State).add_node(count).add_edge(START, "count").compile(checkpointer=True)
    graph = around(inner, place, pool, checkpointer=InMemorySaver())
    assert run.invoke(graph, {"log": []}, THREAD)["log"] == [0]
    assert run.invoke(graph, {"log": []}, THREAD)["log"] == [0, 0, 1]


@PLACES
def test_streams_of_a_graph_within_a_node_reach_the_consumer(run: Run, pool: WorkerPool, place: str) -> None:
    def say(state: State) -> State:
        get_stream_writer()({"part": 1})
        return {"log": ["said"]}

    inner = StateGraph(State).add_node(say).add_edge(START, "say").compile()
    graph = (StateGraph(State).add_node("inner", inner, executor=place).add_edge(START, "inner")).compile(pool=pool)
    chunks = run.stream(graph, {"log": []}, stream_mode=["updates", "custom", "values"], subgraphs=True)
    found = [(ns[0].split(":")[0] if ns else "", mode, data) for ns, mode, data in chunks]
    assert found == [
        ("", "values", {"log": []}),
        ("inner", "values", {"log": []}),
        ("inner", "custom", {"part": 1}),
        ("inner", "updates", {"say": {"log": ["said"]}}),
        ("inner", "values", {"log": ["said"]}),
        ("", "updates", {"inner": {"log": ["said"]}}),
        ("", "values", {"log": ["said"]}),
    ]


@PLACES
def test_the_store_is_one_for_all(run: Run, pool: WorkerPool, place: str) -> None:
    def put(state: State, runtime: Runtime[Any]) -> State:
        assert runtime.store is not None
        runtime.store.put(("a", "b"), "key", {"n": 1})
        return {"log": [len(get_store().search(("a",)))]}

    def get(state: State) -> State:
        item = get_store().get(("a", "b"), "key")
        return {"log": [item.value, item.namespace, get_store().get(("a", "b"), "none"), get_store().list_namespaces()]}

    store = InMemoryStore()
    graph = StateGraph(State).add_node(put, executor=place).add_node(get, executor=place)
    graph.add_edge(START, "put").add_edge("put", "get")
    result = run.invoke(graph.compile(store=store, pool=pool), {"log": []})
    assert result["log"] == [1, {"n": 1}, ("a", "b"), None, [("a", "b")]]
    assert store.get(("a", "b"), "key").value == {"n": 1}  # type: ignore[union-attr]


@PLACES
def test_a_cached_node_of_a_graph_within_a_node_runs_once(
    run: Run, pool: WorkerPool, place: str, tmp_path: Any
) -> None:
    ran = tmp_path / "ran"

    def slow(state: State) -> State:
        with open(ran, "a") as file:
            file.write("x")
        return {"log": ["slow"]}

    inner = StateGraph(State).add_node(slow, cache_policy=CachePolicy()).add_edge(START, "slow").compile()
    graph = around(inner, place, pool, cache=InMemoryCache())
    for _ in range(2):
        assert run.invoke(graph, {"log": []})["log"] == ["slow"]
    assert ran.read_text() == "x"


def test_an_async_graph_within_an_async_node_in_a_worker(run: Run, pool: WorkerPool) -> None:
    async def inner_node(state: State) -> State:
        await get_store().aput(("a",), "k", {"v": os.getpid()})
        found = await get_store().aget(("a",), "k")
        return {"log": [found.value["v"], interrupt("?")]}

    inner = StateGraph(State).add_node(inner_node).add_edge(START, "inner_node").compile()

    async def caller(state: State) -> State:
        return {"log": (await inner.ainvoke({"log": []}))["log"]}

    graph = (
        StateGraph(State).add_node(caller, executor="process").add_edge(START, "caller")
    ).compile(pool=pool, checkpointer=InMemorySaver(), store=InMemoryStore())  # fmt: skip
    assert run.invoke(graph, {"log": []}, THREAD)["__interrupt__"][0].value == "?"
    pid, answer = run.invoke(graph, Command(resume="yes"), THREAD)["log"]
    assert pid != os.getpid() and answer == "yes"


def test_threads_of_a_graph_in_a_worker_ask_side_by_side(run: Run, pool: WorkerPool) -> None:
    """Whoever waits reads for all; an answer finds the thread that asked."""
    inner_graph = StateGraph(State)
    for index in range(8):

        def put(state: State, index: int = index) -> State:
            found = []
            for n in range(20):
                get_store().put(("n",), f"{index}.{n}", {"n": n})
                found.append(get_store().get(("n",), f"{index}.{n}").value["n"])
            return {"log": [found == list(range(20))]}

        inner_graph.add_node(f"put{index}", put).add_edge(START, f"put{index}")
    graph = around(inner_graph.compile(), "process", pool, store=InMemoryStore())
    assert run.invoke(graph, {"log": []})["log"] == [True] * 8


def test_an_error_of_the_saver_is_raised_in_the_worker(run: Run, pool: WorkerPool) -> None:
    class Broken(InMemorySaver):
        def put(self, config: Any, *args: Any) -> Any:
            if config["configurable"]["checkpoint_ns"]:
                raise OSError("the disk is full")
            return super().put(config, *args)

        async def aput(self, config: Any, *args: Any) -> Any:
            return self.put(config, *args)

    graph = around(asking(), "process", pool, checkpointer=Broken())
    with pytest.raises(OSError, match="the disk is full"):
        run.invoke(graph, {"log": []}, THREAD)


def test_three_graphs_deep_in_one_worker() -> None:
    """FAULTS row 31: no deadlock, and no process but the one."""

    def leaf(state: State) -> State:
        return {"log": [os.getpid()]}

    inner: Any = StateGraph(State).add_node(leaf, executor="process").add_edge(START, "leaf").compile()
    with WorkerPool(1) as pool:
        for _ in range(3):
            inner = around(inner, "process", pool)
        [pid] = inner.invoke({"log": []})["log"]
        assert [pid] == pool.stats()["pids"] and pool.stats()["started"] == 1


def test_a_worker_killed_while_it_asks_is_forgotten(run: Run, pool: WorkerPool, tmp_path: Any) -> None:
    """The answer finds nobody; the task runs again."""
    asked, go_on = threading.Event(), threading.Event()

    class Slow(InMemoryStore):
        def batch(self, ops: Any) -> Any:
            asked.set()
            go_on.wait(20)
            return super().batch(ops)

        async def abatch(self, ops: Any) -> Any:
            return super().batch(list(ops))

    flag = tmp_path / "killed"

    def get(state: State) -> State:
        if not flag.exists():
            flag.write_text("x")
            threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGKILL]).start()
            get_store().get(("a",), "k")
        return {"log": ["again"]}

    graph = (StateGraph(State).add_node(get, executor="process").add_edge(START, "get").add_edge("get", END)).compile(
        pool=pool, store=Slow()
    )
    try:
        assert run.invoke(graph, {"log": []})["log"] == ["again"]
    finally:
        go_on.set()


def test_a_node_in_a_worker_may_run_its_own_graph(run: Run, pool: WorkerPool) -> None:
    def count(state: State) -> Any:
        left = state["log"][0] - 1
        return {"log": graph.invoke({"log": [left]})["log"] if left else []}

    builder = StateGraph(State).add_node("count", count, executor="process").set_entry_point("count")
    graph = builder.compile(pool=pool)
    assert run.invoke(graph, {"log": [3]})["log"] == [3, 2, 1]
