"""Entrypoints and tasks that were made with LangGraph, run by us, unchanged (D-12)."""

import os
from typing import Any, TypedDict

import pytest

import mpflow
from mpflow import WorkerPool
from tests.colours import Run

pytest.importorskip("langgraph")

from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config, get_stream_writer
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy, Command, RetryPolicy, interrupt

pytestmark = pytest.mark.warm_pool
CONFIG: Any = {"configurable": {"thread_id": "1", "user": "u"}}


class State(TypedDict):
    x: int


@pytest.fixture(scope="module")
def pool() -> Any:
    with WorkerPool(1) as pool:
        yield pool


@pytest.fixture(params=["thread", "process"])
def place(request: pytest.FixtureRequest, pool: WorkerPool) -> dict[str, Any]:
    return {"executor": request.param, "pool": pool}


@task
def double(x: int) -> tuple[int, bool, str]:
    return x * 2, os.getpid() == PARENT, get_config()["configurable"]["user"]


@task(name="asked")
def ask(question: str) -> Any:
    get_stream_writer()("asking")
    return interrupt(question)


PARENT = os.getpid()


def test_fn1_an_entrypoint_of_langgraphs_calls_its_tasks_as_ours(run: Run, place: dict[str, Any]) -> None:
    @entrypoint(checkpointer=InMemorySaver())
    def work(n: int, *, previous: Any = None) -> entrypoint.final[list, int]:
        doubled = [double(n), double(x=n + 1)]
        answer = ask("how many?").result()
        return entrypoint.final(value=[previous, answer, *(future.result() for future in doubled)], save=n)

    here = place["executor"] == "thread"
    app = mpflow.from_langgraph(work, **place)
    (question,) = run.invoke(app, 1, CONFIG)["__interrupt__"]
    assert question.value == "how many?"
    previous, answer, *doubled = run.invoke(app, Command(resume=3), CONFIG)
    assert (previous, answer) == (None, 3)
    assert list(map(list, doubled)) == [[2, here, "u"], [4, here, "u"]]
    chunks = run.stream(app, 5, CONFIG, stream_mode=["custom", "updates"])
    assert [chunk for mode, chunk in chunks if mode == "custom"] == ["asking"]
    assert run.invoke(app, Command(resume=7), CONFIG)[:2] == [1, 7]
    assert app.get_output_jsonschema()["type"] == "array"


def test_fn3_async_entrypoints_await_tasks_of_langgraphs() -> None:
    import asyncio

    @task
    async def add(x: int, *, by: int) -> int:
        return x + by

    @entrypoint()
    async def work(n: int) -> int:
        return sum(await asyncio.gather(*(add(x, by=1) for x in range(n))))

    assert asyncio.run(mpflow.from_langgraph(work).ainvoke(3)) == 6


def test_ry1_ca1_policies_of_langgraphs_tasks_are_kept(run: Run) -> None:
    calls: list[int] = []

    @task(
        retry_policy=RetryPolicy(max_attempts=2, initial_interval=0.0, jitter=False, retry_on=KeyError),
        cache_policy=CachePolicy(),
    )
    def flaky(x: int) -> int:
        calls.append(x)
        if len(calls) == 1:
            raise KeyError("once")
        return x

    @entrypoint(cache=InMemoryCache())
    def work(n: int) -> int:
        return flaky(n).result()

    app = mpflow.from_langgraph(work)
    assert [run.invoke(app, 4), run.invoke(app, 4)] == [4, 4]
    assert calls == [4, 4]


def test_d12_nodes_call_tasks_and_entrypoints_are_nodes(run: Run, place: dict[str, Any]) -> None:
    @entrypoint()
    def within(state: State) -> dict[str, int]:
        return {"x": double(state["x"]).result()[0]}

    def calls(state: State) -> dict[str, int]:
        return {"x": double(state["x"]).result()[0] + 1}

    graph = StateGraph(State).add_node("calls", calls).add_node("within", within)
    graph.add_edge(START, "calls").add_edge("calls", "within")
    assert run.invoke(mpflow.from_langgraph(graph, **place), {"x": 1}, CONFIG) == {"x": 6}


def test_fn4_a_nodes_finished_tasks_are_kept_for_when_it_is_resumed(run: Run) -> None:
    calls: list[int] = []

    @task
    def work(x: int) -> int:
        calls.append(x)
        return x + 1

    def node(state: State) -> State:
        return {"x": work(state["x"]).result() + interrupt("how much?")}

    builder = StateGraph(State).add_node("node", node).add_edge(START, "node")
    graph = mpflow.from_langgraph(builder, checkpointer=InMemorySaver())
    run.invoke(graph, {"x": 1}, CONFIG)
    assert run.invoke(graph, Command(resume=5), CONFIG) == {"x": 7}
    assert calls == [1]
