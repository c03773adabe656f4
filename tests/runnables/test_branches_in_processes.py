"""Branches on worker processes are parts of the task that their composite runs in, as they are on threads (D-5, SG-2)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, TypedDict

import pytest
from pydantic import BaseModel, ValidationError

from mpflow import WorkerPool
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.config import get_config
from mpflow.errors import is_invalid_resume
from mpflow.func import task
from mpflow.graph import START, StateGraph
from mpflow.runnables import RunnableLambda, RunnableParallel
from mpflow.runtime import get_runtime
from mpflow.types import Command, interrupt
from tests.colours import Run

pytestmark = pytest.mark.warm_pool
PLACES = pytest.mark.parametrize("place", ["thread", "process"])
THREAD: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict, total=False):
    x: int
    a: Any
    b: Any


class Reply(BaseModel):
    text: str


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool


def asks_twice(state: State) -> str:
    return f"{interrupt('one?')} {interrupt('two?')}"


def asks_for_a_reply(state: State) -> str:
    return interrupt("reply?", response_schema=Reply).text


def pid(state: State) -> int:
    return os.getpid()


@task
def doubled(x: int) -> int:
    return 2 * x


@task(executor="process")
def asked(x: int) -> str:
    return f"{x} {interrupt('task?')}"


def asks_within(state: State) -> str:
    return interrupt("within?")


def with_branch(branch: Any, place: str, pool: WorkerPool) -> Any:
    both = RunnableParallel({"a": branch, "b": pid}, executor=place, pool=pool)
    node = RunnableLambda(dict) | both
    builder = StateGraph(State).add_node("node", node, metadata={"own": 1}).add_edge(START, "node")
    return builder.compile(checkpointer=InMemorySaver(), pool=pool)


def values_of(snapshot: Any) -> list[Any]:
    return [question.value for question in snapshot.interrupts]


@PLACES
def test_a_branch_asks_and_is_answered(run: Run, pool: WorkerPool, place: str) -> None:
    """IN-1, IN-2"""
    graph = with_branch(asks_twice, place, pool)
    run.invoke(graph, {"x": 1}, THREAD)
    assert values_of(run.get_state(graph, THREAD)) == ["one?"]
    run.invoke(graph, Command(resume="first"), THREAD)
    assert values_of(run.get_state(graph, THREAD)) == ["two?"]
    result = run.invoke(graph, Command(resume="second"), THREAD)
    assert result["a"] == "first second"
    assert (result["b"] == os.getpid()) == (place == "thread")


@PLACES
def test_a_branch_whose_answer_does_not_fit_can_be_answered_again(run: Run, pool: WorkerPool, place: str) -> None:
    """IN-11"""
    graph = with_branch(asks_for_a_reply, place, pool)
    [question] = run.invoke(graph, {"x": 1}, THREAD)["__interrupt__"]
    assert question.response_schema["required"] == ["text"]
    with pytest.raises(ValidationError) as caught:
        run.invoke(graph, Command(resume={"text": None}), THREAD)
    assert is_invalid_resume(caught.value)
    assert run.invoke(graph, Command(resume={question.id: {"text": "yes"}}), THREAD)["a"] == "yes"


@PLACES
def test_graphs_within_a_branch_are_within_its_node(run: Run, pool: WorkerPool, place: str) -> None:
    """IN-13, SG-2, SG-3"""
    inner = (
        StateGraph(State).add_node("inner", lambda state: {"a": asks_within(state)}).add_edge(START, "inner").compile()
    )

    def two_graphs(state: State) -> Any:
        return [inner.invoke({"x": number})["a"] for number in range(2)]

    graph = with_branch(two_graphs, place, pool)
    namespaces = []
    for given in ({"x": 1}, Command(resume="first"), Command(resume="second")):
        for namespace, _ in run.stream(graph, given, THREAD, stream_mode="tasks", subgraphs=True):
            namespaces.append([part.partition(":")[0] for part in namespace])
    assert run.get_state(graph, THREAD).values["a"] == ["first", "second"]
    assert ["node"] in namespaces and ["node", "1"] in namespaces
    assert all(parts in ([], ["node"], ["node", "1"]) for parts in namespaces)


@PLACES
def test_tasks_called_in_a_branch_are_its_nodes(run: Run, pool: WorkerPool, place: str) -> None:
    """FN-1, FN-4, FN-7"""

    def calls(state: State) -> Any:
        return [doubled(state["x"]).result(), asked(3).result()]

    graph = with_branch(calls, place, pool)
    first = run.stream(graph, {"x": 2}, THREAD, stream_mode="updates")
    assert first[0] == {"doubled": 4}
    second = run.stream(graph, Command(resume="answer"), THREAD, stream_mode="updates")
    assert [chunk for chunk in second if "asked" in chunk] == [{"asked": "3 answer"}]
    assert second[-1]["node"]["a"] == [4, "3 answer"]


@PLACES
def test_a_branch_finds_the_config_and_runtime_of_its_node(run: Run, pool: WorkerPool, place: str) -> None:
    """CF-2, CF-6"""

    def tells(state: State) -> Any:
        metadata, info = get_config()["metadata"], get_runtime().execution_info
        assert info is not None
        assert metadata["langgraph_checkpoint_ns"] == f"node:{info.task_id}"
        return metadata["langgraph_node"], metadata["langgraph_step"], metadata["own"], info.thread_id

    graph = with_branch(tells, place, pool)
    told = run.invoke(graph, {"x": 1}, THREAD)["a"]
    assert tuple(told) == ("node", 1, 1, "t")


def test_what_of_a_node_cannot_travel_is_named_where_it_is_used(pool: WorkerPool) -> None:
    """D-5"""

    def uses(state: State) -> Any:
        return get_config()["configurable"]["lock"].acquire()

    import threading

    config: Any = {"configurable": {"thread_id": "t", "lock": threading.Lock()}}
    assert with_branch(pid, "process", pool).invoke({"x": 1}, config)["a"] != os.getpid()
    with pytest.raises(RuntimeError, match="lock"):
        with_branch(uses, "process", pool).invoke({"x": 1}, config)
