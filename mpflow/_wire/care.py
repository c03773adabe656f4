"""Values that msgpack's packer would take in a way of its own: bytes-like ones and its ExtType. Finds them and packs them.

The packer takes bytearray and memoryview for bytes, an ExtType of the user's for a marker of ours, and large bytes
inline that belong into shared memory; no hook is asked. So such values are packed by a slower loop, which lets it take
atoms only. Not seen is an ExtType in a value without any bytes: decoding refuses it, or takes it for the marker it forges.
"""

from __future__ import annotations

import gc
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from itertools import chain
from typing import Any, Final

from msgpack import ExtType, Packer

from mpflow._wire import classes
from mpflow._wire.batches import Batch
from mpflow._wire.limits import MAX_DEPTH
from mpflow._wire.scalars import MARKS, Encoder

SPECIAL: Final = frozenset({bytearray, memoryview, ExtType})
_PLAIN_ATOMS: Final = frozenset({int, str, float, bool, type(None)})
_ATOMS: Final = _PLAIN_ATOMS | {bytes, complex, range, slice, type(...)}
_NATIVE: Final = frozenset({list, dict, tuple, set, frozenset, deque, OrderedDict, Counter})


class Raw:
    """Bytes of ours among the user's values."""

    __slots__ = ("view",)

    def __init__(self, view: Any) -> None:
        self.view = view


class Unencodable(Exception):
    """No way to carry this object; `explain` words it for users."""


def is_needed(value: Any, threshold_bytes: int | None, take_apart: Callable[[Any], list[Any]]) -> bool:
    """Whether anything special is anywhere in a value that can be packed; given a threshold, also large bytes.

    Level by level, with C doing the looking: some ten nanoseconds an item. `take_apart` lists what the encoder of a
    numpy or pandas object makes of it.
    """
    level = [value]
    while level:
        kinds = set(map(type, level))
        if not kinds.isdisjoint(SPECIAL):
            return True
        if threshold_bytes is not None and bytes in kinds:
            if any(type(x) is bytes and len(x) >= threshold_bytes for x in level):
                return True
        kinds -= _ATOMS
        if not kinds:
            return False
        others = kinds - _NATIVE
        below = gc.get_referents(*([x for x in level if type(x) in _NATIVE] if others else level))
        for kind in others:
            children = _children_of(kind, take_apart)
            if children is not None:
                below.extend(chain.from_iterable(children(x) for x in level if type(x) is kind))
        level = below
    return False


def _children_of(kind: type, take_apart: Callable[[Any], list[Any]]) -> Callable[[Any], Any] | None:
    """How to list what a typed object holds; None if its encoder packs nothing of the user's as it is."""
    if kind is Batch:
        return lambda value: value.items
    if kind is defaultdict:
        return lambda value: [*value.keys(), *value.values()]
    root = kind.__module__.partition(".")[0]
    if root == "numpy":
        return lambda value: take_apart(value) if getattr(getattr(value, "dtype", None), "hasobject", False) else ()
    if root == "pandas":
        return take_apart
    if kind.__module__ == "mpflow.types" and kind.__name__ == "Send":
        return lambda value: (value.arg,)
    what = classes.kind_of(kind)
    if what == classes.NAMEDTUPLE:
        return iter
    if what == classes.MODEL:
        return lambda value: (value.__dict__, value.__pydantic_extra__, value.__pydantic_private__)
    if what in (classes.DATACLASS, classes.PLAIN):
        slots = classes.slots_of(kind)
        return lambda value: classes.state_of(value, slots).values()
    return None


def pack(value: Any, default: Encoder, encode_bytes: Encoder, threshold_bytes: int | None) -> bytes:
    """Pack `value` as the packer would with `default`, opening every container here: a stack of iterators, no recursion."""
    packer = Packer(default=default, strict_types=True, autoreset=False, unicode_errors="surrogatepass")
    pack_atom, threshold = packer.pack, 1 << 62 if threshold_bytes is None else threshold_bytes
    stack = [iter((value,))]
    while stack:
        if len(stack) > MAX_DEPTH + 1:
            raise ValueError("recursion limit exceeded.")
        for item in stack[-1]:
            kind = type(item)
            if kind in _PLAIN_ATOMS or (kind is bytes and len(item) < threshold):
                pack_atom(item)
                continue
            if kind is Raw:
                pack_atom(item.view)
                continue
            if kind is ExtType:
                if MARKS.get(item.code) is not item:
                    raise Unencodable("a msgpack.ExtType would be taken for one of the codec's own markers")
                pack_atom(item)
                continue
            if kind is dict:
                packer.pack_map_header(len(item))
                stack.append(chain.from_iterable(item.items()))
                break
            if kind is bytes:
                item = encode_bytes(item)
            elif kind is not list:
                item = default(item)
                if type(item) in _ATOMS:  # the bare text or number of a class of its own
                    pack_atom(item)
                    continue
            packer.pack_array_header(len(item))
            stack.append(iter(item))
            break
        else:
            stack.pop()
    packed: bytes = packer.bytes()
    return packed
