"""What a step changed, as operations of the log: by the channel's own rule where it is known, else by the new value.

It must not change the state, and must never say less than what changed: where a rule does not fit exactly, the value is
given whole, or as a patch to its last packed form where that is shorter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from operator import is_
from typing import TYPE_CHECKING, Any

from mpflow._core.plan import OBJECT
from mpflow._names import MISSING
from mpflow.channels.binop import BinaryOperatorAggregate, overwrite_of
from mpflow.channels.topic import Topic
from mpflow.checkpoint.base import LATEST_VERSION, now_iso
from mpflow.checkpoint.log.patching import patch_of
from mpflow.checkpoint.log.records import (
    ADD,
    APPEND,
    DROP,
    EXTEND,
    MERGE,
    PATCH,
    SET,
    TEXT,
    UNION,
    Op,
)

if TYPE_CHECKING:
    from mpflow._core.state import ChannelState
    from mpflow.checkpoint.log.coding import Coder

PATCHED_BYTES = 1024
"""Values below that are given whole: a patch would save little."""
MOST_HELD_BYTES = 16 << 20
"""Packed forms above that are not held for the sake of patches."""

_GROWS: dict[type, int] = {
    list: EXTEND,
    tuple: EXTEND,
    str: TEXT,
    bytes: TEXT,
    dict: MERGE,
    set: UNION,
    frozenset: UNION,
    int: ADD,
}
_SIZED = frozenset((list, tuple, str, bytes))
_NOT_HELD: tuple[Any, int] = MISSING, 0
_A_LIST: list[Any] = []

Operations = tuple[list[Op], list[Any]]
"""What changed, and the operands of those operations that have their own."""


def checkpoint_of(state: ChannelState, checkpoint_id: str, updated: Collection[str] | None = None) -> dict[str, Any]:
    """The state as a saver keeps it (CP-4)."""
    return {
        "v": LATEST_VERSION,
        "id": checkpoint_id,
        "ts": now_iso(),
        "channel_values": state.checkpoint_values(),
        "channel_versions": dict(state.versions),
        "versions_seen": {name: dict(seen) for name, seen in state.seen.items()},
        "updated_channels": None if updated is None else sorted(updated),
    }


def new_versions(state: ChannelState, before: Mapping[str, Any]) -> dict[str, Any]:
    """The versions of the channels that changed since they were as `before` says."""
    return {name: version for name, version in state.versions.items() if before.get(name) != version}


class Changes:
    """Follows the state of one run from save to save.

    ``packed`` has the packed forms of large values as they were saved last, for patches.
    """

    def __init__(self, coder: Coder, packed: Mapping[str, Any]) -> None:
        self.coder = coder
        self.packed = {name: data for name, data in packed.items() if PATCHED_BYTES <= len(data) <= MOST_HELD_BYTES}
        self._written: dict[str, bytes] = {}
        self._held: dict[str, tuple[Any, int]] = {}
        self.doubtful: set[str] = set()
        """Channels that were changed since the last save by other writes than the step's."""

    def hold(self, state: ChannelState, names: Collection[str] | None = None) -> None:
        """Note what the channels are as they are saved now."""
        kinds = state.kinds
        for name in state.objects if names is None else names:
            if kinds.get(name) == OBJECT:
                value = state.objects[name].checkpoint()
                kind = type(value)
                if kind is list and not _keeps_items(state.objects[name]):
                    self._held[name] = _A_LIST, len(value)  # not itself, which so may grow where it is
                elif kind in _GROWS:
                    self._held[name] = value, value if kind is int else len(value)
                else:
                    self._held.pop(name, None)
        self.doubtful.clear()

    @property
    def are_plain(self) -> bool:
        """Nothing is held that the next step's writes might be patches to, and nothing was changed by others than the step."""
        return not (self.packed or self._written or self.doubtful)

    def has_grown(self, state: ChannelState, name: str, code: int, write: Any) -> bool:
        """Whether this one write made a reducer's channel grow by that operation."""
        channel: Any = state.objects[name]
        held, size = self._held.get(name, _NOT_HELD)
        return _growth(channel, channel.value, held, size, (write,)) == code

    def whole(self, state: ChannelState) -> Operations:
        """All values, each as it is."""
        values = state.checkpoint_values()
        return self.to(values, values, whole=True)

    def of(
        self,
        state: ChannelState,
        names: Sequence[str],
        written: Mapping[str, Sequence[Any]],
        places: Mapping[str, tuple[int, ...]],
    ) -> Operations:
        """What changed in the channels `names`: they were `written` to in this step, and `places` say where that is saved.

        A channel has no place, or one for each write to it.
        """
        ops: list[Op] = []
        operands: list[Any] = []
        kinds, values = state.kinds, state.values
        for name in names:
            kind = kinds.get(name)
            if kind == OBJECT:
                self._of_object(ops, operands, state, name, written.get(name, ()), places.get(name))
            elif name not in values:
                if kind is not None:
                    ops.append((name, DROP, None))
            elif name in places and written[name][-1] is values[name]:
                ops.append((name, SET, places[name][-2:]))
                if self.packed or self._written:
                    self.packed.pop(name, None)
                    if name in self._written:
                        self.packed[name] = self._written[name]
            else:
                self._set(ops, operands, name, values[name])
        if self._written:
            self._written.clear()
        return ops, operands

    def to(self, values: Mapping[str, Any], names: Iterable[str], *, whole: bool) -> Operations:
        """The channels `names` as they are in `values`; with `whole`, by nothing that was saved before."""
        if whole:
            self.packed.clear()
        ops: list[Op] = []
        operands: list[Any] = []
        for name in names:
            if name in values:
                self._set(ops, operands, name, values[name])
            else:
                ops.append((name, DROP, None))
        return ops, operands

    def written(self, name: str, data: bytes) -> tuple[int, bytes]:
        """How a task's write of a whole value is saved: as it is, or as a patch to what the channel holds."""
        if len(data) <= MOST_HELD_BYTES:
            self._written[name] = data
        old = self.packed.get(name)
        patch = None if old is None else patch_of(old, data)
        return (SET, data) if patch is None else (PATCH, patch)

    def _of_object(
        self,
        ops: list[Op],
        operands: list[Any],
        state: ChannelState,
        name: str,
        writes: Sequence[Any],
        places: tuple[int, ...] | None,
    ) -> None:
        channel: Any = state.object(name)
        value = channel.checkpoint()
        if value is MISSING:
            ops.append((name, DROP, None))
            return
        kind = type(channel)
        held, size = self._held.get(name, _NOT_HELD)
        if writes and name not in self.doubtful:
            if kind is BinaryOperatorAggregate:
                code = _growth(channel, value, held, size, writes)
                if code is not None:
                    self._grow(ops, operands, name, code, writes, places)
                    return
                if type(value) is list and type(held) is list and _keeps_items(channel):
                    tail = _tail(held, size, value)
                    if tail is not None:
                        if tail:
                            self._grow(ops, operands, name, EXTEND, (tail,), None)
                        return
            elif kind is Topic and self._gather(ops, operands, name, channel, size, writes, places):
                return
        self._set(ops, operands, name, value)

    def _grow(
        self,
        ops: list[Op],
        operands: list[Any],
        name: str,
        code: int,
        writes: Sequence[Any],
        places: tuple[int, ...] | None,
    ) -> None:
        self.packed.pop(name, None)
        if places is not None:
            ops.append((name, code, places))
            return
        for write in writes:
            ops.append((name, code, None))
            operands.append(self._pack(name, write))

    def _gather(
        self,
        ops: list[Op],
        operands: list[Any],
        name: str,
        channel: Topic[Any],
        size: int,
        writes: Sequence[Any],
        places: tuple[int, ...] | None,
    ) -> bool:
        """A topic is the writes of the step, or grows by them."""
        count = sum(len(write) if isinstance(write, list) else 1 for write in writes)
        if len(channel.values) != count + (size if channel.accumulate else 0):
            return False
        if any(isinstance(write, list) and type(write) is not list for write in writes):
            return False
        if not channel.accumulate:
            self.packed.pop(name, None)
            ops.append((name, SET, None))
            operands.append(self._pack(name, []))
        elif name not in self._held:
            return False
        start = 0
        while start < len(writes):  # neighbours of one kind make one operation
            code = EXTEND if type(writes[start]) is list else APPEND
            end = start + 1
            while end < len(writes) and (type(writes[end]) is list) == (code == EXTEND):
                end += 1
            some = None if places is None else places[2 * start : 2 * end]
            self._grow(ops, operands, name, code, writes[start:end], some)
            start = end
        return True

    def _set(self, ops: list[Op], operands: list[Any], name: str, value: Any) -> None:
        data = self._pack(name, value)
        patch = self.patch(name, data)
        ops.append((name, SET if patch is None else PATCH, None))
        operands.append(data if patch is None else patch)

    def patch(self, name: str, data: Any) -> bytes | None:
        """A patch from what was saved of the channel to `data`, where there is a short one. It is what is saved from now on."""
        old = self.packed.pop(name, None)
        if type(data) is not bytes or not PATCHED_BYTES <= len(data) <= MOST_HELD_BYTES:
            return None
        self.packed[name] = data
        return None if old is None else patch_of(old, data)

    def _pack(self, name: str, value: Any) -> Any:
        return self.coder.pack(value, f"channel '{name}'")


def _keeps_items(channel: Any) -> bool:
    """Whether a channel's reducer is known to keep the items it finds, each at its place."""
    return getattr(getattr(channel, "operator", None), "keeps_items", False)


def _growth(channel: Any, value: Any, held: Any, size: int, writes: Sequence[Any]) -> int | None:
    """The operation by which the writes made `value` of what was held; None where they did something else."""
    kind = type(value)
    code = _GROWS.get(kind)
    if code is None or type(held) is not kind or not channel.grows(kind):
        return None
    if {*map(type, writes)} != {kind}:
        return None
    if kind in _SIZED:
        return code if len(value) == size + sum(map(len, writes)) else None
    if kind is int:
        return code if value == size + sum(writes) else None
    if kind is dict and any(overwrite_of(write)[0] for write in writes):
        return None
    return code


def _tail(held: list[Any], size: int, value: list[Any]) -> list[Any] | None:
    """What `value` has after the items that were held, if these are still the very same."""
    if len(value) < size or not all(map(is_, islice(held, size), value)):
        return None
    return value[size:]
