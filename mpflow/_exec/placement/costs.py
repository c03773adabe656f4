"""What a pool costs, as measured with the tasks that were tried on it. Knows no pool: it is told."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from mpflow._exec.placement.decide import Costs


class CostBook:
    """The costs of one pool. The figures that were not measured yet are the defaults of `Costs`."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.is_started = False
        assumed = Costs(workers)
        self.start_s = assumed.start_s
        self.trip_s = assumed.trip_s
        self.task_s = assumed.task_s
        self.bytes_per_s = assumed.bytes_per_s

    def costs(self) -> Costs:
        return Costs(
            self.workers,
            self.start_s,
            self.is_started,
            self.trip_s,
            self.task_s,
            bytes_per_s=self.bytes_per_s,
        )

    def note_trip(self, seconds: float, *, started: bool) -> None:
        """The time from handing over a task to its result, without what the task took itself."""
        if not started:
            self.start_s = max(0.01, seconds)
        elif seconds > 0:
            # The least counts, nearly: what is more was the wait for a worker, or for a processor.
            self.trip_s = min(self.trip_s * 1.1, seconds)
        self.is_started = True

    def transfer_s(self, size_bytes: float) -> float:
        """What carrying so much takes of a worker."""
        return self.task_s + size_bytes / self.bytes_per_s

    def note_bytes(self, count: int, seconds: float) -> None:
        """How long so many bytes took to encode and decode."""
        if count > 1 << 14 and seconds > 0:
            self.bytes_per_s += (count / seconds - self.bytes_per_s) * 0.25


_books: WeakKeyDictionary[Any, CostBook] = WeakKeyDictionary()


def book_of(pool: Any) -> CostBook:
    """The one book of a pool."""
    book = _books.get(pool)
    if book is None:
        book = _books[pool] = CostBook(pool.max_workers)
    return book
