"""What a pool costs, as measured with tasks that were tried on it and with some that do nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from mpflow._columns import Column, Span
from mpflow._exec.placement.clearance import Clearance
from mpflow._exec.placement.decide import Costs
from mpflow._exec.placement.guard import GuardedProgram
from mpflow._exec.program import NodeProgram
from mpflow._messages import CANCELLED, DONE_MANY, Outcome, StepFacts
from mpflow.errors import PoolClosedError, WrongProcessError
from mpflow.runnables.base import coerce

SOUNDING = 2048
"""So many tasks that do nothing tell what a task of a stream costs: of fewer, most travel in small batches. Once a pool, 10 to 20 ms."""
_BESIDE = 16
"""With so many others beside them they still do."""
ROUNDS = 3
"""They are sent again: the first ones meet what was never run before."""


class CostBook:
    """The costs of one pool. The figures that were not measured yet are the defaults of `Costs`."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.is_started = False
        self.is_sounded = False
        self._is_measured = False
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

    def note_nothing(self, parent_s: float, task_s: float) -> None:
        """What a task that does nothing took of this process and of its worker; the least counts."""
        if self._is_measured:
            parent_s, task_s = min(parent_s, self.parent_s), min(task_s, self.task_s)
        self.parent_s, self.task_s, self._is_measured = parent_s, task_s, True

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


class _Known(GuardedProgram):
    """Of a node that need not be looked through."""

    __slots__ = ()

    def _look_again(self) -> None:
        self._clearance = Clearance()


class _Nothings(Column):
    def task(self, position: int) -> Any:
        return None


class _Sounding:
    """Tasks that do nothing, sent as those of a fan-out are. CPU time is what counts: other programs add little to it."""

    def __init__(self, book: CostBook, pool: Any) -> None:
        self._book = book
        self._pool = pool
        self._rounds = ROUNDS
        self._left = 0
        self._program = _Known(NodeProgram("nothing", coerce(nothing), ["n"]), {})
        self._used: tuple[float, int] = 0.0, 0
        self._watched: tuple[float, int] = 0.0, 0

    def begin(self) -> None:
        tasks = _Nothings(self._program, [{"n": 0}] * SOUNDING, StepFacts({}, 0, 0), ())
        tasks.head, tasks.tail, tasks.outbox = "nothing", False, self
        self._left = SOUNDING
        self._used, self._watched = self._look()
        with suppress(PoolClosedError, WrongProcessError):  # then nobody needs to know
            self._pool.submit(Span(tasks, 0, SOUNDING))

    def post(self, outcome: Outcome) -> None:
        """Take an outcome, from whichever thread reads the workers."""
        if outcome[0] is CANCELLED:
            self._rounds = 1
        self._left -= len(outcome[1]) if outcome[0] is DONE_MANY else 1
        if self._left:
            return
        used, watched = self._look()
        ended, calls = used[1] - self._used[1], watched[1] - self._watched[1]
        if ended <= SOUNDING + _BESIDE and calls:  # else it is others that were measured
            self._book.note_nothing((used[0] - self._used[0]) / ended, (watched[0] - self._watched[0]) / calls)
        self._rounds -= 1
        if self._rounds:
            self.begin()

    def _look(self) -> tuple[tuple[float, int], tuple[float, int]]:
        watched = self._pool.watched(self._program)
        return self._pool.used(), (watched.cpu_s, watched.calls)
