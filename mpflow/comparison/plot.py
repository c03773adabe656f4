"""Draws a comparison's speed-ups against the number of workers. The one module of the library that imports matplotlib."""

from __future__ import annotations

import io
from typing import Any

from mpflow.comparison.records import Comparison

INSTALL = 'drawing a plot needs matplotlib; install it with: pip install "mpflow-engine[plot]"'


def draw(comparison: Comparison, format: str = "svg") -> bytes:
    """The plot as a file in `format`: "svg", "png", "pdf". Raises ImportError with the install line, ValueError."""
    figure = _figure()
    axes = figure.subplots()
    most = max(measurement.workers for measurement in comparison.measurements)
    axes.plot([1, most], [1, most], color="0.8", linestyle="--", label="every worker counts in full")
    for place, label, colour, marker in (
        ("thread", "threads", "tab:orange", "o"),
        ("process", "processes", "tab:blue", "s"),
    ):
        found = comparison.of(place)
        if not found:
            continue
        counts = [measurement.workers for measurement in found]
        axes.plot(counts, list(map(comparison.speed_up, found)), color=colour, marker=marker, label=label)
        spread = [comparison.serial.best_s / wall_s for measurement in found for wall_s in measurement.wall_s]
        runs = [measurement.workers for measurement in found for _ in measurement.wall_s]
        axes.scatter(runs, spread, color=colour, s=8, alpha=0.5)
    axes.set_xlabel("workers")
    axes.set_ylabel("times as fast as one thread")
    axes.set_xticks(sorted({measurement.workers for measurement in comparison.measurements}))
    axes.set_ylim(bottom=0)
    axes.set_title(comparison.graph)
    axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format=format)
    return file.getvalue()


def check_format(format: str) -> None:
    """Raise what `draw` would for want of matplotlib or of such a format: ImportError with the install line, ValueError."""
    known = _figure().canvas.get_supported_filetypes()
    if format not in known:
        raise ValueError(f"a plot cannot be a '{format}' file; expected one of {', '.join(sorted(known))}")


def _figure() -> Any:
    try:
        # The object itself, not pyplot: that would choose a window system and keep every figure.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(INSTALL) from error
    return Figure(figsize=(7, 4.2), layout="constrained")
