"""Batches of many short runs of a graph of three nodes, each item whole in a worker process; wall-clock time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import count as numbers
from multiprocessing import get_context
from typing import Any

from bench.graphs import Count, add_one, library
from bench.race import Against, Race
from bench.test_saving import in_sqlite

CORES = len(os.sched_getaffinity(0))


_batches = numbers()


def three_nodes(name: str, saver: Any = None) -> Any:
    lib = library(name)
    graph = lib.StateGraph(Count)
    graph.add_sequence([(f"n{index}", add_one) for index in range(3)])
    graph.add_edge(lib.START, "n0")
    graph.add_edge("n2", lib.END)
    return graph.compile(checkpointer=saver)


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


def saved(race: Race, name: str, count: int, **ways: Any) -> Callable[[], Any]:
    """Each item on a thread of its own in SQLite: what is done is not lost, whenever the program ends."""
    saver, _ = race.stack.enter_context(in_sqlite(name))
    app = three_nodes(name, saver)

    def run() -> None:
        prefix = f"{next(_batches)}/"
        if ways:
            outputs = [output for _, output in app.batch_as_completed(items(count), thread_id_prefix=prefix, **ways)]
        else:
            outputs = app.batch(
                list(items(count)), [{"configurable": {"thread_id": f"{prefix}{n}"}} for n in range(count)]
            )
        assert len(outputs) == count

    return run


def test_saved_items(race: Race) -> None:
    count = 1_000
    race(
        f"an item of {count}, saved in SQLite",
        saved(race, "mpflow", count, parallel="items"),
        Against("LangGraph batch", lambda: saved(race, "langgraph", count), wanted=5, rounds=1),
        Against("mpflow, node by node", lambda: saved(race, "mpflow", count, parallel="nodes"), rounds=2),
        each=count,
    )


def test_saved_items_again(race: Race) -> None:
    """A batch that was done, given once more: nothing runs, all outputs are read back."""
    count = 2_000
    saver, _ = race.stack.enter_context(in_sqlite("mpflow"))
    app = three_nodes("mpflow", saver)

    def run() -> None:
        assert sum(1 for _ in app.batch_as_completed(items(count), thread_id_prefix="job/", parallel="items")) == count

    run()
    race(f"an item of {count} that is done already", run, each=count)
