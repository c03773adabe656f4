"""The page that a worker shares with its parent: which task it runs now, since when, and which tasks were taken back.

Owns the layout alone. Worker and parent each write their own words, so no lock is shared: a worker that is killed, or
stopped, at any instruction leaves a page that can be read.
"""

from __future__ import annotations

import mmap
import os
import threading

SIZE = 4096
"""Bytes of the page. What the same file holds behind it is the worker's last words (see `notes`)."""

RUNNING = 0  # worker: number of the task that runs, 0 for none; stays until the result is in the socket
STARTED_NS = 1  # worker: when it started, CLOCK_MONOTONIC, which all processes share; 0 while its node is imported
HAS_WORKED = 2  # worker: 1 once it has started a task
TAKEN_FROM = 3  # parent: tasks numbered TAKEN_FROM <= n < TAKEN_TO must not be started
TAKEN_TO = 4
FINISHED = 5  # worker: the last number it is done with, written before RUNNING becomes 0

KNOCK_FROM = 6  # parent: nobody listens; a worker that has come to this number knocks (see `door`); 0: somebody does

HIGHEST = (1 << 64) - 1
"""No number of a task."""

_NOTES_LIMIT = 16 * 1024


def create() -> int:
    """A file descriptor to a file without a name: it cannot outlive the processes that hold it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("mpflow-slot", os.MFD_CLOEXEC)
    else:
        import tempfile

        fd, name = tempfile.mkstemp()
        os.unlink(name)
    os.ftruncate(fd, SIZE)
    # The offset is shared with the worker's stderr, which must not write over the page.
    os.lseek(fd, SIZE, os.SEEK_SET)
    return fd


class Page:
    """One side's view of the page."""

    __slots__ = ("_map", "fd", "words")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, SIZE)
        self.words = memoryview(self._map).cast("Q")

    def take_back(self, first: int, end: int) -> int:
        """Forbid the worker to start tasks from `first` to before `end`; return the number it started last.

        The order matters, and so does the fence: either the worker sees the range before it starts a task, or we see
        that it has started. Where a machine reorders the two all the same, a task runs twice and its second result
        finds nobody: harmless.
        """
        words = self.words
        if words[TAKEN_TO] == end:  # more of what was forbidden already
            words[TAKEN_FROM] = min(first, words[TAKEN_FROM])
        else:
            words[TAKEN_TO] = 0
            words[TAKEN_FROM] = first
            words[TAKEN_TO] = end
        fence()
        return self.last_started

    @property
    def last_started(self) -> int:
        """The number the worker started last, though what came of it may still be on its way to us."""
        words = self.words
        running = words[RUNNING]  # read first: once it is 0, the other says how far it came
        return max(running, words[FINISHED])

    def notes(self) -> str:
        """The worker's last words: what it wrote to stderr before its hello, and what faulthandler wrote at its end."""
        try:
            end = os.fstat(self.fd).st_size
            start = max(SIZE, end - _NOTES_LIMIT)
            return os.pread(self.fd, end - start, start).decode("utf-8", "replace")
        except OSError:
            return ""

    def close(self) -> None:
        if self.fd >= 0:
            self.words.release()
            self._map.close()
            os.close(self.fd)
            self.fd = -1


_fence = threading.Lock()


def fence() -> None:
    """Order the stores before it and the loads after it: a lock is taken by an atomic read-modify-write."""
    _fence.acquire(False)
    try:
        _fence.release()
    except RuntimeError:  # another thread released it between our two lines
        pass
