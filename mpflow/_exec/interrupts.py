"""Ctrl-C: work that it must not cut short, and how much of ours its traceback shows.

Changes the handler of SIGINT for moments alone, and in the main thread alone, where Python runs handlers.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

_E = TypeVar("_E", bound=BaseException)


class Uninterrupted:
    """A context in which SIGINT waits. ``came`` says afterwards whether one did: the caller then calls `pass_on`.

    For work in bounded time that others rely on, such as taking tasks back from workers. Off the main thread, and where
    Python does not handle SIGINT, it does nothing.
    """

    __slots__ = ("_usual", "came")

    def __init__(self) -> None:
        self.came = False
        self._usual: Any = None

    def __enter__(self) -> Uninterrupted:
        if threading.get_ident() == threading.main_thread().ident:
            usual = signal.getsignal(signal.SIGINT)
            if callable(usual):
                self._usual = usual
                # Not SIG_IGN: what came just before it is set would be said aloud by Python.
                signal.signal(signal.SIGINT, self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        if self._usual is not None:
            signal.signal(signal.SIGINT, self._usual)

    def _hold(self, *_: object) -> None:
        self.came = True


def pass_on() -> None:
    """Have SIGINT answered that had to wait: by KeyboardInterrupt here, or by whoever handles it.

    Not if it would only raise another KeyboardInterrupt while one is on its way.
    """
    error = sys.exc_info()[1]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # asyncio before 3.11 cancels its tasks, and so us, while it handles one.
        while error is not None:
            if isinstance(error, KeyboardInterrupt):
                return
            error = error.__context__
    signal.raise_signal(signal.SIGINT)


def from_outside(interrupt: _E) -> _E:
    """`interrupt` with its traceback from the first frame on that is not ours. To be raised ``from None``.

    Where of ours it came helps nobody; in which node, saver or handler it came does.
    """
    traceback: TracebackType | None = interrupt.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__", "").startswith("mpflow."):
        traceback = traceback.tb_next
    return interrupt.with_traceback(traceback)
