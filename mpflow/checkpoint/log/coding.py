"""How values become what rows carry, and come back. A `Coder` is all that stands between a user's value and the disk."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from copy import deepcopy
from functools import lru_cache
from typing import Any, Protocol

from mpflow._seal import seal
from mpflow._wire.codec import Codec, DecodeError
from mpflow.checkpoint.log.records import Packed


class Coder(Protocol):
    """Packs values. What comes out of `unpack` shares nothing with what went into `pack`, nor with earlier results."""

    learns: bool
    """Whether it may be told of further classes."""

    def told(self) -> tuple[str, Any] | None:
        """What a worker process must be told to make one that packs as this one does; None where that cannot be."""
        ...

    def knowing(self, types: Collection[type]) -> Coder:
        """A coder that knows these classes too; this one if it does already, or does not learn."""
        ...

    def pack(self, value: Any, path: str) -> Packed:
        """`value` as data. `path` names it in errors: ``node 'n', channel 'c'``."""
        ...

    def pack_plain(self, value: dict[str, Any]) -> Packed:
        """A new dict of nothing but texts, numbers, booleans and dicts of such: it may be left as it is."""
        ...

    def unpack(self, packed: Packed) -> Any:
        """The value. Raises `mpflow._wire.codec.DecodeError` for what is none."""
        ...


class DataCoder:
    """Values as data of the typed codec: plain types, libraries' that the codec knows, and the classes in `types`.

    An object of any other class is refused when it is packed; a class that is not known when it is unpacked comes back
    as an inert record of its fields.
    """

    def __init__(self, types: Iterable[type] = ()) -> None:
        self.types = frozenset(types)
        codec = Codec(types=self.types, trust=False, inert=True)
        self._encode = codec.encode
        self._decode = codec.decode
        self.learns = True

    def told(self) -> tuple[str, Any]:
        return "data", list(self.types)

    def knowing(self, types: Collection[type]) -> DataCoder:
        return self if self.types.issuperset(types) else coder_of(self.types.union(types))

    def pack(self, value: Any, path: str) -> bytes:
        return self._encode(value, path=path)

    def pack_plain(self, value: dict[str, Any]) -> Packed:
        return value

    def unpack(self, packed: Packed) -> Any:
        return deepcopy(packed) if type(packed) is dict else self._decode(packed)


@lru_cache(maxsize=64)
def coder_of(types: frozenset[type]) -> DataCoder:
    """The coder that knows these classes."""
    return DataCoder(types)


class SerdeCoder:
    """Values through a serializer with LangGraph's two methods, ``dumps_typed`` and ``loads_typed``."""

    def __init__(self, serde: Any) -> None:
        self.serde = serde
        self._envelope = Codec(trust=False)
        self.learns = hasattr(serde, "with_msgpack_allowlist")

    def told(self) -> tuple[str, Any] | None:
        return ("serde", self.serde) if getattr(self.serde, "travels", False) else None

    def knowing(self, types: Collection[type]) -> SerdeCoder:
        if not self.learns:
            return self
        serde = self.serde.with_msgpack_allowlist(types)
        return self if serde is self.serde else SerdeCoder(serde)

    def pack(self, value: Any, path: str) -> bytes:
        kind, data = self.serde.dumps_typed(value)
        return self._envelope.encode([kind, data], path=path)

    def pack_plain(self, value: dict[str, Any]) -> bytes:
        return self.pack(value, "the metadata")

    def unpack(self, packed: Packed) -> Any:
        pair = self._envelope.decode(packed) if type(packed) is bytes else None  # plain data is what others left
        if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str or type(pair[1]) is not bytes:
            raise DecodeError(
                "expected the name and the data that a serializer gave: this was saved without one, as data; open the saver "
                "without serde="
            )
        return self.serde.loads_typed((pair[0], pair[1]))


_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})


class AnyCoder:
    """Any value, for as long as the process lives: sealed, or kept as it is where it can be copied in no way."""

    learns = False

    def told(self) -> tuple[str, Any]:
        return "any", None

    def knowing(self, types: Collection[type]) -> AnyCoder:
        return self

    def pack(self, value: Any, path: str) -> Any:
        if type(value) is list and _ATOMS.issuperset(map(type, value)):
            return tuple(value)
        return seal(value)

    def pack_plain(self, value: dict[str, Any]) -> Any:
        return value

    def unpack(self, packed: Any) -> Any:
        kind = type(packed)
        return list(packed) if kind is tuple else deepcopy(packed) if kind is dict else packed()
