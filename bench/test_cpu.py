"""How much of the machine CPU-bound nodes get. By the clock on the wall: needs idle cores to say anything."""

from __future__ import annotations

import heapq
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any

import pytest

from bench.graphs import burn, burning, fan_out, turns_for
from bench.race import Against, Race

CORES = len(os.sched_getaffinity(0))
NODES = 8


def best_possible_s(tasks_s: list[float], cores: int) -> float:
    """When the last would end if the longest went first, each to whoever is free (LPT: within a sixth of the optimum)."""
    ends = [0.0] * cores
    for task_s in sorted(tasks_s, reverse=True):
        heapq.heapreplace(ends, ends[0] + task_s)
    return max(ends)


def fan(race: Race, name: str, tasks: list[Any], wanted: float) -> None:
    """Run a fan-out of CPU-bound nodes; compare with the best that their own CPU times allow."""
    graph = fan_out("mpflow", burning, tasks, "process")
    runs: list[tuple[float, float]] = []

    def ours() -> None:
        start = time.perf_counter()
        used = graph.invoke({"total": 0})["cpu_s"]
        taken_s = time.perf_counter() - start
        runs.append((taken_s, best_possible_s(used, CORES)))

    race(name, ours, rounds=7)
    best_s, possible_s = min(runs, key=lambda run: run[0] / run[1])
    race.compare(name, best_s, "the best end for their own CPU time", possible_s, wanted=wanted)


@pytest.mark.parametrize(("count", "node_s", "wanted"), [(80, 0.02, 0.97), (400, 0.002, 0.9)])
def test_many_cpu_nodes(race: Race, count: int, node_s: float, wanted: float) -> None:
    fan(race, f"{count} Sends of {node_s * 1e3:.0f} ms", [{"turns": turns_for(node_s)}] * count, wanted)


def test_skewed_cpu_nodes(race: Race) -> None:
    """From a microsecond to a second, evenly on the scale of logarithms, in random order."""
    dice = random.Random(1)
    second = turns_for(1.0)
    tasks = [{"turns": int(second * 10 ** dice.uniform(-6, 0))} for _ in range(300)]
    fan(race, "300 Sends of 1 us to 1 s, skewed", tasks, 0.95)


@pytest.mark.parametrize("node_s", [0.2, 0.02])
def test_cpu_nodes(race: Race, node_s: float) -> None:
    turns = turns_for(node_s)
    tasks = [{"turns": turns}] * NODES

    def app(name: str, place: str | None = None) -> Callable[[], Any]:
        graph = fan_out(name, burning, tasks, place)
        return lambda: graph.invoke({"total": 0})

    graph = fan_out("mpflow", burning, tasks, "process")
    runs: list[tuple[float, float]] = []

    def ours() -> None:
        start = time.perf_counter()
        used_s = sum(graph.invoke({"total": 0})["cpu_s"])
        runs.append((time.perf_counter() - start, used_s))

    def futures() -> Callable[[], Any]:
        pool = race.stack.enter_context(ProcessPoolExecutor(CORES, get_context("spawn")))
        return lambda: wait([pool.submit(burn, turns) for _ in tasks])

    def loky_futures() -> Callable[[], Any]:
        import loky

        pool = loky.ProcessPoolExecutor(CORES)
        race.stack.callback(pool.shutdown)
        return lambda: wait([pool.submit(burn, turns) for _ in tasks])

    name = f"{NODES} CPU nodes of {node_s * 1e3:.0f} ms"
    race(
        name,
        ours,
        Against("concurrent.futures processes", futures),
        Against("loky processes", loky_futures),
        Against("mpflow, threads", lambda: app("mpflow", "thread"), rounds=3),
        Against("LangGraph", lambda: app("langgraph"), wanted=0.95 * CORES, rounds=3),
        rounds=7,
    )
    # Of the nodes as they ran, side by side: two cores may be slower together than one alone.
    best_s, used_s = min(runs)
    race.compare(name, best_s, "their own CPU time / cores", used_s / CORES, wanted=0.95)


def test_demo(race: Race) -> None:
    from mpflow.demo.files import standard_library
    from mpflow.demo.pipeline import build

    def app(place: Any) -> Callable[[], Any]:
        graph = build(place)
        return lambda: graph.invoke({"root": standard_library(), "limit": 120})

    race(
        "the demonstration, 120 files", app("process"), Against("on threads", lambda: app("thread"), wanted=0.9 * CORES)
    )
