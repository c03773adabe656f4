"""A task that waits for tasks that it called: its worker runs meanwhile what it is lent, above it on the same stack.

The worker's side; `lending` is the parent's. What runs above a task is below it in the tree of calls, so it ends without
waiting for anything that this worker holds up (see `lending`). Must not know how a task is run.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from mpflow._exec import batches, link, slots
from mpflow._exec.reports import EXIT_LOST_SOCKET, Reports

MOST_FRAMES: Final = 4000
"""Nothing is run above a stack of so many calls. Until Python 3.11 each takes some of the thread's stack."""


class Timer:
    """The kernel timer of the tasks that run one above the other: it is set to the first of their deadlines."""

    def __init__(self) -> None:
        self._until: float | None = None
        """The first deadline of those that wait."""

    def start(self, timeout_s: float) -> None:
        """The task that runs is to be ended after this."""
        if self._until is not None:
            timeout_s = min(timeout_s, self._until - monotonic())
        signal.setitimer(signal.ITIMER_REAL, max(timeout_s, 1e-6))

    def stop(self) -> None:
        """It has ended by itself."""
        left_s = 0.0 if self._until is None else max(self._until - monotonic(), 1e-6)
        signal.setitimer(signal.ITIMER_REAL, left_s)

    def push(self) -> float | None:
        """The task that runs waits, and its deadline stays."""
        before = self._until
        left_s, _ = signal.getitimer(signal.ITIMER_REAL)
        self._until = monotonic() + left_s if left_s else None
        return before

    def pop(self, before: float | None) -> None:
        """Undo `push`."""
        self._until = before


class Waits:
    """Of one worker. `obey` does what a frame says; `give_up_rest` skips what follows the running task in its batch."""

    def __init__(
        self,
        words: memoryview,
        reports: Reports,
        timer: Timer,
        obey: Callable[[int, Any], None],
        give_up_rest: Callable[[], None],
    ) -> None:
        self._words = words
        self._reports = reports
        self._timer = timer
        self._obey = obey
        self._give_up_rest = give_up_rest
        self._thread = threading.get_ident()
        self._pid = os.getpid()
        self._frames = 0
        """Of how many calls the stack was when what runs now began."""

    def wait(self, number: int, question: int, is_done: Callable[[], bool], *, lends: bool = True) -> None:
        """Task `number` waits for the answer to a question, until `is_done`: run meanwhile what the parent lends.

        Returns at once where nothing can be run above the task: in another thread than the worker's own, say. Then, or
        without ``lends``, the parent is told to count it as absent, and the caller waits by itself.
        """
        if not self._is_on_top(number):
            self._tell(number, link.ALL, False)
        elif not lends or self._reports.watched is not None or (frames := _frames()) > MOST_FRAMES:
            self._tell(number, question, False)
        else:
            self._serve(number, question, is_done, frames)

    def _is_on_top(self, number: int) -> bool:
        """Whether we are in the code of task `number`, and nowhere else."""
        return (
            threading.get_ident() == self._thread
            and os.getpid() == self._pid
            and self._words[slots.RUNNING] == number
            and not _is_looping()
        )

    def _tell(self, number: int, question: int, lends: bool) -> None:
        self._reports.send(link.WAITS, batches.pack((number, question, lends)))

    def _serve(self, number: int, question: int, is_done: Callable[[], bool], frames: int) -> None:
        reports, words = self._reports, self._words
        reports.books.acquire()
        reports.voice.flush()
        outer = reports.under, reports.node, reports.attempt, reports.gauge.program, self._frames
        started_ns = words[slots.STARTED_NS]
        deadline = self._timer.push()
        limit = sys.getrecursionlimit()
        streams = reports.voice.take_over()
        is_over = False
        try:
            self._give_up_rest()
            reports.send_finished()
            self._tell(number, question, True)
            reports.under = number
            # What runs above has as many calls to go as if it ran alone.
            sys.setrecursionlimit(limit + frames - self._frames)
            self._frames = frames
            while (frame := reports.errands.next_frame(is_done)) is not None:
                self._obey(*frame)
                words[slots.STARTED_NS] = started_ns
            is_over = True
        except OSError:  # the parent is gone
            os._exit(EXIT_LOST_SOCKET)
        finally:
            reports.under, reports.node, reports.attempt, reports.gauge.program, self._frames = outer
            self._timer.pop(deadline)
            sys.setrecursionlimit(limit)
            reports.voice.give_back(streams)
            if not is_over:
                self._tell(number, link.NONE, False)
            reports.books.release()


def _frames() -> int:
    """How many calls this thread is in."""
    count = 0
    frame = sys._getframe()
    while frame is not None:
        count += 1
        frame = frame.f_back  # type: ignore[assignment]
    return count


def _is_looping() -> bool:
    """Whether an event loop runs in this thread, which must not be held up."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None
