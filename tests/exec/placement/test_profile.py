"""What is measured of calls, by a clock that the test owns."""

from __future__ import annotations

from typing import Any

import pytest

import mpflow._exec.placement.profile as profiles
from mpflow._exec.placement.decide import PROCESS, THREAD
from mpflow._exec.placement.profile import Profile


class Clocks:
    def __init__(self) -> None:
        self.wall_s = 0.0
        self.cpu_s = 0.0
        self.reads = 0

    def perf_counter(self) -> float:
        self.reads += 1
        return self.wall_s

    def thread_time(self) -> float:
        self.reads += 1
        return self.cpu_s


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(profiles, "perf_counter", clocks.perf_counter)
    monkeypatch.setattr(profiles, "thread_time", clocks.thread_time)
    return clocks


def call(profile: Profile, clocks: Clocks, wall_s: float, cpu_s: float, within: Any = None) -> None:
    """One call as a performer makes it; `within` is done in the middle of it."""

    def perform(attempt: Any) -> Any:
        clocks.wall_s += wall_s
        clocks.cpu_s += cpu_s
        if within is not None:
            within()

    profile.left -= 1
    if profile.left < 0:
        profile.measure(perform, object())  # type: ignore[arg-type]
    else:
        perform(None)


def test_means_are_of_the_calls(clocks: Clocks) -> None:
    profile = Profile("n")
    for wall_s in (0.1, 0.3):
        call(profile, clocks, wall_s, wall_s / 2)
    assert (profile.seen, profile.calls) == (2, 2)
    assert (profile.wall_s, profile.cpu_s) == pytest.approx((0.2, 0.1))
    assert profile.is_heavy


def test_light_calls_are_measured_now_and_then_but_all_are_counted(clocks: Clocks) -> None:
    profile = Profile("n")
    for _ in range(1000):
        call(profile, clocks, 1e-6, 1e-6)
    assert profile.seen < 50
    assert profile.calls == pytest.approx(1000, abs=40)
    assert clocks.reads == 4 * profile.seen  # two clocks, twice


@pytest.mark.parametrize(("cores", "lanes"), [(1, 1.0), (2, 2.0)])
def test_lanes_are_the_processors_kept_busy_over_a_while(cores: int, lanes: float) -> None:
    period = profiles._Period()
    period.start(100.0)
    found = [period.end(Profile("n"), 100.0 + ended * 0.1 / cores, 0.1, 3) for ended in range(1, 20)]
    assert found[:8] == [0.0] * 8  # too few have ended to say
    assert found[8:] == pytest.approx([lanes] * 11)


def test_a_long_call_among_short_ones_counts_for_what_it_computed() -> None:
    period = profiles._Period()
    period.start(0.0)
    for ended in range(1, 11):
        period.end(Profile("n"), ended * 0.01, 0.01, 1)
    assert period.end(Profile("n"), 1.1, 1.0, 1) == pytest.approx(1.0)


@pytest.mark.parametrize(("cores", "lanes"), [(1, 1.0), (2, 2.0)])
def test_of_a_burst_it_is_known_at_its_end(cores: int, lanes: float) -> None:
    period = profiles._Period()
    period.start(0.0)
    assert [period.end(Profile("n"), ended * 0.1 / cores, 0.1, 4 - ended) for ended in range(1, 4)] == [0.0] * 3
    assert period.end(Profile("n"), 0.4 / cores, 0.1, 0, is_last=True) == pytest.approx(lanes)


def test_calls_that_follow_one_another_keep_nobody_company() -> None:
    period = profiles._Period()
    period.start(0.0)
    assert period.end(Profile("n"), 0.1, 0.1, 0, is_last=True) == 0.0


def test_nodes_that_ran_side_by_side_know_it_all_alike(clocks: Clocks) -> None:
    first, second, third = (Profile(name) for name in "abc")
    call(first, clocks, 0.1, 0.1, lambda: call(second, clocks, 0.1, 0.1, lambda: call(third, clocks, 0.1, 0.1)))
    assert [profile.company for profile in (first, second, third)] == [1, 1, 1]
    assert first.lanes == second.lanes == third.lanes > 0


def test_a_first_call_that_only_waits_tells_nothing_of_those_beside_it() -> None:
    period = profiles._Period()
    period.start(0.0)
    found = [period.end(Profile("n"), ended * 0.1, 0.1, 2) for ended in (1, 2)]
    assert [*found, period.end(Profile("waits"), 0.5, 0.0, 0, is_last=True)] == [0.0, 0.0, 0.0]


def test_of_crowds_the_best_lately_counts_until_calls_become_others() -> None:
    profile = Profile("n")
    profile.note_crowd(THREAD, 0.02, 0.01, 0.05)
    profile.note_crowd(THREAD, 0.01, 0.011, 0.05)
    profile.note_crowd(THREAD, 0.05, 0.009, 0.05)
    profile.note_crowd(PROCESS, 0.006, 0.01, 0.05)
    assert profile.here_pace.each_s == pytest.approx(0.0102)
    assert profile.away_pace.each_s == 0.006
    profile.note_crowd(PROCESS, 0.03, 0.05, 0.05)
    assert (profile.here_pace.each_s, profile.away_pace.each_s) == (0.0, 0.03)


def test_one_short_crowd_in_workers_says_nothing_a_long_one_or_three_do() -> None:
    profile, other = Profile("n"), Profile("m")
    for expected in (0.0, 0.0, 0.004):
        assert profile.figures().away_each_s == 0.0
        profile.note_crowd(PROCESS, 0.004, 0.001, 0.01)
        assert profile.figures().away_each_s == expected
    other.note_crowd(PROCESS, 0.004, 0.001, 0.2)
    assert other.figures().away_each_s == 0.004


def test_calls_that_let_go_of_the_lock_are_remembered_for_it(clocks: Clocks) -> None:
    profile = Profile("n")
    profile.company, profile.last_lanes, profile.best_lanes = 9, 0.6, 1.8
    assert profile.lanes == 1.8


def test_a_long_first_call_is_seen_before_it_ends() -> None:
    import threading

    profile, seen = Profile("n"), []
    begun, done = threading.Event(), threading.Event()

    def perform(attempt: Any) -> Any:
        x = 1
        begun.set()
        while not done.is_set():
            x = x * 5 & 0xFFFF
        return x

    thread = threading.Thread(target=lambda: profile.measure(perform, object()))  # type: ignore[arg-type]
    thread.start()
    begun.wait(10)
    while not profile.is_heavy:
        profiles.peek({profile})
        seen.append(profile.seen)
    done.set()
    thread.join()
    assert set(seen) == {0}


def measured(wall_s: float, cpu_s: float, calls: int) -> tuple[list[int], Profile]:
    """Which of so many calls are measured."""
    profile = Profile("w")
    found = []
    for call in range(calls):
        profile.left -= 1
        if profile.left < 0:
            found.append(call)
            profile.note(wall_s, cpu_s)
    return found, profile


def test_a_quick_node_is_measured_ever_more_rarely() -> None:
    found, profile = measured(1e-6, 1e-6, 96)
    assert found == [0, 2, 6, 14, 30, 62, 94]
    assert profile.calls == 95


@pytest.mark.parametrize(("cpu_s", "apart"), [(1e-3, 1), (2e-4, 4), (1e-6, 32)])
def test_a_node_that_takes_a_while_is_measured_for_what_it_computes(cpu_s: float, apart: int) -> None:
    found, _ = measured(2e-3, cpu_s, 100)
    assert found == [*range(7), *range(7, 100, apart)]
