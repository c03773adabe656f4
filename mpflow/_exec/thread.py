"""Threads: one growing, process-wide set of idle ones, and for each run a queue that a bounded number of them empty.

A node may block its thread for as long as it likes: no other run waits for it, and no nested run can deadlock. Threads
are daemons, since a thread cannot be killed and must not keep the interpreter from ending.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

from mpflow._messages import CANCELLED

IDLE_S = 2.0
"""How long a thread waits for more work before it ends."""

Job = Callable[[], None]


class _Idler:
    """A thread of the set, while it waits for a job."""

    __slots__ = ("bell", "job")

    def __init__(self) -> None:
        self.bell = threading.Lock()
        self.bell.acquire()
        self.job: Job | None = None


class ThreadSet:
    """Threads that run jobs. `start` takes an idle one or makes one; those idle for long end."""

    def __init__(self) -> None:
        self._idle: deque[_Idler] = deque()
        self._count = 0

    def start(self, job: Job) -> None:
        try:
            idler = self._idle.pop()
        except IndexError:
            self._count += 1
            thread = threading.Thread(target=self._live, args=(job,), name=f"mpflow-thread-{self._count}", daemon=True)
            thread.start()
            return
        idler.job = job
        idler.bell.release()

    def _live(self, job: Job) -> None:
        idler = _Idler()
        while True:
            job()
            del job
            self._idle.append(idler)
            if not idler.bell.acquire(timeout=IDLE_S):
                try:
                    self._idle.remove(idler)
                except ValueError:  # taken at this very moment: its job is about to come
                    idler.bell.acquire()
                else:
                    return
            assert idler.job is not None
            job = idler.job
            idler.job = None

    def reset(self) -> None:
        """Forget all threads: after a fork the child has none of them."""
        self._idle = deque()


THREADS = ThreadSet()


class Posted(Protocol):
    """What may be queued: its outcome goes to its outbox."""

    @property
    def outbox(self) -> Any: ...


Work = TypeVar("Work", bound=Posted)


class ThreadPlace(Generic[Work]):
    """The threads of one run, at most `limit`. `perform` runs an attempt and returns its outcome, never raising."""

    def __init__(self, perform: Callable[[Work], Any], limit: int) -> None:
        self._perform = perform
        self.limit = limit
        self.spare = 0
        """How many of the threads only wait for tasks that they called: so many more there may be."""
        self._queue: deque[Work] = deque()
        self._active = 0
        self._lock = threading.Lock()

    def submit(self, attempts: Sequence[Work]) -> None:
        self._queue.extend(attempts)
        self.grow(len(attempts))

    @property
    def has_queued(self) -> bool:
        """Whether something waits for a thread."""
        return bool(self._queue)

    def waiting(self) -> list[Work]:
        """What waits for a thread at this moment."""
        while True:
            try:
                return list(self._queue)
            except RuntimeError:  # a thread took one meanwhile
                continue

    def withdraw(self, wanted: Collection[int]) -> list[Work]:
        """Take out, of the attempts with these ids, those that no thread has taken yet. The others keep their order."""
        taken: list[Work] = []
        kept: list[Work] = []
        while True:
            try:
                attempt = self._queue.popleft()
            except IndexError:
                break
            (taken if id(attempt) in wanted else kept).append(attempt)
        if kept:
            self.submit(kept)
        return taken

    def grow(self, wanted: int) -> None:
        """Start so many more threads, as far as the limit allows."""
        with self._lock:
            count = min(wanted, self.limit + self.spare - self._active)
            if count <= 0:
                return
            self._active += count
        for _ in range(count):
            THREADS.start(self._empty)

    def _empty(self) -> None:
        queue = self._queue
        perform = self._perform
        while True:
            try:
                attempt = queue.popleft()
            except IndexError:
                with self._lock:
                    self._active -= 1
                if queue:  # filled between the look and the leave, when this thread still counted as active
                    self.grow(1)
                return
            outbox = attempt.outbox
            assert outbox is not None
            outbox.post(perform(attempt))

    def drop(self) -> int:
        """Forget what no thread has taken yet, telling nobody. How much it was."""
        dropped = 0
        while True:
            try:
                self._queue.popleft()
            except IndexError:
                return dropped
            dropped += 1

    def cancel(self, attempts: Sequence[Work], *, kill: bool = False) -> None:
        """Drop what no thread has taken yet. What runs goes on: a thread cannot be killed."""
        for attempt in attempts:
            try:
                self._queue.remove(attempt)
            except ValueError:
                continue
            assert attempt.outbox is not None
            attempt.outbox.post((CANCELLED, attempt, None, 0.0))


class _Hurry:
    """While it is entered, threads give up the interpreter's lock ten times as often as usual.

    For a driver that imports or starts something while nodes compute: whoever reads a file lets go of the lock, and waits
    behind all of them each time. May be entered by several threads at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._usual_s = 0.0

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1
            if self._count == 1:
                self._usual_s = sys.getswitchinterval()
                sys.setswitchinterval(self._usual_s / 10)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1
            if not self._count:
                sys.setswitchinterval(self._usual_s)


HURRY = _Hurry()


@lru_cache(maxsize=1)
def default_threads() -> int:
    """How many threads a run uses if nothing else is said (AS-4). Counted once: the files of cgroups take longer than a run."""
    from mpflow._exec.cpu import cpu_count

    return min(32, cpu_count() + 4)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=THREADS.reset)
