"""Random graphs are drawn by mpflow as LangGraph draws them, letter by letter (DR-2, DR-3)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings

from tests.differential.graphs import Graph, Library, build, graphs

THEIRS, OURS = Library("langgraph"), Library("mpflow")


@settings(max_examples=40)
@given(graphs())
def test_mermaid_of_random_graphs_is_the_same(graph: Graph) -> None:
    theirs, ours = build(graph, THEIRS), build(graph, OURS)
    for xray in (False, True):
        expected = theirs.get_graph(xray=xray)
        drawn = ours.get_graph(xray=xray)
        try:
            text = expected.draw_mermaid()
        except ValueError as refused:
            with pytest.raises(ValueError, match=str(refused)[:40]):
                drawn.draw_mermaid()
        else:
            assert drawn.draw_mermaid() == text
            assert drawn.draw_mermaid(with_styles=False) == expected.draw_mermaid(with_styles=False)
        assert drawn.to_json()["edges"] == expected.to_json()["edges"]
        assert [node["id"] for node in drawn.to_json()["nodes"]] == list(expected.nodes)


def _chain(library: Library, length: int) -> Any:
    graph = library.StateGraph(int)
    names = [f"node{number}" for number in range(length)]
    for name in names:
        graph.add_node(name, lambda state: state)
    for source, target in pairwise(["__start__", *names, "__end__"]):
        graph.add_edge(source, target)
    return graph.compile()


@pytest.mark.parametrize("length", [1, 2, 5])
def test_characters_of_a_chain_are_the_same(length: int) -> None:
    # The layout of anything wider depends on the order of sets of objects, in both libraries.
    assert _chain(OURS, length).get_graph().draw_ascii() == _chain(THEIRS, length).get_graph().draw_ascii()
