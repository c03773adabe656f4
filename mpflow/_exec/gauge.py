"""How much memory the tasks of a worker take: the worker's side. Measures spans of work, never single tiny tasks; must
not decide anything."""

from __future__ import annotations

import contextlib
import resource
from time import monotonic_ns
from typing import Final

SPAN_NS: Final = 10_000_000
"""Work that took less is not measured by itself: two looks at the kernel's figures cost some 30 us."""
NOTABLE_BYTES: Final = 4 << 20
"""Tasks that take less count for nothing."""

_RESET_PEAK: Final = b"5"


class Gauge:
    """The peak of this process's own memory, neither files nor shared blocks, over what it held before a span began."""

    def __init__(self) -> None:
        self._program = 0
        self._is_mixed = False
        self._is_blind = False
        self._began_ns = 0
        self._private_bytes = self._shared_bytes = self._peak_bytes = 0
        self._told: set[int] = set()
        """The programs that took a notable amount here."""

    def begin(self, program: int, is_long: bool) -> None:
        """Tasks of `program` follow. If they are expected to be long, a span begins with them."""
        if program != self._program:
            if is_long:
                self._mark()
            else:
                self._is_mixed = True
            self._program = program

    def measure(self) -> tuple[int, bool] | None:
        """By how much the tasks since the last time have grown the process, and whether it is the first such word on
        their program; None if there is nothing to be told."""
        now_ns = monotonic_ns()
        if self._is_blind or now_ns - self._began_ns < SPAN_NS:
            return None
        program = self._program
        is_mixed, self._is_mixed = self._is_mixed, False
        if program not in self._told and _highest_bytes() < self._private_bytes + self._shared_bytes + NOTABLE_BYTES:
            self._began_ns = now_ns
            return None
        private, shared, peak = self._private_bytes, self._shared_bytes, self._peak_bytes
        figures = self._mark()
        if is_mixed or self._is_blind:
            return None
        grown = figures[0]
        if figures[2] > peak:
            grown = max(grown, figures[2] - max(shared, figures[1]))
        grown -= private
        if grown < NOTABLE_BYTES and program not in self._told:
            return None
        is_first = program not in self._told
        self._told.add(program)
        return max(grown, 0), is_first

    def forget(self, program: int) -> None:
        self._told.discard(program)

    def _mark(self) -> tuple[int, int, int]:
        """Begin a span; the figures at the end of the last one: private, shared, peak of both together."""
        self._began_ns = monotonic_ns()
        self._is_mixed = False
        before = _figures()
        if before is None:
            self._is_blind = True
            return 0, 0, 0
        self._private_bytes, self._shared_bytes, self._peak_bytes = before
        # Where it is not permitted the peak goes on from the highest ever: it tells only what exceeds that.
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb", buffering=0) as file:
            file.write(_RESET_PEAK)
            self._peak_bytes = before[0] + before[1]
        return before


def _highest_bytes() -> int:
    """No peak was higher; that of the program which became this one counts in. Twenty times quicker than `_figures`."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _figures() -> tuple[int, int, int] | None:
    """Private bytes, shared ones and the peak of both together since it was last reset; None where the kernel does not tell."""
    try:
        with open("/proc/self/status", "rb", buffering=0) as file:
            text = file.read()
        shared = _field(text, b"RssFile:") + _field(text, b"RssShmem:")
        return _field(text, b"RssAnon:"), shared, _field(text, b"VmHWM:")
    except (OSError, ValueError):
        return None


def _field(text: bytes, name: bytes) -> int:
    at = text.index(name) + len(name)
    return int(text[at : text.index(b"kB", at)]) * 1024
