"""A worker's second thread: it looks whether a task takes long while results of others wait to be sent.

Owns when to look, and the thread, which lives from the first batch of several tasks on and sleeps between batches. Must
not know what is held or how it is sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

LOOK_S = 0.02
"""How often it looks. A task that is seen at two looks in a row takes long."""
_IDLE_LOOKS = 2
"""It goes to sleep after so many looks between batches: while they come one after the other, nobody needs to wake it."""


class Lookout:
    """``running()`` is the number of the task that runs, 0 for none; ``send(number)`` is called, again and again, while it
    stays the same."""

    def __init__(self, running: Callable[[], int], send: Callable[[int], None]) -> None:
        self._running = running
        self._send = send
        self._is_busy = False
        self._is_asleep = False
        self._bell = threading.Event()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """A batch begins in which results may wait for a task to end."""
        self._is_busy = True
        if self._thread is None:
            self._start()
        elif self._is_asleep:
            self._bell.set()

    def end(self) -> None:
        """The batch is over: nothing is held."""
        self._is_busy = False

    def pause(self) -> None:
        """End the thread: a process is about to fork, which with threads may leave a lock taken for ever in the child, and
        of which newer Pythons warn."""
        thread = self._thread
        if thread is not None:
            self._end.set()
            self._bell.set()
            thread.join()
            self._thread = None
            self._end.clear()

    def resume(self) -> None:
        """Undo `pause`."""
        if self._is_busy:
            self._start()

    def _start(self) -> None:
        self._is_asleep = False
        self._thread = threading.Thread(target=self._watch, name="mpflow-lookout", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        before = idle = 0
        while not self._end.wait(LOOK_S):
            number = self._running()
            if number and number == before:
                self._send(number)
            before = number
            idle = 0 if self._is_busy else idle + 1
            if idle == _IDLE_LOOKS:
                idle = 0
                self._is_asleep = True
                if not self._is_busy:  # asked again: either we see the batch that begins, or it sees that we sleep
                    self._bell.wait()
                self._bell.clear()
                self._is_asleep = False
