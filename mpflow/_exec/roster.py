"""Workers come and go: when another is ordered, how one is told to leave or killed, and when the pool gives up.

Owns the crew, its descriptors in the pool's epoll, and the alarm clock. What becomes of attempts is the foreman's.
"""

from __future__ import annotations

import contextlib
import select
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any

from mpflow._exec import batches, link
from mpflow._exec.crew import GONE, LEAVING, READY, STARTING, Worker
from mpflow._exec.deaths import remember_oom_kills
from mpflow._exec.spawn import Started
from mpflow._messages import WorkerDeath
from mpflow.errors import EngineUnhealthy, WorkerLost, WorkerStartError

START_S = 0.05
"""What a worker costs to start. Less work than this for each worker at hand does not call for another."""
LEAVE_S = 1.0
"""How long a worker that was told to leave has for its finalizers."""
FAILED_STARTS = 3
RETRY_S = 1.0
UNHEALTHY = 5


class Roster:
    """The workers of one pool."""

    def __init__(
        self,
        max_workers: int,
        epoll: Any,
        door: int,
        order: Callable[[int], None],
        worker_init: Callable[[], Any] | None,
        reports_rss: bool,
        arena_bytes: int,
    ) -> None:
        self.max_workers = max_workers
        self.crew: list[Worker] = []
        self.by_fd: dict[int, Worker] = {}
        self.ordered = 0
        self.counts: Counter[str] = Counter()
        self.alarm_at = float("inf")
        self._epoll = epoll
        self._door = door
        self._order = order
        self._worker_init = worker_init
        self._reports_rss = reports_rss
        self._arena_bytes = arena_bytes
        self._setup: bytes | None = None
        self._failed_starts: list[str] = []
        self._retry_at = 0.0
        self._idle_deaths: list[WorkerDeath] = []

    # -- coming --------------------------------------------------------------------------------------------------------

    def alive(self) -> int:
        """The workers that take tasks, now or when they have started."""
        return sum(1 for worker in self.crew if worker.state in (STARTING, READY) and not worker.spent)

    def recruit(self, waiting: int, alone: int, busy: int, backlog_s: float, absent: int = 0) -> None:
        """Order workers for `waiting` attempts, if the work at hand is worth their start.

        ``alone`` of them need a fresh worker each; ``backlog_s`` is how long the others are expected to take together;
        ``absent`` workers are alive and of no use.
        """
        alive = self.alive() + self.ordered - absent
        if len(self._failed_starts) >= FAILED_STARTS:
            # The others carry on, and it is tried again now and then; without any, at once.
            if alive and monotonic() < self._retry_at:
                return
            self._failed_starts.clear()
        want = min(self.max_workers, busy + waiting)
        if alive and not alone and backlog_s / alive < START_S:
            want = min(want, alive)
        is_fresh_near = self.ordered or any(w.is_fresh and w.state in (STARTING, READY) for w in self.crew)
        if (alone or self.counts["deaths"]) and not is_fresh_near:
            # After a death a spare stands by, so that the next one costs no start.
            if alone and alive > self.max_workers:
                used = [w for w in self.crew if w.state == READY and not w.window and not w.spent]
                if used:
                    self.dismiss(used[0], LEAVE_S)
                    alive -= 1
            want = max(want, min(alive, self.max_workers) + 1)
        if want > alive:
            self.ordered += want - alive
            self._order(want - alive)

    def enlist(self, started: Started) -> Worker:
        """Take on a worker that has been started, and send it its setup."""
        remember_oom_kills()
        worker = Worker(started, monotonic())
        self.counts["started"] += 1
        self.crew.append(worker)
        try:
            for fd in (worker.sock.fileno(), worker.pidfd):
                if fd >= 0:
                    self._epoll.register(fd, select.EPOLLIN)
                    self.by_fd[fd] = worker
            if self._setup is None:
                self._setup = batches.pack((self._initializer(), self._reports_rss, self._arena_bytes))
        except Exception as error:
            worker.note = f"{type(error).__name__}: {error}"
            self.kill(worker, "start")
        else:
            worker.writer.add(link.SETUP, self._setup, fds=[self._door])
            self.push(worker)
        return worker

    def _initializer(self) -> bytes | None:
        if self._worker_init is None:
            return None
        from mpflow._wire import pickling

        return pickling.dumps(self._worker_init)

    def said_hello(self, worker: Worker) -> None:
        self._failed_starts.clear()
        if worker.state == STARTING:
            worker.state = READY

    def start_failed(self, detail: str) -> WorkerLost | None:
        """Count a worker that did not come to its hello. Returns the reason to give up on what is queued, if it is one."""
        self._failed_starts.append(detail)
        if len(self._failed_starts) < FAILED_STARTS:
            return None
        if self.alive():
            self._retry_at = monotonic() + RETRY_S
            return None
        # Nobody is left to run anything, and trying on would be a spawn loop.
        error = WorkerStartError(len(self._failed_starts), self._failed_starts[-1])
        self._failed_starts.clear()
        return error

    def did_work(self) -> None:
        """A task has ended, so workers live long enough to be of use."""
        self._idle_deaths.clear()

    # -- going ---------------------------------------------------------------------------------------------------------

    def dismiss(self, worker: Worker, grace_s: float) -> None:
        """Have it end when it has done what it was given."""
        worker.state = LEAVING
        worker.leave_by = monotonic() + grace_s
        worker.writer.add(link.CLOSE)
        self.push(worker)
        self.alarm(worker.leave_by)

    def trim(self, absent: int) -> None:
        """Dismiss idle workers that stood in for absent ones. A spare may stay."""
        surplus = self.alive() - absent - self.max_workers - 1
        if surplus > 0:
            idle = [worker for worker in self.crew if worker.state == READY and not worker.window and not worker.spent]
            for worker in idle[:surplus]:
                self.dismiss(worker, LEAVE_S)

    def kill(self, worker: Worker, why: str) -> None:
        """Kill it with all it started; its death is buried when the kernel reports it."""
        if worker.state != GONE:
            worker.killed_for = worker.killed_for or why
            worker.state = LEAVING
            worker.leave_by = float("inf")
            worker.kill()

    def lost(self, worker: Worker, death: WorkerDeath, was_starting: bool, was_asked: bool) -> WorkerLost | None:
        """Take a dead worker off the books. Returns the reason to give up on what is queued, if it is one."""
        self.unwatch(worker.sock.fileno())
        self.unwatch(worker.pidfd)
        self.counts["bytes_in"] += worker.reader.received
        self.counts["bytes_out"] += worker.writer.sent
        self.crew.remove(worker)
        has_worked = worker.has_worked
        worker.close()
        if was_asked:
            return None
        self.counts["deaths"] += 1
        if has_worked:
            self._idle_deaths.clear()
            return None
        self._idle_deaths.append(death)
        give_up = self.start_failed(worker.note or str(death)) if was_starting else None
        if give_up is None and len(self._idle_deaths) >= UNHEALTHY:
            give_up = EngineUnhealthy(self._idle_deaths)
            self._idle_deaths = []
        return give_up

    def unwatch(self, fd: int) -> bool:
        """Take a descriptor out of the epoll; whether it was in."""
        if fd < 0 or self.by_fd.pop(fd, None) is None:
            return False
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)
        return True

    def let_go(self) -> None:
        """Close our ends of everything and end nothing: for a forked child, or when another ends the workers."""
        for worker in self.crew:
            worker.close()
            worker.mappings.close()
        self.crew.clear()

    def stats(self) -> dict[str, Any]:
        """Counts since the beginning, and the workers now with what they run."""
        counts = self.counts
        live = [worker for worker in self.crew if worker.state in (STARTING, READY)]
        names = ("started", "deaths", "recycled", "submitted", "ended", "taken_back", "held_back")
        return {
            **{name: counts[name] for name in names},
            "bytes_in": counts["bytes_in"] + sum(worker.reader.received for worker in self.crew),
            "bytes_out": counts["bytes_out"] + sum(worker.writer.sent for worker in self.crew),
            "workers": len(live),
            "pids": [worker.pid for worker in live],
            "starting": [worker.pid for worker in live if worker.state == STARTING],
            "running": {
                worker.pid: attempt.program.name
                for worker in live
                if (attempt := worker.window.get(worker.running)) is not None
            },
        }

    # -- socket and clock ----------------------------------------------------------------------------------------------

    def push(self, worker: Worker) -> None:
        """Send what its socket takes, and be told when it takes more."""
        wants_out = not worker.flush()
        fd = worker.sock.fileno()
        if wants_out != worker.wants_out and fd in self.by_fd:
            worker.wants_out = wants_out
            self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if wants_out else 0))

    def alarm(self, at: float) -> None:
        """Have `Foreman.strike` called at that time, if not before."""
        if at < self.alarm_at:
            self.alarm_at = at
