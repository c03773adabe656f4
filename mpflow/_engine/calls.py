"""The run's side of called tasks: which events are calls, and who is told what came of them.

How a caller gets its future is in futures.py, which a run without calls does not load.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mpflow._core.protocol import DROP, SPAWN
from mpflow._core.task import CANCELLED, FINISHED
from mpflow._names import RETURN

if TYPE_CHECKING:
    from mpflow._core.protocol import Stimulus
    from mpflow._core.task import Task
    from mpflow._messages import Attempt

CALLS = ("call", "drop")
"""The events that concern calls."""


class Offer:
    """A called task that nobody performs yet. Taken once: by the run, or before that by whoever waits for the task.

    Who waits sets ``attempt`` before it tries to take it.
    """

    __slots__ = ("_left", "attempt")

    def __init__(self) -> None:
        self._left = [None]
        self.attempt: Attempt | None = None

    @property
    def is_open(self) -> bool:
        return bool(self._left)

    def take(self) -> bool:
        try:
            self._left.pop()
        except IndexError:
            return False
        return True


def stimulus_of(event: str, attempt: Attempt, data: tuple[Any, ...]) -> Stimulus:
    """What an event of a call is to the scheduler."""
    if event == "drop":
        return (DROP, attempt, *data)
    *call, offer = data
    if offer is None or offer.take():
        return (SPAWN, attempt, *call)
    return (SPAWN, attempt, *call, offer.attempt)


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
    return returned_in(task.writes)


def returned_in(writes: Iterable[tuple[str, Any]]) -> Any:
    """What a called task returned, by its diff."""
    return next((value for name, value in writes if name == RETURN), None)


def fail(future: Any, error: BaseException) -> None:
    """Let a future raise `error`."""
    if isinstance(error, StopIteration):  # no future carries it
        error = RuntimeError(f"a task raised {type(error).__name__}")
    future.set_exception(error)
    future.exception()  # asyncio complains of exceptions that nobody looked at; a caller need not (FN-8)
