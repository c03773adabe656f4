"""What a pool costs, as measured with tasks that were tried on it and with some that do nothing."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from mpflow._columns import Column, Span
from mpflow._exec.placement.decide import Costs
from mpflow._exec.placement.guard import GuardedProgram
from mpflow._exec.placement.safety import walk
from mpflow._exec.program import NodeProgram
from mpflow._messages import Outcome, StepFacts, one_by_one
from mpflow.runnables.base import coerce

SOUNDING = 1024
"""So many tasks that do nothing tell what a task costs. Some milliseconds, once a pool."""


class CostBook:
    """The costs of one pool. The figures that were not measured yet are the defaults of `Costs`."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.is_started = False
        self.is_sounded = False
        assumed = Costs(workers)
        self.start_s = assumed.start_s
        self.trip_s = assumed.trip_s
        self.task_s = assumed.task_s
        self.parent_s = assumed.parent_s
        self.bytes_per_s = assumed.bytes_per_s

    def costs(self) -> Costs:
        return Costs(
            self.workers,
            self.start_s,
            self.is_started,
            self.trip_s,
            self.task_s,
            self.parent_s,
            self.bytes_per_s,
        )

    def note_trip(self, seconds: float, *, started: bool) -> None:
        """The time from handing over a task to its result, without what the task took itself."""
        if not started:
            self.start_s = max(0.01, seconds)
        elif seconds > 0:
            # The least counts, nearly: what is more was the wait for a worker, or for a processor.
            self.trip_s = min(self.trip_s * 1.1, seconds)
        self.is_started = True

    def note_bytes(self, count: int, seconds: float) -> None:
        """How long so many bytes took to encode and decode."""
        if count > 1 << 14 and seconds > 0:
            self.bytes_per_s += (count / seconds - self.bytes_per_s) * 0.25

    def sound(self, pool: Any) -> None:
        """Have the pool measured, in the background, unless that was done."""
        if not self.is_sounded:
            self.is_sounded = True
            _Sounding(self, pool).begin()


_books: WeakKeyDictionary[Any, CostBook] = WeakKeyDictionary()


def book_of(pool: Any) -> CostBook:
    """The one book of a pool."""
    book = _books.get(pool)
    if book is None:
        book = _books[pool] = CostBook(pool.max_workers)
    return book


def nothing(task: Any) -> Any:
    return {"n": 1}


class _Nothings(Column):
    def task(self, position: int) -> Any:
        return None


class _Sounding:
    """Tasks that do nothing, sent as those of a fan-out are. CPU time is what counts: it is the same on a busy machine."""

    def __init__(self, book: CostBook, pool: Any) -> None:
        self._book = book
        self._pool = pool
        self._left = SOUNDING
        self._program = GuardedProgram(NodeProgram("nothing", coerce(nothing), ["n"]), walk(nothing).entries)
        self._cpu_s = 0.0
        self._ended = 0

    def begin(self) -> None:
        tasks = _Nothings(self._program, [{"n": 0}] * SOUNDING, StepFacts({}, 0, 0), ())
        tasks.head, tasks.tail, tasks.outbox = "nothing", False, self
        self._cpu_s, self._ended = self._pool.used()
        self._pool.submit(Span(tasks, 0, SOUNDING))

    def post(self, outcome: Outcome) -> None:
        """Take an outcome, from whichever thread reads the workers."""
        self._left -= sum(1 for _ in one_by_one((outcome,)))
        if self._left:
            return
        cpu_s, ended = self._pool.used()
        book = self._book
        if ended - self._ended == SOUNDING:
            book.parent_s = (cpu_s - self._cpu_s) / SOUNDING
        else:  # others were measured too: at the next trial
            book.is_sounded = False
        watched = self._pool.watched(self._program)
        if watched.calls:
            book.task_s = watched.cpu_s / watched.calls
