"""Values as they matter to a move: which can never change, and what inputs and results are made of.

Looks only; it runs no code of the values' classes but pydantic's and dataclasses' field lists.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import re
import sys
import types
import uuid
import zoneinfo
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain
from pathlib import PurePath
from typing import Any

from mpflow._exec.placement import tables

ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented)})
_FROZEN = frozenset(
    {
        *ATOMS,
        range,
        slice,
        decimal.Decimal,
        fractions.Fraction,
        uuid.UUID,
        datetime.datetime,
        datetime.date,
        datetime.time,
        datetime.timedelta,
        datetime.timezone,
        zoneinfo.ZoneInfo,
    }
)
_SPELT = 200
"""Longer texts and bytes are told by a digest: to spell them out takes longer than to hash them, and holds the interpreter's lock."""
_TIMES = frozenset({datetime.datetime, datetime.time})
_ZONES = frozenset({datetime.timezone, zoneinfo.ZoneInfo})
_LISTS = frozenset({list, tuple, set, frozenset, deque})
_DICTS = frozenset({dict, OrderedDict, Counter})
_GENERIC = (types.GenericAlias, types.UnionType)


def token(value: Any) -> str | None:
    """Text that is equal for equal values in two processes, of what can never change; None for what can.

    Functions, classes and modules are not values in this sense.
    """
    kind = type(value)
    if issubclass(kind, type):
        return None
    module = module_of(kind)
    if (kind is bytes or kind is str) and len(value) > _SPELT:
        data = value if kind is bytes else value.encode("utf-8", "surrogatepass")
        return f"{kind.__name__} {len(value)} {blake2b(data, digest_size=16).hexdigest()}"
    if kind in _FROZEN:
        return f"{kind.__name__} {value!r}" if _holds_values_alone(value, kind) else None
    if kind is tuple or (issubclass(kind, tuple) and hasattr(kind, "_fields") and not hasattr(value, "__dict__")):
        return _joined(kind.__name__, list(map(_inner, value)))
    if kind is frozenset:
        return _joined("frozenset", sorted(map(_inner, value), key=str))
    if kind is re.Pattern:
        return f"Pattern {value.pattern!r} {value.flags}"
    if issubclass(kind, PurePath) and is_of_library(kind):
        return f"{kind.__name__} {value}"
    if issubclass(kind, enum.Enum):
        return None if token(value._value_) is None else f"{kind.__qualname__}.{value.name}"
    if issubclass(kind, _GENERIC) or module in ("typing", "typing_extensions"):
        return f"typing {kind.__name__}"
    if module in ("operator", "_operator"):
        return repr(value)
    if "__dataclass_fields__" in dir(kind) and kind.__dataclass_params__.frozen:
        fields = _frozen_fields(value, kind)
        if fields is None:
            return None
        texts = [(name, token(part)) for name, part in fields.items()]
        return _joined(kind.__qualname__, [None if text is None else f"{name}={text}" for name, text in texts])
    if kind.__name__ == "ndarray" and module == "numpy":
        # Whoever makes it writable again sets an attribute, which is seen.
        if value.flags.writeable or value.base is not None or value.dtype.kind in "OV":
            return None
        return f"ndarray {value.dtype} {value.shape} {blake2b(value.tobytes(), digest_size=16).hexdigest()}"
    if module == "numpy" and hasattr(value, "dtype") and not hasattr(value, "__setitem__"):
        return f"{kind.__name__} {value!r}"
    if module.startswith("numpy") and kind.__name__.endswith("DType"):
        return f"dtype {value!r}"
    return None


def module_of(kind: type) -> str:
    """The name of the module that a class is of; "" where a compiled class has something else under that name."""
    name: Any = kind.__module__
    return name if isinstance(name, str) else ""


