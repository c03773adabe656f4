"""The typed msgpack codec: one value to bytes and back, at one of two levels of trust. The rest of `_wire` serves it.

It must not know what a value is for. `tags` documents the format. Not kept: that two places in one value held the same
object. A cycle is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mpflow._wire import classes, failures, limits
from mpflow._wire.decoding import Decoding, Opener
from mpflow._wire.encoding import Encoding, Sharer
from mpflow._wire.errors import DecodeError, DecodeLimitError, EncodeError, WireError
from mpflow._wire.failures import RemoteError, WorkerTraceback
from mpflow._wire.limits import DEFAULT_LIMITS, Limits
from mpflow._wire.tags import NAMES, PICKLED, REFERS

__all__ = [
    "DEFAULT_LIMITS",
    "NAMES",
    "PICKLED",
    "REFERS",
    "Codec",
    "DecodeError",
    "DecodeLimitError",
    "EncodeError",
    "Limits",
    "RemoteError",
    "WireError",
    "WorkerTraceback",
    "decode_exception",
    "encode_exception",
    "is_portable",
]


class Codec:
    """Encodes and decodes values; cheap to make, safe to share between threads.

    ``trust=True`` is for the private socket between a parent and its own workers: classes are named by import or sent
    by value, and what the codec does not know is pickled. ``trust=False`` is for the disk: data only, classes only from
    ``types`` (given as a mapping, under the names of the user's choice). ``inert=True`` decodes objects of unknown
    classes as `Record`, for tools. Within a scope of the ``arena``, large buffers go there.
    """

    def __init__(
        self,
        *,
        types: Mapping[str, type] | Iterable[type] = (),
        trust: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        arena: Sharer | None = None,
        inert: bool = False,
    ) -> None:
        if arena is not None and not trust:
            raise ValueError("an arena needs trust=True: what is saved must not refer to shared memory")
        self.trust = trust
        self.registry = classes.Registry(types)
        self._limits = limits
        self._arena = arena
        self._inert = inert
        # Idle ones. A list's pop and append are atomic, and whoever finds it empty makes another.
        self._encodings: list[Encoding] = []
        self._decodings: list[Decoding] = []

    def encode(self, value: Any, *, path: str = "value") -> bytes:
        """`value` as one message. Raises EncodeError, which names the way from `path` to what cannot be carried."""
        return self.encode_flagged(value, path=path)[0]

    def encode_flagged(self, value: Any, *, path: str = "value") -> tuple[bytes, int]:
        """Like `encode`, with PICKLED, REFERS and NAMES or-ed together: see `is_portable`."""
        try:
            encoding = self._encodings.pop()
        except IndexError:
            encoding = Encoding(self.registry, self.trust, self._arena, self._limits)
        try:
            data = encoding.encode(value)
            if not self.trust and not self._limits.always_hold(len(data)):
                # What could not be read again is refused now, not when a run is resumed.
                limits.check(data, self._limits)
        # Pickling runs the user's code, which may raise anything, exit included.
        except BaseException as error:
            raise self._explained(value, path, error) from error
        flags = encoding.flags
        self._encodings.append(encoding)
        return data, flags

    def decode(self, data: bytes | memoryview, held: Opener | None = None) -> Any:
        """The value of one message. Raises DecodeError or its subclass DecodeLimitError, and nothing else.

        A message that refers to shared memory needs what ``Mappings.hold`` gave for its ticket.
        """
        try:
            decoding = self._decodings.pop()
        except IndexError:
            decoding = Decoding(self.registry, self.trust, self._limits, self._inert)
        value = decoding.decode(data, held)
        self._decodings.append(decoding)
        return value

    def _explained(self, value: Any, path: str, error: BaseException) -> EncodeError:
        from mpflow._wire import explain

        encoding = Encoding(self.registry, self.trust, None, self._limits)
        return explain.explain(value, path, error, encoding)


def encode_exception(error: BaseException, codec: Codec | None = None) -> list[Any]:
    """The record of `error`: plain data for any codec. Never raises. Without a `codec`, for the private wire."""
    codec = codec or Codec(trust=True)
    return failures.Recorder(codec.registry, codec.trust).record(error)


def decode_exception(record: Any, codec: Codec | None = None) -> BaseException:
    """The exception of a record, with the worker's traceback at the root of its causes. Raises DecodeError alone.

    Where the exception cannot be rebuilt, a `RemoteError` with its type's name, message and traceback stands in.
    """
    codec = codec or Codec(trust=True)
    return failures.exception_of(record, failures.Reader(codec.registry, codec.trust))


def is_portable(flags: int, *, known_types: bool = False) -> bool:
    """Whether bytes with these flags may be saved as they are: no pickle, no reference, no class unknown to the codec.

    With ``known_types`` the caller vouches for every class that the message names.
    """
    return not flags & (PICKLED | REFERS | (0 if known_types else NAMES))
