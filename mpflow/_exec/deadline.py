"""The backstop of the kernel timers that workers arm: it serves where a task has disarmed or blocked the signal."""

from __future__ import annotations

from mpflow._exec.crew import Worker

BACKSTOP_S = 0.25
"""How long after a task's deadline the parent looks itself."""
LOAD_S = 60.0
"""What importing a node for its first task in a worker may take on top."""


def due_at(worker: Worker, now: float) -> float:
    """When to look at `worker` next: infinite if nothing in its window has a deadline, not after `now` if it is due."""
    limits = worker.window.limits_s()
    if not limits:
        return float("inf")
    attempt = worker.window.get(worker.running)
    if attempt is not None and attempt.timeout_s is not None:
        if not worker.is_loading:
            return worker.started_at + attempt.timeout_s + BACKSTOP_S
        # Once it is imported the deadline runs, and nobody tells: so look again in good time.
        return min(worker.sent_at + attempt.timeout_s + LOAD_S, now + attempt.timeout_s + BACKSTOP_S)
    return now + min(limits) + BACKSTOP_S


def is_overdue(worker: Worker, now: float) -> bool:
    """Whether the task that `worker` runs is past its deadline. If so the worker has been stopped: kill it.

    Standing still it cannot finish between our look and our kill; one that went on meanwhile is let go.
    """
    if worker.stop() and due_at(worker, now) <= now:
        return True
    worker.go_on()
    return False
