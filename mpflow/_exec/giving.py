"""Which worker is given which attempts, and how they are sent."""

from __future__ import annotations

from time import monotonic

from mpflow._columns import Attempts, Piece, Span, lead
from mpflow._exec import batches, deadline
from mpflow._exec.crew import READY, Worker
from mpflow._exec.floor import Floor
from mpflow._messages import FAILED
from mpflow.errors import NodeNotPicklableError


class Giving:
    """What is queued goes to the workers named: idle ones first, then ahead, into short windows."""

    def __init__(self, floor: Floor, max_tasks: int | None) -> None:
        self._floor = floor
        self._max_tasks = max_tasks

    def give_ahead(self, workers: list[Worker]) -> None:
        """Fill the windows of busy workers, a batch each in turn: of few tasks all get some."""
        while workers:
            open_ones = []
            for worker in workers:
                if self.has_work() and self._has_room(worker):
                    self.give(worker, self.next_batch(worker))
                    open_ones.append(worker)
            workers = open_ones

    def has_work(self) -> bool:
        """Whether something may be given."""
        return bool(self._floor.queue) and (not self.calls_only() or self._floor.queue.turn_to_called())

    def calls_only(self) -> bool:
        """While as many callers wait as there may be workers, only what was called may start."""
        return len(self._floor.callers) >= self._floor.most

    def _has_room(self, worker: Worker) -> bool:
        """Whether a busy worker may be given tasks ahead, so that it need not wait for us between batches."""
        queue, held = self._floor.queue, len(worker.window)
        if not held or held > 2 * batches.LIMIT or worker.exclusive or worker.state != READY or worker.spent:
            return False
        # What would only lie in a socket, or go through it for want of shared memory, waits here.
        if worker.wants_out or self._floor.parcels.arena.is_full:
            return False
        head = queue.head()
        if head is None or not head.rerun_on_loss:
            return False
        shipment = self._floor.parcels.shipments.of(head.program)
        if held >= shipment.seen * batches.GROWTH:  # what is learnt from these makes larger batches of the others
            return False
        # One long task may wait at a busy worker while there are more for everybody; at the end it is taken back.
        if held > 1 or len(queue) <= self._floor.most:
            backlog_s = shipment.mean_s * len(queue)
            if held * worker.mean_s >= batches.window_s(backlog_s, self._floor.most, is_shared=queue.is_shared):
                return False
        return self._floor.admission.admits(worker, head)

    def next_batch(self, worker: Worker) -> Attempts:
        head = self._floor.queue.head()
        assert head is not None
        limit = self.most_of(head)
        if self._max_tasks is not None:
            limit = min(limit, self._max_tasks - worker.given)
        return self._floor.queue.take(limit)

    def most_of(self, head: Piece) -> int:
        """How many tasks like `head`, which is queued, go into a batch."""
        shipment, queue = self._floor.parcels.shipments.of(head.program), self._floor.queue
        if not head.rerun_on_loss or (shipment.called and shipment.calls_often):
            return 1
        return batches.size(shipment.seen, shipment.mean_s, len(queue), self._floor.most, is_shared=queue.is_shared)

    def give(self, worker: Worker, batch: Attempts, *, is_lone: bool = False, is_lent: bool = False) -> None:
        try:
            self._send(worker, batch, is_lone, is_lent)
        except BaseException:
            # Ctrl-C in the middle of it. What the worker was told is not known: it goes, and nobody is charged.
            held = set(map(id, worker.window.values()))
            self._floor.queue.put_back([attempt for attempt in batch if id(attempt) not in held])
            self._floor.roster.kill(worker, "cancel")
            raise

    def _send(self, worker: Worker, batch: Attempts, is_lone: bool, is_lent: bool) -> None:
        parcels = self._floor.parcels
        program = lead(batch).program
        try:
            shipment = parcels.program(lead(batch))
        except NodeNotPicklableError as error:
            # So will be the others of this node: one try is enough.
            rest = self._floor.queue.remove(lambda attempt: attempt.program is program)
            self._floor.end([*batch, *rest], FAILED, error)
            return
        copied_bytes = parcels.arena.copied_bytes
        with parcels.arena.scope() as lease:
            inputs = parcels.inputs(batch, shipment, self._floor.queue.head())
        shipment.traffic.shared_out += parcels.arena.copied_bytes - copied_bytes
        for attempt, refusal in inputs.refused:
            self._floor.end([attempt], FAILED, refusal)
        good = inputs.attempts
        is_first = shipment.number not in worker.programs
        if good:
            worker.release()
            worker.drop_files(parcels.arena.take_gone(worker.pid))
            worker.send_batch(inputs, shipment, parcels, lease if inputs.refers else None, is_lent=is_lent)
        lease.close()
        if not good:
            return
        self._floor.admission.given(worker, lead(good), is_first)
        worker.exclusive = is_lone or not lead(good).rerun_on_loss
        worker.sent_at = monotonic()
        if self._max_tasks is not None and worker.given >= self._max_tasks:
            worker.spent = True
        if type(good) is not Span and (good[0].timeout_s is not None or good[-1].timeout_s is not None):
            self._floor.roster.alarm(deadline.due_at(worker, worker.sent_at))
        self._floor.roster.push(worker)
