"""Runs the pipeline on threads, then on processes, and holds the two reports against each other."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Literal, TypedDict

from mpflow._engine.hints import unsaid
from mpflow._exec.process import WorkerPool
from mpflow.demo.pipeline import build
from mpflow.demo.report import Report, differences
from mpflow.observe.progress import Progress

PLACES: tuple[Literal["thread", "process"], ...] = ("thread", "process")


class Race(TypedDict):
    """Both runs: wall-clock seconds of each (starting workers included), their ratio, and what differs if anything."""

    root: str
    workers: int
    thread_s: float
    process_s: float
    speed_up: float
    differences: list[str]
    report: Report


def race(root: str, limit: int, workers: int, show: bool | None = None) -> Race:
    """Analyse `root` in both places. `show` forces the progress bars on or off; None asks the terminal."""
    # A pool of its own: the default one has a worker for each core, whatever was asked for.
    with unsaid(), WorkerPool(workers) as pool:  # that threads are slower is what is shown
        (threads, thread_s), (processes, process_s) = (_run(place, root, limit, pool, show) for place in PLACES)
    return Race(
        root=root,
        workers=workers,
        thread_s=round(thread_s, 3),
        process_s=round(process_s, 3),
        speed_up=round(thread_s / process_s, 2),
        differences=differences(threads, processes),
        report=processes,
    )


def _run(
    place: Literal["thread", "process"], root: str, limit: int, pool: WorkerPool, show: bool | None
) -> tuple[Report, float]:
    start = time.perf_counter()
    workers = pool.max_workers
    graph = build(place).with_executor(place, pool=pool)
    chunks = graph.stream({"root": root, "limit": limit}, {"max_concurrency": workers}, stream_mode="updates")
    # Closing the stream cancels what still runs, also when Ctrl-C arrives between two chunks.
    with Progress(f"{workers} {place}{'es' if place == 'process' else 's'}", show) as progress, closing(chunks):
        for chunk in chunks:
            if "analyse" in chunk:
                progress.advance()
            elif "find_files" in chunk:
                progress.expect(len(chunk["find_files"]["files"]))
            elif "report" in chunk:
                report: Report = chunk["report"]["report"]
    return report, time.perf_counter() - start
