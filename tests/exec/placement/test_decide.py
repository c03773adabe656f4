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
    assert verdict.reason == "20 ms of CPU time a call: 20 at once take 400 ms in threads, 200 ms in 2 workers"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"has_gil": False}, "no interpreter lock"),
        ({"cores": 1}, "one core"),
        ({"costs": COSTS._replace(workers=1)}, "one core"),
        ({"figures": Figures(0, 0.0, 0.0)}, "not measured yet"),
        ({"figures": BUSY._replace(cpu_s=0.000001, turn_s=0.000001)}, "sending a task costs"),
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


CROWDED = BUSY._replace(here_each_s=0.02)


def test_what_a_crowd_was_seen_to_take_counts() -> None:
    assert judge(CROWDED).place == PROCESS
    # Whatever else is known: in workers they were done later than in threads.
    slow = CROWDED._replace(sent=50, away_s=0.0201, away_each_s=0.03)
    assert judge(slow, place=PROCESS).place == THREAD
    assert judge(slow._replace(away_each_s=0.021), place=PROCESS).place == THREAD  # threads are to be seen anew
    assert judge(slow._replace(away_each_s=0.018), place=PROCESS).place == PROCESS
    assert judge(slow._replace(away_each_s=0.021)).place == THREAD
    assert judge(slow._replace(away_each_s=0.01)).place == PROCESS
    assert judge(slow, tasks=4).place == PROCESS  # four are no crowd


def test_a_crowd_that_was_seen_at_a_bad_moment_does_not_outweigh_what_calls_compute() -> None:
    disturbed = BUSY._replace(here_each_s=0.06, sent=50, away_s=0.05, away_each_s=0.029)
    assert judge(disturbed, place=PROCESS).place == THREAD
    # Of calls that let go of the lock, the crowd alone tells what they cost one another.
    assert judge(disturbed._replace(turn_s=0.012), place=PROCESS).place == PROCESS


@pytest.mark.parametrize(("here_us", "place"), [(20, PROCESS), (8, PROCESS), (4, PROCESS), (3, THREAD)])
def test_calls_that_are_next_to_nothing_move_where_sending_them_takes_less_than_starting_them(
    here_us: int, place: str
) -> None:
    costs = COSTS._replace(task_s=4e-6, parent_s=3e-6)
    light = Figures(calls=2000, cpu_s=1e-6, wall_s=1e-6, here_each_s=here_us * 1e-6)
    assert judge(light, tasks=2000, costs=costs).place == place
    assert judge(light, tasks=10, costs=costs).place == THREAD
    assert judge(light._replace(here_each_s=0.0), tasks=2000, costs=costs).place == THREAD  # none was seen


def test_the_first_light_calls_in_workers_tell_nothing_of_those_to_come() -> None:
    light = Figures(calls=2000, cpu_s=1e-5, wall_s=1e-5, here_each_s=2e-5, sent=2, away_s=5e-4)
    assert judge(light, tasks=2000).place == PROCESS
    assert judge(light._replace(sent=2000), tasks=2000).place == PROCESS
    assert judge(light._replace(sent=6000), tasks=2000).place == THREAD


@pytest.mark.parametrize("workers", [2, 4, 16, 64])
def test_the_crossing_is_where_a_task_and_its_transfer_take_what_threads_take(workers: int) -> None:
    """By the size of a task's input: the first that stays."""
    costs = COSTS._replace(workers=workers)
    places = [
        judge(BUSY._replace(bytes=float(size)), 100 * workers, costs, cores=workers).place
        for size in range(0, 20_000_000, 50_000)
    ]
    stays = places.index(THREAD)
    assert set(places[:stays]) == {PROCESS} and set(places[stays:]) == {THREAD}
    per_task_s = stays * 50_000 / costs.bytes_per_s
    taken_s = max((BUSY.cpu_s + 2 * per_task_s) / workers, per_task_s)
    assert taken_s == pytest.approx(0.85 * BUSY.cpu_s, rel=0.05)


def test_three_tasks_on_two_workers_take_two_rounds() -> None:
    assert judge(tasks=3).process_s > judge(tasks=2).process_s * 1.9


def test_tasks_that_overload_this_process_do_not_move() -> None:
    many_workers = Costs(workers=64, is_started=True)
    tiny = Figures(calls=20, cpu_s=0.0002, wall_s=0.0002, turn_s=0.0002, bytes=80_000)
    assert judge(tiny, tasks=1000, costs=many_workers, cores=64).place == THREAD
