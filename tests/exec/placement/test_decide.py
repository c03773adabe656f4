"""The decision, from figures alone."""

from __future__ import annotations

from typing import Any

import pytest

from mpflow._exec.placement.decide import PROCESS, THREAD, Costs, Figures, Verdict, decide

COSTS = Costs(workers=2, is_started=True)
BUSY = Figures(calls=20, cpu_s=0.02, wall_s=0.12, turn_s=0.02)


def judge(figures: Figures = BUSY, tasks: int = 20, costs: Costs = COSTS, **changes: Any) -> Verdict:
    options = {"cores": 2, "has_gil": True, "place": THREAD, "held": None, **changes}
    return decide(figures, costs, tasks, **options)


def test_calls_that_take_turns_move() -> None:
    verdict = judge()
    assert verdict.place == PROCESS
    assert verdict.reason == "20 ms of CPU time a call: 20 at once take 400 ms in threads, 201 ms in 2 workers"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"has_gil": False}, "no interpreter lock"),
        ({"cores": 1}, "one core"),
        ({"costs": COSTS._replace(workers=1)}, "one core"),
        ({"figures": Figures(0, 0.0, 0.0)}, "not measured yet"),
        ({"figures": BUSY._replace(cpu_s=0.00001, turn_s=0.00001)}, "sending a task costs"),
        ({"held": "the global 'X' is a list"}, "but the global 'X' is a list"),
        ({"tasks": 1}, "one call at a time"),
        ({"figures": BUSY._replace(turn_s=0.0)}, "was not seen yet"),
        ({"figures": BUSY._replace(turn_s=0.0105)}, "threads keep 2.0 cores busy"),
        ({"figures": BUSY._replace(sent=5, away_s=0.5)}, "wait more than they compute"),
        ({"figures": BUSY._replace(bytes=5e6)}, "the transfer eats up the gain"),
    ],
)
def test_why_calls_stay(changes: dict[str, Any], why: str) -> None:
    verdict = judge(**changes)
    assert verdict.place == THREAD
    assert why in verdict.reason


def test_what_lies_between_gain_and_loss_changes_nothing() -> None:
    even = BUSY._replace(sent=9, away_s=0.0385)  # workers would be done a little earlier
    assert judge(even).place == THREAD
    assert judge(even, place=PROCESS).place == PROCESS
    worse = BUSY._replace(sent=9, away_s=0.05)
    assert judge(worse, place=PROCESS).place == THREAD


def test_workers_that_keep_fewer_cores_busy_than_threads_did_are_left() -> None:
    sent = BUSY._replace(sent=50, away_s=0.0201)
    assert judge(sent._replace(away_lanes=1.9), place=PROCESS).place == PROCESS
    verdict = judge(sent._replace(away_lanes=0.6), place=PROCESS)
    assert (verdict.place, verdict.reason) == (
        THREAD,
        "20 ms of CPU time a call: workers kept 0.6 cores busy, threads 1.0",
    )
    assert judge(sent._replace(away_lanes=0.6)).place == PROCESS  # in a thread it is old news


def test_three_tasks_on_two_workers_take_two_rounds() -> None:
    assert judge(tasks=3).process_s > judge(tasks=2).process_s * 1.9


def test_tasks_that_overload_this_process_do_not_move() -> None:
    many_workers = Costs(workers=64, is_started=True)
    tiny = Figures(calls=20, cpu_s=0.0002, wall_s=0.0002, turn_s=0.0002, sent=9, away_s=0.00025, encode_s=0.0002)
    assert judge(tiny, tasks=1000, costs=many_workers, cores=64).place == THREAD
