"""Where nodes run does not show in what a graph comes to (D-1)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import assume, given, settings

from tests.differential.graphs import Graph, Library, build, graphs, names_of
from tests.differential.test_same import CONFIG, INPUT
from tests.differential.trace import async_trace, sync_trace

pytestmark = pytest.mark.warm_pool
OURS = Library("mpflow")


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@settings(max_examples=40)
@given(graphs())
def test_processes_come_to_what_threads_do(graph: Graph) -> None:
    expected = sync_trace(build(graph, OURS, executor="thread"), INPUT, CONFIG)
    assert sync_trace(build(graph, OURS, executor="process"), INPUT, CONFIG) == expected
    away = build(graph, OURS, awaits=True, executor="process")
    assert asyncio.run(async_trace(away, INPUT, CONFIG)) == expected


@settings(max_examples=50)
@given(graphs())
def test_the_calling_thread_comes_to_what_threads_do(graph: Graph) -> None:
    expected = sync_trace(build(graph, OURS, executor="thread"), INPUT, CONFIG)
    assume(expected.crowded.isdisjoint(names_of(graph, "up")))
    assert sync_trace(build(graph, OURS, executor="inline"), INPUT, CONFIG) == expected
