"""Long lists of one kind of small container, laid out flat: one marker for all, and C doing the work on both sides.

Looks only near the top of a value (a diff, a state, a wide list in either), where looking costs next to nothing. What it
leaves alone is packed one by one, with the same result after decoding.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, islice, repeat
from typing import Any, Final

from mpflow._wire.errors import DecodeError

# Shorter lists are not worth the look.
_LONG: Final = 64
# How far down, and in how wide containers, long lists and large bytes are looked for.
_DEPTH: Final = 4
_WIDE: Final = 64

_CODES: Final[dict[type, int]] = {tuple: 0, set: 1, frozenset: 2}
_KINDS: Final[dict[Any, Any]] = {code: kind for kind, code in _CODES.items()}

RowsOf = Callable[[list[Any]], "list[Any] | None"]


class Batch:
    """Stands for a list while it is packed: tuples, sets and frozensets by their lengths, objects by their class."""

    __slots__ = ("cls", "items", "layout")

    def __init__(self, cls: type, layout: Any, items: list[Any]) -> None:
        self.cls = cls
        self.layout = layout
        self.items = items


class Gatherer:
    """Makes batches in one value. ``has_large`` tells of bytes from `threshold_bytes` on, seen on the way."""

    def __init__(self, rows_of: Callable[[type], RowsOf | None], threshold_bytes: int | None) -> None:
        self._rows_of = rows_of
        self._threshold_bytes = threshold_bytes
        self.begin(0)

    def begin(self, most: int) -> None:
        """Another value, in which at most that many containers may go into batches."""
        self._left = most
        self.has_large = False

    def gather(self, value: Any, depth: int = _DEPTH) -> Any:
        """`value` itself, or a copy, as shallow as can be, with batches in the place of long lists."""
        kind = type(value)
        if kind is list or kind is tuple:
            if len(value) > _WIDE:
                return (self._batch(value) or value) if kind is list else value
            items: Any = None
            for index, item in enumerate(value):
                if type(item) in OPENED and depth:
                    new = self.gather(item, depth - 1)
                    if new is not item:
                        if items is None:
                            items = list(value)
                        items[index] = new
            return value if items is None else items if kind is list else tuple(items)
        if kind is dict:
            if len(value) > _WIDE or not depth:
                return value
            copy: Any = None
            for key, item in value.items():
                if type(item) in OPENED:
                    new = self.gather(item, depth - 1)
                    if new is not item:
                        if copy is None:
                            copy = dict(value)
                        copy[key] = new
            return value if copy is None else copy
        if kind in _BYTES and self._threshold_bytes is not None and len(value) >= self._threshold_bytes:
            self.has_large = True
        return value

    def _batch(self, value: list[Any]) -> Batch | None:
        # Two at the ends tell most other lists apart at once.
        cls = type(value[0])
        if cls in _ATOMS or cls is not type(value[-1]) or len(value) < _LONG or len(value) > self._left:
            return None
        if len(set(map(type, value))) != 1:
            return None
        if cls in _CODES:
            lengths = list(map(len, value))
            layout: Any = lengths[0] if lengths[0] and len(set(lengths)) == 1 else lengths
            items = list(chain.from_iterable(value))
        else:
            rows_of = self._rows_of(cls)
            rows = rows_of(value) if rows_of is not None else None
            if rows is None:
                return None
            layout, items = None, rows
        self._left -= len(value)
        return Batch(cls, layout, items)


_BYTES: Final = frozenset({bytes, bytearray})
OPENED: Final = frozenset({list, tuple, dict, bytes, bytearray})
_ATOMS: Final = frozenset({int, str, float, bool, bytes, type(None), list, dict})


def parts_of(batch: Batch) -> list[Any]:
    """What is packed after the marker of a batch of containers."""
    return [_CODES[batch.cls], batch.layout, *batch.items]


def build(items: list[Any], charge: Callable[[int], None]) -> list[Any]:
    """The list of containers that a BATCH stands for: marker, code, width or lengths, all their items.

    `charge` is told how many containers there will be, and may refuse.
    """
    kind, layout, flat = _KINDS[items[1]], items[2], islice(items, 3, None)
    if type(layout) is int:
        if layout < 1 or (len(items) - 3) % layout:
            raise DecodeError(f"{len(items) - 3} items are no containers of {layout} each")
        charge((len(items) - 3) // layout)
        rows = zip(*repeat(flat, layout), strict=True)
        return list(rows if kind is tuple else map(kind, rows))
    if type(layout) is not list or not all(type(length) is int and length >= 0 for length in layout):
        raise DecodeError("expected the lengths of containers")
    charge(len(layout))
    if sum(layout) != len(items) - 3:
        raise DecodeError(f"{len(items) - 3} items are no containers of {sum(layout)} items together")
    return list(map(kind, map(islice, repeat(flat), layout)))
