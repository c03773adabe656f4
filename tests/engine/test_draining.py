"""A run that is asked to drain stops at the next step's end, and can be resumed (CF-7)."""

from __future__ import annotations

import operator
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.errors import GraphDrained, NodeError
from mpflow.graph import START, StateGraph
from mpflow.runtime import RunControl, Runtime

THREAD = {"configurable": {"thread_id": "1"}}


class State(TypedDict):
    x: Annotated[list[str], operator.add]


def draining(state: State, runtime: Runtime) -> State:
    assert runtime.control is not None and not runtime.drain_requested
    runtime.control.request_drain("night")
    return {"x": [f"{runtime.drain_requested} {runtime.drain_reason}"]}


def last(state: State) -> State:
    return {"x": ["last"]}


def graph_of(*actions: Any) -> StateGraph[Any]:
    names = [f"n{position}" for position in range(len(actions))]
    return StateGraph(State).add_sequence(list(zip(names, actions, strict=True))).add_edge(START, "n0")


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_drained_run_is_saved_and_goes_on_later(run: Any, durability: str) -> None:
    graph = graph_of(draining, last).compile(checkpointer=InMemorySaver())
    with pytest.raises(GraphDrained, match="Graph drained: night"):
        run.invoke(graph, {"x": []}, THREAD, durability=durability)
    assert run.get_state(graph, THREAD).next == ("n1",)
    assert run.invoke(graph, None, THREAD) == {"x": ["True night", "last"]}


def test_from_outside(run: Any) -> None:
    control = RunControl()

    def asking(state: State) -> State:
        control.request_drain()
        return {"x": ["asked"]}

    with pytest.raises(GraphDrained, match="shutdown"):
        run.invoke(graph_of(asking, last).compile(), {"x": []}, control=control)


def test_before_the_run_nothing_runs(run: Any) -> None:
    control = RunControl()
    control.request_drain("early")
    graph = graph_of(last).compile(checkpointer=InMemorySaver())
    with pytest.raises(GraphDrained):
        run.invoke(graph, {"x": ["in"]}, THREAD, control=control)
    assert run.get_state(graph, THREAD).next == ("__start__",)
    assert run.invoke(graph, None, THREAD) == {"x": ["in", "last"]}


def test_a_run_with_nothing_left_to_do_ends_normally(run: Any) -> None:
    assert run.invoke(graph_of(draining).compile(), {"x": []}) == {"x": ["True night"]}


@pytest.mark.parametrize("points", [{"interrupt_before": ["n1"]}, {"interrupt_after": ["n0"]}])
def test_a_breakpoint_that_is_due_wins(run: Any, points: Any) -> None:
    graph = graph_of(draining, last).compile(checkpointer=InMemorySaver(), **points)
    assert run.invoke(graph, {"x": []}, THREAD) == {"x": ["True night"]}


def test_streams_show_what_ran_and_nothing_of_what_did_not() -> None:
    graph = graph_of(draining, last).compile()
    seen: list[Any] = []
    with pytest.raises(GraphDrained):
        seen.extend(graph.stream({"x": []}, stream_mode=["updates", "tasks"]))
    assert [mode for mode, _ in seen] == ["tasks", "updates", "tasks"]


def test_a_graph_within_drains_too_and_its_siblings_finish(run: Any) -> None:
    """ER-8: nor is it a failure that a handler or a retry would be for."""

    def rescue(state: State, error: NodeError) -> State:
        raise AssertionError("handled")

    inner = graph_of(draining, last).compile()
    builder = StateGraph(State).add_node("inner", inner, error_handler=rescue).add_node("other", last)
    graph = builder.add_edge(START, "inner").add_edge(START, "other").compile(checkpointer=InMemorySaver())
    with pytest.raises(GraphDrained):
        run.invoke(graph, {"x": []}, THREAD)
    tasks = {task.name: task for task in run.get_state(graph, THREAD).tasks}
    assert tasks["other"].result == {"x": ["last"]}
    assert tasks["inner"].error is None and tasks["inner"].result is None
    assert run.invoke(graph, None, THREAD) == {"x": ["True night", "last", "last"]}


@pytest.mark.warm_pool
def test_a_node_on_a_process_can_ask(run: Any) -> None:
    graph = graph_of(draining, last).compile(executor="process")
    with pytest.raises(GraphDrained, match="night"):
        run.invoke(graph, {"x": []})
