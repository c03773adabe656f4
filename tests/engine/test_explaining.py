"""What a graph says of where its nodes run, before and after runs."""

from __future__ import annotations

import time
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from mpflow.graph import START, StateGraph
from tests.colours import Run
from tests.exec.placement import corpus

State = dict


def graph_of(**actions: Any) -> Any:
    graph = StateGraph(dict)
    for name, action in actions.items():
        graph.add_node(name, action).add_edge(START, name)
    return graph.compile()


async def awaits(state: Any) -> None:
    pass


def waits(state: Any) -> None:
    time.sleep(0.02)


def test_before_a_run_it_tells_what_could_move_and_what_holds_the_rest() -> None:
    found = graph_of(a=corpus.computes, b=corpus.appends_to_a_global, c=awaits).explain()
    assert [(p.node, p.place, p.can_move) for p in found] == [
        ("a", "thread", True),
        ("b", "thread", False),
        ("c", "loop", False),
    ]
    assert "moves to workers if" in found["a"].reason
    assert "the global 'ITEMS' is a list" in found["b"].reason
    assert found["b"].held_by is not None
    with pytest.raises(KeyError):
        found["z"]


def test_after_a_run_it_tells_the_figures(run: Run) -> None:
    graph = graph_of(waits=waits, tiny=corpus.remembers_nothing)
    run.invoke(graph, {})
    found = graph.explain()
    assert found["waits"].calls_here == 1
    assert found["waits"].wall_s >= 0.02 > found["waits"].cpu_s
    assert found["waits"].reason.startswith("its calls wait: 2")
    assert "of CPU time a call; sending a task costs" in found["tiny"].reason


def test_a_place_that_was_asked_for_is_named(run: Run) -> None:
    graph = StateGraph(dict).add_node("a", corpus.remembers_nothing, executor="thread").add_edge(START, "a")
    app = graph.compile(executor="inline")
    run.invoke(app, {})
    placement = app.explain()["a"]
    assert (placement.asked, placement.place, placement.can_move) == ("thread", "thread", None)
    assert placement.reason.startswith("executor='thread'; ")


def test_it_prints_as_a_table_and_gives_plain_data() -> None:
    found = graph_of(first=corpus.computes).explain()
    lines = str(found).split("\n")
    assert lines[1].split() == ["node", "asked", "runs", "in", "calls", "here", "calls", "in", "workers", "why"]
    assert lines[2].split()[:3] == ["first", "auto", "threads"]
    assert found.to_dicts()[0]["node"] == "first"
    out = StringIO()
    Console(file=out, width=200).print(found)
    assert "moves to workers" in out.getvalue()
