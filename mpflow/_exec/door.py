"""How a worker makes itself heard while nobody listens (see `calm`): it knocks.

Owns the sockets for it, of which all workers of a pool share one end, and both sides' use of the word of the page that says
from which task on. It must not know what a worker wants.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from typing import Any

from mpflow._exec import slots

_MOST_BYTES = 4096


class Door:
    """The parent's side, of one pool."""

    def __init__(self) -> None:
        # Not an eventfd: a task may close what it does not know and open a file in its place, which no send can harm.
        self._inside, self._outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._inside.setblocking(False)
        self._outside.setblocking(False)

    def fileno(self) -> int:
        """Readable when somebody has knocked."""
        return self._inside.fileno()

    def outside(self) -> int:
        """The descriptor of the workers' end."""
        return self._outside.fileno()

    def answer(self) -> bool:
        """Forget all knocks up to now; whether there were any."""
        try:
            return bool(self._inside.recv(_MOST_BYTES))
        except OSError:
            return False

    def close(self) -> None:
        self._inside.close()
        self._outside.close()


def await_knocks(crew: Iterable[Any]) -> None:
    """Have each worker knock when it begins the last batch that it was given, when that ends, and if it says anything else."""
    for worker in crew:
        _tell(worker, worker.next_number - 1)
    slots.fence()


def expect_none(crew: Iterable[Any]) -> None:
    """Undo `await_knocks`."""
    for worker in crew:
        _tell(worker, 0)


def _tell(worker: Any, number: int) -> None:
    with contextlib.suppress(ValueError):  # its page is closed by now: another thread has buried it
        worker.page.words[slots.KNOCK_FROM] = number


class Knocker:
    """A worker's side."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._sock: socket.socket | None = None

    def use(self, fd: int) -> None:
        self._sock = socket.socket(fileno=fd)

    def is_asked(self) -> bool:
        """Whether nobody listens unless we knock."""
        return self._words[slots.KNOCK_FROM] > 0

    def begins(self, last: int) -> None:
        """A batch begins whose last task has this number."""
        if 0 < self._words[slots.KNOCK_FROM] <= last:
            self._knock()

    def ended(self, last: int) -> None:
        """All up to that number has ended and is in the parent's hands, as the page says already."""
        slots.fence()  # either we see that we should knock, or the parent sees that we have nothing to do
        self.begins(last + 1)

    def speaks(self) -> None:
        """Something was sent that cannot wait."""
        self.begins(slots.HIGHEST)

    def _knock(self) -> None:
        if self._sock is not None:
            with contextlib.suppress(OSError):  # full of knocks, or a task closed it
                self._sock.send(b"!")
