"""What comes before a node in a worker, so that it finds there what it would find in a thread: variables, trace, listeners."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mpflow._engine.callbacks import any_taps
from mpflow._wire import variables
from mpflow.observe import traceparent

if TYPE_CHECKING:
    from contextvars import Context

    from mpflow._engine.run import Run

Entrance = Callable[[Any], None]


def entrances(run: Run) -> tuple[Entrance, ...]:
    """The entrances of a run's tasks in workers. Raises VariableNotPicklableError."""
    found = entrances_from(run.performer.context)
    heard = run.streams.heard
    callbacks = run.user_config.get("callbacks")
    if heard or callbacks is not None:
        from mpflow._engine.messages import enter_away

        found.append(partial(enter_away, heard, callbacks is not None, any_taps(callbacks)))
    return tuple(found)


def entrances_from(context: Context) -> list[Entrance]:
    """Those that bring along what is set in a context. Raises VariableNotPicklableError."""
    found: list[Entrance] = []
    if carried := variables.pack(context):
        found.append(partial(variables.unpack, carried))
    if headers := traceparent.pack(context):
        found.append(partial(traceparent.unpack, headers))
    return found
