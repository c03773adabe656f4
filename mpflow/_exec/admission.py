"""Whether a task may start now, for the memory that it and those that run are expected to take.

Owns what is promised to whom and the last look at the memory. It never waits and sends nothing; it moves what must wait
out of the queue's turns. Tasks of nodes that take little are never asked for more than a glance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container
from time import monotonic
from typing import Final, Protocol

from mpflow._columns import Piece
from mpflow._exec.crew import Worker
from mpflow._exec.functions import Shipment, Shipments
from mpflow._exec.queues import Queue
from mpflow._messages import Attempt
from mpflow._wire import memory

LOOK_AGAIN_S: Final = 0.1
"""What waits for memory is considered again after this, if nothing has ended before: others may have freed some."""
PASSED_OVER: Final = 16
"""So many tasks that take less may start before one that waits; then it is the next."""
_FRESH_S: Final = 0.01
_GLANCE_S: Final = 1.0
_AMPLE: Final = 4
"""With so many times as much free as is promised, a look at the memory may be `_GLANCE_S` old."""
_ROOMY_BYTES: Final = 512 << 20
"""With so much for each worker, the first tasks of an unknown node start side by side."""


class Memory(Protocol):
    """What is known of the machine's memory, or the cgroup's."""

    def limit_bytes(self) -> int: ...

    def available_bytes(self) -> int: ...

    def private_bytes(self, pid: int) -> int: ...


class _Promise:
    """What the tasks of a node that a worker was given may take."""

    __slots__ = ("before_bytes", "is_known_there", "least_bytes", "left_bytes", "shipment", "until")

    def __init__(self, shipment: Shipment, is_known_there: bool, least_bytes: int, before_bytes: int) -> None:
        self.shipment = shipment
        self.is_known_there = is_known_there
        self.least_bytes = least_bytes
        """What was assumed while nothing was known."""
        self.before_bytes = before_bytes
        """What the worker held before."""
        self.until = 0
        """It was given tasks of lower numbers."""
        self.left_bytes = self.need_bytes
        """What of it the worker had not taken at the last look."""

    @property
    def need_bytes(self) -> int:
        return max(self.shipment.appetite.need_bytes(self.is_known_there), self.least_bytes)

    def holds(self, worker: Worker) -> bool:
        return bool(worker.window) and worker.window.first() < self.until


class Admission:
    """The promises of one pool. ``absent`` workers wait for others' tasks: they hold memory, but nobody waits for them."""

    def __init__(
        self,
        queue: Queue,
        shipments: Shipments,
        max_workers: int,
        counts: Counter[str],
        absent: Container[Worker],
        source: Memory = memory,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._queue = queue
        self._shipments = shipments
        self._max = max_workers
        self._counts = counts
        self._absent = absent
        self._source = source
        self._clock = clock
        limit_bytes = source.limit_bytes()
        self._reserve_bytes = min(max(limit_bytes // 20, 32 << 20), 1 << 30)
        self._promises: dict[Worker, _Promise] = {}
        self._available_bytes = 0
        self._looked_at = float("-inf")
        self._passed_over: Counter[int] = Counter()
        """By the program of a group that was set aside: how many were let pass."""

    # -- choosing ------------------------------------------------------------------------------------------------------

    def clear_way(self, worker: Worker, called_only: bool) -> bool:
        """Have the queue begin with what `worker` may start, setting aside what must wait; False if there is nothing."""
        queue = self._queue
        for group in list(queue.aside.values()) if queue.aside else ():
            if (group[0].is_called or not called_only) and self.admits(worker, group[0]):
                shipment = self._shipments.of(group[0].program)
                queue.bring_back(group, len(group) if self._is_light(worker, shipment) else 1)
                return True
        while queue.turn_to_called() if called_only else queue:
            head = queue.head()
            assert head is not None
            if self.admits(worker, head):
                return True
            self._counts["held_back"] += queue.set_aside()
        return False

    def take_alone(self, worker: Worker) -> Attempt | None:
        """Take out the first that must travel alone and may start in `worker`."""
        alone = self._queue.alone
        for at, attempt in enumerate(alone):
            if self.admits(worker, attempt):
                del alone[at]
                return attempt
        return None

    def admits(self, worker: Worker, attempt: Piece) -> bool:
        """Whether `worker` may start `attempt`, or one of them, beside what the others were given."""
        shipment = self._shipments.of(attempt.program)
        if self._is_light(worker, shipment):
            return True
        need = shipment.appetite.need_bytes(shipment.number in worker.programs)
        self._drop_kept()
        own = self._promises.get(worker)
        if own is not None and shipment.seen and own.need_bytes >= need:
            return True
        absent = self._absent
        others = [
            promise for holder, promise in self._promises.items() if holder is not worker and holder not in absent
        ]
        if not need:
            if not self._is_tight():
                return True
            if any(promise.shipment is shipment for promise in others):
                return False
            need = self._share_bytes()
        # What runs alone may take all there is: no task waits for ever.
        if not any(promise.need_bytes for promise in others):
            return True
        if any(count >= PASSED_OVER for key, count in self._passed_over.items() if key != id(attempt.program)):
            return False
        return self._fits(worker, need)

    def given(self, worker: Worker, attempt: Piece, is_first: bool) -> None:
        """`worker` was sent `attempt`, or several of them, as the last of its window; ``is_first`` says that it had not run
        the node before."""
        shipment = self._shipments.of(attempt.program)
        appetite = shipment.appetite
        if shipment.seen and not appetite.need_bytes(not is_first):
            return
        least_bytes = 0
        if not shipment.seen and not appetite.need_bytes(not is_first) and self._is_tight():
            least_bytes = self._share_bytes()
        promise = _Promise(shipment, not is_first, least_bytes, 0)
        own = self._promises.get(worker)
        if own is not None and own.holds(worker):
            promise.before_bytes = own.before_bytes
            if own.need_bytes > promise.need_bytes:
                promise = own
        elif promise.need_bytes:
            promise.before_bytes = self._source.private_bytes(worker.pid)
        promise.until = worker.next_number
        self._promises[worker] = promise
        if self._queue.aside and promise.need_bytes:
            self._passed_over.update(self._queue.aside.keys())
            self._passed_over.pop(id(attempt.program), None)

    def starved(self, worker: Worker, attempt: Attempt, peak_bytes: int) -> None:
        """`attempt` has died in `worker` for want of memory. The next try must not meet the same."""
        grown_bytes = max(0, peak_bytes - worker.baseline_rss) if peak_bytes else 0
        self._shipments.of(attempt.program).appetite.starved(grown_bytes, self._source.limit_bytes() // 2)
        self._looked_at = float("-inf")

    @staticmethod
    def _is_light(worker: Worker, shipment: Shipment) -> bool:
        """Whether tasks of the node were seen to take nothing worth counting in a worker like this."""
        return bool(shipment.seen) and not shipment.appetite.need_bytes(shipment.number in worker.programs)

    # -- accounting ----------------------------------------------------------------------------------------------------

    def _drop_kept(self) -> None:
        """Forget the promises to workers that are done with what they were given."""
        ended = [worker for worker, promise in self._promises.items() if not promise.holds(worker)]
        for worker in ended:
            del self._promises[worker]
        if ended and self._available_bytes:
            # What they have given back is there to be seen.
            self._looked_at = min(self._looked_at, self._clock() - _FRESH_S)
        for key in [key for key in self._passed_over if key not in self._queue.aside]:
            del self._passed_over[key]

    def _fits(self, worker: Worker, need: int) -> bool:
        promised = need + sum(promise.need_bytes for holder, promise in self._promises.items() if holder is not worker)
        age_s = self._clock() - self._looked_at
        if age_s < _GLANCE_S and _AMPLE * promised + self._reserve_bytes <= self._available_bytes:
            return True
        if age_s >= _FRESH_S:
            self._look()
        left = need + sum(promise.left_bytes for holder, promise in self._promises.items() if holder is not worker)
        own = self._promises.get(worker)
        if own is not None:
            left -= own.need_bytes - own.left_bytes  # what it has taken for one task serves the next
        return left + self._reserve_bytes <= self._available_bytes

    def _look(self) -> None:
        self._looked_at = self._clock()
        self._available_bytes = self._source.available_bytes()
        for worker, promise in self._promises.items():
            need = promise.need_bytes
            taken = self._source.private_bytes(worker.pid) - promise.before_bytes if need else 0
            promise.left_bytes = min(need, max(0, need - taken))

    def _is_tight(self) -> bool:
        """Whether there is so little for each worker that the first task of an unknown node must run by itself."""
        if self._clock() - self._looked_at >= _GLANCE_S:
            self._look()
        return self._share_bytes() < _ROOMY_BYTES

    def _share_bytes(self) -> int:
        return max(self._available_bytes - self._reserve_bytes, 0) // self._max
