"""How the values of one result are packed: together, but for large ones, which are packed one by one so as to be patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mpflow._core.plan import LAST
from mpflow._engine.changes import PATCHED_BYTES, Changes
from mpflow._wire.codec import EncodeError

APART_BYTES = 4096
"""Results from that size on have their large values packed one by one, so that they can be patches."""


class Packing:
    """Packs what the nodes of a run wrote. `changes` follows the run's state, `kinds` are those of its channels."""

    def __init__(self, changes: Changes, kinds: Mapping[str, Any]) -> None:
        self.changes = changes
        self._kinds = kinds
        self._large = set(changes.packed)
        """Channels whose last value was large."""

    def packed(self, node: str, names: Sequence[str], values: list[Any]) -> tuple[Any, dict[int, tuple[int, Any]]]:
        """The values of a result packed together, but for large ones that replace a channel's: these can be patches."""
        pack = self.changes.coder.pack
        large = self._large
        apart: dict[int, tuple[int, Any]] = {}
        if large and not large.isdisjoint(names):
            self._set_apart(node, names, values, [index for index, name in enumerate(names) if name in large], apart)
        try:
            packed = pack(values, f"what node '{node}' wrote")
        except EncodeError:
            for name, value in zip(names, values, strict=True):
                pack(value, f"node '{node}', channel '{name}'")
            raise
        if type(packed) is bytes and len(packed) >= APART_BYTES:
            kinds = self._kinds
            replacing = [at for at, name in enumerate(names) if kinds.get(name) == LAST and at not in apart]
            if replacing:
                self._set_apart(node, names, values, replacing, apart)
                packed = pack(values, f"what node '{node}' wrote")
        return packed, apart

    def _set_apart(
        self, node: str, names: Sequence[str], values: list[Any], indexes: list[int], apart: dict[int, tuple[int, Any]]
    ) -> None:
        for index in indexes:
            name = names[index]
            data = self.changes.coder.pack(values[index], f"node '{node}', channel '{name}'")
            if type(data) is not bytes or len(data) < PATCHED_BYTES:
                self._large.discard(name)
                continue
            self._large.add(name)
            values[index] = None
            apart[index] = self.changes.written(name, data)
