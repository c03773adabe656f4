"""Runs one graph on one input under threads and under worker processes, with more and more workers, and measures.

The two places take turns, so that a machine that slows down slows both. What the graph saves and caches is left out.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from copy import copy
from typing import Any, Literal

from mpflow._engine.hints import unsaid
from mpflow._exec.cpu import cpu_count
from mpflow._exec.process import WorkerPool
from mpflow.comparison.records import Comparison, Measurement, NodeTimes
from mpflow.constants import START
from mpflow.errors import NodeNotPicklableError
from mpflow.observe.trace import Trace
from mpflow.pregel.compiled import CompiledGraph

PLACES: tuple[Literal["thread", "process"], ...] = ("thread", "process")

AUTO_WARM_UPS = 4
"""So many runs a graph is given to find the places of its nodes by itself: to be measured, to be tried, and to move."""

Tell = Callable[[str], None]


def compare(
    graph: CompiledGraph,
    input: Any,
    config: Any = None,
    *,
    workers: Sequence[int] | None = None,
    repeat: int = 3,
    tell: Tell | None = None,
) -> Comparison:
    """Run `graph` on `input` in threads, in worker processes, and where it would go by itself; say what each costs, node by node.

    `workers` are the numbers of workers to try, by default 1, 2, 4, ... up to the processors this process may use; 1 is
    always among them. Each setting is run once to warm up and `repeat` times to be measured, both places in turn. Nodes that name a place
    run elsewhere all the same, but for inline ones; async functions stay on their event loop. A node that cannot travel
    stays in threads, and the comparison says why. At last, with the most workers, the nodes find their places by themselves
    (``executor="auto"``), those that name one too; what was decided of each is part of the comparison. `tell` is called after each run with the setting's name. Blocks; raises what a
    node raises.
    """
    if repeat < 1:
        raise ValueError(f"compare(repeat=) must be at least 1, got {repeat}")
    counts = sorted({1, *(workers or _doubling(cpu_count()))})
    if counts[0] < 1:
        raise ValueError(f"compare(workers=) must be counts of at least 1, got {counts[0]}")
    if not isinstance(graph, CompiledGraph):
        raise TypeError(f"compare() takes a compiled graph of mpflow, got {type(graph).__name__}")
    plain = copy(graph)
    plain.checkpointer = plain.cache = None
    kept: dict[str, str] = {}
    measurements: list[Measurement] = []
    outputs: list[Any] = []
    for count in counts:
        with ExitStack() as stack:
            stack.enter_context(unsaid())
            settings = [_Setting(plain, place, count, config, kept, stack) for place in PLACES]
            for setting in settings:
                outputs.append(setting.warm_up(input))
                if tell is not None:
                    tell(setting.name)
            for _ in range(repeat):
                for setting in settings:
                    setting.measure(input)
                    if tell is not None:
                        tell(setting.name)
            measurements += (setting.measurement() for setting in settings)
    with unsaid(), ExitStack() as stack:
        by_itself = _Setting(plain, "auto", counts[-1], config, {}, stack)
        for run in range(AUTO_WARM_UPS + repeat):
            if run < AUTO_WARM_UPS:
                outputs.append(by_itself.warm_up(input))
            else:
                by_itself.measure(input)
            if tell is not None:
                tell(by_itself.name)
        auto, decisions = by_itself.measurement(), by_itself.placed.explain().nodes
    return Comparison(
        graph=graph.name,
        machine=machine(),
        has_gil=has_gil(),
        measurements=tuple(measurements),
        kept=kept,
        same_result=all(_equal(outputs[0], output) for output in outputs[1:]),
        auto=auto,
        decisions=decisions,
    )


def runs_of(workers: Sequence[int] | None, repeat: int) -> int:
    """How many runs `compare` will make."""
    return len({1, *(workers or _doubling(cpu_count()))}) * len(PLACES) * (repeat + 1) + AUTO_WARM_UPS + repeat


class _Setting:
    """The graph at one place with one number of workers, and its runs."""

    def __init__(
        self,
        graph: CompiledGraph,
        place: Literal["thread", "process", "auto"],
        workers: int,
        config: Any,
        kept: dict[str, str],
        stack: ExitStack,
    ) -> None:
        self.place = place
        self.workers = workers
        self.name = f"{place}, {workers} at a time"
        # By itself it has as many threads as ever: what waits is not to take turns with what computes.
        self.config = dict(config or {}) if place == "auto" else {**(config or {}), "max_concurrency": workers}
        self.kept = kept
        self.pool = None if place == "thread" else stack.enter_context(WorkerPool(workers))
        self.graph = graph
        self.placed = self._place()
        self.runs: list[_Run] = []

    def _place(self) -> Any:
        return self.graph.with_executor(self.place, pool=self.pool, override=True, except_for=self.kept)

    def warm_up(self, input: Any) -> Any:
        """Run once; a node that turns out not to travel is kept in threads from then on."""
        while True:
            try:
                return self.placed.invoke(input, self.config)
            except NodeNotPicklableError as error:
                if error.node in self.kept:
                    raise
                self.kept[error.node] = f"it cannot travel to a worker: {error}"
                self.placed = self._place()

    def measure(self, input: Any) -> None:
        before = _Usage(self.pool)
        with Trace() as trace:
            start = time.perf_counter()
            self.placed.invoke(input, self.config)
            wall_s = time.perf_counter() - start
        self.runs.append(_Run(wall_s, _Usage(self.pool).since(before), tuple(_node_times(trace))))

    def measurement(self) -> Measurement:
        best = min(self.runs, key=lambda run: run.wall_s)
        cpu_s, bytes_out, bytes_in = best.usage
        return Measurement(
            self.place, self.workers, tuple(run.wall_s for run in self.runs), cpu_s, bytes_out, bytes_in, best.nodes
        )


class _Run:
    __slots__ = ("nodes", "usage", "wall_s")

    def __init__(self, wall_s: float, usage: tuple[float, int, int], nodes: tuple[NodeTimes, ...]) -> None:
        self.wall_s = wall_s
        self.usage = usage
        self.nodes = nodes


class _Usage:
    """What this process and a pool's workers have used until now."""

    def __init__(self, pool: WorkerPool | None) -> None:
        self.cpu_s = {os.getpid(): time.process_time()}
        self.bytes_out = self.bytes_in = 0
        if pool is not None:
            import psutil

            stats = pool.stats()
            self.bytes_out, self.bytes_in = stats["bytes_out"], stats["bytes_in"]
            for pid in stats["pids"]:
                with suppress(psutil.Error):  # it ended meanwhile
                    times = psutil.Process(pid).cpu_times()
                    self.cpu_s[pid] = times.user + times.system

    def since(self, before: _Usage) -> tuple[float, int, int]:
        cpu_s = sum(used_s - before.cpu_s.get(pid, 0.0) for pid, used_s in self.cpu_s.items())
        return cpu_s, self.bytes_out - before.bytes_out, self.bytes_in - before.bytes_in


def _node_times(trace: Trace) -> Iterator[NodeTimes]:
    # What runs within a node is part of the node's own time.
    steps = Counter(span.step for span in trace.spans if span.depth == 0)
    for node, spans in trace.by_node():
        own = [span for span in spans if span.depth == 0]
        if own and node != START:
            yield NodeTimes(node, len(own), sum(span.run_s for span in own), max(steps[span.step] for span in own))


def _doubling(most: int) -> list[int]:
    counts = [1]
    while counts[-1] * 2 < most:
        counts.append(counts[-1] * 2)
    return [*counts, most]


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # arrays and frames do not say yes or no
        return repr(one) == repr(other)


def has_gil() -> bool:
    """Whether this Python runs one thread at a time."""
    check = getattr(sys, "_is_gil_enabled", None)
    return True if check is None else bool(check())


def machine() -> dict[str, Any]:
    """Facts that a reader of the figures needs."""
    return {
        "processors": cpu_count(),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
