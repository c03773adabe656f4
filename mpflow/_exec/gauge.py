"""How much memory the tasks of a worker take: the worker's side. Looks at long tasks alone; must not decide anything."""

from __future__ import annotations

import contextlib
import resource
from typing import Final

LONG_NS: Final = 10_000_000
"""Tasks that take less are not measured: two looks at the kernel's figures cost some 50 us."""
NOTABLE_BYTES: Final = 4 << 20
"""Tasks that take less memory count for nothing."""

_RESET_PEAK: Final = b"5"


class Gauge:
    """By how much tasks grow this process: its private memory, neither files nor shared blocks, at its peak."""

    def __init__(self) -> None:
        self.program = 0
        """The one whose tasks run now."""
        self._is_blind = False
        self._private_bytes = self._peak_bytes = self._notable_bytes = 0
        self._grown_bytes: int | None = None
        self._told: set[int] = set()
        """The programs that took a notable amount here."""
        self._told_once: set[int] = set()

    def begin(self, program: int, is_long: bool) -> None:
        """Tasks of `program` follow, which are expected to be long or not."""
        if program != self.program:
            self.program = program
            if is_long:
                self._mark()

    def look(self) -> None:
        """A long task has ended; its input and what it returned are still there, or what they share would count as private."""
        if self._is_blind or (self.program not in self._told and _highest_bytes() < self._notable_bytes):
            return
        figures = _figures()
        if figures is not None:
            private, shared, peak = figures
            highest = max(private, peak - shared) if peak > self._peak_bytes else private
            grown = max(highest - self._private_bytes, 0)
            if grown >= NOTABLE_BYTES or self.program in self._told:
                self._grown_bytes = max(grown, self._grown_bytes or 0)

    def word(self) -> tuple[int, bool] | None:
        """To be told of the tasks that have ended, when all they held is gone: by how much such a task grows the process,
        and whether as the first of its program here. None if there is nothing new."""
        grown, self._grown_bytes = self._grown_bytes, None
        program = self.program
        if grown is None:
            if program not in self._told_once:
                return None
            # The first one loaded what those after it find: they are too quick to be looked at.
            self._told_once.discard(program)
            return 0, False
        self._mark()
        is_first = program not in self._told
        if is_first:
            self._told.add(program)
            self._told_once.add(program)
        else:
            self._told_once.discard(program)
        return grown, is_first

    def forget(self, program: int) -> None:
        self._told.discard(program)
        self._told_once.discard(program)

    def _mark(self) -> None:
        """Measure from here."""
        figures = _figures()
        if figures is None:
            self._is_blind = True
            return
        self._private_bytes, shared, self._peak_bytes = figures
        resident = self._private_bytes + shared
        self._notable_bytes = resident + NOTABLE_BYTES
        # Where it is not permitted the peak goes on from the highest ever: it tells only what exceeds that.
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb", buffering=0) as file:
            file.write(_RESET_PEAK)
            self._peak_bytes = resident


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
