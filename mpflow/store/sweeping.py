"""When items whose time is over are deleted: by a thread that wakes now and then. How they are found is the store's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from mpflow.errors import StorageError


class Sweeper:
    """A thread that calls `sweep` every so many seconds, until it is stopped or its ``future`` is cancelled."""

    def __init__(self, sweep: Callable[[], object], interval_s: float) -> None:
        self.future: Future[None] = Future()
        self._once = sweep
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self.future.add_done_callback(lambda _: self._stopped.set())
        self._thread = threading.Thread(target=self._sweep, name="mpflow-sweeper", daemon=True)
        self._thread.start()

    def _sweep(self) -> None:
        while not self._stopped.wait(self._interval_s):
            try:
                self._once()
            except StorageError:  # held by another process: the next time will do
                import logging

                logging.getLogger("mpflow").warning("the items whose time is over were not deleted", exc_info=True)
        if not self.future.done():
            self.future.set_result(None)

    def stop(self, timeout_s: float | None) -> bool:
        self._stopped.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
