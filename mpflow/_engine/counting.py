"""How long ago each `DeltaChannel` was last saved whole, which the metadata of checkpoints tells (ST-12).

Only told: mpflow's savers keep what changed of every channel, whatever these counts are. Tools that were written for
LangGraph's read them, and a saver that follows its protocol may prune by them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from mpflow.channels.base import BaseChannel
from mpflow.channels.binop import overwrite_of
from mpflow.channels.delta import DeltaChannel

COUNTERS: Final = "counters_since_delta_snapshot"

MOST_STEPS: Final = int(os.environ.get("LANGGRAPH_DELTA_MAX_SUPERSTEPS_SINCE_SNAPSHOT", "5000"))
"""A channel counts as saved whole after that many steps, however few of them wrote it."""


class DeltaCounts:
    """By channel: how many steps wrote it, and how many there were, since it was last due to be saved whole.

    That is when its writes have come to its ``snapshot_frequency``, when a step replaced its value, and where a run
    leaves the checkpoint it began at to others that may go on from it.
    """

    __slots__ = ("_channels", "_counts", "_due", "any")

    def __init__(self, channels: Mapping[str, BaseChannel[Any, Any, Any]]) -> None:
        self._channels = {name: channel for name, channel in channels.items() if isinstance(channel, DeltaChannel)}
        self._counts: dict[str, tuple[int, int]] = {}
        self._due: set[str] = set()
        self.any = bool(self._channels)

    def __contains__(self, name: object) -> bool:
        return name in self._channels

    def load(self, metadata: Mapping[str, Any] | None) -> None:
        """Go on from what a checkpoint's metadata tells."""
        known = (metadata or {}).get(COUNTERS) or {}
        self._counts = {name: (int(counts[0]), int(counts[1])) for name, counts in known.items()}

    def keep_whole(self, names: Iterable[str]) -> None:
        """These channels are due at the next checkpoint, if they are of the kind."""
        self._due.update(name for name in names if name in self._channels)

    def keep_replaced(self, writes: Iterable[tuple[str, Any]]) -> None:
        """So are those whose value is replaced by one of `writes`."""
        self.keep_whole([name for name, value in writes if overwrite_of(value)[0]])

    def step(self, updated: Collection[str]) -> None:
        """Another step is over; it wrote the channels `updated`."""
        for name in self._channels:
            writes, steps = self._counts.get(name, (0, 0))
            self._counts[name] = writes + (name in updated), steps + 1

    def told(self, versions: Mapping[str, Any]) -> dict[str, Any]:
        """What the metadata of a checkpoint with these channels says: what is due in it starts anew, so it is left out."""
        due = self._due_in(versions)
        counts = {name: list(counts) for name, counts in self._counts.items() if name not in due}
        return {COUNTERS: counts} if counts else {}

    def settle(self, versions: Mapping[str, Any]) -> None:
        """That checkpoint is saved."""
        for name in self._due_in(versions):
            del self._counts[name]
        self._due.clear()

    def has_undue(self, versions: Mapping[str, Any]) -> bool:
        """Whether a channel was written that is not due in that checkpoint."""
        due = self._due_in(versions)
        return any(counts[0] and name not in due for name, counts in self._counts.items())

    def _due_in(self, versions: Mapping[str, Any]) -> set[str]:
        frequency = {name: channel.snapshot_frequency for name, channel in self._channels.items()}
        return {
            name
            for name, (writes, steps) in self._counts.items()
            if name in self._due
            or (name in versions and (writes >= frequency.get(name, writes + 1) or steps >= MOST_STEPS))
        }
