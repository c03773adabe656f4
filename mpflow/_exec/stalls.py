"""Workers that wait for a consumer to take what a task said; and, with `callers`, for the tasks that a task called.

A task may say only so much that nobody has taken yet, then it stands still. A worker that has stood so for a while counts as absent: the tasks behind it go elsewhere, another worker may be started in
its place, and what else its run has queued stays queued, or one consumer who never reads would take the whole pool.
"""

from __future__ import annotations

from typing import Any

from mpflow._exec.callers import Callers
from mpflow._exec.crew import Worker
from mpflow._exec.queues import Queue

PATIENCE_S = 0.05
"""A consumer that takes chunks at all does so within this."""


class Stalls:
    """The workers of one pool that wait for their consumers."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._since: dict[Worker, float] = {}
        self._held: dict[Worker, Any] = {}
        """Stalled workers, with the outbox of the run that is held for each."""
        self.callers = Callers()

    def __contains__(self, worker: object) -> bool:
        """Whether what `worker` runs waits for others."""
        return worker in self._held or (isinstance(worker, Worker) and self.callers.waits(worker))

    def __len__(self) -> int:
        return len(self._held.keys() | set(self.callers))

    def is_held(self, worker: Worker) -> bool:
        """Whether `worker` waits for a consumer for so long that it counts as absent."""
        return worker in self._held

    def died(self, worker: Worker) -> None:
        self.ended(worker)
        self.callers.died(worker)

    def began(self, worker: Worker, now: float) -> float:
        """`worker` asks its consumer to take what it said; when to look again."""
        self._since.setdefault(worker, now)
        return now + PATIENCE_S

    def due(self, now: float) -> list[Worker]:
        """The workers that have waited for too long, and do not count as absent yet."""
        return [worker for worker in self._since if self._due_at(worker) <= now]

    def next_at(self) -> float:
        """When the next of them will have; infinite if there is none."""
        return min(map(self._due_at, self._since), default=float("inf"))

    def _due_at(self, worker: Worker) -> float:
        return float("inf") if worker in self._held else self._since[worker] + PATIENCE_S

    def hold(self, worker: Worker, outbox: Any) -> None:
        """Let `worker` count as absent, and hold what its run has queued."""
        self._held[worker] = outbox
        self._queue.hold(outbox)

    def ended(self, worker: Worker) -> None:
        """`worker`'s consumer has taken what it said."""
        self._since.pop(worker, None)
        outbox = self._held.pop(worker, None)
        if outbox is not None and not any(held is outbox for held in self._held.values()):
            self._queue.let_go(outbox)
