"""What a trace records of the runs within it."""

from __future__ import annotations

from typing import Any

import pytest
from typing_extensions import TypedDict

import mpflow
from mpflow.errors import PoisonTaskError
from mpflow.graph import START, StateGraph
from mpflow.types import RetryPolicy
from tests.colours import Run


class State(TypedDict, total=False):
    x: int
    y: int


def graph_of(**nodes: Any) -> Any:
    builder = StateGraph(State)
    for name, (function, options) in nodes.items():
        builder.add_node(name, function, **options)
        builder.add_edge(START, name)
    return builder.compile(name="traced")


@pytest.mark.warm_pool
def test_every_attempt_is_a_span_wherever_it_ran(run: Run) -> None:
    graph = graph_of(
        a=(lambda state: {"x": 1}, {"executor": "inline"}), b=(lambda state: {"y": 2}, {"executor": "process"})
    )
    with mpflow.Trace() as trace:
        run.invoke(graph, {})
    spans = {span.node: span for span in trace.spans}
    assert set(spans) == {"a", "b"}
    assert {(span.graph, span.depth, span.number, span.ending) for span in trace.spans} == {("traced", 0, 1, "done")}
    assert all(0 <= span.queued_s <= span.started_s <= span.ended_s for span in trace.spans)
    assert spans["a"].step == spans["b"].step
    assert {node for node, _ in trace.by_node()} == {"a", "b"}


def test_retries_and_failures_show_as_such(run: Run) -> None:
    failures = iter([ValueError("first"), None])

    def fail_once(state: State) -> State:
        error = next(failures)
        if error is not None:
            raise error
        return {"x": 1}

    policy = RetryPolicy(initial_interval=0.0, jitter=False, retry_on=ValueError)
    with mpflow.Trace() as trace:
        run.invoke(graph_of(a=(fail_once, {"retry_policy": policy})), {})
    assert [(span.number, span.ending) for span in trace.spans if span.node == "a"] == [(1, "failed"), (2, "done")]


@pytest.mark.warm_pool
def test_lost_attempts_show_as_lost() -> None:
    import os

    with mpflow.Trace() as trace, pytest.raises(PoisonTaskError):
        graph_of(a=(lambda state: os._exit(3), {"executor": "process"})).invoke({})
    assert [(span.number, span.ending) for span in trace.spans if span.node == "a"] == [
        (1, "lost"),
        (2, "lost"),
        (3, "lost"),
    ]


def test_graphs_within_nodes_are_deeper(run: Run) -> None:
    inner = graph_of(leaf=(lambda state: {"x": 1}, {}))
    with mpflow.Trace() as trace:
        run.invoke(graph_of(outer=(inner, {})), {})
    assert {(span.node, span.depth) for span in trace.spans if span.node != "__start__"} == {("outer", 0), ("leaf", 1)}


def test_runs_outside_are_not_recorded() -> None:
    graph = graph_of(a=(lambda state: {"x": 1}, {}))
    with mpflow.Trace() as trace:
        pass
    graph.invoke({})
    assert trace.spans == []


def test_a_trace_is_opened_once() -> None:
    with mpflow.Trace() as trace, pytest.raises(RuntimeError, match="open already"), trace:
        pass
