"""What is measured of one node's calls, in this process and in workers, as running means. Decides nothing.

Measuring reads two clocks before and after a call, of light nodes only now and then: a task pays well under a microsecond.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

from mpflow._exec.placement.decide import PROCESS, Figures

if TYPE_CHECKING:
    from mpflow._exec.placement.standing import Standing
    from mpflow._messages import Attempt, Outcome

HEAVY_S = 0.0005
"""From this much CPU time a call on, moving its node is worth a thought at all."""
ENOUGH_S = 2.0
"""A node that has computed less, or waited less in workers, is not worth a word on its place."""
_LIGHT_S = 0.0001
_EVERY = 8
"""So many first calls are all measured, unless they are over at once."""
_PEEK_S = 0.02
_FADING = 0.998
_RISING = 1.02
_ALIKE = 0.5

recall: Callable[[Profile, Any], None] | None = None
"""Fills a new profile with what an earlier run of the program learnt of the node's callable, if that is kept."""
Call = tuple["Profile", int, float, float]
"""A call under way: profile, thread, and what the clocks showed at its start."""
running: dict[int, Call] = {}
"""The measured calls under way in this process, by the id of their attempt."""
heavy: dict[int, Call] = {}
"""Those of nodes that are known to take a while."""


class _Period:
    """A time in which heavy calls follow one another without a gap: how many have ended in it, what they computed, and whose."""

    def __init__(self) -> None:
        self.start(0.0)

    def start(self, at: float) -> None:
        self._since = self._until = at
        self._ended = self._company = 0
        self._cpu_s = 0.0
        self._members: set[Profile] = set()

    def end(self, profile: Profile, at: float, cpu_s: float, company: int, *, is_last: bool = False) -> float:
        """Take in an end, perhaps the last; how many processors were busy in the period, 0 while that cannot be said.

        While others run, what has ended tells little of what they computed meanwhile, unless it was much more. The first
        call of a node is taken for a heavy one: where it was none, it only makes the others harder to judge.
        """
        self._company = max(self._company, company)
        if cpu_s >= HEAVY_S:
            self._ended += 1
            self._cpu_s += cpu_s
            self._until = at
            self._members.add(profile)
        is_known = self._ended > self._company > 0 if is_last else company and self._ended > 2 * company + 2
        return self._cpu_s / (self._until - self._since) if is_known and self._until > self._since else 0.0

    def close(self, lanes: float) -> None:
        """It is over: what is known of the whole goes for each of the nodes that took part in it."""
        for profile in self._members:
            profile.note_company(lanes)
        self._members.clear()


period = _Period()


SURE = 3
"""So many crowds in workers tell how they do there: one may have had a bad moment..."""
SURE_S = 0.1
"""...unless it took longer than moments do."""


class Pace:
    """After how long one of a crowd is done at one place: the best lately, since what else the machine does only adds."""

    __slots__ = ("count", "cpu_s", "each_s", "taken_s")

    def __init__(self) -> None:
        self.count = 0
        self.taken_s = 0.0
        """How long all crowds that were seen took together."""
        self.each_s = 0.0
        """0 if no crowd was seen."""
        self.cpu_s = 0.0
        """What a call of the first of them computed."""

    def is_of(self, cpu_s: float) -> bool:
        """Whether calls that compute for `cpu_s` are like those that were seen."""
        return abs(cpu_s - self.cpu_s) <= max(_ALIKE * self.cpu_s, _LIGHT_S)

    @property
    def is_sure(self) -> bool:
        return self.count >= SURE or self.taken_s >= SURE_S

    def note(self, each_s: float, cpu_s: float, taken_s: float) -> None:
        self.count += 1
        self.taken_s += taken_s
        if self.each_s:
            self.each_s = min(self.each_s * _RISING, each_s)
        else:
            self.each_s, self.cpu_s = each_s, cpu_s


