"""Random graphs on a saved thread: checkpoints, questions, answers and history are the same under both libraries."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import assume, given, settings

from tests.colours import AsyncRun, SyncRun
from tests.differential.graphs import Graph, Library, build, graphs, is_left_early
from tests.differential.saved import Saved, saved
from tests.differential.test_same import INPUT, OURS, THEIRS


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def streamed(graph: Any, *args: Any, **options: Any) -> Any:
    chunks: list[Any] = []
    try:
        chunks.extend(graph.stream(*args, **options))
    except Exception as error:
        return chunks, error
    return chunks, None


def astreamed(graph: Any, *args: Any, **options: Any) -> Any:
    async def collect() -> Any:
        chunks: list[Any] = []
        try:
            async for chunk in graph.astream(*args, **options):
                chunks.append(chunk)
        except Exception as error:
            return chunks, error
        return chunks, None

    return asyncio.run(collect())


def shown(graph: Graph, lib: Library, **options: Any) -> Saved:
    return saved(build(graph, lib, checkpointer=lib.InMemorySaver(), **options), lib, streamed, SyncRun(), INPUT)


def check(graph: Graph) -> None:
    assume(not is_left_early(graph))
    theirs = shown(graph, THEIRS)
    assume(not theirs.is_decided_by_time)
    ours = shown(graph, OURS)
    assert repr(ours) == repr(theirs)
    awaited = build(graph, OURS, awaits=True, checkpointer=OURS.InMemorySaver())
    assert repr(saved(awaited, OURS, astreamed, AsyncRun(), INPUT)) == repr(theirs)


@settings(max_examples=25)
@given(graphs(depth=1, asks=True))
def test_saved_threads_show_the_same_under_both_libraries(graph: Graph) -> None:
    check(graph)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@settings(max_examples=3_000)
@given(graphs(asks=True))
def test_thousands_of_saved_threads_show_the_same(graph: Graph) -> None:
    check(graph)


@pytest.mark.warm_pool
@settings(max_examples=10)
@given(graphs(depth=1, asks=True))
def test_saved_threads_are_the_same_on_processes(graph: Graph) -> None:
    expected = shown(graph, OURS, executor="thread")
    assume(not expected.is_decided_by_time)
    assert repr(shown(graph, OURS, executor="process")) == repr(expected)
