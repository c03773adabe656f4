"""What a comparison measured, and what follows from it. Plain data: it runs nothing and draws nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from mpflow.observe.explain import NodePlacement

GAIN = 0.05
"""A place must save this share of a node's time to be said to gain: less is noise."""


@dataclass(frozen=True, slots=True)
class NodeTimes:
    """The tasks of one node in one run: how many, the sum of their run times, and how many ran in the same step.

    ``beside`` counts all tasks of the busiest step that the node took part in, whichever their node.
    """

    node: str
    tasks: int
    run_s: float
    beside: int

    @property
    def mean_s(self) -> float:
        return self.run_s / self.tasks


@dataclass(frozen=True, slots=True)
class Measurement:
    """One setting: a place and a number of workers. ``wall_s`` has the time of each run; all else is of the fastest.

    ``cpu_s`` is the processor time of this process and its workers; ``bytes_out`` and ``bytes_in`` went to the workers
    and came back, 0 for threads.
    """

    place: str
    workers: int
    wall_s: tuple[float, ...]
    cpu_s: float
    bytes_out: int
    bytes_in: int
    nodes: tuple[NodeTimes, ...]

    @property
    def best_s(self) -> float:
        return min(self.wall_s)

    @property
    def cores(self) -> float:
        """How many cores were busy, on average."""
        return self.cpu_s / self.best_s

    @property
    def tasks(self) -> int:
        return sum(node.tasks for node in self.nodes)

    @property
    def overhead_s(self) -> float:
        """What a task costs beside its node's own time, where nothing runs side by side."""
        if not self.nodes:
            return 0.0
        return max(0.0, self.best_s - sum(node.run_s for node in self.nodes)) / self.tasks

    def times_of(self, node: str) -> NodeTimes | None:
        return next((times for times in self.nodes if times.node == node), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a node gains by worker processes, by how much a run, and why. ``saved_s`` is negative where it loses."""

    node: str
    tasks: int
    mean_s: float
    gains: bool
    saved_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All measurements of one graph on one input.

    ``kept`` are the nodes that could not go to processes, each with the reason; they ran in threads throughout.
    ``same_result`` says whether every setting gave the same output. ``has_gil`` is False on a free-threaded Python. ``auto`` is
    the graph whose nodes found their places by themselves, with the most workers, and ``decisions`` what was decided of each.
    """

    graph: str
    machine: dict[str, Any]
    has_gil: bool
    measurements: tuple[Measurement, ...]
    kept: dict[str, str]
    same_result: bool
    auto: Measurement | None = None
    decisions: tuple[NodePlacement, ...] = ()

    @property
    def serial(self) -> Measurement:
        """Threads, one at a time: what all speed-ups are against."""
        return self.of("thread")[0]

    @property
    def fastest(self) -> Measurement:
        return min(self.measurements, key=lambda measurement: measurement.best_s)

    @property
    def settings(self) -> tuple[Measurement, ...]:
        """All that was measured, "auto" last."""
        return self.measurements if self.auto is None else (*self.measurements, self.auto)

    def of(self, place: str) -> list[Measurement]:
        """The measurements at one place, by the number of workers."""
        found = [measurement for measurement in self.measurements if measurement.place == place]
        return sorted(found, key=lambda measurement: measurement.workers)

    def speed_up(self, measurement: Measurement) -> float:
        return self.serial.best_s / measurement.best_s

    def efficiency(self, measurement: Measurement) -> float:
        return self.speed_up(measurement) / measurement.workers

    @property
    def break_even_s(self) -> float | None:
        """The processor time from which a node that holds the GIL is faster in processes, with the most workers.

        None with one worker. `n` tasks of `c` seconds take ``n * (c + o)`` in threads, whose overhead is `o`, and
        ``n * (c / workers + p)`` in processes, whose overhead is `p`; the two are equal at the value given.
        """
        processes = self.of("process")
        if not processes or processes[-1].workers == 1:
            return None
        extra_s = processes[0].overhead_s - self.serial.overhead_s
        return max(0.0, extra_s) / (1 - 1 / processes[-1].workers)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One for each node, those that gain most first."""
        found = [self._verdict(times) for times in self.serial.nodes]
        return tuple(sorted(found, key=lambda verdict: -verdict.saved_s))

    def _verdict(self, alone: NodeTimes) -> Verdict:
        processes = self.of("process")
        if alone.node in self.kept:
            return Verdict(alone.node, alone.tasks, alone.mean_s, False, 0.0, self.kept[alone.node])
        if not processes:
            return Verdict(alone.node, alone.tasks, alone.mean_s, False, 0.0, "not measured in processes")
        there, here = processes[-1], self.of("thread")[-1]
        at_once = min(there.workers, alone.beside)
        in_processes = there.times_of(alone.node) or alone
        in_threads = here.times_of(alone.node) or alone
        thread_s = in_threads.run_s / at_once + alone.tasks * self.serial.overhead_s
        process_s = in_processes.run_s / at_once + alone.tasks * processes[0].overhead_s
        saved_s = thread_s - process_s
        gains = saved_s > GAIN * thread_s
        return Verdict(
            alone.node, alone.tasks, alone.mean_s, gains, saved_s, self._reason(alone, in_threads, at_once, gains)
        )

    def _reason(self, alone: NodeTimes, in_threads: NodeTimes, at_once: int, gains: bool) -> str:
        if at_once == 1:
            return "nothing runs beside it in its step"
        slowed = in_threads.mean_s / alone.mean_s if alone.mean_s else 1.0
        if gains:
            return f"{at_once} at a time in threads, each takes {slowed:.1f} times as long: they wait for the GIL"
        break_even_s = self.break_even_s
        if break_even_s is not None and alone.mean_s < break_even_s:
            return f"too short: the way to a worker and back pays from {duration(break_even_s)} on"
        return "in threads it runs beside others as well: it waits, or lets go of the GIL"

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values, with what follows from the measurements."""
        return {
            **dataclasses.asdict(self),
            "settings": [
                {
                    "place": measurement.place,
                    "workers": measurement.workers,
                    "best_s": measurement.best_s,
                    "speed_up": self.speed_up(measurement),
                    "efficiency": self.efficiency(measurement),
                    "cores": measurement.cores,
                }
                for measurement in self.settings
            ],
            "break_even_s": self.break_even_s,
            "verdicts": [dataclasses.asdict(verdict) for verdict in self.verdicts],
            "summary": self.summary,
        }

    @property
    def summary(self) -> str:
        """The answer in one or two sentences."""
        fastest = self.fastest
        said = f"Fastest: {setting(fastest)}, {duration(fastest.best_s)}, {self.speed_up(fastest):.2f} times as fast as one thread"
        other = self.of("thread" if fastest.place == "process" else "process")
        if other:
            rival = min(other, key=lambda measurement: measurement.best_s)
            said += f" and {rival.best_s / fastest.best_s:.2f} times as fast as {setting(rival)}"
        if self.auto is not None:
            said += f". Left to itself it takes {duration(self.auto.best_s)}"
        if not self.has_gil:
            said += ". This Python has no GIL: threads use all cores too"
        if not self.same_result:
            said += ". The settings did not all give the same result: a node depends on what it shares, on chance or on time"
        return said + "."


def setting(measurement: Measurement) -> str:
    """``2 processes``, ``1 thread``, ``auto``."""
    if measurement.place == "auto":
        return "auto"
    plural = {"thread": "threads", "process": "processes"}[measurement.place]
    return f"{measurement.workers} {measurement.place if measurement.workers == 1 else plural}"


def duration(seconds: float) -> str:
    """Three significant digits with a unit: ``1.25 s``, ``340 us``."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def size(count: float) -> str:
    """Bytes with a unit: ``12 B``, ``3.4 MB``."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"
