"""Starting workers, and the one thread of a pool: it starts them, and watches them while no run does.

Workers are given a parent-death signal, which the kernel sends when the *thread* that started them ends. So one thread
that lives as long as the pool starts them all. It holds the pool weakly: a pool nobody holds ends with its workers.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import select
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Protocol

from mpflow._exec import slots

_BOOT = """\
import os, sys
for fd in 0, 1, 2:
    try: os.fstat(fd)
    except OSError: os.open(os.devnull, os.O_RDWR)
kept = os.dup(2); os.dup2({page}, 2); sys.path[:] = {path!r}
from mpflow._exec.worker import main
main({socket}, {page}, kept, {parent})
"""
_SOCKET_BYTES = 1 << 20
_ATTENDED_S = 0.05
"""After a run has polled, it is expected back within this; only then does the thread watch the workers, which would wake it
at each of their messages."""
_DOZE_S = 0.25
"""While a run polls, the thread looks this often whether it still does: to be rung each time that a run takes in what came
would cost the run more than the rest of it."""


class Started:
    """A worker process from the outside: what was opened to talk to it and to see it end."""

    __slots__ = ("page", "pid", "pidfd", "sock")

    def __init__(self, pid: int, pidfd: int, sock: socket.socket, page: slots.Page) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.sock = sock
        self.page = page

    def end(self) -> None:
        """Kill and bury it: nobody wants it any more."""
        _end(self.pid)
        self.sock.close()
        self.page.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)


def start(environ: Mapping[str, str]) -> Started:
    """Start one worker. Raises OSError (no descriptors, no memory, no such interpreter); then nothing is left open."""
    with contextlib.ExitStack() as undo:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        undo.callback(ours.close)
        with theirs:
            for end in (ours, theirs):
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
            ours.setblocking(False)
            page_fd = slots.create()
            try:
                page = slots.Page(page_fd)
            except BaseException:
                os.close(page_fd)
                raise
            undo.callback(page.close)
            pid = _exec(theirs.fileno(), page_fd, environ)
        try:
            pidfd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
        except OSError as error:
            pidfd = -1
            if error.errno in (23, 24):  # ENFILE, EMFILE: what cannot be watched is not kept
                _end(pid)
                raise
        undo.pop_all()
    return Started(pid, pidfd, ours, page)


def _exec(socket_fd: int, page_fd: int, environ: Mapping[str, str]) -> int:
    if not sys.executable:
        raise OSError("sys.executable is empty: there is no interpreter to start workers with")
    path = [entry or os.getcwd() for entry in sys.path]
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    with contextlib.ExitStack() as undo:
        passed = []
        for fd in (socket_fd, page_fd):
            # In a process without stdin, stdout or stderr ours may bear their numbers, which are taken in the worker.
            passed.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
            undo.callback(os.close, passed[-1])
        boot = _BOOT.format(page=passed[1], path=path, socket=passed[0], parent=os.getpid())
        pid: int = _fork_exec()([sys.executable, *flags, "-c", boot], passed, dict(environ))
    return pid


def _end(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, 9)
    with contextlib.suppress(OSError):
        os.waitpid(pid, 0)


_found: Callable[..., int] | None = None


def _fork_exec() -> Callable[..., int]:
    """loky's exec-style start, and no more of loky.

    Its Process would start two resource trackers that outlive the pool, for semaphores that we do not have, and import
    loky in parent and child: 0.1 s each. So its one module is loaded without the package around it.
    """
    global _found
    if _found is None:
        package = importlib.util.find_spec("loky")
        assert package is not None and package.origin is not None
        path = Path(package.origin).parent / "backend" / "fork_exec.py"
        spec = importlib.util.spec_from_file_location("mpflow._exec._loky_fork_exec", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        _found = module.fork_exec
    return _found


class Watched(Protocol):
    """What the thread needs of a pool."""

    def look(self) -> None: ...
    def arrived(self, started: Started | BaseException) -> None: ...
    def attended_at(self) -> float: ...
    def alarm_at(self) -> float: ...


class Spawner:
    """The pool's thread."""

    def __init__(self, pool: Watched, epoll_fd: int, environ: Mapping[str, str]) -> None:
        self._pool = weakref.ref(pool)
        self._epoll_fd = epoll_fd
        self._environ = environ
        self._orders: deque[bool] = deque()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closing = False
        self._is_abandoned = self._has_ended = False
        self._unburied: deque[int] = deque()
        self.wakes_at = 0.0
        self._thread = threading.Thread(target=self._run, name="mpflow-spawner", daemon=True)
        self._thread.start()

    def order(self, count: int) -> None:
        """Have `count` workers started."""
        self._orders.extend([True] * count)
        self.ring()

    def ring(self) -> None:
        """Wake the thread. From any thread, never blocks, and does nothing once the thread has ended."""
        with contextlib.suppress(OSError, ValueError):
            os.eventfd_write(self._bell, 1)

    def abandon(self, pids: list[int]) -> None:
        """The pool waits for these workers no longer: kill and bury them and whoever is being started, then end.

        Does not wait, unless the thread has ended before.
        """
        self._is_abandoned = True
        self._unburied.extend(pids)
        if self._has_ended:
            self._bury()
        self.ring()

    def close(self, timeout_s: float | None = None) -> None:
        """End the thread; its workers must have ended before."""
        self._closing = True
        self.ring()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        watching = False
        try:
            while not self._closing:
                self._start_ordered()
                timeout_s, watch = self._plan()
                if watch != watching:
                    watching = watch
                    if watch:
                        poll.register(self._epoll_fd, select.POLLIN)
                    else:
                        poll.unregister(self._epoll_fd)
                ready = poll.poll(None if timeout_s is None else max(0, int(timeout_s * 1000) + 1))
                rung = any(fd == self._bell for fd, _ in ready)
                if rung:
                    with contextlib.suppress(OSError):
                        os.eventfd_read(self._bell)
                pool = self._pool()
                if pool is None or self._is_abandoned:
                    break
                if not self._closing and (watching or monotonic() >= pool.alarm_at()):
                    if monotonic() - pool.attended_at() > _ATTENDED_S or monotonic() >= pool.alarm_at():
                        pool.look()
                del pool
        finally:
            self._has_ended = True  # who abandons a worker from here on buries it
            self._bury()
            bell, self._bell = self._bell, -1
            os.close(bell)

    def _bury(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                pid = self._unburied.popleft()
                with contextlib.suppress(OSError):
                    os.killpg(pid, 9)
                _end(pid)

    def _plan(self) -> tuple[float | None, bool]:
        """How long to sleep, and whether to watch the workers meanwhile."""
        pool = self._pool()
        if pool is None:
            return 0.0, False
        # Before the alarm is read: whoever sets an earlier one from here on rings.
        self.wakes_at = float("inf")
        now = monotonic()
        quiet_s = now - pool.attended_at()
        alarm_at = pool.alarm_at()
        until_alarm_s = None if alarm_at == float("inf") else max(0.0, alarm_at - now)
        if quiet_s > _ATTENDED_S:
            timeout_s, watch = until_alarm_s, True
        elif quiet_s < 0:
            # A run polls right now and minds the alarms too.
            timeout_s, watch = _DOZE_S, False
        else:
            timeout_s, watch = _ATTENDED_S - quiet_s + 0.001, False
        self.wakes_at = float("inf") if timeout_s is None else now + timeout_s
        return timeout_s, watch

    def _start_ordered(self) -> None:
        while self._orders and not self._closing:
            self._orders.popleft()
            outcome: Started | BaseException
            try:
                outcome = start(self._environ)
            except BaseException as error:
                outcome = error
            pool = self._pool()
            if pool is None or self._is_abandoned:
                if isinstance(outcome, Started):
                    outcome.end()
                return
            pool.arrived(outcome)
            del pool
