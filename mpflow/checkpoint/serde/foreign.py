"""Values that LangGraph's serializer wrote, read as data: which of its extensions and class names mean what here.

The names are looked up in a closed table and among the classes that the reader was given. Nothing that data names is
imported, and nothing is called that the program did not allow.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import ipaddress
import json
import pathlib
import re
import uuid
import zoneinfo
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from typing import Any, Final

import msgpack

from mpflow._wire.codec import DecodeError, DecodeLimitError
from mpflow._wire.errors import WireError
from mpflow._wire.limits import DEFAULT_LIMITS, Limits, check
from mpflow.store.base import Item
from mpflow.types import Command, Interrupt, Overwrite, PregelTask, Send, StateSnapshot, TimeoutPolicy

# LangGraph packs what is in an extension into its bytes, so reading one within another takes frames of the C stack.
_MAX_NESTED: Final = 64

# Codes of the extensions: an object as one argument, as positional ones, as named ones, as an argument of a method; a
# model of pydantic 1 or 2; an array; the value of a channel that saves differences.
_ONE, _MANY, _NAMED, _METHOD, _MODEL_1, _MODEL_2, _ARRAY, _DELTA = range(8)


def _hashable(item: Any) -> Any:
    """LangGraph writes tuples as lists; one in a set was a tuple."""
    return tuple(map(_hashable, item)) if type(item) is list else item


_KINDS: Final[dict[str, dict[str, Callable[..., Any]]]] = {
    "builtins": {
        "set": lambda items: set(map(_hashable, items)),
        "frozenset": lambda items: frozenset(map(_hashable, items)),
    },
    "collections": {"deque": deque},
    "uuid": {"UUID": uuid.UUID},
    "decimal": {"Decimal": decimal.Decimal},
    "datetime": {name: getattr(datetime, name) for name in ("date", "time", "timedelta", "timezone")},
    "zoneinfo": {"ZoneInfo": zoneinfo.ZoneInfo},
    "ipaddress": {
        f"IPv{version}{kind}": getattr(ipaddress, f"IPv{version}{kind}")
        for version in (4, 6)
        for kind in ("Address", "Interface", "Network")
    },
    "re": {"compile": re.compile},
}


def _table() -> dict[tuple[str, str], Callable[..., Any]]:
    found: dict[tuple[str, str], Callable[..., Any]] = {
        (module, name): build for module, names in _KINDS.items() for name, build in names.items()
    }
    for module in ("pathlib", "pathlib._local"):
        for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"):
            found[module, name] = getattr(pathlib, name) if name.startswith("Pure") else _path(name)
    for cls in (Command, Interrupt, Overwrite, PregelTask, Send, StateSnapshot, TimeoutPolicy):
        found["langgraph.types", cls.__name__] = cls
    found["langgraph.types", "Send"] = _send
    found["langgraph.store.base", "Item"] = Item
    return found


def _path(name: str) -> Callable[..., Any]:
    native = type(pathlib.Path()).__name__
    return pathlib.Path if name in ("Path", native) else getattr(pathlib, f"Pure{name}")


def _send(node: str, arg: Any, timeout: Any = None) -> Send:
    return Send(node, arg, timeout=timeout)


class ForeignReader:
    """Reads LangGraph's ``msgpack`` and ``json``; besides what it knows it builds objects of the classes given."""

    def __init__(self, types: Iterable[type]) -> None:
        self._builders = _table()
        for cls in types:
            self._builders[cls.__module__, cls.__qualname__] = cls
            self._builders[cls.__module__, cls.__name__] = cls

    def read_msgpack(self, data: bytes) -> Any:
        """The value. Raises DecodeError and nothing else."""
        # An object's bytes have their share of what the whole may take.
        per_byte = DEFAULT_LIMITS.allowance_bytes(len(data)) // max(len(data), 1)
        return self._guarded(lambda: self._unpack(data, 0, per_byte))

    def read_json(self, data: bytes) -> Any:
        """The value. Raises DecodeError and nothing else."""
        return self._guarded(lambda: json.loads(data, object_hook=self._revive))

    def _guarded(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except WireError:
            raise
        # Classes that the program allowed say by exceptions of their own that they cannot be made of this.
        except Exception as error:
            raise DecodeError(f"the value cannot be read: {type(error).__name__}: {error}") from error

    def _unpack(self, data: bytes, depth: int, per_byte: int) -> Any:
        if depth > _MAX_NESTED:
            raise DecodeLimitError(f"more than {_MAX_NESTED} objects lie within one another")
        check(data, Limits(memory_bytes=per_byte * len(data)))

        def extension(code: int, inner: bytes) -> Any:
            return self._extension(code, self._unpack(inner, depth + 1, per_byte))

        return msgpack.unpackb(data, ext_hook=extension, strict_map_key=False, unicode_errors="surrogatepass")

    def _extension(self, code: int, parts: Any) -> Any:
        if code == _DELTA:
            raise DecodeError("the value of a channel that saves differences cannot be read without its graph")
        if type(parts) is not list or not 3 <= len(parts) <= 4:
            raise DecodeError(f"extension {code} is malformed")
        if code == _ARRAY:
            return _array(*parts)
        module, name, argument = parts[:3]
        if code == _METHOD:
            if (module, name, *parts[3:]) != ("datetime", "datetime", "fromisoformat"):
                raise DecodeError(f"no method of {module}.{name} is called")
            return datetime.datetime.fromisoformat(argument)
        if code in (_ONE, _MANY, _NAMED, _MODEL_1, _MODEL_2):
            build = self._builder(module, name)
            if code == _ONE:
                return build(argument)
            if code == _MANY:
                return build(*argument)
            return _object(build, argument)
        raise DecodeError(f"extension {code} is not one that is read here")

    def _builder(self, module: Any, name: Any) -> Callable[..., Any]:
        build = self._builders.get((module, name)) if type(module) is str and type(name) is str else None
        if build is None:
            raise DecodeError(
                f"the value names {module}.{name}, which is not known here; import it and pass it as types=[{name}]"
            )
        return build

    def _revive(self, found: dict[str, Any]) -> Any:
        if found.get("lc") is None or found.get("type") != "constructor":
            return found
        path = found.get("id")
        if found["lc"] != 2 or type(path) is not list or not path or not all(type(part) is str for part in path):
            raise DecodeError(f"a constructor of version {found['lc']!r} is not read here")
        build = self._builder(".".join(path[:-1]), path[-1])
        kwargs = found.get("kwargs")
        return _object(build, kwargs) if kwargs else build(*(found.get("args") or ()))


def _object(build: Callable[..., Any], fields: Any) -> Any:
    """An object of its fields. A model's dump holds its inner models as dicts, which only validation makes whole."""
    if type(fields) is not dict:
        raise DecodeError(f"expected the fields of a {getattr(build, '__name__', build)} as a dict")
    if isinstance(build, type) and is_dataclass(build):
        from dataclasses import fields as fields_of

        later = {
            field.name: fields[field.name] for field in fields_of(build) if not field.init and field.name in fields
        }
        made = build(**{name: value for name, value in fields.items() if name not in later})
        for name, value in later.items():
            object.__setattr__(made, name, value)
        return made
    if isinstance(build, type) and issubclass(build, enum.Enum):
        raise DecodeError(f"{build.__name__} is an enum and has no fields")
    try:
        return build(**fields)
    except Exception:
        construct = getattr(build, "model_construct", None)
        if construct is None:
            raise
        return construct(**fields)


def _array(dtype: Any, shape: Any, order: Any, data: Any) -> Any:
    import numpy as np

    kind = np.dtype(dtype)
    if kind.hasobject or order not in ("C", "F"):
        raise DecodeError(f"an array of {dtype!r} in order {order!r} is not read here")
    return np.frombuffer(data, dtype=kind).reshape(shape, order=order)
