"""How much of the machine CPU-bound nodes get. By the clock on the wall: needs idle cores to say anything."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from bench.graphs import burn, burning, fan_out, turns_for
from bench.peers import CORES, dask_map, futures_map, joblib_batches, loky_submits, mpire_map, ray_tasks
from bench.race import Against, Race

NODES = 8


def best_possible_s(tasks_s: list[float], cores: int) -> float:
    """When the last would end if the longest went first, each to whoever is free (LPT: within a sixth of the optimum)."""
    ends = [0.0] * cores
    for task_s in sorted(tasks_s, reverse=True):
        heapq.heapreplace(ends, ends[0] + task_s)
    return max(ends)


def pools(race: Race, turns: list[int]) -> list[Against]:
    """The same burning by other pools: no graph, no state."""
    return [  # those with daemons first: what these still do afterwards would count as ours
        Against("Dask", lambda: dask_map(race, burn, turns), wanted=1),
        Against("Ray", lambda: ray_tasks(race, burn, turns), wanted=1),
        Against("mpire", lambda: mpire_map(race, burn, turns), wanted=1),
        Against("joblib", lambda: joblib_batches(race, burn, turns), wanted=1),
        Against("loky", lambda: loky_submits(race, burn, turns), wanted=1),
        Against("concurrent.futures", lambda: futures_map(race, burn, turns), wanted=1),
    ]


def fan(race: Race, name: str, turns: list[int], wanted: float, *graphs: Against, rounds: int = 7) -> None:
    """Run a fan-out of CPU-bound nodes; compare with the best that their own CPU times allow."""
    graph = fan_out("mpflow", burning, [{"turns": each} for each in turns], "process")
    runs: list[tuple[float, float]] = []

    def ours() -> None:
        start = time.perf_counter()
        # Of the nodes as they ran, side by side: two cores may be slower together than one alone.
        used_s = graph.invoke({"total": 0})["cpu_s"]
        taken_s = time.perf_counter() - start
        runs.append((taken_s, best_possible_s(used_s, CORES)))

    race(name, ours, *graphs, rounds=rounds)
    best_s, possible_s = min(runs, key=lambda run: run[0] / run[1])
    race.compare(name, best_s, "the best end for their own CPU time", possible_s, wanted=wanted)


@pytest.mark.parametrize(("count", "node_s"), [(NODES, 0.2), (80, 0.02), (400, 0.002)])
def test_beside_other_pools(race: Race, count: int, node_s: float) -> None:
    """A race of its own: the daemons of some pools take a part of the cores as long as they are there."""
    turns = [turns_for(node_s)] * count
    graph = fan_out("mpflow", burning, [{"turns": each} for each in turns], "process")
    race(
        f"{count} Sends of {node_s * 1e3:.0f} ms, beside other pools",
        lambda: graph.invoke({"total": 0}),
        *pools(race, turns),
    )


@pytest.mark.parametrize(("count", "node_s", "wanted"), [(80, 0.02, 0.97), (400, 0.002, 0.9)])
def test_many_cpu_nodes(race: Race, count: int, node_s: float, wanted: float) -> None:
    fan(race, f"{count} Sends of {node_s * 1e3:.0f} ms", [turns_for(node_s)] * count, wanted)


def test_skewed_cpu_nodes(race: Race) -> None:
    """From a microsecond to a second, evenly on the scale of logarithms, in random order."""
    dice = random.Random(1)
    second = turns_for(1.0)
    fan(
        race,
        "300 Sends of 1 us to 1 s, skewed",
        [int(second * 10 ** dice.uniform(-6, 0)) for _ in range(300)],
        0.95,
        rounds=3,
    )


@pytest.mark.parametrize("node_s", [0.2, 0.02])
def test_cpu_nodes(race: Race, node_s: float) -> None:
    turns = [turns_for(node_s)] * NODES

    def app(name: str, place: str | None = None) -> Callable[[], Any]:
        graph = fan_out(name, burning, [{"turns": each} for each in turns], place)
        return lambda: graph.invoke({"total": 0})

    fan(
        race,
        f"{NODES} CPU nodes of {node_s * 1e3:.0f} ms",
        turns,
        0.95,
        Against("mpflow, threads", lambda: app("mpflow", "thread"), rounds=3),
        Against("LangGraph", lambda: app("langgraph"), wanted=0.95 * CORES, rounds=3),
    )


def test_demo(race: Race) -> None:
    from mpflow.demo.files import standard_library
    from mpflow.demo.pipeline import build

    def app(place: Any) -> Callable[[], Any]:
        graph = build(place)
        return lambda: graph.invoke({"root": standard_library(), "limit": 120})

    race(
        "the demonstration, 120 files", app("process"), Against("on threads", lambda: app("thread"), wanted=0.9 * CORES)
    )
