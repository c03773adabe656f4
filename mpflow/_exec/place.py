"""The names of the places to run, what may stand for one in the public API, and whether this process is one itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

PLACES = ("auto", "process", "thread", "inline")
THREADED = (None, "auto", "thread")
"""What may be asked for a node that then runs in a thread."""

if TYPE_CHECKING:
    from concurrent.futures import Executor as FuturesExecutor

    Executor = Literal["auto", "process", "thread", "inline"] | FuturesExecutor


def check_executor(executor: Any, where: str) -> Any:
    """Return `executor` if it names a place or is a ``concurrent.futures.Executor``. Raises ValueError otherwise."""
    if executor is None or (isinstance(executor, str) and executor in PLACES):
        return executor
    if not isinstance(executor, (str, type)) and callable(getattr(executor, "submit", None)):
        return executor
    raise ValueError(
        f"{where}: executor={executor!r} is no place to run; expected one of {', '.join(map(repr, PLACES))} "
        "or a concurrent.futures.Executor"
    )


def check_pool(pool: Any, where: str) -> Any:
    """Return `pool` if it is a `WorkerPool` or None. Raises ValueError otherwise. Loads no pool to find out."""
    if pool is None or callable(getattr(pool, "measured", None)):
        return pool
    raise ValueError(
        f"{where}: expected a WorkerPool for pool=, got {type(pool).__name__}; "
        "an executor of another kind is given as executor="
    )


def has_gil() -> bool:
    """Whether threads take turns at running Python code in this interpreter."""
    is_enabled = getattr(sys, "_is_gil_enabled", None)
    return is_enabled is None or bool(is_enabled())


_is_worker = False


def in_worker() -> bool:
    """Whether this process is a worker: it starts no workers of its own, and what is nested in its tasks runs in place."""
    return _is_worker


def become_worker() -> None:
    global _is_worker
    _is_worker = True
