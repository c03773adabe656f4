"""How a run calls its saver, in both colours: what is asked of it, and what is still asked when the run is left.

It knows savers by their contract alone, and decides nothing.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow._engine.persistence import Persistence

Call = tuple[str, tuple[Any, ...]]
"""A saver's method by its sync name, and its arguments."""

SAVER = "saver"
"""The effect that asks for a call of the saver: ``(SAVER, method, arguments)``."""


def call_saver(saver: Any, method: str, arguments: tuple[Any, ...]) -> Any:
    """Call a saver's method; what it lists comes as a list."""
    if method == "list":
        config, before, limit, *filter = arguments
        return list(saver.list(config, filter=filter[0] if filter else None, before=before, limit=limit))
    return getattr(saver, method)(*arguments)


async def acall_saver(saver: Any, method: str, arguments: tuple[Any, ...]) -> Any:
    """As `call_saver`, by the saver's async methods."""
    if method == "list":
        config, before, limit, *filter = arguments
        listed = saver.alist(config, filter=filter[0] if filter else None, before=before, limit=limit)
        return [found async for found in listed]
    return await getattr(saver, "a" + method)(*arguments)


def takes_path(saver: Any) -> bool:
    """Whether a saver is told the path of a task: those written before there were paths are not (D-9)."""
    return getattr(saver, "keeps_log", False) or "task_path" in inspect.signature(saver.put_writes).parameters


def leave(persistence: Persistence | None) -> None:
    """Leave a run, as it ended or in the middle."""
    if persistence is None:
        return
    losses = Losses(str(persistence.where["thread_id"]))
    for method, arguments in persistence.leave():
        try:
            call_saver(persistence.saver, method, arguments)
        except Exception as error:
            losses.note(error)


async def aleave(persistence: Persistence | None) -> None:
    """As `leave`, by the saver's async methods."""
    if persistence is None:
        return
    losses = Losses(str(persistence.where["thread_id"]))
    for method, arguments in persistence.leave():
        try:
            await acall_saver(persistence.saver, method, arguments)
        except Exception as error:
            losses.note(error)


class Losses:
    """What could not be saved when a run was left, which has ended already, with a result or with an error of its own."""

    def __init__(self, thread_id: str) -> None:
        self._thread_id = thread_id
        self._last = ""

    def note(self, error: Exception) -> None:
        """Warn of it, once for one reason."""
        import logging

        text = str(error)  # not itself: handlers keep what they are given, and its traceback holds the connection open
        if text != self._last:
            self._last = text
            logging.getLogger("mpflow").warning(
                "thread '%s': what was left to save when its run was given up was lost: %s", self._thread_id, text
            )
