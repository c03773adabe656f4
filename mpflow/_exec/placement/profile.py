"""What is measured of one node's calls, in this process and in workers, as running means. Decides nothing.

Measuring reads two clocks before and after a call, of light nodes only now and then: a task pays well under a microsecond.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow._exec.placement.standing import Standing
    from mpflow._messages import Attempt, Outcome

HEAVY_S = 0.0005
"""From this much CPU time a call on, moving its node is worth a thought at all."""
_LIGHT_S = 0.0001
_EVERY = 8
"""So many first calls are all measured, unless they are over at once."""
_PEEK_S = 0.02

recall: Callable[[Profile, Any], None] | None = None
"""Fills a new profile with what an earlier run of the program learnt of the node's callable, if that is kept."""
Call = tuple["Profile", int, float, float]
"""A call under way: profile, thread, and what the clocks showed at its start."""
running: dict[int, Call] = {}
"""The measured calls under way in this process, by the id of their attempt."""
heavy: dict[int, Call] = {}
"""Those of nodes that are known to take a while."""


class _Period:
    """A time in which heavy calls follow one another without a gap: how many have ended in it."""

    def __init__(self) -> None:
        self.start(0.0)

    def start(self, at: float) -> None:
        self._since = at
        self._ended = 0

    def turn_s(self, now: float, company: int) -> float:
        """Count an end; the time that one call takes of the period, 0 while too few have ended to say."""
        self._ended += 1
        return (now - self._since) / self._ended if self._ended > 2 * company + 2 else 0.0


period = _Period()


class Profile:
    """The figures of one node. Shared by the runs of a graph; a lost update between threads does no harm."""

    __slots__ = (
        "__weakref__",
        "away_cpu_s",
        "away_s",
        "calls",
        "company",
        "cpu_s",
        "encode_s",
        "input_bytes",
        "is_heavy",
        "left",
        "name",
        "output_bytes",
        "proven_as",
        "seen",
        "sent",
        "skip",
        "standing",
        "turn_s",
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
        self.turn_s = 0.0
        """After how long one of several calls under way ends: the time of a call divided by how many there were."""
        self.is_heavy = False
        self.sent = 0
        """Calls that ran in a worker."""
        self.away_s = 0.0
        """What one takes of a worker, decoding and all, less what other programs took of its processor."""
        self.away_cpu_s = 0.0
        self.encode_s = 0.0
        """What one takes of this process to be sent."""
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
        is_heavy = self.is_heavy
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
            turn_s = 0.0
            if is_heavy:
                heavy.pop(key, None)
                company = max(company, len(heavy))
                if company:
                    turn_s = period.turn_s(ended, company) or (ended - started) / (company + 1)
            self.note(ended - started, cpu_s, turn_s)

    def note(self, wall_s: float, cpu_s: float, turn_s: float) -> None:
        """Take in the figures of one call; `turn_s` is 0 where no other heavy one ran beside it."""
        self.seen = seen = self.seen + 1
        self.calls += self.skip + 1
        weight = 1 / seen if seen < _EVERY else 0.125
        self.wall_s += (wall_s - self.wall_s) * weight
        self.cpu_s += (cpu_s - self.cpu_s) * weight
        if turn_s:
            self.company += 1
            self.turn_s += (turn_s - self.turn_s) * max(0.125, 1 / self.company)
        self.settle()
        self.left = self.skip

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

    def note_away(self, cpu_s: float, waited_s: float, aside_s: float, output_bytes: int | None = None) -> None:
        """Take in a call that ran in a worker: what it computed, waited, and what it took of the worker beside that."""
        self.sent = sent = self.sent + 1
        weight = max(0.125, 1 / sent)
        self.away_cpu_s += (cpu_s - self.away_cpu_s) * weight
        self.away_s += (cpu_s + waited_s + aside_s - self.away_s) * weight
        if output_bytes is not None:
            self.output_bytes += (output_bytes - self.output_bytes) * weight

    @property
    def lanes(self) -> float:
        """How many processors its calls keep busy together, in threads; 0 where they were not seen together."""
        return self.cpu_s / self.turn_s if self.company and self.turn_s else 0.0


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
