"""`JsonPlusSerializer`: values as data of the typed codec. What LangGraph's serializer of this name wrote is read too."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from copy import copy
from typing import Any

from mpflow._wire.codec import Codec, DecodeError
from mpflow.checkpoint.log.loaded import langchain_is_loaded, loaded_langchain_classes
from mpflow.checkpoint.serde.base import SerializerProtocol
from mpflow.checkpoint.serde.classes import Allowed, classes_of
from mpflow.checkpoint.serde.foreign import ForeignReader

__all__ = ("JsonPlusSerializer",)

FORMAT = "mpflow"
"""The name of the typed codec's messages beside LangGraph's formats."""


class JsonPlusSerializer(SerializerProtocol):
    """Values to bytes and back, for savers that keep values one by one (CP-11).

    Kept are plain data, what the codec knows of the standard library, numpy, pandas and Arrow, `Send`, `Interrupt` and
    the like, langchain's messages, and objects of the classes in `types`, `allowed_msgpack_modules` and
    `allowed_json_modules` (classes, or tuples of the parts of their import paths). Anything else raises
    `EncodeError`, which names the way to it. Nothing is pickled, and no name in data is imported or called.

    Also reads what LangGraph's serializer wrote as ``msgpack`` or ``json``: its classes by their names here.
    """

    def __init__(
        self,
        *,
        pickle_fallback: bool = False,
        allowed_json_modules: Allowed = None,
        allowed_msgpack_modules: Allowed = None,
        types: Iterable[type] = (),
    ) -> None:
        if pickle_fallback:
            warnings.warn(
                "pickle_fallback=True changes nothing: no pickle is written or read. Name the classes of objects to be "
                "kept: types=[...]",
                stacklevel=2,
            )
        self._given = frozenset(types) | classes_of(allowed_json_modules, "allowed_json_modules")
        self._given |= classes_of(allowed_msgpack_modules, "allowed_msgpack_modules")
        self._open()

    def _open(self) -> None:
        self._loaded = langchain_is_loaded()
        known = self._given | loaded_langchain_classes()
        self._codec, self._foreign = Codec(types=known, trust=False), ForeignReader(known)

    @property
    def travels(self) -> bool:
        """Whether its pickle does in another process what it does here: not so for a class of somebody else's."""
        return type(self) is JsonPlusSerializer

    def __getstate__(self) -> Any:
        return {name: value for name, value in self.__dict__.items() if name not in ("_loaded", "_codec", "_foreign")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def with_msgpack_allowlist(self, extra_allowlist: Iterable[tuple[str, ...] | type]) -> JsonPlusSerializer:
        """Return a serializer of this one's class that builds these classes too; this one if it does already."""
        extra = classes_of(tuple(extra_allowlist), "extra_allowlist")
        if extra <= self._given:
            return self
        knowing = copy(self)
        knowing.learn(extra)
        return knowing

    def learn(self, types: Iterable[type]) -> None:
        """Build objects of these classes too, from now on."""
        more = self._given.union(types)
        if more != self._given:
            self._given = more
            self._open()

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """The format's name, and `obj` in it. Raises EncodeError for what could not be read again."""
        if obj is None:
            return "null", b""
        if type(obj) is bytes:
            return "bytes", obj
        if type(obj) is bytearray:
            return "bytearray", bytes(obj)
        self._refresh()
        return FORMAT, self._codec.encode(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """What `dumps_typed` was given. Raises DecodeError for damaged or hostile data and for unknown classes."""
        kind, content = data
        if kind == "null":
            return None
        if kind == "bytes":
            return bytes(content)
        if kind == "bytearray":
            return bytearray(content)
        self._refresh()
        if kind == FORMAT:
            return self._codec.decode(content)
        if kind == "msgpack":
            return self._foreign.read_msgpack(content)
        if kind == "json":
            return self._foreign.read_json(content)
        raise DecodeError(f"the format {kind!r} is not one that is read here; pickles never are")

    def _refresh(self) -> None:
        if self._loaded != langchain_is_loaded():
            self._open()
