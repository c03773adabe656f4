"""What a thread takes for the calls that it makes: CPU time, and waits, told from the time that others took of its processor.

Each look at these clocks is a call of the kernel, which may let something else run then: tiny calls are looked at rarely.
"""

from __future__ import annotations

import os
import resource
import threading
from time import perf_counter_ns, thread_time_ns

_EVERY = 4


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


class Stretches:
    """The calls of one thread, that which made it, stretch by stretch. Of light ones one stretch in four is measured, and
    stands for those after it."""

    __slots__ = ("_began_ns", "_calls", "_cpu_ns", "_is_measured", "_left", "_pauses", "_waited_ns")

    def __init__(self) -> None:
        self._pauses = Pauses()
        self._began_ns = self._left = 0
        self._is_measured = False
        self._calls = self._cpu_ns = self._waited_ns = 0.0
        """Of the stretches that were measured; the last ones weigh most."""

    def begin(self, *, is_light: bool) -> None:
        self._left -= 1
        self._is_measured = self._left < 0 or not is_light
        if self._is_measured:
            self._left = _EVERY - 1
            self._pauses.begin()
            self._began_ns = thread_time_ns()

    def end(self, calls: int) -> tuple[int, int]:
        """The CPU time that so many calls took since `begin`, all that was done for them included, and how long they waited for
        something, in nanoseconds."""
        if not self._is_measured:
            share = calls / self._calls
            return round(self._cpu_ns * share), round(self._waited_ns * share)
        cpu_ns = thread_time_ns() - self._began_ns
        waited_ns = self._pauses.waited_ns(cpu_ns)
        self._calls = self._calls / 2 + calls
        self._cpu_ns = self._cpu_ns / 2 + cpu_ns
        self._waited_ns = self._waited_ns / 2 + waited_ns
        return cpu_ns, waited_ns


def _switches() -> int:
    """How often this thread gave up its processor by itself; -1 where nobody counts."""
    return -1 if _THREAD is None else resource.getrusage(_THREAD).ru_nvcsw


_THREAD = getattr(resource, "RUSAGE_THREAD", None)
