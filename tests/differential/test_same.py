"""The same graph under LangGraph and under mpflow shows its caller the same."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from random import randrange
from typing import Any

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from tests.differential.graphs import Graph, Library, build, graphs, names_of
from tests.differential.trace import Trace, async_trace, sync_trace

INPUT = {"log": ["in"], "total": 1}
CONFIG = {"recursion_limit": 8}
THEIRS, OURS = Library("langgraph"), Library("mpflow")

BATCH = 10
"""Programs to an example of hypothesis, whose bookkeeping costs as much as a program."""


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def check(programs: Sequence[Graph], colours: Sequence[str], seen: Counter[str]) -> None:
    """Assert that programs show the same: each under LangGraph once, and in the colours in which it is to run here."""
    for number, graph in enumerate(programs):
        seen["generated"] += 1
        theirs = sync_trace(build(graph, THEIRS), INPUT, CONFIG, invokes=False)
        if not theirs.crowded.isdisjoint(names_of(graph, "up")):  # how it ends is decided by time, each time anew
            continue
        if theirs.final is not None and graph.narrow_output:
            theirs.final = build(graph, THEIRS).invoke(INPUT, CONFIG)
        elif theirs.final is not None:  # EX-13, ST-14
            theirs.final = {key: value for key, value in theirs.final.items() if key != "secret"}
        seen["compared"] += 1
        seen["failed"] += theirs.error is not None
        for colour in colours[number % len(colours)]:
            seen[colour] += 1
            assert _traced(graph, colour) == theirs


def _traced(graph: Graph, colour: str) -> Trace:
    if colour == "sync":
        return sync_trace(build(graph, OURS), INPUT, CONFIG)
    return asyncio.run(async_trace(build(graph, OURS, awaits=True), INPUT, CONFIG))


def compare(colours: Sequence[Sequence[str]], examples: int, random_seed: int) -> Counter[str]:
    """How many programs were generated, compared, failed, and ran in each colour."""
    seen: Counter[str] = Counter()

    @seed(random_seed)
    @settings(max_examples=examples, database=None, phases=[Phase.generate, Phase.shrink])
    @given(st.lists(graphs(), min_size=BATCH, max_size=BATCH))
    def run(programs: list[Graph]) -> None:
        check(programs, colours, seen)

    run()
    return seen


@pytest.mark.timeout(300)
@pytest.mark.parametrize("random_seed", range(4))
def test_random_graphs_show_the_same_under_both_libraries(random_seed: int, record_property: Any) -> None:
    """Final state, each mode of the stream, type of error, of some 1,000 programs; half of them in the async colour."""
    seen = compare([["sync"], ["async"]], 260 // BATCH, random_seed)
    for what, count in seen.items():
        record_property(f"programs {what}", count)
    assert seen["compared"] >= 220
    # What ends early shows little of what it would have come to.
    assert seen["failed"] <= 0.4 * seen["compared"]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_twenty_thousand_random_graphs_show_the_same() -> None:
    """In both colours, and others on each day."""
    assert compare([["sync", "async"]], 21_000 // BATCH, randrange(2**32))["compared"] >= 20_000
