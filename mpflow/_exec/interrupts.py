"""Ctrl-C: work that it must not cut short.

Changes the handler of SIGINT for moments alone, and in the main thread alone, where Python runs handlers.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any


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
