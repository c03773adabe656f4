"""Graphs within a node that is tried again: each attempt starts them anew, whatever an earlier one left (SG-3)."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.graph import START, StateGraph
from mpflow.types import RetryPolicy
from tests.colours import Run

AT_ONCE = RetryPolicy(max_attempts=5, initial_interval=0.0, jitter=False, retry_on=ValueError)


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def once_more(mark: Path) -> bool:
    """False from the third time on, in whichever process."""
    with mark.open("a") as file:
        file.write(".")
    return mark.stat().st_size < 3


@pytest.mark.warm_pool
@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_graph_as_a_node_begins_anew_at_each_attempt(run: Run, executor: Any, tmp_path: Path) -> None:
    mark = tmp_path / "tried"

    def fail_twice(state: State) -> State:
        if once_more(mark):
            raise ValueError("again")
        return {"log": ["last"]}

    inner = StateGraph(State)
    inner.add_node("first", lambda state: {"log": ["first"]})
    inner.add_node("last", fail_twice)
    inner.add_edge(START, "first")
    inner.add_edge("first", "last")
    outer = StateGraph(State)
    outer.add_node("inner", inner.compile(), executor=executor, retry_policy=AT_ONCE)
    outer.add_edge(START, "inner")
    graph = outer.compile(checkpointer=InMemorySaver())
    output = run.invoke(graph, {"log": ["in"]}, {"configurable": {"thread_id": "1"}})
    assert output == {"log": ["in", "in", "first", "last"]}


@pytest.mark.warm_pool
@pytest.mark.parametrize("executor", ["thread", "process"])
def test_graphs_that_a_function_calls_begin_anew_at_each_attempt(run: Run, executor: Any, tmp_path: Path) -> None:
    mark = tmp_path / "tried"
    inner = StateGraph(State)
    inner.add_node("leaf", lambda state: {"log": ["leaf"]})
    inner.add_edge(START, "leaf")
    graph_within = inner.compile()

    def call_twice(state: State) -> State:
        called = [graph_within.invoke({"log": [name]})["log"] for name in ("one", "two")]
        if once_more(mark):
            raise ValueError("again")
        return {"log": called[0] + called[1]}

    outer = StateGraph(State)
    outer.add_node("call", call_twice, executor=executor, retry_policy=AT_ONCE)
    outer.add_edge(START, "call")
    graph = outer.compile(checkpointer=InMemorySaver())
    output = run.invoke(graph, {"log": []}, {"configurable": {"thread_id": "1"}})
    assert output == {"log": ["one", "leaf", "two", "leaf"]}
