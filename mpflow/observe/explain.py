"""Where the nodes of a graph run, and why: the records of an explanation, and how they are shown. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class NodePlacement:
    """One node. ``place`` is where it runs now: "thread", "process", "inline", "loop", or the name of the user's executor.

    ``asked`` is what the user said: "auto" if nothing. ``reason`` is one sentence with the numbers. ``can_move`` tells of
    nodes that were not bound to a place whether workers may be used, None where nobody has looked. The counts and means are
    of all runs of the graph so far, times in seconds; those of calls in workers are of nodes that were moved. ``memory_bytes`` is
    the peak by which a task is expected to grow its worker, as those before it did: what admission goes by. 0 where that is
    nothing worth counting, or nothing ran in workers.
    """

    node: str
    asked: str
    place: str
    reason: str
    can_move: bool | None
    held_by: str | None
    calls_here: int
    calls_in_workers: int
    cpu_s: float
    wall_s: float
    worker_s: float
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """The placements of a graph's nodes, in the order they were added. Its text is a table; `rich` prints a prettier one."""

    graph: str
    nodes: tuple[NodePlacement, ...]

    def __iter__(self) -> Iterator[NodePlacement]:
        return iter(self.nodes)

    def __getitem__(self, node: str) -> NodePlacement:
        """The placement of a node. Raises KeyError."""
        for placement in self.nodes:
            if placement.node == node:
                return placement
        raise KeyError(node)

    def to_dicts(self) -> list[dict[str, Any]]:
        """The placements as plain data."""
        return [asdict(placement) for placement in self.nodes]

    def __str__(self) -> str:
        rows = [_HEAD, *(_row(placement) for placement in self.nodes)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD) - 1)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip()
            for row in rows
        ]
        return "\n".join([f"Where the nodes of graph '{self.graph}' run", *lines])

    def __rich__(self) -> Any:
        from rich.table import Table

        table = Table(title=f"Where the nodes of graph '{self.graph}' run", title_justify="left")
        for name in _HEAD:
            table.add_column(name, justify="right" if name.startswith(("calls", "memory")) else "left")
        for placement in self.nodes:
            table.add_row(*_row(placement))
        return table


_HEAD = ("node", "asked", "runs in", "calls here", "calls in workers", "memory", "why")
_PLACES = {"thread": "threads", "process": "workers", "loop": "event loop"}


def runs_in(placement: NodePlacement) -> str:
    """Where a node runs, in words: "threads", "workers"."""
    return _PLACES.get(placement.place, placement.place)


def _row(placement: NodePlacement) -> tuple[str, ...]:
    place = runs_in(placement)
    counts = str(placement.calls_here), str(placement.calls_in_workers)
    memory = f"{placement.memory_bytes / 1e6:,.0f} MB" if placement.memory_bytes else ""
    return placement.node, placement.asked, place, *counts, memory, placement.reason
