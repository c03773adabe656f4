"""What one Send costs when its node does nothing, on threads, on processes and on an event loop.

Processes are measured by the clock on the wall. The floors do the same calls without a graph: no Send objects, no task
identity, no reducer, no error handling.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from bench.bare import BareWorkers
from bench.graphs import fan_out, one, sends, subgraphs, waits
from bench.peers import CORES, dask_map, futures_map, joblib_batches, loky_submits, mpire_map, ray_tasks
from bench.race import Against, Race, cpu_time

COUNT = 10_000
INPUTS = [{"i": i} for i in range(COUNT)]


def bare(race: Race, batch: int, window: int) -> Callable[[], Any]:
    workers = race.stack.enter_context(BareWorkers(one, CORES))
    return lambda: workers.map(INPUTS, batch=batch, window=window)


def hand_batched(race: Race) -> Callable[[], Any]:
    """What a program of one's own would do that batches by hand: the same inputs made, the same results added in order."""
    workers = race.stack.enter_context(BareWorkers(one, CORES))

    def run() -> None:
        results = workers.map([{"i": i} for i in range(COUNT)], batch=256, window=3)
        total = 0
        for result in results:
            total = operator.add(total, result["total"])
        assert total == COUNT

    return run


def test_sends_on_processes(race: Race) -> None:
    race(
        f"a Send of {COUNT}, processes",
        sends("mpflow", COUNT, "process"),
        Against("bare workers, one by one", lambda: bare(race, 1, 32), wanted=0.8),
        Against("bare workers, batched by hand, same merges", lambda: hand_batched(race), wanted=0.4),
        Against("concurrent.futures map, chunks of 32", lambda: futures_map(race, one, INPUTS, 32), wanted=1),
        Against("joblib, automatic batches", lambda: joblib_batches(race, one, INPUTS), wanted=1),
        Against("mpire map", lambda: mpire_map(race, one, INPUTS), wanted=1),
        Against("loky submit", lambda: loky_submits(race, one, INPUTS), wanted=10, rounds=3),
        Against("Ray", lambda: ray_tasks(race, one, INPUTS), wanted=1, rounds=2),
        Against("Dask", lambda: dask_map(race, one, INPUTS), wanted=1, rounds=1),
        Against("LangGraph, threads", lambda: sends("langgraph", COUNT), wanted=20, rounds=1),
        rounds=9,
        each=COUNT,
    )


def submits(race: Race) -> Callable[[], Any]:
    pool = race.stack.enter_context(ThreadPoolExecutor(CORES + 4))
    return lambda: wait([pool.submit(one, task) for task in INPUTS])


def test_sends_on_threads(race: Race) -> None:
    race(
        f"a Send of {COUNT}, threads",
        sends("mpflow", COUNT, "thread"),
        Against("ThreadPoolExecutor.submit", lambda: submits(race), wanted=0.53),
        Against("LangGraph, threads", lambda: sends("langgraph", COUNT), wanted=12, rounds=1),
        rounds=9,
        each=COUNT,
    )


@cpu_time
def test_sends_inline(race: Race) -> None:
    loop = Against("a for loop", lambda: lambda: [one(task) for task in INPUTS])
    race(f"a Send of {COUNT}, inline", sends("mpflow", COUNT, "inline"), loop, rounds=9, each=COUNT)


@cpu_time
def test_subgraphs(race: Race) -> None:
    count = 500
    against = Against("LangGraph", lambda: subgraphs("langgraph", count), rounds=3)
    race(f"a Send of {count} to a subgraph", subgraphs("mpflow", count), against, each=count)


def test_async_waits(race: Race) -> None:
    count = 1_000
    tasks = [{"s": 0.05} for _ in range(count)]

    async def gathered() -> None:
        await asyncio.gather(*(waits(task) for task in tasks))

    def app(name: str) -> Callable[[], Any]:
        graph = fan_out(name, waits, tasks)
        return lambda: asyncio.run(graph.ainvoke({"total": 0}))

    race(
        f"{count} async nodes that wait 50 ms",
        app("mpflow"),
        Against("asyncio.gather", lambda: lambda: asyncio.run(gathered()), wanted=0.7),
        Against("LangGraph", lambda: app("langgraph")),
    )
