"""After how long one of a crowd was done, as a profile gets to know it."""

from __future__ import annotations

from time import perf_counter
from types import SimpleNamespace
from typing import Any

from mpflow._engine.crowds import Crowd
from mpflow._exec.placement.decide import PROCESS, THREAD
from mpflow._exec.placement.profile import Profile


def crowd_of(profile: Profile, place: str, tasks: int) -> Crowd:
    node: Any = SimpleNamespace(meter=profile)
    crowd = Crowd(node, place, perf_counter())
    crowd.total = crowd.waiting = tasks
    return crowd


def test_the_first_ones_in_workers_do_not_count() -> None:
    profile = Profile("w")
    crowd = crowd_of(profile, PROCESS, 100)
    profile.note_away(50, 0.05, 0.06)
    crowd.waiting = 50
    crowd.note()
    assert (profile.away_pace.each_s, crowd.done) == (0.0, 0)
    profile.note_away(50, 0.05, 0.06)
    crowd.waiting = 0
    crowd.note()
    assert profile.away_pace.each_s > 0


def test_those_in_threads_count_from_the_first_one_on() -> None:
    profile = Profile("w")
    crowd = crowd_of(profile, THREAD, 20)
    profile.note(0.001, 0.001)
    crowd.waiting = 0
    crowd.note()
    assert profile.here_pace.each_s > 0


def test_too_few_say_nothing() -> None:
    profile = Profile("w")
    crowd = crowd_of(profile, THREAD, 4)
    profile.note(0.001, 0.001)
    crowd.waiting = 0
    crowd.note()
    assert profile.here_pace.each_s == 0.0
