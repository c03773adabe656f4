"""The same graph under LangGraph and under mpflow shows its caller the same."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import assume, given, settings

from tests.differential.graphs import Graph, Library, build, graphs, names_of
from tests.differential.trace import async_trace, sync_trace

INPUT = {"log": ["in"], "total": 1}
CONFIG = {"recursion_limit": 8}
THEIRS, OURS = Library("langgraph"), Library("mpflow")


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def check(graph: Graph) -> None:
    theirs = sync_trace(build(graph, THEIRS), INPUT, CONFIG)
    assume(theirs.crowded.isdisjoint(names_of(graph, "up")))
    ours = sync_trace(build(graph, OURS), INPUT, CONFIG)
    assert ours == theirs
    assert asyncio.run(async_trace(build(graph, OURS, awaits=True), INPUT, CONFIG)) == theirs


@settings(max_examples=80)
@given(graphs())
def test_random_graphs_show_the_same_under_both_libraries(graph: Graph) -> None:
    check(graph)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=5_000)
@given(graphs())
def test_thousands_of_random_graphs_show_the_same(graph: Graph) -> None:
    check(graph)
