"""The process's default pool: that of graphs which were given none. It starts at its first use and ends with the interpreter."""

from __future__ import annotations

import os
import threading

from mpflow._exec.place import in_worker
from mpflow._exec.process import WorkerPool

_default: WorkerPool | None = None
_default_lock = threading.RLock()


def default_pool() -> WorkerPool:
    """The default pool, open. Raises RuntimeError in a worker."""
    global _default
    if in_worker():
        raise RuntimeError("a worker process cannot start workers of its own: run nested graphs in place")
    with _default_lock:
        if _default is None or _default.is_closed:
            _default = WorkerPool()
        return _default


def open_default_pool() -> WorkerPool | None:
    """The default pool, if anything has used it and it is not closed."""
    return None if _default is None or _default.is_closed else _default


def has_workers(pool: WorkerPool | None) -> bool:
    """Whether workers of `pool`, or of the default pool if that is None, are running or on their way."""
    pool = pool or _default
    return pool is not None and not pool.is_closed and pool.stats()["workers"] > 0


def shutdown_default_pool(*, kill: bool = False) -> None:
    """Close the default pool, if there is one; the next use opens another."""
    global _default
    with _default_lock:
        pool, _default = _default, None
    if pool is not None:
        pool.close(kill=kill)


def _forget() -> None:
    global _default, _default_lock
    _default = None
    _default_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
