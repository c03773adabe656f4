"""What the ancestors of a checkpoint hold of a channel, read through a saver's protocol alone.

One walk for both colours: a generator that yields the config of the next checkpoint it wants and is sent the tuple.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from typing_extensions import NotRequired

    from mpflow.checkpoint.base import CheckpointTuple, PendingWrite


class DeltaChannelHistory(TypedDict):
    """What a channel's value at a checkpoint is made of: ``seed``, then ``writes``, oldest first.

    ``seed`` is what the nearest ancestor holds; without it no ancestor holds any. A finished step's writes are in the
    order of task paths. Writes that wait at the checkpoint itself are no part of it.
    """

    writes: list[PendingWrite]
    seed: NotRequired[Any]


Walk = Generator[Any, "CheckpointTuple | None", dict[str, DeltaChannelHistory]]


def walk(config: Any, channels: Sequence[str]) -> Walk:
    """Go from the checkpoint that `config` addresses to its parent and on, until each channel's value was found."""
    found: dict[str, DeltaChannelHistory] = {name: {"writes": []} for name in channels}
    open_channels = set(channels)
    target = (yield config) if open_channels else None
    where = None if target is None else target.parent_config
    while where is not None and open_channels:
        ancestor = yield where
        if ancestor is None:
            break
        values: Mapping[str, Any] = ancestor.checkpoint["channel_values"]
        for write in reversed(ancestor.pending_writes or ()):
            if write[1] in open_channels:
                found[write[1]]["writes"].append(write)
        for name in open_channels & values.keys():
            found[name]["seed"] = values[name]
        open_channels -= values.keys()
        where = ancestor.parent_config
    for history in found.values():
        history["writes"].reverse()
    return found
