"""Tasks that are called in a worker: they are the run's, wherever it places them, and no pool is too small for them."""

from __future__ import annotations

import concurrent.futures
import operator
import os
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest

from mpflow._exec.process import WorkerPool
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.func import entrypoint, task
from mpflow.graph import START, StateGraph
from mpflow.types import Command, RetryPolicy, Send, interrupt
from tests.colours import Run

pytestmark = pytest.mark.warm_pool
THREAD: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict):
    log: Annotated[list[Any], operator.add]


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as pool:
        yield pool


def graph_of(node: Any, pool: WorkerPool, **options: Any) -> Any:
    return (
        StateGraph(State)
        .add_node("node", node, executor="process")
        .add_edge(START, "node")
        .compile(pool=pool, **options)
    )


@task
def where(x: int) -> tuple[int, int]:
    return x, os.getpid()


@task(executor="process")
def away(x: int) -> tuple[int, int]:
    return x, os.getpid()


@task
def fails(x: int) -> None:
    raise KeyError(x)


def test_a_task_called_in_a_worker_runs_where_the_run_places_it(run: Run, pool: WorkerPool) -> None:
    def node(state: State) -> State:
        futures = [where(x) for x in range(3)]
        assert [future.result() for future in concurrent.futures.as_completed(futures)]
        return {"log": [future.result() for future in futures]}

    chunks = run.stream(graph_of(node, pool), {"log": []}, stream_mode="updates")
    assert chunks[-1]["node"]["log"] == [(x, os.getpid()) for x in range(3)]
    assert sorted(chunk["where"][0] for chunk in chunks[:-1]) == [0, 1, 2]


def test_tasks_on_processes_called_in_the_only_worker(run: Run, pool: WorkerPool) -> None:
    def node(state: State) -> State:
        return {"log": [future.result()[0] for future in [away(x) for x in range(5)]]}

    assert run.invoke(graph_of(node, pool), {"log": []})["log"] == list(range(5))


def test_no_pool_is_too_small_for_tasks_that_call_tasks(run: Run) -> None:
    """FAULTS row 31"""

    @task(executor="process")
    def deep(depth: int) -> int:
        return 0 if depth == 0 else 1 + deep(depth - 1).result()

    def node(state: State) -> State:
        return {"log": [deep(2).result()]}

    graph = StateGraph(State).add_node("node", node, executor="process")
    graph.add_conditional_edges(START, lambda state: [Send("node", state)] * 6)
    with WorkerPool(1) as small:
        assert run.invoke(graph.compile(pool=small), {"log": []})["log"] == [2] * 6
        assert small.stats()["started"] <= 2


def test_its_failure_is_its_callers(run: Run, pool: WorkerPool) -> None:
    def node(state: State) -> State:
        try:
            fails(7).result()
        except KeyError as error:
            return {"log": [error.args]}
        raise AssertionError

    assert run.invoke(graph_of(node, pool), {"log": []})["log"] == [(7,)]


def test_what_it_returned_is_kept_when_its_caller_is_resumed(run: Run, pool: WorkerPool, tmp_path: Any) -> None:
    """FN-4"""

    @task
    def once(x: int) -> int:
        with open(tmp_path / "ran", "a") as file:
            file.write("x")
        return x

    def node(state: State) -> State:
        found = once(3).result()
        return {"log": [found, interrupt("?")]}

    graph = graph_of(node, pool, checkpointer=InMemorySaver())
    run.invoke(graph, {"log": []}, THREAD)
    assert run.invoke(graph, Command(resume="!"), THREAD)["log"] == [3, "!"]
    assert (tmp_path / "ran").read_text() == "x"


def test_it_is_tried_again_by_its_own_policy(run: Run, pool: WorkerPool, tmp_path: Any) -> None:
    @task(retry_policy=RetryPolicy(initial_interval=0.01, jitter=False, max_attempts=3, retry_on=ValueError))
    def flaky() -> str:
        with open(tmp_path / "ran", "a") as file:
            file.write("x")
        if len((tmp_path / "ran").read_text()) < 3:
            raise ValueError("not yet")
        return "at last"

    def node(state: State) -> State:
        return {"log": [flaky().result()]}

    assert run.invoke(graph_of(node, pool), {"log": []})["log"] == ["at last"]


def test_an_async_node_in_a_worker_awaits_tasks(run: Run, pool: WorkerPool) -> None:
    async def node(state: State) -> State:
        first = where(1)
        return {"log": [(await first)[0], (await away(2))[0]]}

    assert run.invoke(graph_of(node, pool), {"log": []})["log"] == [1, 2]


def test_an_entrypoint_within_a_node_in_a_worker_calls_tasks(run: Run, pool: WorkerPool) -> None:
    @entrypoint()
    def flow(x: int) -> int:
        return where(x).result()[0] + 1

    def node(state: State) -> State:
        return {"log": [flow.invoke(4)]}

    assert run.invoke(graph_of(node, pool), {"log": []})["log"] == [5]
