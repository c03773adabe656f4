"""Caps on what bytes from the disk may become, checked before anything is built."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from mpflow._wire import tags
from mpflow._wire.errors import DecodeError, DecodeLimitError

# The C unpacker keeps its stack in an array of this many frames, and the packer counts down from the same number. The
# packer recurses in C, some 200 bytes of stack a level; nothing of ours runs deeper than one Python frame on top.
MAX_DEPTH: Final = 1024


# What a small container becomes, with the pointer to it: at least an empty list, commonly at most an empty set or a dict
# of one item.
_LEAST_BYTES: Final = 64
CONTAINER_BYTES: Final = 240


@dataclass(frozen=True, slots=True)
class Limits:
    """``size_bytes`` caps the message, the other two the memory of what it becomes: the larger allowance counts.

    An empty list takes one byte and becomes 64; ``{"a": 1}`` takes four and becomes 192. Beyond the absolute allowance
    a message may become so many times its size; records and numbers, as people save them, stay below 16 times.
    """

    size_bytes: int = 1 << 34
    memory_bytes: int = 256 << 20
    memory_per_byte: int = 32

    def always_hold(self, size_bytes: int) -> bool:
        """Whether no message of that size that the packer made can exceed them: it minds the depth itself."""
        return size_bytes * CONTAINER_BYTES <= self.memory_bytes and size_bytes <= self.size_bytes

    def allowance_bytes(self, size_bytes: int) -> int:
        return max(self.memory_bytes, size_bytes * self.memory_per_byte)


DEFAULT_LIMITS: Final = Limits()

# The first bytes of fixmap, fixarray, array 16/32 and map 16/32; all others, for bytes.translate to delete.
_OPENERS: Final = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
_NOT_OPENERS: Final = bytes(set(range(256)) - set(_OPENERS))


def check(data: bytes | memoryview, limits: Limits) -> None:
    """Refuse what is not one well-formed message within the limits. Builds nothing unless the count is in doubt."""
    size_bytes = len(data)
    if size_bytes > limits.size_bytes:
        raise DecodeLimitError(f"the message has {size_bytes} bytes, above the limit of {limits.size_bytes}")
    unpacker = msgpack.Unpacker(max_buffer_size=max(size_bytes, 1))
    unpacker.feed(data)
    # Skipping allocates nothing, whatever lengths are declared, and it fails where declared lengths exceed the data.
    try:
        unpacker.skip()
    except msgpack.OutOfData:
        raise DecodeError(f"the message is cut short at {size_bytes} bytes") from None
    except msgpack.StackError:
        raise DecodeLimitError(f"the message nests deeper than {MAX_DEPTH} containers") from None
    except Exception as error:
        raise DecodeError(f"not a msgpack message: {type(error).__name__}: {error}") from None
    if unpacker.tell() != size_bytes:
        raise DecodeError(f"{size_bytes - unpacker.tell()} bytes follow the end of the message")
    allowance = limits.allowance_bytes(size_bytes)
    # Three counts, each slower and finer than the one before: openers (every one is a container or lies inside a number,
    # a string or the like), containers, and containers by what each becomes.
    if size_bytes * CONTAINER_BYTES <= allowance:
        return
    if len(bytes(data).translate(None, _NOT_OPENERS)) * CONTAINER_BYTES <= allowance:
        return
    if _is_bomb(data, allowance // _LEAST_BYTES):
        raise _too_many(data, allowance)
    if _count(data, allowance) * CONTAINER_BYTES > allowance:
        _weigh(data, allowance)


# One-byte tokens: small ints, nil and bools, and the containers of at most 15 items, which bombs are made of.
_ONE_BYTE: Final = re.compile(rb"[\x00-\x9f\xc0\xc2\xc3\xe0-\xff]+")
# By first byte of the others: how many bytes after it say the length of what follows, and how many follow besides.
_LENGTHS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_WIDTHS: Final = {byte: byte - 0xA0 for byte in range(0xA0, 0xC0)} | {
    0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17, 0xC7: 1, 0xC8: 1, 0xC9: 1,
    0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4,
}  # fmt: skip
_LOOKS: Final = 10_000


def _is_bomb(data: bytes | memoryview, most: int) -> bool:
    """Whether long runs of one-byte tokens alone hold more than `most` containers: told in a pass, with nothing built.

    False also where there are too many other tokens between them to look at each. `data` must be well formed.
    """
    containers = at = 0
    for _ in range(_LOOKS):
        run = _ONE_BYTE.match(data, at)
        if run is not None:
            containers += len(bytes(data[at : run.end()]).translate(None, _NOT_OPENERS))
            at = run.end()
            if containers > most:
                return True
        if at >= len(data):
            return False
        first = data[at]
        told = _LENGTHS.get(first, 0)
        at += 1 + told + _WIDTHS.get(first, 0) + int.from_bytes(data[at + 1 : at + 1 + told], "big")
    return False


def _count(data: bytes | memoryview, allowance: int) -> int:
    """How many containers there are; all of it in C but for the end, and no container is kept."""
    most = allowance // _LEAST_BYTES
    counter = _refusal_after(most, _too_many(data, allowance))
    hook = functools.partial(next, counter)
    _read(data, hook, hook, {}.get)
    return most - next(counter)  # what is left is yielded backwards


def _refusal_after(count: int, refusal: Exception) -> Iterator[int]:
    yield from range(count, -1, -1)
    raise refusal


def _too_many(data: bytes | memoryview, allowance: int) -> DecodeLimitError:
    return DecodeLimitError(
        f"the message of {len(data)} bytes holds so many containers that they would take more than {allowance} bytes"
    )


def _read(
    data: bytes | memoryview, list_hook: Callable[[Any], Any], dict_hook: Callable[[Any], Any], ext_hook: Any
) -> None:
    try:
        msgpack.unpackb(
            data, list_hook=list_hook, object_hook=dict_hook, ext_hook=ext_hook, strict_map_key=False,
            unicode_errors="surrogatepass",
        )  # fmt: skip
    except DecodeLimitError:
        raise
    except Exception as error:
        raise DecodeError(f"not a msgpack message: {type(error).__name__}: {error}") from None


class _Weight(int):
    """What a typed container takes when it is empty; stands for its marker."""


_WEIGHTS: Final = {tag: _Weight(300) for tag in range(128)} | {
    tags.TUPLE: _Weight(48), tags.SET: _Weight(232), tags.FROZENSET: _Weight(232), tags.DEQUE: _Weight(800),
    tags.ORDERED_DICT: _Weight(500), tags.MODEL: _Weight(500),
}  # fmt: skip


def _weigh(data: bytes | memoryview, allowance: int) -> None:
    """Add up what the containers will take, keeping none of them."""
    left = allowance
    size_of = sys.getsizeof

    def close_list(items: list[Any]) -> None:
        nonlocal left
        if items and type(items[0]) is _Weight:
            left -= items[0] + 8 * len(items)
        else:
            left -= 64 + 8 * len(items)
        if left < 0:
            raise _too_many(data, allowance)

    def close_dict(items: dict[Any, Any]) -> None:
        nonlocal left
        left -= size_of(items) + 8
        if left < 0:
            raise _too_many(data, allowance)

    _read(data, close_list, close_dict, _WEIGHTS.get)
