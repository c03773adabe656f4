"""What a worker runs while a task of its waits: tasks that this one called, or that were called below it.

The parent's side; `waits` is the worker's. A worker is lent what is below its topmost task in the tree of calls, so its
tasks are each below the one that they are on top of. Of all tasks that run, one that is deepest in that tree is therefore
topmost in its worker; if it waits, then for a task that is queued and can be lent to that worker: no pool is too small.
"""

from __future__ import annotations

from typing import Final

from mpflow._exec.crew import READY, Worker
from mpflow._exec.floor import Floor
from mpflow._exec.giving import Giving
from mpflow._messages import Attempt

MOST_LENT: Final = 64
"""So many tasks may be above each other in one worker. What is called beyond goes to another."""


class Lending:
    """Of one pool."""

    def __init__(self, floor: Floor, giving: Giving) -> None:
        self._floor = floor
        self._giving = giving

    def lend(self) -> None:
        """Give what is queued to those who wait for it."""
        for worker in self._floor.callers:
            while self.may_lend(worker) and not worker.taken_back and (batch := self._take(worker)):
                self._giving.give(worker, batch, is_lent=True)

    def may_lend(self, worker: Worker) -> bool:
        """Whether `worker` waits, and would run what is below its tasks."""
        wait = worker.waits.get(worker.window.last())
        # Nobody else's death may be that of a task which must not run twice, or of one that is tried by itself.
        return (
            wait is not None
            and wait.is_open
            and worker.state == READY
            and not worker.exclusive
            and len(worker.window) <= MOST_LENT
        )

    def _take(self, worker: Worker) -> list[Attempt]:
        queue = self._floor.queue
        waiting = worker.window.get(worker.window.last())
        found = queue.find_below(waiting) if waiting is not None else None
        if waiting is None or found is None:
            return []
        at, first = found
        if not self._floor.admission.admits(worker, first):
            return []
        return queue.take_at(at, first, self._giving.most_of(first), waiting)
