"""Caps on what bytes from the disk may become, checked before anything is built. Must not know tags or types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgpack

from mpflow._wire.errors import DecodeError, DecodeLimitError

# The C unpacker keeps its stack in an array of this many frames, and the packer counts down from the same number. The
# packer recurses in C, some 200 bytes of stack a level; nothing of ours runs deeper than one Python frame on top.
MAX_DEPTH: Final = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """``containers`` and ``containers_per_byte`` cap the number of containers: the larger of the two allowances counts.

    An empty list takes one byte and becomes 64. The smallest common ones, ``{"a": 1}`` and a tuple, take four bytes and
    more, hence a quarter a byte; small messages may hold what they like.
    """

    size_bytes: int = 1 << 34
    containers: int = 1_000_000
    containers_per_byte: float = 0.25

    def allowance(self, size_bytes: int) -> int:
        return max(self.containers, int(size_bytes * self.containers_per_byte))


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
    allowance = limits.allowance(size_bytes)
    # Every opener is a container or lies inside a number, a string or the like, so this is an upper bound.
    if size_bytes > allowance and len(bytes(data).translate(None, _NOT_OPENERS)) > allowance:
        _count_containers(data, allowance)


def _count_containers(data: bytes | memoryview, allowance: int) -> None:
    count = 0

    def close(_: Any) -> None:
        nonlocal count
        count += 1
        if count > allowance:
            raise DecodeLimitError(
                f"the message of {len(data)} bytes holds more than {allowance} containers, which is what its size allows"
            )

    try:
        msgpack.unpackb(
            data, list_hook=close, object_hook=close, ext_hook=lambda code, payload: None,
            strict_map_key=False, unicode_errors="surrogatepass",
        )  # fmt: skip
    except DecodeLimitError:
        raise
    except Exception as error:
        raise DecodeError(f"not a msgpack message: {type(error).__name__}: {error}") from None
