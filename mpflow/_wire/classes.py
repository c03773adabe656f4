"""How objects of users' classes are taken apart and put together: by their fields, never by calling them.

Owns the plans (one a class and message) and the question whether a class may be named at all. Must not import or run
anything on behalf of a codec for the disk: there, classes come from the codec's ``types`` alone.
"""

from __future__ import annotations

import copyreg
import enum
import functools
import importlib
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING
from itertools import repeat
from types import MemberDescriptorType
from typing import Any, Final

from mpflow._wire.errors import DecodeError

DATACLASS: Final = "dataclass"
MODEL: Final = "pydantic model"
ENUM: Final = "enum"
NAMEDTUPLE: Final = "namedtuple"
PLAIN: Final = "plain object"

_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_VOCABULARY: Final = "mpflow.types"

Build = Callable[[list[Any]], Any]


def kind_of(cls: type) -> str | None:
    """What the codec can take apart, or None. Classes that say themselves how to be pickled are asked by `has_own_pickling`."""
    if issubclass(cls, enum.Enum):
        return ENUM
    if issubclass(cls, tuple):
        is_named = isinstance(getattr(cls, "_fields", None), tuple) and cls.__new__ is not tuple.__new__
        # A subclass without __slots__ may carry attributes besides the items.
        return NAMEDTUPLE if is_named and not cls.__dictoffset__ else None
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(cls, type(pydantic.BaseModel)) and issubclass(cls, pydantic.BaseModel):
        return MODEL
    if not _is_plain(cls):
        return None
    return DATACLASS if hasattr(cls, "__dataclass_fields__") else PLAIN


def _is_plain(cls: type) -> bool:
    """Whether all of an object's contents are in its ``__dict__`` and slots: CPython knows, and refuses otherwise."""
    try:
        object.__new__(cls)
    except TypeError:
        return False
    return True


def has_own_pickling(cls: type) -> bool:
    """Whether the class's author wrote how it is pickled, which the private wire then follows."""
    if cls.__reduce_ex__ is not object.__reduce_ex__ or cls.__reduce__ is not object.__reduce__:  # type: ignore[comparison-overlap]
        return True
    if cls in copyreg.dispatch_table:
        return True
    base: Any = object
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        base = pydantic.BaseModel
    for name in ("__getstate__", "__setstate__"):
        own = getattr(cls, name, None)
        # dataclass(frozen=True, slots=True) adds a pair that copies the fields, as we do.
        if own is not getattr(base, name, None) and getattr(own, "__module__", None) != "dataclasses":
            return True
    return hasattr(cls, "__getnewargs_ex__") or hasattr(cls, "__getnewargs__")


def field_names(cls: type) -> tuple[str, ...]:
    fields: Any = getattr(cls, "__dataclass_fields__", None)
    if fields is None:
        return ()
    import dataclasses

    return tuple(field.name for field in dataclasses.fields(cls))


def slots_of(cls: type) -> dict[str, MemberDescriptorType]:
    """Every slot of the class and its bases, by its unmangled or mangled name as getattr knows it."""
    slots: dict[str, MemberDescriptorType] = {}
    for base in reversed(cls.__mro__):
        if base.__flags__ & _HEAP_TYPE:  # what C types show in this way is no state to set
            slots.update((name, slot) for name, slot in vars(base).items() if type(slot) is MemberDescriptorType)
    return slots


def state_of(value: Any, slots: Mapping[str, MemberDescriptorType]) -> dict[str, Any]:
    """All attributes that are set, from the slots and the dict."""
    state: dict[str, Any] = {}
    for name, slot in slots.items():
        try:
            state[name] = slot.__get__(value)
        except AttributeError:
            pass
    state.update(getattr(value, "__dict__", ()))
    return state


def defaults_of(cls: type) -> dict[str, Any]:
    """Fields that have a default: name to a function that makes one. For objects saved before the field existed."""
    made: dict[str, Any] = {}
    for name, field in getattr(cls, "__dataclass_fields__", {}).items():
        if getattr(field._field_type, "name", "") != "_FIELD":
            continue
        if field.default_factory is not MISSING:
            made[name] = field.default_factory
        elif field.default is not MISSING:
            made[name] = lambda default=field.default: default
    return made


