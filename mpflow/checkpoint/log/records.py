"""The records of the log, and the operations by which a step changes a channel. Plain structs; values in them are packed.

``Packed`` is what a `coding.Coder` made of a value: bytes, but for the saver in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Packed = Any

# Operations. The numbers are on disk: they keep their meaning for ever. Each is applied to the channel's value so far; one
# that takes a value takes it packed, or as references to the results of the parent, applied one by one.
SET: Final = 0  # the value is this one
EXTEND: Final = 1  # a list grows by the items of a list, a tuple by those of a tuple
APPEND: Final = 2  # a list grows by one item
TEXT: Final = 3  # text or bytes grow by a tail
MERGE: Final = 4  # a dict is updated by a dict
UNION: Final = 5  # a set takes in the items of a set
ADD: Final = 6  # a number grows by a number
PATCH: Final = 7  # the packed value is changed as `patching` says: the operand is no value but a patch
DROP: Final = 8  # the channel has no value; no operand

OPERATIONS: Final = range(9)

NOTHING_APART: Final[Mapping[int, tuple[int, Packed]]] = {}

FORMAT: Final = 1
"""The version of the records' layout."""


class Op:
    """One operation on a channel. ``refs`` holds numbers of results and indexes into their writes, in turns."""

    __slots__ = ("channel", "code", "operand", "refs")

    def __init__(self, channel: str, code: int, operand: Packed = None, refs: Sequence[int] | None = None) -> None:
        self.channel = channel
        self.code = code
        self.operand = operand
        self.refs = refs


class Step:
    """A checkpoint as what changed since ``parent_id``, or all of it if it is ``whole``.

    ``versions`` are the channels' new ones, ``gone`` the channels that lost theirs. ``seen`` says what nodes have seen
    of their triggers, as far as it changed; a node whose value is None has been forgotten.
    """

    __slots__ = (
        "checkpoint_id",
        "gone",
        "metadata",
        "ops",
        "parent_id",
        "seen",
        "ts",
        "updated",
        "v",
        "versions",
        "whole",
    )

    def __init__(
        self,
        checkpoint_id: str,
        parent_id: str | None,
        *,
        whole: bool,
        v: int,
        ts: str,
        metadata: Packed,
        versions: Mapping[str, Any],
        gone: Sequence[str],
        seen: Mapping[str, Mapping[str, Any] | None],
        updated: Sequence[str] | None,
        ops: Sequence[Op],
    ) -> None:
        self.checkpoint_id = checkpoint_id
        self.parent_id = parent_id
        self.whole = whole
        self.v = v
        self.ts = ts
        self.metadata = metadata
        self.versions = versions
        self.gone = gone
        self.seen = seen
        self.updated = updated
        self.ops = ops


class Result:
    """What a task wrote: the channels' names, and all the values packed as one list.

    ``number`` tells results of one checkpoint apart for the step that refers to them. ``apart`` has, by index, the
    writes that are packed on their own, with None for them in ``values``: as (SET, packed), or as (PATCH, patch) to what
    the channel held at the checkpoint.
    """

    __slots__ = ("apart", "checkpoint_id", "names", "number", "path", "task_id", "values")

    def __init__(
        self,
        checkpoint_id: str,
        number: int,
        task_id: str,
        path: str,
        names: Sequence[str],
        values: Packed,
        apart: Mapping[int, tuple[int, Packed]] = NOTHING_APART,
    ) -> None:
        self.checkpoint_id = checkpoint_id
        self.number = number
        self.task_id = task_id
        self.path = path
        self.names = names
        self.values = values
        self.apart = apart
