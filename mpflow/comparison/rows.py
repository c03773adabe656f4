"""What a comparison shows, as rows of text: the same on a terminal and on a page."""

from __future__ import annotations

from mpflow.comparison.records import Comparison, duration, setting, size
from mpflow.observe.explain import runs_in

SETTINGS = ("setting", "time", "speed-up", "efficiency", "cores", "out", "in")
NODES = ("node", "tasks", "each", "saves", "in processes", "auto")
TEXTS = frozenset({"setting", "node", "in processes", "auto"})
"""The columns that are no numbers."""
LEGEND = (
    "cores: how many were busy; out, in: bytes to the workers and back; saves: of a run's time, with the most workers; auto: where "
    "the node goes by itself, and why."
)


def settings_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """One row of `SETTINGS` for each measurement, in their order."""
    return [
        (
            setting(measurement),
            duration(measurement.best_s),
            f"{comparison.speed_up(measurement):.2f}",
            f"{comparison.efficiency(measurement):.0%}",
            f"{measurement.cores:.2f}",
            size(measurement.bytes_out) if measurement.bytes_out else "",
            size(measurement.bytes_in) if measurement.bytes_in else "",
        )
        for measurement in comparison.settings
    ]


def node_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """One row of `NODES` for each verdict, in their order."""
    decided = {placement.node: f"{runs_in(placement)}: {placement.reason}" for placement in comparison.decisions}
    return [
        (
            verdict.node,
            f"{verdict.tasks:,}",
            duration(verdict.mean_s),
            duration(verdict.saved_s) if verdict.gains else "",
            f"{'a gain' if verdict.gains else 'no gain'}: {verdict.reason}",
            decided.get(verdict.node, ""),
        )
        for verdict in comparison.verdicts
    ]


def break_even(comparison: Comparison) -> str:
    """A sentence on the node time from which processes pay; empty where it is not known."""
    if comparison.break_even_s is None:
        return ""
    return f"A node that holds the GIL gains from {duration(comparison.break_even_s)} of processor time on."