class Plan:
    """One class of one message, ready to build objects from their values."""

    __slots__ = ("build", "cls", "is_simple", "kind", "names", "slots")

    def __init__(self, cls: Any, names: list[str]) -> None:
        self.cls = cls
        self.names = names
        self.kind = kind_of(cls)
        self.slots = slots_of(cls)
        # Whether plain setting reaches the slot or the dict: no property or the like is in the way, no field came or went.
        self.is_simple = tuple(names) == field_names(cls) and not any(map(self._is_guarded, names))
        self.build = self._builder() if self.kind == DATACLASS else self._refuse

    def _is_guarded(self, name: str) -> bool:
        for base in self.cls.__mro__:
            if name in vars(base):
                found = vars(base)[name]
                return type(found) is not MemberDescriptorType and hasattr(type(found), "__set__")
        return False

    def _refuse(self, values: list[Any]) -> Any:
        raise DecodeError(f"{self.cls.__module__}:{self.cls.__qualname__} is no dataclass here, but was one when saved")

    def _builder(self) -> Build:
        cls, names, new, put = self.cls, self.names, object.__new__, object.__setattr__
        count = len(names)
        if not self.is_simple:
            return lambda values: self.build_state(self._zip(values))

        def build(values: list[Any]) -> Any:
            if len(values) != count:
                raise DecodeError(f"{cls.__qualname__} has {count} fields, the message gives {len(values)}")
            obj = new(cls)
            for name, value in zip(names, values, strict=True):
                put(obj, name, value)
            return obj

        return build

    def build_all(self, values: list[Any]) -> list[Any]:
        """Objects one after another, their values without a break."""
        count = len(self.names)
        if not count or len(values) % count:
            raise DecodeError(f"{len(values)} values make no objects of {count} fields each")
        if not self.is_simple:
            return [self.build(values[at : at + count]) for at in range(0, len(values), count)]
        objects = list(map(object.__new__, repeat(self.cls, len(values) // count)))
        for index, name in enumerate(self.names):
            deque(map(object.__setattr__, objects, repeat(name), values[index::count]), 0)
        return objects

    def _zip(self, values: list[Any]) -> dict[str, Any]:
        if len(values) != len(self.names):
            raise DecodeError(f"{self.cls.__qualname__} has {len(self.names)} fields, the message gives {len(values)}")
        state = dict(zip(self.names, values, strict=True))
        for name, make in defaults_of(self.cls).items():
            if name not in state:
                state[name] = make()
        return state

    def build_state(self, state: Any) -> Any:
        if self.kind not in (DATACLASS, PLAIN) or type(state) is not dict:
            raise DecodeError(f"{self.cls.__qualname__} is not built from a dict of attributes")
        obj = object.__new__(self.cls)
        rest = state
        if self.slots:
            rest = {}
            for name, value in state.items():
                slot = self.slots.get(name)
                if slot is None:
                    rest[name] = value
                else:
                    slot.__set__(obj, value)
        if rest:
            # Into the dict directly: no property, __setattr__ or __class__ assignment can be named by the data.
            attributes = getattr(obj, "__dict__", None)
            if type(attributes) is not dict or not all(type(name) is str for name in rest):
                raise DecodeError(f"{self.cls.__qualname__} has no field {next(iter(rest))!r}")
            attributes.update(rest)
        return obj

    def build_model(self, fields: Any, fields_set: Any, extra: Any, private: Any) -> Any:
        if self.kind != MODEL or type(fields) is not dict:
            raise DecodeError(f"{self.cls.__qualname__} is no pydantic model here, but was one when saved")
        cls: Any = self.cls
        obj = cls.__new__(cls)
        names = set(fields) if fields_set is None else set(fields_set)
        for name, field in cls.model_fields.items():
            if name not in fields and not field.is_required():
                fields[name] = field.get_default(call_default_factory=True, validated_data=dict(fields))
        put = object.__setattr__
        put(obj, "__dict__", fields)
        put(obj, "__pydantic_fields_set__", names)
        put(obj, "__pydantic_extra__", extra)
        put(obj, "__pydantic_private__", private)
        return obj

    def build_enum(self, key: Any) -> Any:
        cls: Any = self.cls
        if self.kind != ENUM:
            raise DecodeError(f"{cls.__qualname__} is no enum here, but was one when saved")
        if type(key) is int and issubclass(cls, enum.Flag):
            return cls(key)
        member = cls._member_map_.get(key)
        if member is None:
            raise DecodeError(f"{cls.__qualname__} has no member {key!r}; it has {', '.join(cls._member_map_)}")
        return member

    def build_namedtuple(self, values: list[Any]) -> Any:
        if self.kind != NAMEDTUPLE:
            raise DecodeError(f"{self.cls.__qualname__} is no namedtuple here, but was one when saved")
        if len(values) != len(self.cls._fields):
            raise DecodeError(f"{self.cls.__qualname__} has {len(self.cls._fields)} fields, not {len(values)}")
        return tuple.__new__(self.cls, values)


class Record:
    """What tools without the graph see of an object: the name of its class and its fields, nothing that runs."""

    __slots__ = ("fields", "name")

    def __init__(self, name: str, fields: Any) -> None:
        self.name = name
        self.fields = fields

    def __repr__(self) -> str:
        return f"Record({self.name!r}, {self.fields!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self.name == other.name and bool(self.fields == other.fields)

    __hash__ = None  # type: ignore[assignment]


class InertPlan:
    """Stands in for a `Plan` where the class is unknown and the codec was asked for inert records."""

    __slots__ = ("name", "names")

    def __init__(self, name: str, names: list[str]) -> None:
        self.name = name
        self.names = names

    def build(self, values: list[Any]) -> Record:
        return Record(self.name, dict(zip(self.names, values, strict=False)))

    def build_all(self, values: list[Any]) -> list[Record]:
        count = max(len(self.names), 1)
        return [self.build(values[at : at + count]) for at in range(0, len(values), count)]

    def build_state(self, state: Any) -> Record:
        return Record(self.name, state)

    def build_model(self, fields: Any, fields_set: Any, extra: Any, private: Any) -> Record:
        return Record(self.name, fields)

    def build_enum(self, key: Any) -> Record:
        return Record(self.name, key)

    def build_namedtuple(self, values: list[Any]) -> Record:
        return Record(self.name, values)


class Registry:
    """The classes that a codec may name: those it was given, and mpflow's own vocabulary."""

    def __init__(self, types: Mapping[str, type] | Iterable[type]) -> None:
        if isinstance(types, Mapping):
            self.by_name: dict[str, type] = dict(types)
            self.names: dict[type, str] = {cls: name for name, cls in types.items()}
        else:
            # Of classes defined anew under one name (a notebook cell run twice) the last is built; all can be saved.
            self.names = {cls: name_of(cls) for cls in types}
            self.by_name = {name: cls for cls, name in self.names.items()}

    def name(self, cls: type) -> str | None:
        name = self.names.get(cls)
        if name is None and cls.__module__.startswith("mpflow.") and _vocabulary(cls.__qualname__) is cls:
            name = f"{_VOCABULARY}:{cls.__qualname__}"
        return name

    def find(self, name: Any) -> type | None:
        cls = self.by_name.get(name)
        if cls is None and type(name) is str and name.startswith(f"{_VOCABULARY}:"):
            cls = _vocabulary(name.partition(":")[2])
        return cls


@functools.lru_cache(maxsize=64)
def _vocabulary(qualname: str) -> type | None:
    """A struct of mpflow.types: these are always known, so that every graph can save its commands and interrupts."""
    # A value of one cannot exist before its module; a message may name one before.
    if _VOCABULARY not in sys.modules:
        importlib.import_module(_VOCABULARY)
    found = getattr(sys.modules[_VOCABULARY], qualname, None)
    if not isinstance(found, type) or not found.__module__.startswith("mpflow."):
        return None
    return found if kind_of(found) in (DATACLASS, NAMEDTUPLE) else None


def name_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def import_class(name: str) -> type:
    """The class of a name that one of our own processes wrote; never call this for bytes from the disk."""
    module, _, qualname = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    if not isinstance(found, type):
        raise DecodeError(f"{name} is no class here")
    return found
