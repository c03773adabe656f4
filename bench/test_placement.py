"""Nodes that say nothing of where they run, against the best place for each kind of work, found by trying them all."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest

from bench.mixed import UNFIT, Server, Slow, graphs
from bench.race import Against, Race
from mpflow._exec.placement.profile import Profile

NAMES = list(graphs(0))
WARM_S = 3.0
"""So long a graph may take to find its places, and no longer than so many runs."""
WARM_RUNS = 150
ROUNDS = 7


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with Server(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("name", NAMES)
def test_auto_after_its_warm_up(race: Race, port: int, name: str) -> None:
    make = graphs(port)[name]
    ours = make(None)
    until = time.perf_counter() + WARM_S
    for _ in range(WARM_RUNS):
        ours()
        if time.perf_counter() > until:
            break
    places = [place for place in ("thread", "process") if (name, place) not in UNFIT]
    against = (Against(f"all on {place}", lambda p=place: make(p), wanted=0.9) for place in places)
    # A decision that is made anew in the middle shows in the median, not in the best round.
    race(f"auto: {name}", ours, *against, rounds=ROUNDS, typical=median)


@pytest.mark.parametrize("name", NAMES)
def test_auto_on_its_first_run(race: Race, port: int, name: str) -> None:
    make = graphs(port)[name]
    # A graph that was never run, each round: nothing is known of its nodes.
    against = Against("all on thread", lambda: lambda: make("thread")(), wanted=0.95)
    race(f"auto, first run: {name}", lambda: make(None)(), against, rounds=ROUNDS, typical=median)


def test_the_demonstration_that_names_no_place(race: Race) -> None:
    from mpflow.demo.files import standard_library
    from mpflow.demo.pipeline import build

    def app(place: Any) -> Any:
        graph = build(place)
        return lambda: graph.invoke({"root": standard_library(), "limit": 120})

    ours = app("auto")
    until = time.perf_counter() + WARM_S
    while time.perf_counter() < until:
        ours()
    against = Against("on processes", lambda: app("process"), wanted=0.9)
    race("auto: the demonstration, 120 files", ours, against, rounds=ROUNDS, typical=median)


def test_what_measuring_costs_a_call(race: Race) -> None:
    """The least calls there are, which are measured now and then, without the call itself."""
    profile = Profile("a")
    attempt: Any = object()
    count = 50_000

    def call_s() -> float:
        started = time.process_time()
        for _ in range(count):
            profile.left -= 1
            if profile.left < 0:
                profile.measure(_nothing, attempt)
        return (time.process_time() - started) / count

    best_s = race("measuring a call", call_s)
    race.compare("measuring a call", best_s, "a microsecond", 1e-6, wanted=1.0)


def _nothing(attempt: Any) -> Any:
    pass
