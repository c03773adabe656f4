"""Who gets which attempt, when another worker is needed, and what a worker's messages and silence mean.

All of it runs in one thread at a time (see `process`). It never waits for a worker, posts no outcome itself (it puts
them into `outgoing`, in order) and leaves the judgement over the dead to `deaths`.
"""

from __future__ import annotations

import contextlib
import select
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from mpflow._exec import batches, deaths, link, logs, outcomes
from mpflow._exec.crew import GONE, LEAVING, READY, STARTING, Worker
from mpflow._exec.facts import encode_facts
from mpflow._exec.functions import Shipments
from mpflow._exec.outcomes import Deliveries
from mpflow._exec.queues import Queue
from mpflow._exec.spawn import Started
from mpflow._messages import CANCELLED, FAILED, Attempt, StepFacts, WorkerDeath
from mpflow._wire.codec import Codec, EncodeError
from mpflow._wire.errors import ProtocolError
from mpflow.errors import EngineUnhealthy, NodeNotPicklableError, WorkerStartError

STUCK_S = 0.005
"""A task that has run for this long is not tiny: what waits behind it is taken back if another worker is idle."""
BACKSTOP_S = 0.25
LEAVE_S = 1.0
START_S = 0.05
"""What a worker costs to start. Less work than this for each worker at hand does not call for another."""
FAILED_STARTS = 3
UNHEALTHY = 5
_KEPT_FACTS = 64


