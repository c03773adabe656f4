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


class ThreadSet:
    """Threads that run jobs. `start` wakes an idle one or makes one; those idle for long end.

    Whoever is free takes the job that waits longest. There are as many threads on their way as jobs that wait, or more
    after one was withdrawn: the next job needs no waking then. One that is not counted although it comes, as Ctrl-C may
    leave it, does no harm; one that is counted and does not come would.
    """

    def __init__(self) -> None:
        self._made = 0
        self.reset()

    def reset(self) -> None:
        """Forget all threads: after a fork the child has none of them."""
        self._lock = threading.RLock()  # a signal's handler may start a job in the middle of all this
        self._jobs: deque[Job] = deque()
        self._idle: list[Any] = []
        """The bells of idle threads: locks that they wait for."""
        self._coming: set[Any] = set()
        """The bells of those that are on their way."""

    def start(self, job: Job) -> None:
        """Have a thread run `job`. Raises RuntimeError if there can be no more threads."""
        jobs, coming = self._jobs, self._coming
        new: list[Any] = []
        try:
            with self._lock:
                jobs.append(job)
                while len(coming) < len(jobs):
                    if self._idle:
                        bell = self._idle.pop()
                        bell.release()
                    else:
                        bell = threading.Lock()
                        new.append(bell)
                    coming.add(bell)
            while new:
                self._make(new[-1])
                new.pop()
        except BaseException:
            with self._lock:
                coming.difference_update(new)
            raise

    def withdraw(self, job: Job) -> bool:
        """Take back a job that no thread has taken yet; whether there was one."""
        with self._lock:
            try:
                self._jobs.remove(job)
            except ValueError:
                return False
            return True

    def _make(self, bell: Any) -> None:
        bell.acquire()
        self._made += 1
        threading.Thread(target=self._live, args=(bell,), name=f"mpflow-thread-{self._made}", daemon=True).start()

    def _live(self, bell: Any) -> None:
        while True:
            with self._lock:
                self._coming.discard(bell)
                job = self._jobs.popleft() if self._jobs else None
                if job is None:
                    self._idle.append(bell)
            if job is not None:
                job()
                del job
            elif not bell.acquire(timeout=IDLE_S):
                with self._lock:
                    if bell in self._idle:
                        self._idle.remove(bell)
                        return
                bell.acquire(timeout=IDLE_S)  # just released, or about to be


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

    @property
    def queued(self) -> int:
        """How many wait for a thread."""
        return len(self._queue)

    def waiting(self) -> list[Work]:
        """What waits for a thread at this moment."""
        while True:
            try:
                return list(self._queue)
            except RuntimeError:  # a thread took one meanwhile
                continue

    def take(self) -> Work | None:
        """One that no thread has taken yet, if there is one: the caller performs it."""
        try:
            attempt = self._queue.popleft()
        except IndexError:
            return None
        if not self._queue and THREADS.withdraw(self._empty):
            with self._lock:
                self._active -= 1
        return attempt

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
