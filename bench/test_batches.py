"""Batches of many short runs of a graph of three nodes, each item whole in a worker process; wall-clock time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from bench.graphs import Count, add_one, library
from bench.race import Against, Race

CORES = len(os.sched_getaffinity(0))


def three_nodes(name: str) -> Any:
    lib = library(name)
    graph = lib.StateGraph(Count)
    graph.add_sequence([(f"n{index}", add_one) for index in range(3)])
    graph.add_edge(lib.START, "n0")
    graph.add_edge("n2", lib.END)
    return graph.compile()


def items(count: int) -> Iterator[Count]:
    return ({"n": index} for index in range(count))


def ours(count: int, parallel: str) -> Callable[[], Any]:
    app = three_nodes("mpflow")

    def run() -> None:
        assert sum(1 for _ in app.batch_as_completed(items(count), parallel=parallel)) == count

    return run


def langgraph(count: int) -> Callable[[], Any]:
    app = three_nodes("langgraph")
    return lambda: app.batch(list(items(count)))


def run_three(given: Count) -> Count:
    """What an item costs by hand: three calls, no graph."""
    state = dict(given)
    for _ in range(3):
        state.update(add_one(state))
    return state  # type: ignore[return-value]


def mapped(race: Race, count: int) -> Callable[[], Any]:
    pool = race.stack.enter_context(ProcessPoolExecutor(CORES, get_context("spawn")))
    return lambda: list(pool.map(run_three, items(count), chunksize=32))


def test_items(race: Race) -> None:
    count = 20_000
    race(
        f"an item of {count}, whole in workers",
        ours(count, "items"),
        Against("concurrent.futures map of the bare functions, chunks of 32", lambda: mapped(race, count)),
        each=count,
    )


def test_items_against_langgraph(race: Race) -> None:
    count = 2_000
    race(
        f"an item of {count}, whole in workers",
        ours(count, "items"),
        Against("LangGraph batch", lambda: langgraph(count), wanted=15, rounds=2),
        Against("mpflow, threads of this process", lambda: ours(count, "nodes"), rounds=2),
        each=count,
    )
