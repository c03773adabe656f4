"""Why a worker died and who answers for it: the task that its page names, and no other. One that was ended at a deadline
answers to the task whose deadline it was, which may be below that in the worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from time import monotonic
from typing import Any

from mpflow._exec.crew import Worker
from mpflow._exec.deadline import overdue
from mpflow._messages import CANCELLED, FAILED, LOST, Attempt, WorkerDeath
from mpflow.errors import NodeTimeoutError

OUT_OF_MEMORY = "out of memory"
EXIT_LOST_SOCKET = 111
"""A worker's exit code when its socket was gone while its parent lived: a task has closed it."""


def judge(worker: Worker, death: WorkerDeath) -> tuple[Attempt | None, int, Any]:
    """The attempt that ends with this worker, with kind and payload of its outcome; (None, 0, None) if there is none.

    To be called when the worker is dead and all it sent has been read: what it had answered is out of its window.
    """
    is_timeout = worker.killed_for == "timeout" or death.signal == signal.SIGALRM
    number, started_at = overdue(worker) if is_timeout else (worker.running, 0.0)
    attempt = worker.window.get(number)
    if worker.killed_for == "protocol" or death.exit_code == EXIT_LOST_SOCKET:
        death.reason = "protocol"
    elif death.signal == signal.SIGKILL and not worker.killed_for and _out_of_memory():
        death.reason = OUT_OF_MEMORY
    if attempt is None:
        return None, 0, None
    if attempt.timeout_s is not None and is_timeout:
        elapsed_s = monotonic() - started_at
        error = NodeTimeoutError(attempt.program.name, elapsed_s, kind="run", run_timeout=attempt.timeout_s)
        return attempt, FAILED, error
    if worker.killed_for == "close":
        return attempt, CANCELLED, None
    if worker.killed_for in ("cancel", "recycle"):
        return None, 0, None
    return attempt, LOST, death


_oom_kills = -1


def _out_of_memory() -> bool:
    """Whether the kernel has killed for want of memory in our group since the last time we asked."""
    global _oom_kills
    before, _oom_kills = _oom_kills, oom_kills()
    return 0 <= before < _oom_kills


def remember_oom_kills() -> None:
    """Begin to count: kills before the first worker are none of ours."""
    global _oom_kills
    if _oom_kills < 0:
        _oom_kills = oom_kills()


def oom_kills(root: str = "/") -> int:
    """How many processes of this memory cgroup the kernel has killed for want of memory; 0 where it does not tell."""
    base = Path(root)
    try:
        memberships = (base / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return 0
    total = 0
    for line in memberships:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            total += _counter(base / f"sys/fs/cgroup/{path.lstrip('/')}/memory.events")
        elif "memory" in controllers.split(","):
            total += _counter(base / f"sys/fs/cgroup/memory/{path.lstrip('/')}/memory.oom_control")
    return total


def _counter(path: os.PathLike[str]) -> int:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
