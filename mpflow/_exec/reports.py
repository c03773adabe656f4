"""What a worker tells its parent: results, what tasks print and stream, and on the page which task it runs.

Owns everything that waits to be sent, and who may send it: the worker's own thread, or the lookout's while a task's code
runs. Must not run tasks.
"""

from __future__ import annotations

import os
import threading
from time import monotonic_ns, process_time_ns
from typing import Any

from mpflow._exec import batches, finished, link, logs, slots
from mpflow._exec.door import Knocker
from mpflow._exec.errands import Errands
from mpflow._exec.gauge import Gauge
from mpflow._exec.lookout import Lookout
from mpflow._exec.payloads import Payloads
from mpflow._exec.placement.pauses import Pauses
from mpflow._wire.codec import Codec
from mpflow._wire.mappings import Mappings
from mpflow._wire.memory import private_bytes

EXIT_LOST_SOCKET = 111
EXIT_ASTRAY = 113

UNTAKEN = 256
"""How many chunks a task may have said that its run's consumer has not taken."""
UNTAKEN_BYTES = 4 << 20
_RSS_EVERY_NS = 50_000_000
_SPENT_EVERY_NS = 10_000_000
"""Not with each batch of tiny tasks: at a look at these clocks the kernel may let others run first."""
_UNHEARD_NS = 30_000_000
"""For so long what is finished may be overdue while nobody listens."""


class Reports:
    """Of one worker."""

    def __init__(self, blocking: link.Blocking, words: memoryview, codec: Codec, mappings: Mappings) -> None:
        self._link = blocking
        self._words = words
        self._codec = codec
        self._mappings = mappings
        # Nodes may start threads that write to the stream.
        self._sending = threading.Lock()
        self.knocker = Knocker(words)
        self.results = finished.Results(codec.encode)
        self.payloads = Payloads(self.results, self.send, codec)
        self.voice = logs.Voice(self._say, lambda: (self.node, self.attempt))
        self.errands = Errands(blocking, self.send)
        self.gauge = Gauge()
        self.books: threading.Lock | _Astray = threading.Lock()
        """Taken by the worker's own thread but while a task's code runs: who has it may send what is finished."""
        self.books.acquire()
        self.lookout = Lookout(self._running, self._send_held)
        self.node = ""
        self.attempt = 0
        self.under = 0
        """The number of the task that waits while those that it is lent run, 0 for none."""
        self.watched: Any = None
        """The program of the tasks that run, if nobody asked for them to run here (see `placement.guard`)."""
        self.wants_rss = False
        self._rss_bytes = 0
        self._rss_at = 0
        self._untaken = self._untaken_bytes = 0
        self._pauses = Pauses()
        self._spent_ns = self._delayed_ns = self._spent_at = 0
        self.spend()

    def go_astray(self) -> None:
        """This process is a task's fork of the worker."""
        self.books = _Astray()

    def send(self, kind: int, *body: Any, fds: list[int] | None = None) -> None:
        with self._sending:
            self._link.send(kind, *body, fds=fds)
        if kind not in link.CAN_WAIT:
            self.knocker.speaks()

    def flush(self) -> None:
        """Send what is finished. Afterwards the page names none of those that ran: all are in the parent's hands."""
        self.send_finished()
        words = self._words
        running, under = words[slots.RUNNING], self.under
        if running != under:
            words[slots.FINISHED] = max(running, words[slots.FINISHED])
            words[slots.RUNNING] = under

    def may_wait(self, overdue_ns: int) -> bool:
        """Whether what is finished may wait though it is due: nobody listens, and it makes one frame with what follows."""
        return overdue_ns < _UNHEARD_NS and self.knocker.is_asked()

    def send_finished(self) -> None:
        """Send what is finished, be it while a task runs."""
        results = self.results
        self.voice.flush()
        if results.numbers or results.skipped:
            if results.numbers and (grown := self.gauge.word()) is not None:
                self.send(link.MEMORY, batches.pack((results.numbers[-1], *grown)))
            if self.wants_rss:
                self._measure()
            if self.watched is not None:
                results.figures = self.watched.figures()
            if monotonic_ns() - self._spent_at > _SPENT_EVERY_NS:
                results.spent_ns = self.spend()
            self._send_results(self._mappings.take_releases())

    def _send_results(self, releases: list[int]) -> None:
        if self.watched is not None and (objection := self.watched.objection()) is not None:
            self.results.refuse(self.payloads.of_error(objection, self.node))
        self.send(link.RESULTS, *self.results.parts(self._rss_bytes, releases, self.payloads.take_copied_bytes()))
        self.results.clear()

    def spend(self) -> tuple[int, int]:
        """What this process computed since this was last asked, and how long its own thread was kept from that."""
        spent_ns, delayed_ns, self._spent_at = self._spent_ns, self._delayed_ns, monotonic_ns()
        self._spent_ns, self._delayed_ns = process_time_ns(), self._pauses.delays_ns()
        return self._spent_ns - spent_ns, self._delayed_ns - delayed_ns

    def _running(self) -> int:
        return self._words[slots.RUNNING]

    def _send_held(self, number: int) -> None:
        """Send what is finished while task `number` runs. For the lookout's thread: the page, the mappings and the gauge are
        the other's."""
        if not self.books.acquire(blocking=False):
            return
        try:
            results = self.results
            if self._words[slots.RUNNING] == number and (results.numbers or results.skipped):
                # What those tasks printed is said before they end, but streams that the running one put there are its own.
                self.voice.flush_ours()
                self._send_results([])
        except OSError:
            os._exit(EXIT_LOST_SOCKET)
        finally:
            self.books.release()

    def _measure(self) -> None:
        now = monotonic_ns()
        if now - self._rss_at > _RSS_EVERY_NS or not self._rss_at:
            self._rss_at = now
            # What is mapped of other processes' blocks is not this one's to give back.
            self._rss_bytes = private_bytes(os.getpid())

    def _say(self, kind: str, fields: Any) -> None:
        self.send(link.LOG if kind == logs.RECORD else link.OUTPUT, batches.pack(fields))

    def emit(self, number: int, kind: str, data: Any) -> None:
        """Send what a task writes to the stream; wait while its run's consumer is far behind."""
        path = f"what node '{self.node}' wrote to the stream"
        data = self._codec.encode(data, path=path)
        self.send(link.EVENT, batches.pack((number, kind, data)))
        self._untaken += 1
        self._untaken_bytes += len(data)
        if self._untaken >= UNTAKEN or self._untaken_bytes >= UNTAKEN_BYTES:
            self._untaken = self._untaken_bytes = 0
            self.errands.ask(number, link.CONSUMER)


class _Astray:
    """In the place of the books, in a process that a task has forked: should it come back from the task, it ends there, for
    there is but one worker at the socket."""

    def acquire(self, blocking: bool = True) -> bool:
        os._exit(EXIT_ASTRAY)

    def release(self) -> None:
        pass
