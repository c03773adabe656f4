"""`mpflow.compare`: the same input under threads and processes."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from typing_extensions import TypedDict

import mpflow
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.comparison.measure import runs_of
from mpflow.graph import START, StateGraph

SEEN: list[int] = []


class State(TypedDict, total=False):
    x: Any
    y: Any


def graph_of(**nodes: Any) -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(State)
    for name, function in nodes.items():
        builder.add_node(name, function)
        builder.add_edge(START, name)
    return builder


def test_all_settings_are_measured_on_the_same_input() -> None:
    told: list[str] = []
    graph = graph_of(a=lambda state: {"x": state["x"] + 1}, b=lambda state: {"y": 2}).compile()
    done = mpflow.compare(graph, {"x": 1}, workers=[2], repeat=2, tell=told.append)
    assert [(m.place, m.workers, len(m.wall_s)) for m in done.measurements] == [
        ("thread", 1, 2),
        ("process", 1, 2),
        ("thread", 2, 2),
        ("process", 2, 2),
    ]
    assert len(told) == runs_of([2], 2) == 18
    assert done.same_result
    for measurement in done.measurements:
        assert {(times.node, times.tasks, times.beside) for times in measurement.nodes} == {("a", 1, 2), ("b", 1, 2)}
        assert (measurement.bytes_out > 0) == (measurement.bytes_in > 0) == (measurement.place == "process")


def test_it_tells_where_nodes_go_by_themselves() -> None:
    graph = graph_of(a=lambda state: {"x": len(SEEN)}).add_node("b", lambda state: {"y": 1}, executor="process")
    app = graph.add_edge(START, "b").compile()
    done = mpflow.compare(app, {"x": 1}, workers=[2], repeat=1)
    assert done.auto is not None and done.auto.place == "auto"
    assert [(node.node, node.asked, node.place) for node in done.decisions] == [
        ("a", "auto", "thread"),
        ("b", "auto", "thread"),
    ]
    assert "the global 'SEEN' is a list" in str(done.decisions[0].held_by)
    assert app.explain()["a"].calls_here == 0  # the graph itself has learnt nothing


def test_a_node_that_cannot_travel_stays_in_threads() -> None:
    lock = threading.Lock()

    def guarded(state: State) -> State:
        with lock:
            return {"x": 1}

    done = mpflow.compare(graph_of(guarded=guarded, free=lambda state: {"y": 1}).compile(), {}, workers=[1], repeat=1)
    assert list(done.kept) == ["guarded"]
    assert "lock" in done.kept["guarded"]


def test_a_result_that_depends_on_the_place_is_noticed() -> None:
    done = mpflow.compare(graph_of(a=lambda state: {"x": os.getpid()}).compile(), {}, workers=[1], repeat=1)
    assert not done.same_result


def test_nothing_is_saved_and_what_nodes_raise_is_raised() -> None:
    saver = InMemorySaver()
    graph = graph_of(a=lambda state: {"x": 1}).compile(checkpointer=saver)
    mpflow.compare(graph, {}, workers=[1], repeat=1)
    assert list(saver.list(None)) == []
    with pytest.raises(ZeroDivisionError):
        mpflow.compare(graph_of(a=lambda state: {"x": 1 / 0}).compile(), {}, workers=[1], repeat=1)


@pytest.mark.parametrize("options", [{"repeat": 0}, {"workers": [0]}])
def test_counts_below_one_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        mpflow.compare(graph_of(a=lambda state: {}).compile(), {}, **options)


def test_what_is_no_compiled_graph_is_refused() -> None:
    with pytest.raises(TypeError, match="takes a compiled graph of mpflow, got StateGraph"):
        mpflow.compare(graph_of(a=lambda state: {}), {})  # type: ignore[arg-type]
