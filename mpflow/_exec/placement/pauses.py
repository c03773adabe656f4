"""How long a thread waited for something by itself, told from the time that other programs took of its processor."""

from __future__ import annotations

import os
import resource
import threading
from time import perf_counter_ns


class Pauses:
    """Measures one thread, that which made it, from `begin` on."""

    __slots__ = ("_began_ns", "_delayed_ns", "_file", "_switches")

    def __init__(self) -> None:
        try:
            self._file = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # not Linux, or a kernel that does not count it
            self._file = -1
        self._began_ns = self._delayed_ns = self._switches = 0

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def begin(self) -> None:
        self._delayed_ns = self.delays_ns()
        self._switches = _switches()
        self._began_ns = perf_counter_ns()

    def waited_ns(self, cpu_ns: int) -> int:
        """How long it has waited since `begin`, of which it has computed for `cpu_ns`."""
        wall_ns = perf_counter_ns() - self._began_ns
        if _switches() == self._switches >= 0:  # without a pause of its own, the rest is what others took
            return 0
        return max(0, wall_ns - cpu_ns - (self.delays_ns() - self._delayed_ns))

    def delays_ns(self) -> int:
        """How long it could have run, and another ran in its place, since it began to live."""
        if self._file < 0:
            return 0
        try:
            return int(os.pread(self._file, 64, 0).split()[1])
        except (OSError, ValueError, IndexError):
            return 0


def _switches() -> int:
    """How often this thread gave up its processor by itself; -1 where nobody counts."""
    return -1 if _THREAD is None else resource.getrusage(_THREAD).ru_nvcsw


_THREAD = getattr(resource, "RUSAGE_THREAD", None)
