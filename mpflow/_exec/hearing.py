"""What the workers' messages mean for the attempts they hold."""

from __future__ import annotations

import select
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from mpflow._columns import lead
from mpflow._exec import batches, finished, link, logs, outcomes
from mpflow._exec.callers import PATIENCE_S
from mpflow._exec.calm import SMALL_BYTES
from mpflow._exec.crew import GONE, READY, Worker
from mpflow._exec.floor import Floor
from mpflow._exec.roster import LEAVE_S
from mpflow._wire.errors import ProtocolError


class Hearing:
    """Reads and obeys. ``ask(do, what)`` has something done when it is our turn; `bury` is told of a worker that ended,
    `take_back` of one that must not start what else it holds."""

    def __init__(
        self,
        floor: Floor,
        max_rss_bytes: int | None,
        ask: Callable[[Callable[[Any], None], Any], None],
        bury: Callable[[Worker], None],
        take_back: Callable[[Worker], object],
    ) -> None:
        self._floor = floor
        self._max_rss = max_rss_bytes
        self._ask = ask
        self._bury = bury
        self._take_back = take_back

    def serve(self, fd: int, event: int) -> None:
        """Answer an event on a worker's socket or process."""
        worker = self._floor.roster.by_fd.get(fd)
        if worker is None:
            return
        if fd == worker.pidfd:
            self._bury(worker)
            return
        try:
            if event & select.EPOLLOUT:
                self._floor.roster.push(worker)
            if event & ~select.EPOLLOUT:
                self._read(worker)
        except Exception as error:
            # Frames well cut but not ours inside.
            self._condemn(worker, f"{type(error).__name__}: {error}")
        except BaseException:
            # Ctrl-C between a read and what was to be done with it: the worker's stream is lost, nobody is charged.
            self._floor.roster.kill(worker, "cancel")
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
            was_watched = self._floor.roster.unwatch(worker.sock.fileno())
            is_leaving = worker.leave_by != float("inf")  # it was told to, and takes its time
            if was_watched and not is_leaving and not worker.wait_for_end(0.05):
                self._condemn(worker, "it closed its socket")
            if worker.pidfd < 0:
                self._bury(worker)
        return is_open

    def read_all(self, worker: Worker) -> None:
        try:
            while worker.state != GONE and worker.killed_for != "protocol" and self._read(worker):
                pass
        except Exception as error:
            self._condemn(worker, f"{type(error).__name__}: {error}")
        except BaseException:  # as in `serve`
            self._floor.roster.kill(worker, "cancel")
            raise

    def _condemn(self, worker: Worker, detail: str) -> None:
        """What it sends cannot be trusted any more."""
        self._floor.roster.unwatch(worker.sock.fileno())
        worker.note = detail
        self._floor.roster.kill(worker, "protocol")

    def _hear(self, worker: Worker, kind: int, body: Any) -> None:
        if kind not in link.CAN_WAIT or len(body) > SMALL_BYTES:
            self._floor.calm.disturb()
        if kind == link.RESULTS:
            self._take_results(worker, body)
        elif kind == link.EVENT:
            number, event, data = batches.unpack(body)
            attempt = worker.window.get(number)
            if attempt is not None:
                self._floor.outgoing.append((outcomes.event, (self._floor.parcels.codec, attempt, event, data)))
        elif kind == link.ASK:
            number, question, target, data = batches.unpack(body)
            if target == link.CONSUMER:
                self._floor.roster.alarm(self._floor.stalls.began(worker, monotonic()))
            elif target == link.CALL:
                self._note_call(worker, number, question)
            answer = partial(self._answer, worker, question, target)
            self._floor.outgoing.append(
                (outcomes.errand, (self._floor.parcels.codec, worker.window.get(number), target, data, answer))
            )
        elif kind == link.WAITS:
            number, question, is_open = batches.unpack(body)
            now = monotonic()
            self._floor.callers.said(worker, number, question, is_open, now)
            self._floor.roster.alarm(now + PATIENCE_S)
        elif kind == link.MEMORY:
            number, grown_bytes, is_first = batches.unpack(body)
            attempt = worker.window.get(number)
            if attempt is not None:
                self._floor.parcels.shipments.of(attempt.program).appetite.learn(grown_bytes, is_first)
        elif kind == link.LOG:
            self._floor.outgoing.append((logs.replay, batches.unpack(body)))
        elif kind == link.OUTPUT:
            self._floor.outgoing.append((logs.write, batches.unpack(body)))
        elif kind == link.FILES:
            worker.add_files(batches.unpack(body))
        elif kind == link.DROP_FILES:
            worker.mappings.drop_files(batches.unpack(body))
        elif kind == link.RELEASE:
            self._floor.parcels.arena.release(worker.pid, batches.unpack(body))
        elif kind == link.HELLO:
            worker.baseline_rss = batches.unpack(body)
            self._floor.roster.said_hello(worker)
        elif kind == link.REFUSED:
            worker.note = bytes(body).decode("utf-8", "replace")
        else:
            raise ProtocolError(f"expected a message of a worker, got kind {kind}")

    def _note_call(self, worker: Worker, number: int, question: int) -> None:
        """What a task called another for it will wait for: no pool may be too small for both."""
        attempt = worker.window.get(number)
        if attempt is None:
            return
        now = monotonic()
        if self._floor.callers.called(worker, number, question, now):
            self._floor.parcels.shipments.of(attempt.program).called += 1
        self._floor.roster.alarm(now + PATIENCE_S)
        self._take_back(worker)

    def _answer(self, worker: Worker, question: int, target: str, data: bytes) -> None:
        """Send an answer. From any thread."""
        self._ask(self._send_answer, (worker, question, data, target))

    def _send_answer(self, answer: tuple[Worker, int, bytes, str]) -> None:
        worker, question, data, target = answer
        if worker.state == GONE:
            return
        if target == link.CONSUMER:
            self._floor.stalls.ended(worker)
        elif target == link.CALL:
            now = monotonic()
            self._floor.callers.returned(worker, question, now)
            self._floor.roster.alarm(now + PATIENCE_S)
        worker.writer.add(link.ANSWER, batches.pack((question, data)))
        self._floor.roster.push(worker)

    def _take_results(self, worker: Worker, body: Any) -> None:
        head, tail = batches.part(body)
        (
            rss_bytes, releases, skipped, run, times_ns, channel, payloads, whole, failed, tickets, answers, shared,
            spent_ns, figures,
        ) = head  # fmt: skip
        numbers = finished.numbers_in(run)
        if releases:
            self._floor.parcels.arena.release(worker.pid, releases)
        window = worker.window
        if numbers:
            attempts = window.answered(numbers)
            held = {position: worker.mappings.hold(ticket) for position, ticket in tickets}
            frame = outcomes.Frame(self._floor.parcels.codec, attempts, times_ns, frozenset(failed), held)
            frame.channel, frame.whole, frame.payloads, frame.answers = (
                channel,
                whole,
                list(map(tail.of, payloads)),
                dict(answers),
            )
            self._floor.outgoing.append((outcomes.results, frame))
            window.drop(numbers)
            if worker in self._floor.callers:
                self._floor.callers.ended(worker, numbers)
            if worker.begun:
                worker.begun = {number: at for number, at in worker.begun.items() if number in window}
            self._floor.roster.counts["ended"] += len(numbers)
            first = lead(attempts)  # type: ignore[arg-type]  # one that is gone may be None
            if first is not None:
                shipment = self._floor.parcels.shipments.of(first.program)
                shipment.measured(len(numbers), frame.total_ns / 1e9)
                shipment.spent(*spent_ns)
                if figures is not None:
                    shipment.watched.add(*figures)
                shipment.traffic.bytes_in += len(body)
                shipment.traffic.shared_in += shared
            self._floor.roster.did_work()
        if worker.taken_back:
            last = max((*skipped[-1:], *numbers[-1:]), default=0)
            if last >= worker.next_number - 1:
                worker.taken_back = False
        # Skipped, but never withdrawn by us as far as we know: it goes back to where it came from.
        self._floor.queue.put_back(filter(None, [window.pop(number) for number in skipped if number in window]))
        if not window:
            worker.exclusive = False
            if self._max_rss is not None and rss_bytes > self._max_rss:
                worker.spent = True
            if worker.spent and worker.state == READY:
                self._floor.roster.counts["recycled"] += 1
                worker.killed_for = "recycle"
                self._floor.roster.dismiss(worker, LEAVE_S)
        elif self._max_rss is not None and rss_bytes > self._max_rss:
            worker.spent = True
