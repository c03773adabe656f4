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
    waiting = first_of_waiting(worker)
    waiting_due_at = float("inf") if waiting is None else waiting[0] + BACKSTOP_S
    attempt = worker.window.get(worker.running)
    if attempt is not None and attempt.timeout_s is not None:
        if not worker.is_loading:
            return min(worker.started_at + attempt.timeout_s + BACKSTOP_S, waiting_due_at)
        # Once it is imported the deadline runs, and nobody tells: so look again in good time.
        loaded_at = min(worker.sent_at + attempt.timeout_s + LOAD_S, now + attempt.timeout_s + BACKSTOP_S)
        return min(loaded_at, waiting_due_at)
    return min(now + min(limits) + BACKSTOP_S, waiting_due_at)


def first_of_waiting(worker: Worker) -> tuple[float, int] | None:
    """Of the tasks of `worker` on top of which others run, the one whose deadline comes first: that, and its number. None
    if none has one."""
    first = None
    for number, began_at in worker.begun.items():
        attempt = worker.window.get(number)
        if attempt is not None and attempt.timeout_s is not None and number != worker.running:
            at = began_at + attempt.timeout_s
            if first is None or at < first[0]:
                first = at, number
    return first


def overdue(worker: Worker) -> tuple[int, float]:
    """The number of the task whose deadline ended `worker`, and when it had begun: that which runs, or one below it whose
    deadline came before."""
    waiting, running = first_of_waiting(worker), worker.window.get(worker.running)
    if waiting is not None:
        limit_s = None if running is None or worker.is_loading else running.timeout_s
        if limit_s is None or waiting[0] < worker.started_at + limit_s:
            return waiting[1], worker.begun[waiting[1]]
    return worker.running, worker.started_at


def is_overdue(worker: Worker, now: float) -> bool:
    """Whether the task that `worker` runs is past its deadline. If so the worker has been stopped: kill it.

    Standing still it cannot finish between our look and our kill; one that went on meanwhile is let go.
    """
    if worker.stop() and due_at(worker, now) <= now:
        return True
    worker.go_on()
    return False