class Profile:
    """The figures of one node. Shared by the runs of a graph; a lost update between threads does no harm."""

    __slots__ = (
        "__weakref__",
        "_away_sum_s",
        "_sum_s",
        "away_cpu_s",
        "away_pace",
        "away_s",
        "best_lanes",
        "calls",
        "company",
        "cpu_s",
        "here_pace",
        "input_bytes",
        "is_heavy",
        "last_lanes",
        "left",
        "name",
        "output_bytes",
        "proven_as",
        "seen",
        "sent",
        "skip",
        "standing",
        "wall_s",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.left = 0
        """Calls until the next one is measured."""
        self.skip = 0
        self.seen = 0
        """Calls that were measured."""
        self.calls = 0
        """Calls here, those between two measured ones included."""
        self.wall_s = 0.0
        self.cpu_s = 0.0
        self.company = 0
        """Calls measured while other heavy ones ran beside them."""
        self.last_lanes = 0.0
        """How many processors they kept busy together, lately."""
        self.best_lanes = 0.0
        """The most processors that its calls were seen to keep busy for a while; it fades."""
        self.is_heavy = False
        self.sent = 0
        """Calls that ran in a worker."""
        self.away_s = 0.0
        """What one takes of a worker, decoding and all, less what other programs took of its processor."""
        self.away_cpu_s = 0.0
        """What one computes there by itself."""
        self._sum_s = self._away_sum_s = 0.0
        self.forget_paces()
        self.input_bytes = 0.0
        self.output_bytes = 0.0
        self.proven_as: str | None = None
        """What the walk found when the node was tried by an earlier run of the program."""
        self.standing: Standing | None = None
        """What is known of its fitness to move, once that was worth finding out."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Profile, (self.name,)

    def measure(self, perform: Callable[[Attempt], Outcome], attempt: Attempt) -> Outcome:
        """Perform an attempt between two looks at the clocks."""
        self.left = self.skip
        key = id(attempt)
        is_heavy = self.is_heavy or not self.seen
        company = len(heavy) if is_heavy else 0
        cpu_s = thread_time()
        started = perf_counter()
        call = self, threading.get_ident(), started, cpu_s
        running[key] = call
        if is_heavy:
            if not company:
                period.start(started)
            heavy[key] = call
        try:
            return perform(attempt)
        finally:
            ended = perf_counter()
            cpu_s = thread_time() - cpu_s
            del running[key]
            self.note(ended - started, cpu_s)
            if is_heavy:
                heavy.pop(key, None)
                company = max(company, len(heavy))
                is_last = not heavy
                lanes = period.end(self, ended, cpu_s, company, is_last=is_last)
                if lanes and is_last:
                    period.close(lanes)
                elif lanes:
                    self.note_company(lanes)

    def note(self, wall_s: float, cpu_s: float) -> None:
        """Take in the figures of one call."""
        self.seen = seen = self.seen + 1
        self._sum_s += cpu_s
        self.calls += self.skip + 1
        weight = 1 / seen if seen < _EVERY else 0.125
        self.wall_s += (wall_s - self.wall_s) * weight
        self.cpu_s += (cpu_s - self.cpu_s) * weight
        self.settle()
        self.left = self.skip

    def note_company(self, lanes: float) -> None:
        """Take in how many processors it kept busy together with other heavy calls."""
        self.company += 1
        self.last_lanes += (lanes - self.last_lanes) * max(0.125, 1 / self.company)
        self.best_lanes = max(self.best_lanes * _FADING, lanes)

    def settle(self) -> None:
        """Draw the conclusions for how often to measure."""
        self.is_heavy = self.cpu_s >= HEAVY_S
        if self.wall_s < _LIGHT_S:  # whatever else it did, it was soon over: each look is dearer than the last
            self.skip = min(2 * self.skip + 1, 31)
        elif self.is_heavy or self.seen < _EVERY:
            # Of heavy ones each is measured: how many there are at once is part of the figures.
            self.skip = 0
        else:
            self.skip = 3 if self.cpu_s > _LIGHT_S else 31

    def note_away(self, calls: int, own_s: float, taken_s: float) -> None:
        """Take in calls that ran in workers: what they computed by themselves, and what they took of the workers."""
        weight = calls / (calls + min(self.sent, _EVERY))
        self.sent += calls
        self._away_sum_s += own_s
        self.away_cpu_s += (own_s / calls - self.away_cpu_s) * weight
        self.away_s += (taken_s / calls - self.away_s) * weight

    def used(self, place: str) -> tuple[int, float]:
        """How many of its calls at a place were measured so far, and what they computed together."""
        return (self.sent, self._away_sum_s) if place is PROCESS else (self.seen, self._sum_s)

    def note_crowd(self, place: str, each_s: float, cpu_s: float, taken_s: float) -> None:
        """Take in a crowd that took `taken_s`: after how long one of it was done, of calls that computed for `cpu_s` each."""
        pace = self.away_pace if place is PROCESS else self.here_pace
        if pace.each_s and not pace.is_of(cpu_s):  # they have become others, and what was seen of them says nothing
            self.forget_paces()
            pace = self.away_pace if place is PROCESS else self.here_pace
        pace.note(each_s, cpu_s, taken_s)

    def forget_paces(self) -> None:
        self.here_pace, self.away_pace = Pace(), Pace()

    def figures(self) -> Figures:
        """The figures to decide with: those of the place where the node runs now."""
        standing = self.standing
        cpu_s, lanes = self.cpu_s, self.lanes
        turn_s = cpu_s / lanes if lanes else 0.0
        if self.sent and cpu_s and standing is not None and standing.place is PROCESS:
            # Threads have not run it lately: they would take as much more as it computes more.
            turn_s *= self.away_cpu_s / cpu_s
            cpu_s = self.away_cpu_s
        moved_bytes = self.input_bytes + self.output_bytes
        return Figures(
            self.calls,
            cpu_s,
            self.wall_s,
            turn_s,
            self.sent,
            self.away_s,
            moved_bytes,
            self.here_pace.each_s,
            self.away_pace.each_s if self.away_pace.is_sure else 0.0,
        )

    @property
    def spent_s(self) -> float:
        """What all calls here have computed, those that were not measured included."""
        return self.calls * self.cpu_s

    @property
    def moves(self) -> bool:
        """Whether its next tasks are for workers, as things stand."""
        standing = self.standing
        if standing is None or not standing.proven:
            return False
        return standing.place is PROCESS or (standing.verdict is not None and standing.verdict.place is PROCESS)

    @property
    def lanes(self) -> float:
        """How many processors its calls keep busy together, in threads; 0 where they were not seen together.

        Calls that hold the interpreter's lock keep one busy at most, whatever else the machine does. Those that let go of it
        keep more busy if they can: what they reached once counts.
        """
        if not self.company:
            return 0.0
        return max(self.last_lanes, self.best_lanes)


def peek(profiles: set[Profile]) -> None:
    """Look at the first calls of these nodes while they run: one that takes long must not go unnoticed until it ends."""
    import time

    if not hasattr(time, "pthread_getcpuclockid"):
        return
    now = perf_counter()
    calls = [call for call in list(running.values()) if call[0] in profiles and not call[0].seen]
    for profile, thread, started, before_s in calls:
        if now - started < _PEEK_S:
            continue
        try:
            used_s = time.clock_gettime(time.pthread_getcpuclockid(thread))
        except OSError:  # the thread has ended
            continue
        cpu_s = used_s - before_s
        if cpu_s > profile.cpu_s:
            profile.cpu_s, profile.wall_s = cpu_s, now - started
            profile.is_heavy = cpu_s >= HEAVY_S
