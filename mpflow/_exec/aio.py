"""The event loop as a place to run, and how a driver on it is woken by threads and worker processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from mpflow._exec.tracebacks import leave_us_out
from mpflow._messages import CANCELLED, CLOSED, FAILED, Attempt, Outcome
from mpflow.errors import NodeCancelledError

if TYPE_CHECKING:
    from mpflow._exec.mailbox import Mailbox
    from mpflow._exec.process import WorkerPool

Work = Callable[[Attempt], Coroutine[Any, Any, Any]]


class LoopBell:
    """Wakes the coroutine that waits for a mailbox, from any thread."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.loop = asyncio.get_running_loop()
        self.mailbox = mailbox
        self._waiter: asyncio.Future[None] | None = None
        self._calling = False
        mailbox.notify = self.notify

    def notify(self) -> None:
        if self._waiter is None or self._calling:
            return
        self._calling = True
        try:
            self.loop.call_soon_threadsafe(self.ring)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._waiter = None

    def ring(self) -> None:
        self._calling = False
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self, timeout_s: float | None) -> None:
        """Return when the mailbox has something, or the time is up."""
        self._waiter = waiter = self.loop.create_future()
        timer = None if timeout_s is None else self.loop.call_later(timeout_s, self.ring)
        try:
            # A post before the waiter was there has rung no bell.
            if not self.mailbox.items:
                await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()


class LoopPlace:
    """The asyncio tasks of one run. `work` awaits an attempt and returns its complete diff."""

    def __init__(self, work: Work, context: Context, bell: LoopBell) -> None:
        self._work = work
        self._context = context
        self._bell = bell
        self._tasks: dict[Attempt, asyncio.Task[None]] = {}
        self._cancelled: set[Attempt] = set()

    def submit(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            self.start(attempt, self._work)

    def start(self, attempt: Attempt, work: Work) -> None:
        """Await what completes an attempt, and post its outcome."""
        # A task copies the context it is made in; made inside a copy of the run's, it has that.
        task = self._context.copy().run(self._bell.loop.create_task, self._finish(attempt, work))
        # Whoever leaves them pending has been told: by a second Ctrl-C, which asyncio lets cut short its own ending.
        # A line for each of thousands would hide where it came.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks[attempt] = task

        def forget(task: asyncio.Task[None]) -> None:
            self._tasks.pop(attempt, None)
            if task.cancelled():  # before it had begun, so nothing in it could answer
                assert attempt.outbox is not None
                attempt.outbox.post((CANCELLED, attempt, None, 0.0))

        task.add_done_callback(forget)

    async def _finish(self, attempt: Attempt, work: Work) -> None:
        started = perf_counter()
        patience = attempt.patience
        assert attempt.outbox is not None
        if patience is not None:
            task = asyncio.current_task()
            assert task is not None
            patience.watch(self._bell.loop, task)
        try:
            outcome: Outcome = (CLOSED, attempt, await work(attempt), perf_counter() - started)
            if patience is not None and patience.kind is not None:  # it took no notice of being cancelled
                outcome = FAILED, attempt, patience.error(attempt.program.name), perf_counter() - started
        except BaseException as error:
            outcome = self._ended(attempt, error, perf_counter() - started)
        finally:
            if patience is not None:
                patience.end()
        attempt.outbox.post(outcome)

    def _ended(self, attempt: Attempt, error: BaseException, seconds: float) -> Outcome:
        """The outcome of an attempt that raised: its own failure, its deadline, or our cancelling it."""
        name = attempt.program.name
        patience = attempt.patience
        if patience is not None and patience.kind is not None:
            failure: BaseException = patience.error(name)
            failure.__cause__ = error
            return FAILED, attempt, failure, seconds
        if not isinstance(error, asyncio.CancelledError):
            return FAILED, attempt, error, seconds
        if attempt in self._cancelled:
            return CANCELLED, attempt, None, seconds
        failure = NodeCancelledError(name)  # nobody cancelled it: the node raised it (ER-7)
        failure.__cause__ = error
        return FAILED, attempt, failure, seconds

    def cancel(self, attempts: Sequence[Attempt], *, kill: bool = False) -> None:
        for attempt in attempts:
            task = self._tasks.get(attempt)
            if task is not None and attempt not in self._cancelled:
                self._cancelled.add(attempt)
                task.cancel()

    async def join(self) -> None:
        """Wait until every task has ended, however often the waiting itself is cancelled."""
        while self._tasks:
            for task in list(self._tasks.values()):
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError:
                    continue


_NAP_S = 0.04
"""The pool's own thread listens where nobody has for longer (see `spawn`)."""


class _Listener:
    """Reads a pool's sockets for the running loop, and not while it is calm (see `calm`). Does not hold the loop."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._descriptor = pool.fileno()
        self._door = pool.door()
        self._nap: asyncio.TimerHandle | None = None
        self.runs = 0
        self._listen()

    def _listen(self) -> None:
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def _read(self) -> None:
        try:
            self._pool.drain()
        except KeyboardInterrupt as interrupt:
            leave_us_out(interrupt)
            raise
        if calm_s := self._pool.begin_calm():
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._descriptor)
            loop.add_reader(self._door, self._wake)
            self._nap = loop.call_later(min(calm_s, _NAP_S), self._wake)

    def _wake(self) -> None:
        self._get_up()
        self._listen()
        self._read()

    def _get_up(self) -> None:
        assert self._nap is not None
        self._nap.cancel()
        self._nap = None
        asyncio.get_running_loop().remove_reader(self._door)
        self._pool.get_up()

    def end(self) -> None:
        if self._nap is None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        else:
            self._get_up()


_listeners: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[WorkerPool, _Listener]] = WeakKeyDictionary()


def watch(pool: WorkerPool) -> None:
    """Let the running loop read the pool's sockets while one of its runs uses the pool; `unwatch` once for each."""
    loop = asyncio.get_running_loop()
    listeners = _listeners.setdefault(loop, {})
    if pool not in listeners:
        listeners[pool] = _Listener(pool)
    listeners[pool].runs += 1


def unwatch(pool: WorkerPool) -> None:
    listeners = _listeners.get(asyncio.get_running_loop(), {})
    if pool in listeners:
        listeners[pool].runs -= 1
        if not listeners[pool].runs:
            listeners.pop(pool).end()
