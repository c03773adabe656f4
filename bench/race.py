"""A race: our call and its contenders, run in turn (A B A B ...), and the rows of the table that is printed at the end.

A contender is a *floor* (the least that such work can cost here) or a *peer* (another library doing the same work). What
a round costs is taken from its best of all rounds: on a shared machine noise only ever adds. How much of the processors
other programs took meanwhile is part of the table. Nothing here fails a test.
"""

from __future__ import annotations

import gc
import os
import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import psutil
import pytest

Call = Callable[[], Any]

cpu_time = pytest.mark.benchmark(timer=time.process_time)
"""For work that stays in this process: what other programs do at the same time then counts for less."""


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


children_time = pytest.mark.benchmark(timer=_children_s)
"""The CPU time of programs that are run to their end."""


@dataclass
class Against:
    """A contender. `make` prepares it and returns what is timed; one that raises ImportError is left out, with the reason.

    What is timed may return a float: the seconds it measured by itself. `wanted` is how many times faster than it we want
    to be: below 1 for a floor. `rounds` bounds how often a slow one runs.
    """

    name: str
    make: Callable[[], Call]
    wanted: float | None = None
    rounds: int | None = None


@dataclass
class Row:
    """A line of the table."""

    name: str
    ours_s: float | None
    against: str
    other_s: float | None
    wanted: str = ""
    met: bool | None = None
    note: str = ""
    ratio: float | None = None
    others: float | None = None
    ours_spread: float | None = None
    """The median of all rounds over the best one."""
    other_spread: float | None = None

    def cells(self) -> list[str]:
        met = self.note or {True: "yes", False: "**no**", None: ""}[self.met]
        ratio = "" if self.ratio is None else f"{self.ratio:.3g}"
        others = "" if self.others is None else f"{self.others:.0%}"
        return [self.name, readable(self.ours_s), self.against, readable(self.other_s), ratio, self.wanted, met, others]


HEADER = ["what", "ours", "floor or peer", "its time", "times ours", "wanted", "met", "others"]


def busy_s() -> tuple[float, float]:
    """CPU seconds that all programs of this machine have used, and this one with its children."""
    with open("/proc/stat") as file:
        fields = [int(field) for field in file.readline().split()[1:]]
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    own = sum(
        sum(process.cpu_times()[:4]) for process in (psutil.Process(), *psutil.Process().children(recursive=True))
    )
    idle, waiting = fields[3], fields[4]
    return (sum(fields[:8]) - idle - waiting) * tick_s, own


_UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))


def readable(seconds: float | None) -> str:
    if seconds is None:
        return ""
    unit, scale = next(((unit, scale) for unit, scale in _UNITS if seconds >= scale), _UNITS[-1])
    return f"{seconds / scale:.3g} {unit}"


@dataclass
class Race:
    """Runs contenders in turn and collects rows. `stack` closes what they opened, after the test."""

    benchmark: Any
    rows: list[Row]
    clock: Callable[[], float]
    stack: ExitStack
    patience_s: float = 0.0
    others: float | None = None
    mine: list[Row] = field(default_factory=list)

    def __call__(
        self,
        name: str,
        ours: Call,
        *contenders: Against,
        rounds: int = 5,
        each: int = 1,
        typical: Callable[[list[float]], float] = min,
    ) -> float:
        """Race; returns our time of a `typical` round, by default the best. Times are divided by `each`."""
        runners: list[tuple[Against, Call, list[float]]] = []
        for contender in contenders:
            try:
                call = contender.make()
                if contender.rounds != 1:
                    call()  # warms it up: imports, worker starts, caches
            except ImportError as error:
                self._add(Row(name, None, contender.name, None, note=f"skipped: {error}"))
            else:
                runners.append((contender, call, []))
        samples: list[float] = []
        shares: list[float] = []
        ours()

        def others() -> None:
            for contender, call, times in runners:
                if contender.rounds is None or len(times) < contender.rounds:
                    self._wait_for_quiet()
                    times.append(self._timed(call))
            gc.collect()
            self._wait_for_quiet()

        def us() -> None:
            (all_before, own_before), start = busy_s(), time.perf_counter()
            samples.append(self._timed(ours, collect=False))
            (all_after, own_after), end = busy_s(), time.perf_counter()
            taken = (all_after - all_before) - (own_after - own_before)
            shares.append(min(1.0, max(0.0, taken / (end - start) / (os.cpu_count() or 1))))

        self.benchmark.pedantic(us, setup=others, rounds=rounds, iterations=1)
        ours_s = typical(samples) / each
        self.others = shares[samples.index(min(samples))] if typical is min else typical(shares)
        for contender, _, times in runners:
            spreads = median(samples) / min(samples), median(times) / min(times)
            self.compare(name, ours_s, contender.name, typical(times) / each, contender.wanted, spreads)
        return ours_s

    def compare(
        self,
        name: str,
        ours_s: float,
        against: str,
        other_s: float,
        wanted: float | None = None,
        spreads: tuple[float | None, float | None] = (None, None),
    ) -> None:
        """Add a row: how many times our time the other's is."""
        ratio = other_s / ours_s
        met = None if wanted is None else ratio >= wanted
        text = "" if wanted is None else f">= {wanted:g}"
        ours_spread, other_spread = spreads
        self._add(
            Row(
                name,
                ours_s,
                against,
                other_s,
                text,
                met,
                ratio=ratio,
                others=self.others,
                ours_spread=ours_spread,
                other_spread=other_spread,
            )
        )

    def tell(self, name: str, against: str, note: str, met: bool | None = None) -> None:
        """Add a row of words, for what is counted instead of timed."""
        self._add(Row(name, None, against, None, note=note if met is None else f"{note}: {'yes' if met else '**no**'}"))

    def _wait_for_quiet(self) -> None:
        """Wait until other programs leave the processors alone for a moment, or patience ends."""
        deadline = time.monotonic() + self.patience_s
        while time.monotonic() < deadline:
            before, _ = busy_s()
            time.sleep(0.1)
            if busy_s()[0] - before < 0.03:
                return

    def _timed(self, call: Call, *, collect: bool = True) -> float:
        if collect:
            gc.collect()
        start = self.clock()
        own = call()
        taken = self.clock() - start
        return own if isinstance(own, float) else taken

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        self.mine.append(row)
        self.benchmark.extra_info["figures"] = [asdict(row) for row in self.mine]