class Foreman:
    """The queue, the crew, and the rules between them."""

    def __init__(
        self,
        max_workers: int,
        epoll: Any,
        order: Callable[[int], None],
        worker_init: Callable[[], Any] | None,
        max_tasks: int | None,
        max_rss_bytes: int | None,
    ) -> None:
        self._max = max_workers
        self._epoll = epoll
        self._order = order
        self._worker_init = worker_init
        self._max_tasks = max_tasks
        self._max_rss = max_rss_bytes
        self._setup: bytes | None = None
        self._codec = Codec(trust=True)
        self._queue = Queue()
        self._shipments = Shipments()
        self._facts: dict[int, tuple[StepFacts, int]] = {}
        self._facts_data: dict[int, bytes] = {}
        self._facts_count = 0
        self.crew: list[Worker] = []
        self._by_fd: dict[int, Worker] = {}
        self._ordered = 0
        self._failed_starts: list[str] = []
        self._idle_deaths: list[WorkerDeath] = []
        self._closing: Any = None
        self.outgoing: Deliveries = deque()
        self.alarm_at = float("inf")
        self._counts = dict.fromkeys(
            ("started", "deaths", "recycled", "submitted", "ended", "taken_back", "bytes_in", "bytes_out"), 0
        )

    # -- what is asked of the pool -------------------------------------------------------------------------------------

    def take_in(self, attempts: Sequence[Attempt]) -> None:
        self._counts["submitted"] += len(attempts)
        if self._closing is not None:
            self._end_all(attempts, CANCELLED, None)
            return
        self._queue.add(attempts)

    def cancel(self, request: tuple[frozenset[int], bool]) -> None:
        ids, kill = request
        self._end_all(self._queue.remove(lambda attempt: id(attempt) in ids), CANCELLED, None)
        for worker in list(self.crew):
            hits = [number for number, attempt in worker.window.items() if id(attempt) in ids]
            if not hits:
                continue
            self._take_back(worker, lambda attempt: id(attempt) in ids)
            if kill and any(number in worker.window for number in hits):
                # What it has finished by now counts as finished.
                self._read_all(worker)
                left = [number for number in hits if number in worker.window]
                if left and worker.state != GONE:
                    self._end_all([worker.window.pop(number) for number in left], CANCELLED, None)
                    self._kill(worker, "cancel")

    def close(self, request: tuple[Any, float]) -> None:
        done, grace_s = request
        self._closing = done
        self._end_all(self._queue.remove(lambda _: True), CANCELLED, None)
        for worker in list(self.crew):
            self._take_back(worker, lambda _: True)
            if not worker.window or worker.state == STARTING:
                grace = LEAVE_S if worker.state != STARTING else 0.0
            else:
                grace = grace_s
            if grace > 0:
                self._dismiss(worker, grace)
            else:
                self._end_all(list(worker.window.values()), CANCELLED, None)
                worker.window.clear()
                self._kill(worker, "close")
        self._closed_at_last()

    def _closed_at_last(self) -> None:
        if self._closing is not None and not self.crew and not self._ordered:
            self.outgoing.append((self._closing.post, (CANCELLED, None, None, 0.0)))

    def is_idle(self) -> bool:
        queue = self._queue
        return not queue and not queue.alone and not any(worker.window for worker in self.crew)

    def stats(self) -> dict[str, Any]:
        live = [worker for worker in self.crew if worker.state in (STARTING, READY)]
        return {
            **self._counts,
            "bytes_in": self._counts["bytes_in"] + sum(worker.reader.received for worker in self.crew),
            "bytes_out": self._counts["bytes_out"] + sum(worker.writer.sent for worker in self.crew),
            "queued": len(self._queue) + len(self._queue.alone),
            "workers": len(live),
            "pids": [worker.pid for worker in live],
            "running": {
                worker.pid: attempt.program.name
                for worker in live
                if (attempt := worker.window.get(worker.running)) is not None
            },
        }

    # -- workers come and go -------------------------------------------------------------------------------------------

    def enlist(self, started: Started | BaseException) -> None:
        """Take on a worker that was ordered, or count the failure."""
        self._ordered -= 1
        if isinstance(started, BaseException):
            self._start_failed(f"{type(started).__name__}: {started}")
            self._closed_at_last()
            return
        worker = Worker(started, monotonic())
        self._counts["started"] += 1
        self.crew.append(worker)
        try:
            self._epoll.register(worker.sock.fileno(), select.EPOLLIN)
            self._by_fd[worker.sock.fileno()] = worker
            if worker.pidfd >= 0:
                self._epoll.register(worker.pidfd, select.EPOLLIN)
                self._by_fd[worker.pidfd] = worker
            if self._setup is None:
                self._setup = batches.pack((self._init_data(), self._max_rss is not None))
        except Exception as error:
            worker.note = f"{type(error).__name__}: {error}"
            self._kill(worker, "start")
            return
        if self._closing is not None:
            self._kill(worker, "close")
            return
        worker.writer.add(link.SETUP, self._setup)
        self._push(worker)

    def _init_data(self) -> bytes | None:
        if self._worker_init is None:
            return None
        from mpflow._wire import pickling

        return pickling.dumps(self._worker_init)

    def _start_failed(self, detail: str) -> None:
        self._failed_starts.append(detail)
        if len(self._failed_starts) >= FAILED_STARTS and not self._alive():
            # Nobody is left to run anything, and trying on would be a spawn loop.
            attempts = self._queue.remove(lambda _: True)
            error = WorkerStartError(len(self._failed_starts), self._failed_starts[-1])
            self._end_all(attempts, FAILED, error)
            self._failed_starts.clear()

    def _alive(self) -> int:
        return sum(1 for worker in self.crew if worker.state in (STARTING, READY) and not worker.spent)

    def _recruit(self, busy: int) -> None:
        """Order workers if the work at hand is worth their start."""
        queue = self._queue
        waiting = len(queue) + len(queue.alone)
        alive = self._alive() + self._ordered
        if not waiting or len(self._failed_starts) >= FAILED_STARTS:
            return
        want = min(self._max, busy + waiting)
        head = queue.head()
        if alive and head is not None and want > alive:
            shipment = self._shipments.of(head.program)
            if shipment.seen and shipment.mean_s * len(queue) / alive < START_S:
                want = alive
        is_fresh_coming = self._ordered or any(w.is_fresh and w.state in (STARTING, READY) for w in self.crew)
        if (queue.alone or self._counts["deaths"]) and not is_fresh_coming:
            # After a death a spare stands by, so that the next one costs no start.
            want = max(want, min(alive, self._max) + 1)
            if queue.alone and alive > self._max:
                used = [w for w in self.crew if w.state == READY and not w.window and not w.spent]
                if used:
                    self._dismiss(used[0], LEAVE_S)
                    alive -= 1
        if want > alive:
            count = want - alive
            self._ordered += count
            self._order(count)

    def _dismiss(self, worker: Worker, grace_s: float) -> None:
        """Have it end when it has done what it was given."""
        worker.state = LEAVING
        worker.leave_by = monotonic() + grace_s
        worker.writer.add(link.CLOSE)
        self._push(worker)
        self._alarm(worker.leave_by)

    def _kill(self, worker: Worker, why: str) -> None:
        if worker.state == GONE:
            return
        if not worker.killed_for:
            worker.killed_for = why
        worker.state = LEAVING
        worker.leave_by = float("inf")
        worker.kill()
        if worker.pidfd < 0:
            self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        """Hear its last messages, find out how it died, and place what it held elsewhere."""
        if worker.state == GONE:
            return
        if worker.killed_for != "protocol":
            self._read_all(worker)
        death = worker.reap()
        while death is None:
            worker.kill()
            worker.wait_for_end(0.1)
            death = worker.reap()
        was_starting = worker.state == STARTING or worker.killed_for == "start"
        blamed, kind, payload = deaths.judge(worker, death)
        rest = list(worker.window.values())
        worker.window.clear()
        if blamed is not None:
            rest.remove(blamed)
            self._end_all([blamed], kind, payload)
        if self._closing is not None:
            self._end_all(rest, CANCELLED, None)
        else:
            self._queue.put_back(rest)
        self._forget(worker)
        if worker.killed_for in ("cancel", "close", "recycle") or worker.leave_by != float("inf"):
            pass
        elif was_starting:
            self._counts["deaths"] += 1
            self._idle_deaths.append(death)
            self._start_failed(worker.note or str(death))
        else:
            self._counts["deaths"] += 1
            if worker.starts:
                self._idle_deaths.clear()
            else:
                self._idle_deaths.append(death)
        if len(self._idle_deaths) >= UNHEALTHY:
            self._end_all(self._queue.remove(lambda _: True), FAILED, EngineUnhealthy(self._idle_deaths))
            self._idle_deaths.clear()
        self._closed_at_last()

    def _forget(self, worker: Worker) -> None:
        for fd in (worker.sock.fileno(), worker.pidfd):
            if fd >= 0 and self._by_fd.pop(fd, None) is not None:
                with contextlib.suppress(OSError):
                    self._epoll.unregister(fd)
        self._counts["bytes_in"] += worker.reader.received
        self._counts["bytes_out"] += worker.writer.sent
        self.crew.remove(worker)
        worker.close()

    # -- attempts go out -----------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Give work to whoever has room, in the order: attempts that travel alone, idle workers, short windows."""
        if self._closing is not None:
            return
        queue = self._queue
        if not queue and not queue.alone:
            if len(self.crew) > 1:
                self._even_out()
            return
        ready = [w for w in self.crew if w.state == READY and not w.spent and not w.taken_back]
        busy = sum(1 for w in self.crew if w.window)
        for worker in ready:
            if queue.alone and worker.is_fresh and busy < self._max:
                self._give(worker, queue.alone.popleft)
                busy += 1
        # A fresh worker that waits for an attempt to take it alone must get its turn.
        limit = self._max - (1 if queue.alone and any(w.is_fresh for w in ready) else 0)
        for worker in ready:
            if queue and busy < limit and not worker.window:
                self._give(worker, None)
                busy += 1
        if limit == self._max:
            for worker in ready:
                while queue and self._has_room(worker):
                    self._give(worker, None)
        self._recruit(busy)
        if not queue:
            self._even_out()

    def _has_room(self, worker: Worker) -> bool:
        """Whether a busy worker may be given tiny tasks ahead, so that it need not wait for us between batches."""
        if not worker.window or worker.exclusive or worker.state != READY or worker.spent:
            return False
        if len(worker.window) * worker.mean_s >= batches.TARGET_S or len(worker.window) > 2 * batches.LIMIT:
            return False
        head = self._queue.head()
        assert head is not None
        return head.rerun_on_loss and self._shipments.of(head.program).seen > 0

    def _give(self, worker: Worker, lone: Callable[[], Attempt] | None) -> None:
        """Send the next batch, or one lone attempt, to `worker`."""
        queue = self._queue
        if lone is not None:
            batch = [lone()]
        else:
            head = queue.head()
            assert head is not None
            shipment = self._shipments.of(head.program)
            limit = batches.size(shipment.seen, shipment.mean_s, len(queue), self._max)
            if self._max_tasks is not None:
                limit = min(limit, self._max_tasks - worker.given)
            batch = queue.take(limit if head.rerun_on_loss else 1)
        try:
            self._send(worker, batch, lone is not None)
        except BaseException:
            # Ctrl-C in the middle of it. What the worker was told is not known: it goes, and nobody is charged.
            held = set(map(id, worker.window.values()))
            queue.put_back([attempt for attempt in batch if id(attempt) not in held])
            self._kill(worker, "cancel")
            raise

    def _send(self, worker: Worker, batch: list[Attempt], is_lone: bool) -> None:
        program = batch[0].program
        try:
            shipment = self._shipments.packed(program, batch[0].facts.config)
        except NodeNotPicklableError as error:
            self._end_all(batch + self._queue.remove(lambda attempt: attempt.program is program), FAILED, error)
            return
        try:
            inputs = batches.encode_inputs(batch, self._codec.encode)
        except EncodeError as error:
            _reraise_interrupt(error)
            batch, inputs = self._encode_one_by_one(batch)
            if not batch:
                return
        worker.send_batch(
            batch, inputs, shipment, self._facts_data, self._facts_number, (logs.is_replaced(), logs.level())
        )
        worker.exclusive = is_lone or not batch[0].rerun_on_loss
        worker.sent_at = now = monotonic()
        if self._max_tasks is not None and worker.given >= self._max_tasks:
            worker.spent = True
        limit_s = batch[0].timeout_s
        if limit_s is not None:
            self._alarm(now + min(a.timeout_s for a in batch if a.timeout_s is not None) + BACKSTOP_S)
        self._push(worker)

    def _encode_one_by_one(self, batch: list[Attempt]) -> tuple[list[Attempt], list[bytes]]:
        """Fail the attempts whose input cannot travel; return the others."""
        good, inputs = [], []
        for attempt in batch:
            name = attempt.program.name
            try:
                inputs.append(self._codec.encode(attempt.input, path=f"the input of node '{name}'"))
                good.append(attempt)
            except EncodeError as error:
                _reraise_interrupt(error)
                refusal = NodeNotPicklableError(name, error.path, error.reason)
                refusal.__cause__ = error
                self._end_all([attempt], FAILED, refusal)
        return good, inputs

    def _facts_number(self, facts: StepFacts) -> int:
        known = self._facts.get(id(facts))
        if known is None:
            self._facts_count += 1
            number = self._facts_count
            self._facts_data[number] = encode_facts(facts, self._codec.encode)
            known = self._facts[id(facts)] = (facts, number)
            if len(self._facts) > _KEPT_FACTS:
                _, old = self._facts.pop(next(iter(self._facts)))
                del self._facts_data[old]
        return known[1]

    def _push(self, worker: Worker) -> None:
        """Send what the socket takes, and be told when it takes more."""
        wants_out = not worker.flush()
        if wants_out != worker.wants_out and worker.sock.fileno() in self._by_fd:
            worker.wants_out = wants_out
            self._epoll.modify(worker.sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if wants_out else 0))

    def _even_out(self) -> None:
        """When a worker is idle and nothing is queued: take back what waits behind a task that turned out to be long."""
        if not any(w.state == READY and not w.window and not w.spent for w in self.crew):
            return
        if sum(1 for w in self.crew if w.window) >= self._max:
            return
        now = monotonic()
        for worker in self.crew:
            if len(worker.window) > 1 and worker.state == READY and not worker.taken_back:
                running = worker.running
                since = worker.started_ns / 1e9 if running in worker.window else worker.sent_at
                if now - since < STUCK_S:
                    self._alarm(max(since, worker.sent_at) + STUCK_S)
                elif self._take_back(worker, lambda _: False):
                    self.dispatch()
                    return

    def _take_back(self, worker: Worker, cancelled: Callable[[Attempt], bool]) -> int:
        """Withdraw what `worker` has not started: cancel some, queue the others again. Returns how many it were."""
        if not worker.window or worker.taken_back:
            return 0
        first = max(worker.running + 1, next(iter(worker.window)))
        running = worker.page.take_back(first, worker.next_number)
        numbers = [number for number in worker.window if number > running and number >= first]
        if not numbers:
            return 0
        worker.taken_back = True
        attempts = [worker.window.pop(number) for number in numbers]
        self._counts["taken_back"] += len(attempts)
        self._end_all([a for a in attempts if cancelled(a)], CANCELLED, None)
        self._queue.put_back([a for a in attempts if not cancelled(a)])
        return len(numbers)

    # -- messages come in ----------------------------------------------------------------------------------------------

    def serve(self, fd: int, event: int) -> None:
        """Answer an event on a worker's socket or process."""
        worker = self._by_fd.get(fd)
        if worker is None:
            return
        try:
            if fd == worker.pidfd:
                self._bury(worker)
                return
            if event & select.EPOLLOUT:
                self._push(worker)
            if event & ~select.EPOLLOUT:
                self._read(worker)
        except Exception as error:
            self._condemn(worker, f"{type(error).__name__}: {error}")
        except BaseException:
            self._kill(worker, "cancel")
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
            fd = worker.sock.fileno()
            if self._by_fd.pop(fd, None) is not None:
                self._epoll.unregister(fd)
                if worker.wait_for_end(0.05):
                    if worker.pidfd < 0:
                        self._bury(worker)
                else:
                    self._condemn(worker, "it closed its socket")
        return is_open

    def _read_all(self, worker: Worker) -> None:
        while worker.state != GONE and worker.killed_for != "protocol" and self._read(worker):
            pass

    def _condemn(self, worker: Worker, detail: str) -> None:
        """What it sends cannot be trusted any more."""
        fd = worker.sock.fileno()
        if self._by_fd.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        worker.note = detail
        worker.killed_for = worker.killed_for or "protocol"
        self._kill(worker, "protocol")

    def _hear(self, worker: Worker, kind: int, body: Any) -> None:
        if kind == link.RESULTS:
            self._take_results(worker, body)
        elif kind == link.EVENT:
            number, event, data = batches.unpack(body)
            attempt = worker.window.get(number)
            if attempt is not None:
                self.outgoing.append((outcomes.event, (self._codec, attempt, event, data)))
        elif kind == link.LOG:
            self.outgoing.append((logs.replay, batches.unpack(body)))
        elif kind == link.OUTPUT:
            self.outgoing.append((logs.write, batches.unpack(body)))
        elif kind == link.HELLO:
            worker.baseline_rss = batches.unpack(body)
            self._failed_starts.clear()
            if worker.state == STARTING:
                worker.state = READY
        elif kind == link.REFUSED:
            worker.note = bytes(body).decode("utf-8", "replace")
        else:
            raise ProtocolError(f"expected a message of a worker, got kind {kind}")

    def _take_results(self, worker: Worker, body: Any) -> None:
        rss_bytes, skipped, numbers, times_ns, payloads, failed = batches.unpack(body)
        window = worker.window
        if numbers:
            attempts = list(map(window.get, numbers))
            items = deque(zip(attempts, payloads, times_ns, strict=True))
            self.outgoing.append((outcomes.results, (self._codec, items, frozenset(failed), [0])))
            for number in numbers:
                window.pop(number, None)
            self._counts["ended"] += len(numbers)
            head = attempts[0]
            if head is not None:
                self._shipments.of(head.program).measured(len(numbers), sum(times_ns) / 1e9)
            self._idle_deaths.clear()
        if worker.taken_back:
            last = max(skipped[-1:] + numbers[-1:], default=0)
            if last >= worker.next_number - 1:
                worker.taken_back = False
        # Skipped, but never withdrawn by us as far as we know: it goes back to where it came from.
        self._queue.put_back([window.pop(number) for number in skipped if number in window])
        if not window:
            worker.exclusive = False
            if self._max_rss is not None and rss_bytes > self._max_rss:
                worker.spent = True
            if worker.spent and worker.state == READY:
                self._counts["recycled"] += 1
                worker.killed_for = "recycle"
                self._dismiss(worker, LEAVE_S)
        elif self._max_rss is not None and rss_bytes > self._max_rss:
            worker.spent = True

    # -- time ----------------------------------------------------------------------------------------------------------

    def _alarm(self, at: float) -> None:
        if at < self.alarm_at:
            self.alarm_at = at

    def strike(self) -> None:
        """Do what is due, and find out what is due next."""
        now = monotonic()
        self.alarm_at = float("inf")
        for worker in list(self.crew):
            if worker.leave_by <= now:
                self._end_all(list(worker.window.values()), CANCELLED, None)
                worker.window.clear()
                self._kill(worker, worker.killed_for or "close")
            else:
                self._alarm(worker.leave_by)
            if worker.window:
                self._mind_deadline(worker, now)

    def _mind_deadline(self, worker: Worker, now: float) -> None:
        """The backstop of the kernel timer that the worker has armed."""
        limits = [attempt.timeout_s for attempt in worker.window.values() if attempt.timeout_s is not None]
        if not limits:
            return
        running = worker.running
        attempt = worker.window.get(running)
        due = now + min(limits) + BACKSTOP_S
        if attempt is not None and attempt.timeout_s is not None:
            due = worker.started_ns / 1e9 + attempt.timeout_s + BACKSTOP_S
            if due <= now:
                # Standing still it cannot finish between our look and our kill.
                if worker.stop() and worker.running == running and worker.started_ns / 1e9 + attempt.timeout_s <= now:
                    self._kill(worker, "timeout")
                    return
                worker.go_on()
                due = now + min(limits) + BACKSTOP_S
        self._alarm(due)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _end_all(self, attempts: Sequence[Attempt], kind: int, payload: Any) -> None:
        if attempts:
            self._counts["ended"] += len(attempts)
            self.outgoing.append((outcomes.endings, (kind, deque(attempts), payload)))

    def abandon(self) -> None:
        """Kill all and close our ends; somebody else buries them."""
        for worker in self.crew:
            worker.kill()
        self.let_go()

    def let_go(self) -> None:
        """Close our ends of everything and end nothing: for a forked child."""
        for worker in self.crew:
            worker.close()
        self.crew.clear()


def _reraise_interrupt(error: EncodeError) -> None:
    if isinstance(error.__cause__, KeyboardInterrupt):
        raise error.__cause__