def _inner(value: Any) -> str | None:
    """The token of a part; functions and classes in a tuple count as their names, and are looked into by the walk."""
    if issubclass(type(value), (type, types.FunctionType, types.BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    return token(value)


def _holds_values_alone(value: Any, kind: type) -> bool:
    """Whether nothing that can change was put into a value of the standard library."""
    if kind is slice:
        return all(token(part) is not None for part in (value.start, value.stop, value.step))
    return kind not in _TIMES or value.tzinfo is None or type(value.tzinfo) in _ZONES


def _frozen_fields(value: Any, kind: type) -> dict[str, Any] | None:
    """The fields of a frozen dataclass, if it is made of them alone: no base has state of another kind, and none was added."""
    fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(kind)}
    slots: set[str] = set()
    for base in kind.__mro__[:-1]:
        if module_of(base) == "builtins":
            return None
        slots.update(name for name, part in base.__dict__.items() if type(part) is types.MemberDescriptorType)
    return fields if fields.keys() >= slots | set(getattr(value, "__dict__", ())) else None


def parts_of(value: Any) -> list[Any]:
    """What of the parts of a value that has a token is code, or has a class of somebody's, in the same order everywhere."""
    kind = type(value)
    parts: Iterable[Any]
    if issubclass(kind, tuple):
        parts = value
    elif kind is frozenset:  # whose order is another in each process
        parts = sorted(value, key=lambda part: str(_inner(part)))
    elif issubclass(kind, enum.Enum):  # its class is looked at
        parts = ()
    elif dataclasses.is_dataclass(kind):
        parts = (getattr(value, field.name, None) for field in dataclasses.fields(kind))
    elif module_of(kind) in ("operator", "_operator"):
        function, given = value.__reduce__()[:2]
        parts = given if type(function) is type else (*function.args, *function.keywords.values(), *given)
    else:
        parts = (*getattr(value, "__metadata__", ()), *_origin_of(value, kind))
    return [part for part in parts if not _is_plain(part)]


def _origin_of(value: Any, kind: type) -> tuple[Any, ...]:
    """The class that a generic alias makes objects of."""
    origin = getattr(value, "__origin__", None) if kind is types.GenericAlias or module_of(kind) == "typing" else None
    return (origin,) if isinstance(origin, type) and module_of(origin) != "builtins" else ()


def _is_plain(value: Any) -> bool:
    kind = type(value)
    return kind in _FROZEN or (kind in (tuple, frozenset) and all(map(_is_plain, value)))


def is_of_library(kind: type) -> bool:
    return module_of(kind).partition(".")[0] in sys.stdlib_module_names


def _joined(name: str, parts: list[str | None]) -> str | None:
    texts = [part for part in parts if part is not None]
    return f"{name}({', '.join(texts)})" if len(texts) == len(parts) else None


def are_flat(values: Sequence[Any]) -> bool:
    """Whether they are dicts of values that can never change: then nothing stands in the way of copies."""
    return (
        {dict}.issuperset(map(type, values))
        and ATOMS.issuperset(map(type, chain.from_iterable(values)))
        and ATOMS.issuperset(map(type, chain.from_iterable(map(dict.values, values))))
    )


class Survey:
    """What a value is made of: whether a copy of it could be told from it, how large it is, whose classes are in it.

    ``odd`` says what stands in the way of a copy, with the way to it, or is None. ``size_bytes`` is a rough figure.
    """

    __slots__ = ("arrays", "classes", "items", "odd", "size_bytes")

    def __init__(self) -> None:
        self.odd: str | None = None
        self.size_bytes = 0
        self.items = 0
        self.classes: set[type] = set()
        self.arrays: list[Any] = []


def survey(value: Any, where: str, seen: dict[int, Any] | None = None) -> Survey:
    """Take a value apart, and add its objects to `seen`. With `seen`, objects by their ids, parts that are shared with it are odd."""
    found = Survey()
    mine: dict[int, Any] = {}
    todo: list[tuple[Any, str]] = [(value, where)]
    while todo and found.odd is None:
        item, path = todo.pop()
        kind = type(item)
        if kind in ATOMS:
            found.size_bytes += len(item) + 3 if kind is str or kind is bytes else 8
            continue
        if kind in _FROZEN:
            found.size_bytes += 16
            if kind is decimal.Decimal or kind in _TIMES:
                found.classes.add(kind)  # what it computes goes by the context, the time zone
                if not _holds_values_alone(item, kind):
                    found.odd = f"{path} has a time zone of its own kind"
            continue
        if issubclass(kind, PurePath) and is_of_library(kind):
            found.size_bytes += 64
            found.classes.add(kind)
            continue
        if issubclass(kind, enum.Enum):
            found.classes.add(kind)
            continue
        if not issubclass(kind, (tuple, frozenset)):
            root = _root_of(item, kind)
            if id(root) in mine:
                found.odd = f"{path} is one object with another part of it"
                break
            if seen is not None and id(root) in seen:
                found.odd = f"{path} is an object of the input itself"
                break
            mine[id(root)] = root
        if kind in _LISTS or kind in _DICTS:
            _open(item, kind, path, found, todo)
        else:
            _open_object(item, kind, path, found, todo)
    if seen is not None:
        seen.update(mine)
    return found


def _root_of(item: Any, kind: type) -> Any:
    """The array that a view shows, else the item."""
    if kind.__name__ == "ndarray":
        while type(item.base) is kind:
            item = item.base
    return item


def _open(item: Any, kind: type, path: str, found: Survey, todo: list[tuple[Any, str]]) -> None:
    found.items += len(item)
    found.size_bytes += 8
    if kind in _DICTS:
        keys, values = item.keys(), item.values()
        _open(list(keys), list, f"a key of {path}", found, todo)
    else:
        values = item
    kinds = set(map(type, values))
    if kinds <= ATOMS:
        texts = kinds & {str, bytes}
        if not texts:
            found.size_bytes += 8 * len(item)
        elif len(kinds) == 1:
            found.size_bytes += sum(map(len, values)) + 3 * len(item)
        else:
            found.size_bytes += sum(len(part) + 3 if type(part) in texts else 8 for part in values)
    elif kind in _DICTS:
        todo.extend((part, f"{path}[{key!r}]") for key, part in item.items())
    elif kind is list or kind is tuple:
        todo.extend((part, f"{path}[{index}]") for index, part in enumerate(item))
    else:
        todo.extend((part, f"a part of {path}") for part in item)


def _open_object(item: Any, kind: type, path: str, found: Survey, todo: list[tuple[Any, str]]) -> None:
    name = kind.__qualname__
    module = module_of(kind)
    if module == "numpy":
        if name == "ndarray" and item.dtype.kind not in "OV":
            found.size_bytes += item.nbytes
            found.arrays.append(item)
            found.classes.add(kind)
            return
        if name == "ndarray" and item.dtype.kind == "O":
            tables.open_objects(item, path, found)
            return
        if hasattr(item, "dtype") and item.dtype.kind not in "OV" and not hasattr(item, "__setitem__"):
            found.size_bytes += 16
            return
    if module.partition(".")[0] == "pandas" and tables.is_known(item):
        found.classes.add(kind)
        if name in ("DataFrame", "Series"):
            tables.open_table(item, path, found, todo)
        return
    if getattr(kind, "__eq__", None) is object.__eq__:
        found.odd = f"{path} is a {name}, which is equal to itself alone"
        return
    fields = _fields(item, kind)
    if fields is None:
        if module == "mpflow.types" and name == "Send":
            todo.append((item.arg, f"{path}.arg"))
            return
        found.odd = f"{path} is a {name}, of which a copy may be told from the original"
        return
    found.classes.add(kind)
    todo.extend((part, f"{path}.{key}") for key, part in fields.items())


def _fields(item: Any, kind: type) -> dict[str, Any] | None:
    """The state of an object that is nothing but its fields; None for any other."""
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return dict(zip(kind._fields, item, strict=False))
    if dataclasses.is_dataclass(kind):
        names = {field.name for field in dataclasses.fields(kind)}
        state = getattr(item, "__dict__", None)
        if state is not None and not names.issuperset(state):
            return None
        return {key: getattr(item, key) for key in names if hasattr(item, key)}
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(item, pydantic.BaseModel):
        private = getattr(item, "__pydantic_private__", None)
        return None if private else dict(item.__dict__)
    return None
