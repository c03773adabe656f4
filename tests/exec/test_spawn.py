"""The pool's own thread: what it must not miss while it settles down to sleep, and whom it buries when the pool is gone."""

from __future__ import annotations

import select
import threading
from time import monotonic
from typing import Any

import pytest

from mpflow._exec import process, spawn
from mpflow._exec.crew import Worker
from mpflow._exec.process import WorkerPool
from mpflow._exec.spawn import Spawner, Started
from tests.exec.pooling import Drive, Node, is_alive, wait_until


class Pool:
    """A pool that no run polls. After the first look a run sets an alarm, as `WorkerPool` does, once it has been read."""

    def __init__(self) -> None:
        self.spawner: Spawner | None = None
        self.at = monotonic() + 0.02
        self.looks = 0
        self.looked_again = threading.Event()

    def look(self) -> None:
        self.at = float("inf")
        self.looks += 1
        if self.looks == 2:
            self.looked_again.set()

    def arrived(self, started: object) -> None: ...

    def attended_at(self) -> float:
        return 0.0

    def alarm_at(self) -> float:
        found = self.at
        if self.looks == 1 and found == float("inf"):
            assert self.spawner is not None
            self.at = monotonic()
            if self.at < self.spawner.wakes_at:
                self.spawner.ring()
        return found


def test_an_alarm_that_is_set_while_it_plans_its_sleep_is_minded() -> None:
    pool, epoll = Pool(), select.epoll()
    spawner = Spawner(pool, epoll.fileno(), {})
    pool.spawner = spawner
    try:
        assert pool.looked_again.wait(10.0)
    finally:
        spawner.close()
        epoll.close()


def test_a_worker_that_outlives_the_wait_for_its_end_is_buried(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that is too busy to end a process within a second."""
    monkeypatch.setattr(process, "_DYING_S", 0.05)
    pool = WorkerPool(1)
    Drive(pool).values(Node(lambda x: x), [1])
    (pid,) = pool.stats()["pids"]
    monkeypatch.setattr(Worker, "kill", lambda self: None)
    monkeypatch.setattr(process, "_CLOSE_GRACE_S", 0.0)
    Drive(pool).submit(Node(lambda x: spawn.select.select([], [], [], 60), "busy"), [1])
    pool.close(kill=True)
    assert wait_until(lambda: not is_alive(pid), 10.0)


def test_a_worker_that_is_started_after_all_is_buried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_DYING_S", 0.05)
    monkeypatch.setattr(process, "_CLOSE_GRACE_S", 0.0)
    begun, closed, started = threading.Event(), threading.Event(), []
    start = spawn.start

    def late(environ: Any) -> Started:
        begun.set()
        closed.wait(20.0)
        started.append(start(environ))
        return started[0]

    monkeypatch.setattr(spawn, "start", late)
    pool = WorkerPool(1)
    Drive(pool).submit(Node(lambda x: x), [1])
    assert begun.wait(10.0)
    pool.close(kill=True)
    closed.set()
    assert wait_until(lambda: bool(started) and not is_alive(started[0].pid), 10.0)
