"""The decision: from what was measured to a place and the sentence that explains it. Pure: no clock, no pool, no thread.

A node's tasks of one moment are taken together. In threads they would be done after so many turns, as long as turns were
seen to take: the whole CPU time where they hold the interpreter's lock, less where they let go of it or wait. In workers
each takes what a task and its transfer take there, and as many run at once as there are workers. Where a node's tasks were
seen to be done by the crowd, in either place, what that took counts instead: it has in it whatever else there is.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

THREAD, PROCESS = "thread", "process"

FREE = 1.3
"""Calls that keep more cores than this busy let go of the interpreter's lock..."""
SLACK = 1.25
"""...and would keep so many more busy on a machine that has nothing else to do."""
GAIN = 0.85
"""Workers must be done in this part of the threads' time before a node moves..."""
LOSS = 1.1
"""...and take this much longer before it moves back: what lies between changes nothing..."""
CONFIRMED = 0.95
"""...unless crowds were seen in both places: then workers must be done in this part of the time, for what threads took long ago
may have been a bad moment, and is seen anew only there."""
CROWD = 8
"""From so many tasks at once on, what they took tells what others will take."""
_NOTABLE_S = 0.001
NO_LOCK = "this Python has no interpreter lock: threads use every core"
MANY = 64
"""So many tasks at once are worth a thought however light they are."""
SETTLED = 4096
"""So many light calls in workers tell what others will take there: the first few thousand meet much for the first time."""


class Figures(NamedTuple):
    """What was measured of a node. Times are in seconds, for one call."""

    calls: int
    cpu_s: float
    wall_s: float
    turn_s: float = 0.0
    """After how long one of several calls in threads ends; 0 if there never were several."""
    sent: int = 0
    away_s: float = 0.0
    bytes: float = 0.0
    here_each_s: float = 0.0
    """After how long one of a crowd in threads was done, the engine's part included; 0 if there was no crowd."""
    away_each_s: float = 0.0
    """The same in workers."""


class Costs(NamedTuple):
    """What a pool costs, as measured; the defaults hold until it was."""

    workers: int
    start_s: float = 0.25
    is_started: bool = False
    trip_s: float = 0.0004
    """From handing over a task that does nothing to having its result."""
    task_s: float = 0.000004
    """What a task in a stream of them costs its worker, beside the node."""
    parent_s: float = 0.000003
    """What it costs this process."""
    bytes_per_s: float = 400e6


class Verdict(NamedTuple):
    """Where a node's tasks should go now, why, and how long they would take in either place (0 where not reckoned)."""

    place: str
    reason: str
    thread_s: float = 0.0
    process_s: float = 0.0


def decide(
    figures: Figures, costs: Costs, tasks: int, *, cores: int, has_gil: bool, place: str, held: str | None
) -> Verdict:
    """Where `tasks` calls of a node, all there at this moment, should run, given that it runs at `place` now.

    `held` is why the node must not leave this process, if it must not.
    """
    if not has_gil:
        return Verdict(THREAD, NO_LOCK)
    if cores < 2 or costs.workers < 2:
        return Verdict(THREAD, "there is one core to run on")
    if not figures.calls and not figures.cpu_s:
        return Verdict(THREAD, "not measured yet")
    computing = f"{ms(figures.cpu_s)} of CPU time a call"
    is_seen = bool(figures.here_each_s) and tasks >= CROWD
    sending_s = costs.trip_s if tasks < 2 else costs.task_s + costs.parent_s
    if figures.cpu_s < sending_s and not is_seen:
        return Verdict(THREAD, f"{computing}; sending a task costs {ms(sending_s)}")
    if held is not None:
        return Verdict(THREAD, f"{computing}, but {held}")
    if tasks < 2:
        return Verdict(THREAD, f"{computing}, but one call at a time: nothing would run beside it")
    if not figures.turn_s and not is_seen:
        return Verdict(THREAD, f"{computing}; how several at once get on was not seen yet")
    thread_s = _thread_time_s(figures, tasks, cores, is_seen=is_seen)
    process_s = process_time_s(figures, costs, tasks)
    reckoned = f"{tasks} at once take {ms(thread_s)} in threads, {ms(process_s)} in {costs.workers} workers"
    is_compared = is_seen and bool(figures.away_each_s)
    if process_s < thread_s * (GAIN if place != PROCESS else CONFIRMED if is_compared else LOSS):
        return Verdict(PROCESS, f"{computing}: {reckoned}", thread_s, process_s)
    return Verdict(THREAD, f"{computing}: {reckoned}; {_why_not(figures, costs, cores)}", thread_s, process_s)


def _thread_time_s(figures: Figures, tasks: int, cores: int, *, is_seen: bool) -> float:
    """How long threads would take over `tasks` calls."""
    lanes = _lanes(figures, cores)
    turns_s = tasks * figures.cpu_s / max(lanes, 1.0)
    if not is_seen:
        return turns_s
    seen_s = tasks * figures.here_each_s
    # What calls compute that take turns is measured each time, a crowd perhaps but once, at a bad moment.
    return min(seen_s, turns_s * SLACK) if 0 < lanes <= FREE and figures.cpu_s >= _NOTABLE_S else seen_s


def _lanes(figures: Figures, cores: int) -> float:
    """How many processors several calls keep busy in threads, if nothing else keeps them from it; 0 if not seen."""
    lanes = figures.cpu_s / figures.turn_s if figures.turn_s else 0.0
    return min(lanes * SLACK, cores) if lanes > FREE else lanes


def _why_not(figures: Figures, costs: Costs, cores: int) -> str:
    lanes = _lanes(figures, cores)
    if lanes > FREE:
        return f"threads keep {lanes:.1f} cores busy"
    if figures.sent and figures.away_s > 1.5 * figures.cpu_s + costs.task_s + 2 * figures.bytes / costs.bytes_per_s:
        return "its calls wait more than they compute"
    return "the transfer eats up the gain"


def process_time_s(figures: Figures, costs: Costs, tasks: int) -> float:
    """How long the pool would take over `tasks` calls, its start included if it is yet to come."""
    start_s = 0.0 if costs.is_started else costs.start_s
    if figures.away_each_s and tasks >= CROWD:
        return tasks * figures.away_each_s + start_s
    # In the CPU time of a call in a thread is the engine's part too, as in what a task that does nothing costs a worker.
    each_s = max(figures.cpu_s, costs.task_s) + 2 * figures.bytes / costs.bytes_per_s
    if figures.sent >= SETTLED or figures.away_s > _NOTABLE_S:
        each_s = figures.away_s
    parent_s = costs.parent_s + figures.bytes / costs.bytes_per_s
    lanes = min(costs.workers, tasks)
    # Few tasks do not divide evenly; of many the last ones hardly count.
    rounds = ceil(tasks / lanes) if tasks < 4 * lanes else tasks / lanes
    return max(rounds * each_s, tasks * parent_s) + costs.trip_s + start_s


def ms(seconds: float) -> str:
    """A time as people read it."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s"
