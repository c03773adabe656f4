"""Who gets which attempt, and what a worker's messages and silence mean for the attempts it holds.

All of it runs in one thread at a time (see `process`). It never waits for a worker and posts no outcome itself: it puts
them into `outgoing`, in order.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from time import monotonic
from typing import Any

from mpflow._columns import Attempts, Piece, Span, lead, singly
from mpflow._exec import batches, deadline, deaths, link, logs, outcomes
from mpflow._exec.admission import LOOK_AGAIN_S, Admission
from mpflow._exec.calm import SMALL_BYTES, Calm
from mpflow._exec.crew import GONE, LEAVING, READY, STARTING, Worker
from mpflow._exec.functions import Watched
from mpflow._exec.mailbox import Mailbox
from mpflow._exec.outcomes import Deliveries
from mpflow._exec.parcels import Parcels
from mpflow._exec.queues import Queue
from mpflow._exec.roster import LEAVE_S, Roster
from mpflow._exec.spawn import Started
from mpflow._exec.stalls import Stalls
from mpflow._messages import CANCELLED, FAILED, Attempt
from mpflow._wire.errors import ProtocolError
from mpflow.errors import NodeNotPicklableError, WorkerLost

STUCK_S = 0.005
"""A task that has run for this long is not tiny: what waits behind it is taken back if another worker is idle."""


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
        self._roster = roster
        self._ask = ask
        """Has one of our methods called when it is our turn."""
        self._max = roster.max_workers
        self._max_tasks = max_tasks
        self._max_rss = max_rss_bytes
        self._parcels = Parcels(arena_bytes, partial(ask, self._tidy, None))
        self._queue = Queue()
        self._stalls = Stalls(self._queue)
        self._admission = Admission(self._queue, self._parcels.shipments, self._max, roster.counts, self._stalls)
        self.calm = Calm(roster, self._stalls)
        self._closing: Mailbox | None = None
        self.outgoing: Deliveries = deque()

    # -- what is asked of the pool -------------------------------------------------------------------------------------

    def take_in(self, attempts: Attempts) -> None:
        self._roster.counts["submitted"] += len(attempts)
        if self._closing is not None:
            self._end(attempts, CANCELLED, None)
        else:
            self._make_way(lead(attempts).outbox)
            self._queue.add(attempts)

    def _make_way(self, outbox: Any) -> None:
        """Take back what other runs have waiting at the workers for long, when one more begins to queue."""
        if self._queue.has_run(outbox):
            return
        for worker in self._roster.crew:
            if worker.state == READY and worker.is_measured and not worker.taken_back:
                if worker.waiting * worker.mean_s > 2 * batches.SHARED_WINDOW_S:
                    last = worker.window.get(worker.next_number - 1)
                    if last is not None and last.outbox is not outbox:
                        self._take_back(worker, keep=int(batches.SHARED_WINDOW_S / worker.mean_s))

    def cancel(self, request: tuple[frozenset[int], bool]) -> None:
        ids, kill = request
        self._end(self._queue.remove(lambda attempt: id(attempt) in ids), CANCELLED, None)
        for worker in list(self._roster.crew):
            hits = [number for number, attempt in worker.window.items() if id(attempt) in ids]
            if not hits:
                continue
            self._take_back(worker, ids=ids)
            if kill and any(number in worker.window for number in hits):
                # What it has finished by now counts as finished.
                self._read_all(worker)
                left = [number for number in hits if number in worker.window]
                if left and worker.state != GONE:
                    self._end(list(filter(None, map(worker.window.pop, left))), CANCELLED, None)
                    self._roster.kill(worker, "cancel")

    def close(self, request: tuple[Mailbox, float]) -> None:
        """Begin to end everything; post to the mailbox given when no worker is left."""
        self._closing, grace_s = request
        self._end(self._queue.remove(lambda _: True), CANCELLED, None)
        for worker in list(self._roster.crew):
            self._end(singly(self._withdraw(worker)), CANCELLED, None)
            grace = grace_s if worker.window else LEAVE_S
            if grace > 0 and worker.state == READY:
                self._roster.dismiss(worker, grace)
            elif worker.state != LEAVING or grace == 0:
                self._end(singly(worker.window.clear()), CANCELLED, None)
                self._roster.kill(worker, "close")
        self._closed_at_last()

    def _closed_at_last(self) -> None:
        if self._closing is not None and not self._roster.crew and not self._roster.ordered:
            self.outgoing.append((self._closing.post, (CANCELLED, None, None, 0.0)))

    def close_arena(self) -> None:
        self._parcels.arena.close()

    def enlist(self, started: Started | BaseException) -> None:
        """Take on a worker that was ordered, or count the failure."""
        self._roster.ordered -= 1
        if isinstance(started, BaseException):
            self._give_up(self._roster.start_failed(f"{type(started).__name__}: {started}"))
            self._closed_at_last()
            return
        worker = self._roster.enlist(started)
        if self._closing is not None:
            self._roster.kill(worker, "close")

    def is_idle(self) -> bool:
        """Whether no attempt is queued or running."""
        queue = self._queue
        return not queue and not queue.apart and not any(worker.window for worker in self._roster.crew)

    def measured(self, program: Any) -> tuple[int, float, int]:
        """See `WorkerPool.measured`."""
        shipment = self._parcels.shipments.of(program)
        return shipment.seen, shipment.mean_s, shipment.batches

    def watched(self, program: Any) -> Watched:
        """See `WorkerPool.watched`."""
        return self._parcels.shipments.of(program).watched

    def stats(self) -> dict[str, Any]:
        """See `WorkerPool.stats`."""
        return {
            **self._roster.stats(),
            "queued": len(self._queue) + self._queue.apart,
            "nodes": self._parcels.shipments.traffic(),
        }

    # -- attempts go out -----------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Give work to whoever has room, in the order: attempts that travel alone, idle workers, short windows."""
        if self._closing is not None:
            return
        self._forget_dropped()
        queue, crew = self._queue, self._roster.crew
        if not queue and not queue.apart:
            self._roster.trim(len(self._stalls))
            if self.is_idle():
                self._parcels.rest()
                self._forget_dropped()
            elif len(crew) > 1:
                self._even_out()
            return
        stalls = self._stalls
        ready = [w for w in crew if w.state == READY and not w.spent and not w.taken_back and w not in stalls]
        busy = sum(1 for w in crew if w.window and w not in stalls)
        for worker in ready:
            if queue.alone and worker.is_fresh and busy < self._max:
                lone = self._admission.take_alone(worker)
                if lone is not None:
                    self._give(worker, [lone], is_lone=True)
                    busy += bool(worker.window)
        # A fresh worker that waits for an attempt to take it alone must get its turn.
        limit = self._max - (1 if queue.alone and any(w.is_fresh for w in ready) else 0)
        for worker in ready:
            if busy < limit and not worker.window and self._admission.clear_way(worker, self._calls_only()):
                self._give(worker, self._next_batch(worker))
                busy += bool(worker.window)
        if limit == self._max:
            self._give_ahead(ready)
        if queue.apart:
            self._roster.alarm(monotonic() + LOOK_AGAIN_S)
        head = queue.head() if self._has_work() else None
        if head is not None or queue.apart:
            shipment = self._parcels.shipments.of(head.program) if head is not None else None
            backlog_s = shipment.mean_s * len(queue) if shipment is not None and shipment.seen else float("inf")
            # One worker is enough to wait for memory.
            waiting = len(queue) + len(queue.alone) + bool(queue.aside)
            self._roster.recruit(waiting, len(queue.alone), busy, backlog_s, len(stalls))
        if head is None and not queue.alone:
            self._even_out()

    def _give_ahead(self, workers: list[Worker]) -> None:
        """Fill the windows of busy workers, a batch each in turn: of few tasks all get some."""
        while workers:
            open_ones = []
            for worker in workers:
                if self._has_work() and self._has_room(worker):
                    self._give(worker, self._next_batch(worker))
                    open_ones.append(worker)
            workers = open_ones

    def _has_work(self) -> bool:
        """Whether something may be given."""
        return bool(self._queue) and (not self._calls_only() or self._queue.turn_to_called())

    def _calls_only(self) -> bool:
        """While as many callers wait as there may be workers, only what was called may start."""
        return self._stalls.callers >= self._max

    def _has_room(self, worker: Worker) -> bool:
        """Whether a busy worker may be given tasks ahead, so that it need not wait for us between batches."""
        held = len(worker.window)
        if not held or held > 2 * batches.LIMIT or worker.exclusive or worker.state != READY or worker.spent:
            return False
        # What would only lie in a socket, or go through it for want of shared memory, waits here.
        if worker.wants_out or self._parcels.arena.is_full:
            return False
        head = self._queue.head()
        if head is None or not head.rerun_on_loss:
            return False
        shipment = self._parcels.shipments.of(head.program)
        # One long task may wait at a busy worker while there are more for everybody; at the end it is taken back.
        if held > 1 or len(self._queue) <= self._max:
            backlog_s = shipment.mean_s * len(self._queue)
            if held * worker.mean_s >= batches.window_s(backlog_s, self._max, is_shared=self._queue.is_shared):
                return False
        return shipment.seen > 0 and self._admission.admits(worker, head)

    def _next_batch(self, worker: Worker) -> Attempts:
        head = self._queue.head()
        assert head is not None
        shipment = self._parcels.shipments.of(head.program)
        waiting, is_shared = len(self._queue), self._queue.is_shared
        limit = batches.size(shipment.seen, shipment.mean_s, waiting, self._max, is_shared=is_shared)
        if self._max_tasks is not None:
            limit = min(limit, self._max_tasks - worker.given)
        return self._queue.take(limit if head.rerun_on_loss else 1)

    def _give(self, worker: Worker, batch: Attempts, *, is_lone: bool = False) -> None:
        try:
            self._send(worker, batch, is_lone)
        except BaseException:
            # Ctrl-C in the middle of it. What the worker was told is not known: it goes, and nobody is charged.
            held = set(map(id, worker.window.values()))
            self._queue.put_back([attempt for attempt in batch if id(attempt) not in held])
            self._roster.kill(worker, "cancel")
            raise

    def _send(self, worker: Worker, batch: Attempts, is_lone: bool) -> None:
        parcels = self._parcels
        program = lead(batch).program
        try:
            shipment = parcels.program(lead(batch))
        except NodeNotPicklableError as error:
            # So will be the others of this node: one try is enough.
            rest = self._queue.remove(lambda attempt: attempt.program is program)
            self._end([*batch, *rest], FAILED, error)
            return
        copied_bytes = parcels.arena.copied_bytes
        with parcels.arena.scope() as lease:
            inputs = parcels.inputs(batch, shipment, self._queue.head())
        shipment.traffic.shared_out += parcels.arena.copied_bytes - copied_bytes
        for attempt, refusal in inputs.refused:
            self._end([attempt], FAILED, refusal)
        good = inputs.attempts
        is_first = shipment.number not in worker.programs
        if good:
            worker.release()
            worker.drop_files(parcels.arena.take_gone(worker.pid))
            worker.send_batch(inputs, shipment, parcels, lease if inputs.refers else None)
        lease.close()
        if not good:
            return
        self._admission.given(worker, lead(good), is_first)
        worker.exclusive = is_lone or not lead(good).rerun_on_loss
        worker.sent_at = monotonic()
        if self._max_tasks is not None and worker.given >= self._max_tasks:
            worker.spent = True
        if type(good) is not Span and (good[0].timeout_s is not None or good[-1].timeout_s is not None):
            self._roster.alarm(deadline.due_at(worker, worker.sent_at))
        self._roster.push(worker)

    def _tidy(self, _: Any) -> None:
        """Drop what was kept for runs that have ended."""
        self._parcels.shelf.tidy()
        self._forget_dropped()

    def _forget_dropped(self) -> None:
        parcels = self._parcels
        if parcels.shelf.dropped or parcels.shipments.dropped:
            values, parcels.shelf.dropped = parcels.shelf.dropped, []
            programs, parcels.shipments.dropped = parcels.shipments.dropped, []
            for worker in self._roster.crew:
                if worker.state == READY and worker.forget(values, programs):
                    self._roster.push(worker)

    # -- attempts come back --------------------------------------------------------------------------------------------

    def _even_out(self) -> None:
        """When a worker is idle and nothing is queued: take back some of what waits at another.

        Half of it, if it is known to be worth the way; all of it behind a task that turned out to be long.
        """
        if not any(w.state == READY and not w.window and not w.spent for w in self._roster.crew):
            return
        if sum(1 for w in self._roster.crew if w.window) >= self._max:
            return
        now = monotonic()
        for worker in self._roster.crew:
            waiting = len(worker.window) - 1
            if waiting < 1 or worker.state != READY:
                continue
            running = worker.running
            since = worker.started_at if running in worker.window else worker.sent_at
            taken = 0
            if now - since >= STUCK_S:
                taken = self._take_back(worker)
            else:
                self._roster.alarm(max(since, worker.sent_at) + STUCK_S)
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
            self._end([attempt for attempt in attempts if id(attempt) in ids], CANCELLED, None)
            self._queue.put_back([attempt for attempt in attempts if id(attempt) not in ids])
        else:
            self._queue.put_back(pieces)
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
            self._roster.counts["taken_back"] += before - len(window)
        return pieces

    def _bury(self, worker: Worker) -> None:
        """Hear its last messages, find out how it died, and place what it held elsewhere."""
        if worker.state == GONE:
            return
        self._read_all(worker)
        was_starting = worker.state == STARTING or worker.killed_for == "start"
        was_asked = worker.killed_for in ("cancel", "close", "recycle") or worker.leave_by != float("inf")
        death = worker.reap()
        while death is None:
            worker.kill()
            worker.wait_for_end(0.1)
            death = worker.reap()
        blamed, kind, payload = deaths.judge(worker, death)
        if blamed is not None and death.reason == deaths.OUT_OF_MEMORY:
            self._admission.starved(worker, blamed, death.peak_rss_bytes)
        rest = [attempt for attempt in singly(worker.window.clear()) if attempt is not blamed]
        if blamed is not None:
            self._end([blamed], kind, payload)
        if self._closing is not None:
            self._end(rest, CANCELLED, None)
        else:
            self._queue.put_back(rest)
        self._stalls.died(worker)
        self._parcels.arena.forget(worker.pid)
        self.outgoing.append((outcomes.close, worker.mappings))
        self._give_up(self._roster.lost(worker, death, was_starting, was_asked))
        self._closed_at_last()

    def _give_up(self, reason: WorkerLost | None) -> None:
        if reason is not None:
            self._end(self._queue.remove(lambda _: True), FAILED, reason)

    def _end(self, attempts: Sequence[Attempt], kind: int, payload: Any) -> None:
        if attempts:
            self._roster.counts["ended"] += len(attempts)
            self.outgoing.append((outcomes.endings, (kind, deque(attempts), payload)))

    # -- messages come in ----------------------------------------------------------------------------------------------

    def serve(self, fd: int, event: int) -> None:
        """Answer an event on a worker's socket or process."""
        worker = self._roster.by_fd.get(fd)
        if worker is None:
            return
        if fd == worker.pidfd:
            self._bury(worker)
            return
        try:
            if event & select.EPOLLOUT:
                self._roster.push(worker)
            if event & ~select.EPOLLOUT:
                self._read(worker)
        except Exception as error:
            # Frames well cut but not ours inside.
            self._condemn(worker, f"{type(error).__name__}: {error}")
        except BaseException:
            # Ctrl-C between a read and what was to be done with it: the worker's stream is lost, nobody is charged.
            self._roster.kill(worker, "cancel")
            raise

    def _read(self, worker: Worker) -> bool:
        """Take what its socket holds, once; False if there is nothing, or no more to come."""
        frames: list[tuple[int, Any]] | None = None
        try:
            frames = worker.reader.receive(worker.sock)
            for kind, body in frames or ():
                self._hear(worker, kind, body)
        except BlockingIOError:
            return False
        except ProtocolError as error:
            self._condemn(worker, str(error))
            return False
        except ConnectionError:
            frames = None
        is_open = frames is not None
        if not is_open and worker.state != GONE:
            # A process closes its descriptors a moment before its end can be seen.
            if self._roster.unwatch(worker.sock.fileno()) and not worker.wait_for_end(0.05):
                self._condemn(worker, "it closed its socket")
            if worker.pidfd < 0:
                self._bury(worker)
        return is_open

    def _read_all(self, worker: Worker) -> None:
        try:
            while worker.state != GONE and worker.killed_for != "protocol" and self._read(worker):
                pass
        except Exception as error:
            self._condemn(worker, f"{type(error).__name__}: {error}")

    def _condemn(self, worker: Worker, detail: str) -> None:
        """What it sends cannot be trusted any more."""
        self._roster.unwatch(worker.sock.fileno())
        worker.note = detail
        self._roster.kill(worker, "protocol")

    def _hear(self, worker: Worker, kind: int, body: Any) -> None:
        if kind != link.RESULTS or len(body) > SMALL_BYTES:
            self.calm.disturb()
        if kind == link.RESULTS:
            self._take_results(worker, body)
        elif kind == link.EVENT:
            number, event, data = batches.unpack(body)
            attempt = worker.window.get(number)
            if attempt is not None:
                self.outgoing.append((outcomes.event, (self._parcels.codec, attempt, event, data)))
        elif kind == link.ASK:
            number, question, target, data = batches.unpack(body)
            if target == link.CONSUMER:
                self._roster.alarm(self._stalls.began(worker, monotonic()))
            elif target == link.CALL:
                self._stalls.called(worker)
                self._take_back(worker)
            answer = partial(self._answer, worker, question, target)
            self.outgoing.append(
                (outcomes.errand, (self._parcels.codec, worker.window.get(number), target, data, answer))
            )
        elif kind == link.MEMORY:
            number, grown_bytes, is_first = batches.unpack(body)
            attempt = worker.window.get(number)
            if attempt is not None:
                self._parcels.shipments.of(attempt.program).appetite.learn(grown_bytes, is_first)
        elif kind == link.LOG:
            self.outgoing.append((logs.replay, batches.unpack(body)))
        elif kind == link.OUTPUT:
            self.outgoing.append((logs.write, batches.unpack(body)))
        elif kind == link.FILES:
            worker.add_files(batches.unpack(body))
        elif kind == link.DROP_FILES:
            worker.mappings.drop_files(batches.unpack(body))
        elif kind == link.RELEASE:
            self._parcels.arena.release(worker.pid, batches.unpack(body))
        elif kind == link.HELLO:
            worker.baseline_rss = batches.unpack(body)
            self._roster.said_hello(worker)
        elif kind == link.REFUSED:
            worker.note = bytes(body).decode("utf-8", "replace")
        else:
            raise ProtocolError(f"expected a message of a worker, got kind {kind}")

    def _answer(self, worker: Worker, question: int, target: str, data: bytes) -> None:
        """Send an answer. From any thread."""
        self._ask(self._send_answer, (worker, batches.pack((question, data)), target))

    def _send_answer(self, answer: tuple[Worker, bytes, str]) -> None:
        worker, body, target = answer
        if worker.state == GONE:
            return
        if target == link.CONSUMER:
            self._stalls.ended(worker)
        elif target == link.CALL:
            self._stalls.returned(worker)
        worker.writer.add(link.ANSWER, body)
        self._roster.push(worker)

    def _take_results(self, worker: Worker, body: Any) -> None:
        head, tail = batches.part(body)
        (
            rss_bytes, releases, skipped, numbers, times_ns, channel, payloads, whole, failed, tickets, answers, shared,
            figures,
        ) = head  # fmt: skip
        if releases:
            self._parcels.arena.release(worker.pid, releases)
        window = worker.window
        if numbers:
            attempts = window.answered(numbers)
            held = {position: worker.mappings.hold(ticket) for position, ticket in tickets}
            frame = outcomes.Frame(self._parcels.codec, attempts, times_ns, frozenset(failed), held)
            frame.channel, frame.whole, frame.payloads, frame.answers = (
                channel,
                whole,
                list(map(tail.of, payloads)),
                dict(answers),
            )
            self.outgoing.append((outcomes.results, frame))
            window.drop(numbers)
            self._roster.counts["ended"] += len(numbers)
            first = lead(attempts)  # type: ignore[arg-type]  # one that is gone may be None
            if first is not None:
                shipment = self._parcels.shipments.of(first.program)
                shipment.measured(len(numbers), sum(times_ns) / 1e9)
                if figures is not None:
                    shipment.watched.add(*figures)
                shipment.traffic.bytes_in += len(body)
                shipment.traffic.shared_in += shared
            self._roster.did_work()
        if worker.taken_back:
            last = max(skipped[-1:] + numbers[-1:], default=0)
            if last >= worker.next_number - 1:
                worker.taken_back = False
        # Skipped, but never withdrawn by us as far as we know: it goes back to where it came from.
        self._queue.put_back(filter(None, [window.pop(number) for number in skipped if number in window]))
        if not window:
            worker.exclusive = False
            if self._max_rss is not None and rss_bytes > self._max_rss:
                worker.spent = True
            if worker.spent and worker.state == READY:
                self._roster.counts["recycled"] += 1
                worker.killed_for = "recycle"
                self._roster.dismiss(worker, LEAVE_S)
        elif self._max_rss is not None and rss_bytes > self._max_rss:
            worker.spent = True

    # -- time ----------------------------------------------------------------------------------------------------------

    def strike(self) -> None:
        """Do what is due, and find out what is due next."""
        roster = self._roster
        now = monotonic()
        roster.alarm_at = float("inf")
        for worker in self._stalls.due(now):
            attempt = worker.window.get(worker.running)
            if attempt is not None:
                self._stalls.hold(worker, attempt.outbox)
                self._take_back(worker)
        roster.alarm(self._stalls.next_at())
        for worker in list(roster.crew):
            if worker.leave_by <= now:
                self._end(singly(worker.window.clear()), CANCELLED, None)
                roster.kill(worker, "close")
                continue
            roster.alarm(worker.leave_by)
            if worker.window:
                if deadline.due_at(worker, now) <= now and deadline.is_overdue(worker, now):
                    roster.kill(worker, "timeout")
                else:
                    roster.alarm(deadline.due_at(worker, now))
