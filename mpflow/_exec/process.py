"""The process pool: attempts go to worker processes, outcomes come back, whichever thread happens to wait.

The pool's state is changed by one thread at a time, under a lock that nobody waits for: what is asked of the pool is put
into an inbox, and whoever holds the lock empties it before and after letting go. So a request may come from anywhere,
even from a finalizer that runs in the middle of another request. Outcomes are handed out in order, outside the lock.

One thread at a time polls the workers: a run that waits (the leader, the other waiting runs follow), the event loop, or,
when nobody attends, the pool's own thread (`spawn.Spawner`). Decisions about workers are in `_exec.foreman`.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic, thread_time
from typing import Any

from mpflow._columns import Attempts
from mpflow._exec.cpu import cpu_count, thread_limits
from mpflow._exec.foreman import Foreman
from mpflow._exec.functions import Spent, Watched
from mpflow._exec.interrupts import Uninterrupted, pass_on
from mpflow._exec.mailbox import Mailbox
from mpflow._exec.polling import Events, Polling
from mpflow._exec.roster import Roster
from mpflow._exec.spawn import Spawner, Started
from mpflow._messages import Attempt
from mpflow._wire.memory import limit_bytes
from mpflow.errors import PoolClosedError, WrongProcessError

_CLOSE_GRACE_S = 1.0
_DYING_S = 1.0
"""How long a pool that is closed waits for what it has killed; a busy machine may take longer to start or to end a process."""
_FOREVER = float("inf")


class WorkerPool:
    """Worker processes shared by any number of runs, graphs and threads. A context manager.

    ``max_workers`` defaults to the processors this process may use. ``worker_init`` is called once in each worker before
    its first task. A worker is replaced, between tasks, after ``max_tasks_per_worker`` tasks or when it holds more than
    ``max_worker_rss`` bytes of memory of its own, files and shared memory apart. Workers start when there is work for them
    and end with the pool, at the latest with this process. Not usable in a forked child (WrongProcessError) nor after
    `close` (PoolClosedError).
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        worker_init: Callable[[], Any] | None = None,
        max_tasks_per_worker: int | None = None,
        max_worker_rss: int | None = None,
    ) -> None:
        for name, value in (
            ("max_workers", max_workers),
            ("max_tasks_per_worker", max_tasks_per_worker),
            ("max_worker_rss", max_worker_rss),
        ):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} must be a positive integer or None, got {value!r}")
        self.max_workers = cpu_count() if max_workers is None else max_workers
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._owner = 0
        self._inbox: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._mouth = threading.Lock()
        self._speaker = 0
        self._polling = Polling()
        self._spawner: Spawner | None = None
        # Shared memory: half of what may be used is for inputs, half for results.
        budget_bytes = limit_bytes() // 8
        self._roster = Roster(
            self.max_workers,
            self._polling.epoll,
            self._polling.door.outside(),
            # Weakly: without a cycle, a pool that is dropped ends at once.
            partial(_order, weakref.ref(self)),
            worker_init,
            reports_rss=max_worker_rss is not None,
            arena_bytes=budget_bytes // self.max_workers,
        )
        self._foreman = Foreman(
            self._roster, max_tasks_per_worker, max_worker_rss, budget_bytes, partial(_ask, weakref.ref(self))
        )
        self._is_closed = False
        self._cpu_s = 0.0
        _pools.add(self)

    # -- what the engine asks ------------------------------------------------------------------------------------------

    def submit(self, attempts: Attempts) -> None:
        """Queue attempts and send what fits. From any thread; never blocks on a worker.

        Each ends with one DONE, FAILED, LOST or CANCELLED in its outbox.
        """
        self._check()
        if self._is_closed:
            raise PoolClosedError("an attempt was submitted")
        cpu_s = thread_time()
        self._inbox.append((self._foreman.take_in, attempts))
        self._work()
        self._cpu_s += thread_time() - cpu_s

    def cancel(self, attempts: Sequence[Attempt], *, kill: bool = False) -> None:
        """Drop what has not started (posts CANCELLED); with `kill`, kill the workers that run the rest (likewise).

        Without `kill` a running attempt goes on to its end. Whoever else had tasks with a killed worker is not charged.
        """
        if self._is_foreign():
            return
        self._inbox.append((self._foreman.cancel, (frozenset(map(id, attempts)), kill)))
        self._work()

    def wait(self, mailbox: Mailbox, timeout_s: float | None = None) -> None:
        """Poll for all runs until `mailbox` holds something, it was rung, or the time is up.

        To wake it otherwise, call ``mailbox.notify`` if that is set, else ``mailbox.ring``. Spurious returns happen.
        Raises RuntimeError where that would last for ever.
        """
        self._check()
        if mailbox.items:
            return
        if self._is_interrupted():
            raise RuntimeError(
                "a graph cannot run on a process pool from within that pool's own work, which this signal handler, "
                "finalizer, logging handler or unpickling object interrupts: run it in a thread of its own"
            )
        self._polling.wait(self, mailbox, timeout_s)

    def fileno(self) -> int:
        """A descriptor that becomes readable when `drain` has something to do."""
        return self._polling.epoll.fileno()

    def drain(self) -> None:
        """Take what the workers have sent and hand it out. Never blocks. For an event loop's ``add_reader``."""
        if not self._is_foreign() and not self._is_closed:
            self._polling.once(self, attends=True)

    def measured(self, program: Any) -> tuple[int, float, int]:
        """How many tasks of a program were measured, the mean of what they took of a worker, in seconds, and in how many
        batches they were sent."""
        return self._foreman.measured(program)

    def spent(self, program: Any) -> Spent:
        """What the tasks of a program took of the workers in all."""
        return self._foreman.spent(program)

    def memory(self, program: Any) -> int:
        """The peak in bytes by which a task of a program is expected to grow its worker; 0 if that is nothing worth counting."""
        return self._foreman.memory(program)

    def used(self) -> tuple[float, int]:
        """The CPU seconds that this process has spent on the pool's tasks, and how many of them have ended, since it was
        made."""
        return self._cpu_s, self._roster.counts["ended"]

    def watched(self, program: Any) -> Watched:
        """What the workers measured of a program's tasks that nobody asked to be run there. It goes on counting."""
        return self._foreman.watched(program)

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be submitted any more."""
        return self._is_closed

    def stats(self) -> dict[str, Any]:
        """Counts since the pool was made, and its workers now.

        ``nodes`` has for each node its ``tasks``, the seconds they ran (``run_s``) and what their workers computed
        meanwhile (``cpu_s``), and what they moved: ``bytes_out`` to
        workers and ``bytes_in`` from them through sockets, ``shared_out`` and ``shared_in`` copied into shared memory;
        ``memory`` is the peak in bytes that is expected of the next one. ``held_back`` counts tasks that had to wait
        until what ran left memory for them, or told how much such tasks take.
        """
        return self._foreman.stats()

    def close(self, *, kill: bool = False) -> None:
        """End all workers and wait for that: two seconds at most.

        Queued attempts are CANCELLED. Running ones have one second to finish, none with `kill`. May be called again.
        """
        if self._is_foreign():
            return
        first = not self._is_closed
        self._is_closed = True
        done = Mailbox()
        self._inbox.append((self._foreman.close, (done, 0.0 if kill else _CLOSE_GRACE_S)))
        self._work()
        if not first:
            return
        deadline = monotonic() + _CLOSE_GRACE_S + _DYING_S
        while not done.items and monotonic() < deadline and not self._is_interrupted():
            self.wait(done, deadline - monotonic())
        if self._spawner is not None:
            if not done.items:
                self._inbox.append((self._foreman.let_go, self._spawner.abandon))
                self._work()
            self._spawner.close(1.0)
        self._work()
        self._foreman.close_arena()
        self._polling.close()
        _pools.discard(self)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.close(kill=kind is not None)

    def __del__(self) -> None:
        # Nobody can wait for its workers any more; its thread, which holds it weakly, kills and buries them.
        if not getattr(self, "_is_closed", True) and not self._is_foreign():
            self._is_closed = True
            pids = [worker.pid for worker in self._roster.crew]
            self._roster.let_go()
            self._foreman.close_arena()
            if self._spawner is not None:
                self._spawner.abandon(pids)
            self._polling.close()

    # -- one at a time -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Empty the inbox, unless another does so already: then it looks again after it has let go."""
        # Nothing is called between taking a lock and saying whose it is: a signal handler might come between.
        me = threading.get_ident()
        while self._inbox:
            if self._lock.locked():
                return
            with self._lock:
                self._owner = me
                try:
                    self._settle()
                finally:
                    self._owner = 0
        self._hand_out()

    def _settle(self) -> None:
        inbox = self._inbox
        while inbox:
            do, what = inbox[0]
            try:
                do(what)
            finally:
                inbox.popleft()
        self._foreman.dispatch()
        if self._polling.is_led:
            self._polling.alarm(self._roster.alarm_at)
        else:
            self.unattended()

    def handle(self, events: Events) -> None:
        """Answer what the workers have sent."""
        me = threading.get_ident()
        cpu_s = thread_time()
        with self._lock:
            self._owner = me
            try:
                foreman = self._foreman
                for fd, event in events:
                    foreman.serve(fd, event)
                if monotonic() >= self._roster.alarm_at:
                    foreman.strike()
                self._settle()
            finally:
                self._owner = 0
        if self._inbox:
            self._work()
        self._hand_out()
        self._cpu_s += thread_time() - cpu_s

    def _hand_out(self) -> None:
        outgoing = self._foreman.outgoing
        me = threading.get_ident()
        while outgoing:
            if self._mouth.locked():
                return
            with self._mouth:
                self._speaker = me
                try:
                    while outgoing:
                        deliver, what = outgoing[0]
                        try:
                            deliver(what)
                        except Exception:  # a bug must not be met again and again; Ctrl-C is met again
                            outgoing.popleft()
                            raise
                        outgoing.popleft()
                finally:
                    self._speaker = 0

    def _is_interrupted(self) -> bool:
        """Whether this thread is in the middle of the pool's work, further down its stack."""
        return threading.get_ident() in (self._owner, self._speaker)

    # -- for whoever polls, and the pool's own thread --------------------------------------------------------------------------------------

    def look(self) -> None:
        """Drain for want of anybody else."""
        if not self._is_closed or self._roster.crew:
            self._polling.once(self, attends=False)

    def attended_at(self) -> float:
        """When a run last polled; infinite while one does."""
        return self._polling.attended_at

    def alarm_at(self) -> float:
        return self._roster.alarm_at

    def begin_calm(self) -> float:
        """For how many seconds nobody needs to read what workers send, unless one knocks (see `door`); 0 if somebody should.
        `end_calm` must follow if for any."""
        self._polling.door.answer()
        return self._foreman.calm.begin()

    def end_calm(self) -> bool:
        """Whether a worker has knocked."""
        self._foreman.calm.end()
        return self._polling.door.answer()

    def get_up(self) -> None:
        """End the calm of one that does not poll. Workers knock no more: whoever polls must look by itself."""
        self.end_calm()
        if self._polling.is_led:
            self._polling.wake()

    def door(self) -> int:
        """A descriptor that becomes readable when a worker knocks."""
        return self._polling.door.fileno()

    def arrived(self, started: Started | BaseException) -> None:
        """Take on a worker process, or the reason why there is none."""
        self._inbox.append((self._foreman.enlist, started))
        self._work()

    def unattended(self) -> None:
        """No run polls any more: the pool's thread must."""
        spawner = self._spawner
        if spawner is not None and self._roster.alarm_at < spawner.wakes_at:
            spawner.ring()

    def order(self, count: int) -> None:
        """Have workers started."""
        if self._spawner is None:
            self._spawner = Spawner(self, self._polling.epoll.fileno(), thread_limits(self.max_workers))
        self._spawner.order(count)

    # -- whose it is ---------------------------------------------------------------------------------------------------

    def _is_foreign(self) -> bool:
        return self._pid != os.getpid()

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise WrongProcessError(self._pid, os.getpid())

    def _after_fork(self) -> None:
        """In the child: let go of descriptors, so that workers see their parent's end; touch nothing that is shared."""
        self._is_closed = True
        self._roster.let_go()
        self._spawner = None
        self._polling.let_go()


def _order(pool: weakref.ref[WorkerPool], count: int) -> None:
    found = pool()
    if found is not None:
        found.order(count)


def _ask(pool: weakref.ref[WorkerPool], do: Callable[[Any], None], what: Any) -> None:
    found = pool()
    if found is not None and not found._is_foreign():
        found._inbox.append((do, what))
        found._work()


_nobody = Mailbox()
_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def _close_all() -> None:
    with Uninterrupted() as ending:
        for pool in list(_pools):
            pool.close(kill=True)
    # What KeyboardInterrupt would end is ended.
    if ending.came and signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        pass_on()


def _forget_all() -> None:
    for pool in list(_pools):
        pool._after_fork()
    _pools.clear()


# Runs abandoned at exit are cancelled, not waited for.
atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
