"""The run's side of called tasks: which events are calls, and who is told what came of them.

How a caller gets its future is in futures.py, which a run without calls does not load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpflow._core.protocol import DROP, SPAWN
from mpflow._core.task import CANCELLED, FINISHED
from mpflow._names import RETURN

if TYPE_CHECKING:
    from mpflow._core.task import Task

CALLS = {"call": SPAWN, "drop": DROP}
"""The events that are calls, and the stimulus that each is."""


def answer(task: Any) -> None:
    """A called task has ended: tell everyone who waits for it."""
    for future in task.waiters:
        settle(future, task)


def settle(future: Any, task: Task) -> None:
    """Tell a caller what became of the task that it called."""
    try:
        if future.done():
            return
        if task.state == FINISHED:
            future.set_result(result_of(task))
        elif task.state == CANCELLED or task.error is None:
            future.cancel()
        else:
            fail(future, task.error)
    except Exception:
        if not future.cancelled():  # by its caller, at this very moment
            raise


def result_of(task: Task) -> Any:
    return next((value for name, value in task.writes if name == RETURN), None)


def fail(future: Any, error: BaseException) -> None:
    """Let a future raise `error`."""
    if isinstance(error, StopIteration):  # no future carries it
        error = RuntimeError(f"a task raised {type(error).__name__}")
    future.set_exception(error)
    future.exception()  # asyncio complains of exceptions that nobody looked at; a caller need not (FN-8)
