"""What a run that must be durable lets its processes have: no more than a message a worker beyond what is committed.

A kill of the program repeats what was not committed, so a worker gets its next tasks once the results of its last ones are.
It counts attempts; that commits come before the driver waits again is the loop's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mpflow._exec.batches import GROWTH, LIMIT
from mpflow._messages import CANCELLED, CLOSED_MANY, DONE_MANY, EVENT, FAILED, Attempt, Outbox, Outcome
from mpflow.errors import PoolClosedError, WrongProcessError

if TYPE_CHECKING:
    from mpflow._exec.process import WorkerPool

SINGLE_S = 0.001
"""Tasks that take longer travel one by one."""
MESSAGE_S = 0.003
"""Of quicker ones a worker has so much work at a time: a commit takes a fraction of that, and a kill repeats no more."""


class Portions:
    """The attempts of one run for one pool. Used by the run's driver alone."""

    def __init__(self, pool: WorkerPool, outbox: Outbox) -> None:
        self._pool = pool
        self._outbox = outbox
        self._waiting: deque[Attempt] = deque()
        self._away: set[int] = set()

    def submit(self, attempts: Iterable[Attempt]) -> None:
        """Take attempts for the pool; those that another task waits for must not wait here for its end."""
        called: list[Attempt] = []
        for attempt in attempts:
            (called if attempt.is_called else self._waiting).append(attempt)
        if called:
            self._pool.submit(called)
        self.hand_out()

    def hand_out(self) -> None:
        """Let the pool have what it may. To be called when all that was heard of is durable."""
        if not self._waiting:
            return
        room = self._pool.max_workers * self._size(self._waiting[0]) - len(self._away)
        if room > 0:
            portion = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            self._away.update(map(id, portion))
            try:
                self._pool.submit(portion)
            except (PoolClosedError, WrongProcessError) as error:
                for attempt in (*portion, *self._waiting):
                    self._outbox.post((FAILED, attempt, error, 0.0))
                self._waiting.clear()

    def heard(self, outcomes: Iterable[Outcome]) -> None:
        """These have come: what they end is away no longer."""
        away = self._away
        for kind, ended, _, _ in outcomes:
            if kind in (DONE_MANY, CLOSED_MANY):
                away.difference_update(map(id, ended))
            elif kind != EVENT:
                away.discard(id(ended))

    def cancel(self, attempts: Sequence[Attempt], *, kill: bool) -> None:
        """As `WorkerPool.cancel`."""
        ids = set(map(id, attempts))
        waiting, self._waiting = self._waiting, deque()
        for attempt in waiting:
            if id(attempt) in ids:
                self._outbox.post((CANCELLED, attempt, None, 0.0))
            else:
                self._waiting.append(attempt)
        ids.difference_update(map(id, waiting))
        self._pool.cancel([attempt for attempt in attempts if id(attempt) in ids], kill=kill)

    def _size(self, attempt: Attempt) -> int:
        """How many tasks like this one make a message."""
        seen, mean_s, _ = self._pool.measured(attempt.program)
        if not seen or mean_s >= SINGLE_S:
            return 1
        return max(1, min(int(MESSAGE_S / mean_s) if mean_s > 0 else LIMIT, seen * GROWTH, LIMIT))
