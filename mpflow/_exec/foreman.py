"""What is to be done when: attempts come in, workers come, fall silent or die, time passes.

How work is given is `giving`, what workers say `hearing`. All of it runs in one thread at a time (see `process`). It never
waits for a worker and posts no outcome itself: it puts them into `outgoing`, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from time import monotonic
from typing import Any

from mpflow._columns import Attempts, Piece, Span, lead, singly
from mpflow._exec import batches, deadline, deaths, outcomes
from mpflow._exec.admission import LOOK_AGAIN_S
from mpflow._exec.crew import GONE, LEAVING, READY, STARTING, Worker
from mpflow._exec.floor import Floor
from mpflow._exec.functions import Spent, Watched
from mpflow._exec.giving import Giving
from mpflow._exec.hearing import Hearing
from mpflow._exec.lending import Lending
from mpflow._exec.mailbox import Mailbox
from mpflow._exec.roster import LEAVE_S, Roster
from mpflow._exec.spawn import Started
from mpflow._messages import CANCELLED, FAILED
from mpflow.errors import PoolClosedError, WorkerLost

STUCK_S = 0.005
"""A task that has run for this long is not tiny: what waits behind it is taken back if another worker is idle."""
_LOOKED_AT = 64
"""Of so many attempts that come together it is noted with how many others they came."""


class Foreman:
    """The queue and the crew, and the rules between them."""

    def __init__(
        self,
        roster: Roster,
        max_tasks: int | None,
        max_rss_bytes: int | None,
        arena_bytes: int,
        ask: Callable[[Callable[[Any], None], Any], None],
    ) -> None:
        self._ask = ask
        """Has one of our methods called when it is our turn."""
        self._floor = Floor(roster, arena_bytes, partial(ask, self._tidy, None))
        self._giving = Giving(self._floor, max_tasks)
        self._lending = Lending(self._floor, self._giving)
        self._hearing = Hearing(self._floor, max_rss_bytes, ask, self._bury, self._take_back)
        self._closing: Mailbox | None = None
        self.outgoing = self._floor.outgoing
        self.calm = self._floor.calm
        self.serve = self._hearing.serve

    # -- what is asked of the pool -------------------------------------------------------------------------------------

    def take_in(self, attempts: Attempts) -> None:
        self._floor.roster.counts["submitted"] += len(attempts)
        if self._closing is not None:
            self._floor.end(attempts, CANCELLED, None)
        else:
            self._make_way(lead(attempts).outbox)
            self._floor.queue.add(attempts)
            self._count(attempts)

    def _count(self, attempts: Attempts) -> None:
        """Note how many tasks are here at once, now that these have come."""
        floor = self._floor
        at_once = len(floor.queue) + sum(len(worker.window) for worker in floor.roster.crew)
        some = [lead(attempts)] if type(attempts) is Span else attempts[:_LOOKED_AT]
        for program in {attempt.program for attempt in some}:
            shipment = floor.parcels.shipments.of(program)
            shipment.at_once = max(shipment.at_once, at_once)

    def _make_way(self, outbox: Any) -> None:
        """Take back what other runs have waiting at the workers for long, when one more begins to queue."""
        if self._floor.queue.has_run(outbox):
            return
        for worker in self._floor.roster.crew:
            if worker.state == READY and worker.is_measured and not worker.taken_back:
                if worker.waiting * worker.mean_s > 2 * batches.SHARED_WINDOW_S:
                    last = worker.window.get(worker.next_number - 1)
                    if last is not None and last.outbox is not outbox:
                        self._take_back(worker, keep=int(batches.SHARED_WINDOW_S / worker.mean_s))

    def cancel(self, request: tuple[frozenset[int], bool]) -> None:
        ids, kill = request
        self._floor.end(self._floor.queue.remove(lambda attempt: id(attempt) in ids), CANCELLED, None)
        for worker in list(self._floor.roster.crew):
            hits = [number for number, attempt in worker.window.items() if id(attempt) in ids]
            if not hits:
                continue
            self._take_back(worker, ids=ids)
            if kill and any(number in worker.window for number in hits):
                # What it has finished by now counts as finished.
                self._hearing.read_all(worker)
                left = [number for number in hits if number in worker.window]
                if left and worker.state != GONE:
                    self._floor.end(list(filter(None, map(worker.window.pop, left))), CANCELLED, None)
                    self._floor.roster.kill(worker, "cancel")

    def close(self, request: tuple[Mailbox, float]) -> None:
        """Begin to end everything; post to the mailbox given when no worker is left."""
        self._closing, grace_s = request
        self._floor.closed = PoolClosedError("it was closed while tasks of a run waited or ran")
        self._floor.end(self._floor.queue.remove(lambda _: True), CANCELLED, None)
        for worker in list(self._floor.roster.crew):
            self._floor.end(singly(self._withdraw(worker)), CANCELLED, None)
            grace = grace_s if worker.window else LEAVE_S
            if grace > 0 and worker.state == READY:
                self._floor.roster.dismiss(worker, grace)
            elif worker.state != LEAVING or grace == 0:
                self._floor.end(singly(worker.window.clear()), CANCELLED, None)
                self._floor.roster.kill(worker, "close")
        self._closed_at_last()

    def _closed_at_last(self) -> None:
        if self._closing is not None and not self._floor.roster.crew and not self._floor.roster.ordered:
            self.outgoing.append((self._closing.post, (CANCELLED, None, None, 0.0)))

    def let_go(self, abandon: Callable[[list[int]], None]) -> None:
        """Have no part any more in the workers that are left: `abandon` is told their process ids."""
        crew = self._floor.roster.crew
        for worker in crew:
            self._floor.end(singly(worker.window.clear()), CANCELLED, None)
        pids = [worker.pid for worker in crew]
        self._floor.roster.let_go()
        abandon(pids)

    def close_arena(self) -> None:
        self._floor.parcels.arena.close()

    def enlist(self, started: Started | BaseException) -> None:
        """Take on a worker that was ordered, or count the failure."""
        self._floor.roster.ordered -= 1
        if isinstance(started, BaseException):
            self._give_up(self._floor.roster.start_failed(f"{type(started).__name__}: {started}"))
            self._closed_at_last()
            return
        worker = self._floor.roster.enlist(started)
        if self._closing is not None:
            self._floor.roster.kill(worker, "close")

    def is_idle(self) -> bool:
        """Whether no attempt is queued or running."""
        queue = self._floor.queue
        return not queue and not queue.apart and not any(worker.window for worker in self._floor.roster.crew)

    def measured(self, program: Any) -> tuple[int, float, int]:
        """See `WorkerPool.measured`."""
        shipment = self._floor.parcels.shipments.of(program)
        return shipment.seen, shipment.mean_s, shipment.batches

    def spent(self, program: Any) -> Spent:
        """See `WorkerPool.spent`."""
        return self._floor.parcels.shipments.of(program).spending()

    def memory(self, program: Any) -> int:
        """See `WorkerPool.memory`."""
        return self._floor.parcels.shipments.of(program).appetite.need_bytes(True)

    def watched(self, program: Any) -> Watched:
        """See `WorkerPool.watched`."""
        return self._floor.parcels.shipments.of(program).watched

    def stats(self) -> dict[str, Any]:
        """See `WorkerPool.stats`."""
        return {
            **self._floor.roster.stats(),
            "queued": len(self._floor.queue) + self._floor.queue.apart,
            "nodes": self._floor.parcels.shipments.traffic(),
        }

    # -- attempts go out -----------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Give work to whoever has room, in the order: attempts that travel alone, idle workers, short windows."""
        if self._closing is not None:
            return
        self._forget_dropped()
        queue, crew = self._floor.queue, self._floor.roster.crew
        if queue and self._floor.callers:
            self._lending.lend()
        if not queue and not queue.apart:
            self._floor.roster.trim(len(self._absent()))
            if self.is_idle():
                self._floor.parcels.rest()
                self._forget_dropped()
            elif len(crew) > 1:
                self._even_out()
            return
        ready = [w for w in crew if w.state == READY and not w.spent and not w.taken_back and not self._is_stalled(w)]
        absent = self._absent()
        busy = sum(1 for w in crew if w.window and w not in absent)
        for worker in ready:
            if queue.alone and worker.is_fresh and busy < self._floor.most:
                lone = self._floor.admission.take_alone(worker)
                if lone is not None:
                    self._giving.give(worker, [lone], is_lone=True)
                    busy += bool(worker.window)
        # A fresh worker that waits for an attempt to take it alone must get its turn.
        limit = self._floor.most - (1 if queue.alone and any(w.is_fresh for w in ready) else 0)
        for worker in ready:
            if (
                busy < limit
                and not worker.window
                and self._floor.admission.clear_way(worker, self._giving.calls_only())
            ):
                self._giving.give(worker, self._giving.next_batch(worker))
                busy += bool(worker.window)
        if limit == self._floor.most:
            self._giving.give_ahead(ready)
        if queue.apart:
            self._floor.roster.alarm(monotonic() + LOOK_AGAIN_S)
        head = queue.head() if self._giving.has_work() else None
        if head is not None or queue.apart:
            shipment = self._floor.parcels.shipments.of(head.program) if head is not None else None
            backlog_s = shipment.mean_s * len(queue) if shipment is not None and shipment.seen else float("inf")
            # One worker is enough to wait for memory.
            waiting = len(queue) + len(queue.alone) + bool(queue.aside)
            self._floor.roster.recruit(waiting, len(queue.alone), busy, backlog_s, self._missing(absent, busy))
        if head is None and not queue.alone:
            self._even_out()

    def _is_stalled(self, worker: Worker) -> bool:
        """Whether `worker` is given nothing but what is below its tasks, if that."""
        return self._floor.stalls.is_held(worker) or worker in self._floor.callers

    def _absent(self) -> set[Worker]:
        """The workers that do nothing until others have done something."""
        stalls, callers = self._floor.stalls, self._floor.callers
        if not stalls:
            return set()
        now = monotonic()
        return {w for w in self._floor.roster.crew if stalls.is_held(w) or callers.is_absent(w, now)}

    def _missing(self, absent: set[Worker], busy: int) -> int:
        """For how many of the absent workers others are to be started."""
        if not absent:
            return 0
        now = monotonic()
        idle = [worker for worker in absent if self._lending.may_lend(worker)]
        # These wait for others, and will be of use again: for a while nobody, then one, stands in for them. Where all of them
        # wait, nothing goes on without.
        still = sum(self._floor.callers.is_still(worker, now) for worker in idle)
        return len(absent) - len(idle) + (min(still, 1) if busy else still)

    def _tidy(self, _: Any) -> None:
        """Drop what was kept for runs that have ended."""
        self._floor.parcels.shelf.tidy()
        self._forget_dropped()

    def _forget_dropped(self) -> None:
        parcels = self._floor.parcels
        if parcels.shelf.dropped or parcels.shipments.dropped:
            values, parcels.shelf.dropped = parcels.shelf.dropped, []
            programs, parcels.shipments.dropped = parcels.shipments.dropped, []
            for worker in self._floor.roster.crew:
                if worker.state == READY and worker.forget(values, programs):
                    self._floor.roster.push(worker)

    # -- attempts come back --------------------------------------------------------------------------------------------

    def _even_out(self) -> None:
        """When a worker is idle and nothing is queued: take back some of what waits at another.

        Half of it, if it is known to be worth the way; all of it behind a task that turned out to be long.
        """
        if not any(w.state == READY and not w.window and not w.spent for w in self._floor.roster.crew):
            return
        if sum(1 for w in self._floor.roster.crew if w.window) >= self._floor.most:
            return
        now = monotonic()
        for worker in self._floor.roster.crew:
            waiting = min(len(worker.window) - 1, worker.waiting)
            if waiting < 1 or worker.state != READY:
                continue
            running = worker.running
            since = worker.started_at if running in worker.window else worker.sent_at
            taken = 0
            if now - since >= STUCK_S:
                taken = self._take_back(worker)
            else:
                self._floor.roster.alarm(max(since, worker.sent_at) + STUCK_S)
                if waiting * worker.mean_s >= batches.UNEVEN_S and not worker.taken_back:
                    taken = self._take_back(worker, keep=waiting // 2)
            if taken:
                self.dispatch()
                return

    def _take_back(self, worker: Worker, keep: int = 0, ids: Collection[int] = ()) -> bool:
        """Queue again what `worker` has not started, but for the next few; cancel those with one of the `ids`."""
        pieces = self._withdraw(worker, keep)
        if ids:
            attempts = singly(pieces)
            self._floor.end([attempt for attempt in attempts if id(attempt) in ids], CANCELLED, None)
            self._floor.queue.put_back([attempt for attempt in attempts if id(attempt) not in ids])
        else:
            self._floor.queue.put_back(pieces)
        return bool(pieces)

    def _withdraw(self, worker: Worker, keep: int = 0) -> list[Piece]:
        """Take what `worker` has not started out of its window, but for the next few."""
        window = worker.window
        if not window:
            return []
        # What it has finished may still be in its socket: it counts as started, or it would run twice.
        first = max(worker.page.last_started + 1, window.first()) + keep
        started = worker.page.take_back(first, worker.next_number)
        before = len(window)
        pieces = window.cut(max(first, started + 1))
        if pieces:
            worker.taken_back = True
            self._floor.roster.counts["taken_back"] += before - len(window)
        return pieces

    def _bury(self, worker: Worker) -> None:
        """Hear its last messages, find out how it died, and place what it held elsewhere."""
        if worker.state == GONE:
            return
        self._hearing.read_all(worker)
        was_starting = worker.state == STARTING or worker.killed_for == "start"
        was_asked = worker.killed_for in ("cancel", "close", "recycle") or worker.leave_by != float("inf")
        death = worker.reap()
        while death is None:
            worker.kill()
            worker.wait_for_end(0.1)
            death = worker.reap()
        blamed, kind, payload = deaths.judge(worker, death)
        if blamed is not None and death.reason == deaths.OUT_OF_MEMORY:
            self._floor.admission.starved(worker, blamed, death.peak_rss_bytes)
        rest = [attempt for attempt in singly(worker.window.clear()) if attempt is not blamed]
        if blamed is not None:
            self._floor.end([blamed], kind, payload)
        if self._closing is not None:
            self._floor.end(rest, CANCELLED, None)
        else:
            self._floor.queue.put_back(rest)
        self._floor.stalls.died(worker)
        self._floor.parcels.arena.forget(worker.pid)
        self.outgoing.append((outcomes.close, worker.mappings))
        self._give_up(self._floor.roster.lost(worker, death, was_starting, was_asked))
        self._closed_at_last()

    def _give_up(self, reason: WorkerLost | None) -> None:
        if reason is not None:
            self._floor.end(self._floor.queue.remove(lambda _: True), FAILED, reason)

    # -- time ----------------------------------------------------------------------------------------------------------

    def strike(self) -> None:
        """Do what is due, and find out what is due next."""
        roster = self._floor.roster
        now = monotonic()
        roster.alarm_at = float("inf")
        for worker in self._floor.stalls.due(now):
            attempt = worker.window.get(worker.running)
            if attempt is not None:
                self._floor.stalls.hold(worker, attempt.outbox)
                self._take_back(worker)
        roster.alarm(self._floor.stalls.next_at())
        roster.alarm(self._floor.callers.next_at(now))
        for worker in list(roster.crew):
            if worker.leave_by <= now:
                self._floor.end(singly(worker.window.clear()), CANCELLED, None)
                roster.kill(worker, "close")
                continue
            roster.alarm(worker.leave_by)
            if worker.window:
                if deadline.due_at(worker, now) <= now and deadline.is_overdue(worker, now):
                    roster.kill(worker, "timeout")
                else:
                    roster.alarm(deadline.due_at(worker, now))
