"""Encoders and builders of the standard library's types. Stateless; imports a type's module only once it is needed.

An encoder turns a value into the list that is packed for it, marker first. A builder gets the unpacked list, marker
included, and returns the value; whatever it raises becomes a DecodeError, so builders check only what would not raise.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any, Final

from msgpack import ExtType

from mpflow._wire import tags

Encoder = Callable[[Any], list[Any]]
Builder = Callable[[list[Any]], Any]

# One marker object a tag, reused by every message: making an ExtType checks its arguments each time.
MARKS: Final = {code: ExtType(code, b"") for code in range(128)}

FACTORIES: Final[dict[int, Any]] = {
    0: None, 1: list, 2: dict, 3: set, 4: int, 5: float, 6: str, 7: tuple, 8: bool, 9: bytes, 10: deque, 11: Counter,
    12: frozenset, 13: OrderedDict, 14: bytearray, 15: complex,
}  # fmt: skip
_FACTORY_CODES: Final[dict[Any, int]] = {factory: code for code, factory in FACTORIES.items()}

# A path of the other system's flavour is rebuilt as a pure one.
PATHS: Final = {0: "PurePosixPath", 1: "PureWindowsPath", 2: "PosixPath", 3: "WindowsPath"}

_ZONE_KEY: Final = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")


def _items(tag: int) -> Encoder:
    mark = MARKS[tag]
    return lambda value: [mark, *value]


def _as_dict(tag: int) -> Encoder:
    mark = MARKS[tag]
    return lambda value: [mark, dict(value)]


def _encode_int(value: int) -> list[Any]:
    return [MARKS[tags.INT], value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)]


def _encode_deque(value: deque[Any]) -> list[Any]:
    return [MARKS[tags.DEQUE], value.maxlen, *value]


BUILTIN_ENCODERS: Final[dict[type, Encoder]] = {
    tuple: _items(tags.TUPLE),
    set: _items(tags.SET),
    frozenset: _items(tags.FROZENSET),
    int: _encode_int,
    complex: lambda value: [MARKS[tags.COMPLEX], value.real, value.imag],
    range: lambda value: [MARKS[tags.RANGE], value.start, value.stop, value.step],
    slice: lambda value: [MARKS[tags.SLICE], value.start, value.stop, value.step],
    type(...): lambda value: [MARKS[tags.ELLIPSIS]],
    type(NotImplemented): lambda value: [MARKS[tags.NOT_IMPLEMENTED]],
    OrderedDict: _as_dict(tags.ORDERED_DICT),
    Counter: _as_dict(tags.COUNTER),
    deque: _encode_deque,
    re.Pattern: lambda value: [MARKS[tags.PATTERN], value.pattern, value.flags],
}


def encode_defaultdict(value: defaultdict[Any, Any]) -> list[Any] | None:
    """None if the default factory is not one of ours: it is then for pickle, or for nobody."""
    code = _FACTORY_CODES.get(value.default_factory)
    return None if code is None else [MARKS[tags.DEFAULT_DICT], code, dict(value)]


def _datetime_encoders() -> dict[type, Encoder]:
    import datetime as dt

    def encode_datetime(value: dt.datetime) -> list[Any]:
        return [
            MARKS[tags.DATETIME], value.year, value.month, value.day, value.hour, value.minute, value.second,
            value.microsecond, value.fold, value.tzinfo,
        ]  # fmt: skip

    def encode_time(value: dt.time) -> list[Any]:
        return [
            MARKS[tags.TIME], value.hour, value.minute, value.second, value.microsecond, value.fold, value.tzinfo,
        ]  # fmt: skip

    def encode_timezone(value: dt.timezone) -> list[Any]:
        # The name is kept apart from the offset nowhere else in the public interface.
        offset, *name = value.__getinitargs__()  # type: ignore[attr-defined]
        return [MARKS[tags.TIMEZONE], offset.days, offset.seconds, offset.microseconds, name[0] if name else None]

    return {
        dt.datetime: encode_datetime,
        dt.date: lambda value: [MARKS[tags.DATE], value.year, value.month, value.day],
        dt.time: encode_time,
        dt.timedelta: lambda value: [MARKS[tags.TIMEDELTA], value.days, value.seconds, value.microseconds],
        dt.timezone: encode_timezone,
    }


def _path_encoders() -> dict[type, Encoder]:
    import pathlib

    def encoder(code: int) -> Encoder:
        return lambda value: [MARKS[tags.PATH], code, str(value)]

    return {getattr(pathlib, name): encoder(code) for code, name in PATHS.items()}


def _decimal_encoders() -> dict[type, Encoder]:
    return {sys.modules["decimal"].Decimal: lambda value: [MARKS[tags.DECIMAL], str(value)]}


def _fraction_encoders() -> dict[type, Encoder]:
    return {sys.modules["fractions"].Fraction: lambda value: [MARKS[tags.FRACTION], value.numerator, value.denominator]}


def _uuid_encoders() -> dict[type, Encoder]:
    return {sys.modules["uuid"].UUID: lambda value: [MARKS[tags.UUID], value.bytes]}


# By the root of the module that defines the type (``pathlib._local``, ``_decimal``): nothing is imported to look.
_MODULES: Final[dict[str, Callable[[], dict[type, Encoder]]]] = {
    "datetime": _datetime_encoders,
    "pathlib": _path_encoders,
    "decimal": _decimal_encoders,
    "fractions": _fraction_encoders,
    "uuid": _uuid_encoders,
}


def encoder_of(kind: type) -> Encoder | None:
    """The encoder of a standard library type met for the first time."""
    module = str(kind.__module__).partition(".")[0]
    found = _MODULES.get(module)
    return found().get(kind) if found is not None else None


def encode_zone(value: Any) -> list[Any] | None:
    """A ZoneInfo by its key; None for anything else, also for a zone read from a file."""
    zoneinfo = sys.modules.get("zoneinfo")
    if zoneinfo is None or type(value) is not zoneinfo.ZoneInfo or value.key is None:
        return None
    return [MARKS[tags.ZONEINFO], value.key]


def encode_pytz(value: Any) -> list[Any] | None:
    """A zone of pytz, which pandas 2 uses: the very period too, or a datetime would change its offset."""
    pytz = sys.modules.get("pytz")
    if pytz is None:
        return None
    if value is pytz.utc:
        return [MARKS[tags.PYTZ], "UTC"]
    if isinstance(value, (pytz.tzinfo.DstTzInfo, pytz.tzinfo.StaticTzInfo)) and value.zone in pytz.all_timezones_set:
        return [MARKS[tags.PYTZ], *value.__reduce__()[1]]
    return None


# -- builders ----------------------------------------------------------------------------------------------------------


def _build_tuple(items: list[Any]) -> Any:
    del items[0]
    return tuple(items)


def _build_set(items: list[Any]) -> Any:
    del items[0]
    return set(items)


def _build_frozenset(items: list[Any]) -> Any:
    del items[0]
    return frozenset(items)


def _build_bytearray(items: list[Any]) -> Any:
    (_, data) = items
    if type(data) not in (bytes, memoryview):  # bytearray(2**40) allocates
        raise TypeError(f"expected bytes, got {type(data).__name__}")
    return bytearray(data)


def _build_int(items: list[Any]) -> Any:
    (_, data) = items
    return int.from_bytes(data, "little", signed=True)


def _build_complex(items: list[Any]) -> Any:
    (_, real, imag) = items
    if type(real) is not float or type(imag) is not float:
        raise TypeError("expected two floats")
    return complex(real, imag)


def _build_default_dict(items: list[Any]) -> Any:
    (_, code, value) = items
    return defaultdict(FACTORIES[code], _checked(value, dict))


def _build_counter(items: list[Any]) -> Any:
    (_, value) = items
    counter: Counter[Any] = Counter()
    dict.update(counter, _checked(value, dict))
    return counter


def _build_ordered_dict(items: list[Any]) -> Any:
    (_, value) = items
    return OrderedDict(_checked(value, dict))


def _build_deque(items: list[Any]) -> Any:
    return deque(items[2:], items[1])


def _build_memoryview(items: list[Any]) -> Any:
    (_, code, shape, data) = items
    view = memoryview(bytearray(data) if type(data) is bytes else data)
    if shape == [len(view)] and code == "B":
        return view
    # A cast needs bytes on one side, and a shape without zeros.
    return view.cast("B").cast(code, shape) if 0 not in shape else view.cast("B").cast(code)


def _build_datetime(items: list[Any]) -> Any:
    from datetime import datetime

    (_, year, month, day, hour, minute, second, microsecond, fold, zone) = items
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _build_date(items: list[Any]) -> Any:
    from datetime import date

    (_, year, month, day) = items
    return date(year, month, day)


def _build_time(items: list[Any]) -> Any:
    from datetime import time

    (_, hour, minute, second, microsecond, fold, zone) = items
    return time(hour, minute, second, microsecond, zone, fold=fold)


def _build_timedelta(items: list[Any]) -> Any:
    from datetime import timedelta

    (_, days, seconds, microseconds) = items
    return timedelta(_checked(days, int), _checked(seconds, int), _checked(microseconds, int))


def _build_timezone(items: list[Any]) -> Any:
    from datetime import timedelta, timezone

    (_, days, seconds, microseconds, name) = items
    offset = timedelta(_checked(days, int), _checked(seconds, int), _checked(microseconds, int))
    if name is None:
        return timezone(offset) if offset else timezone.utc
    return timezone(offset, name)


def _build_zone(items: list[Any]) -> Any:
    import zoneinfo
    from pathlib import Path

    (_, key) = items
    if not _ZONE_KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not the name of a time zone")
    # Without a file of that name ZoneInfo would import a module named after the key, so the name is looked up first.
    if not any(Path(root, key).is_file() for root in zoneinfo.TZPATH) and key not in zoneinfo.available_timezones():
        raise ValueError(f"there is no time zone {key!r} on this machine; install the tzdata package")
    return zoneinfo.ZoneInfo(key)


def _build_pytz(items: list[Any]) -> Any:
    pytz, tzinfo = importlib.import_module("pytz"), importlib.import_module("pytz.tzinfo")
    zone, period = items[1], items[2:]
    if zone not in pytz.all_timezones_set:
        raise ValueError(f"pytz has no time zone {zone!r}")
    return pytz.utc if zone == "UTC" else tzinfo.unpickler(zone, *period)


def _build_decimal(items: list[Any]) -> Any:
    from decimal import Decimal

    (_, text) = items
    return Decimal(_checked(text, str))


def _build_fraction(items: list[Any]) -> Any:
    from fractions import Fraction

    (_, numerator, denominator) = items
    if type(numerator) is not int or type(denominator) is not int or denominator < 1:
        raise ValueError("expected an integer over a positive one")
    # Reducing to lowest terms again would let hostile integers of a megabyte take minutes.
    fraction: Any = object.__new__(Fraction)
    fraction._numerator = numerator
    fraction._denominator = denominator
    return fraction


def _build_uuid(items: list[Any]) -> Any:
    from uuid import UUID

    (_, data) = items
    return UUID(bytes=data)


def _build_path(items: list[Any]) -> Any:
    import os
    import pathlib

    (_, code, text) = items
    name = PATHS[code]
    if name == ("PosixPath" if os.name == "nt" else "WindowsPath"):
        name = f"Pure{name}"
    return getattr(pathlib, name)(_checked(text, str))


def _build_pattern(items: list[Any]) -> Any:
    (_, pattern, flags) = items
    if type(pattern) is bytes:
        return re.compile(pattern, flags)
    # A compiled str pattern reports UNICODE among its flags, and takes it back.
    return re.compile(_checked(pattern, str), flags)


def _build_range(items: list[Any]) -> Any:
    (_, start, stop, step) = items
    return range(start, stop, step)


def _build_slice(items: list[Any]) -> Any:
    (_, start, stop, step) = items
    return slice(start, stop, step)


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _lone(value: Any) -> Builder:
    def build(items: list[Any]) -> Any:
        (_,) = items
        return value

    return build


BUILDERS: Final[dict[int, Builder]] = {
    tags.TUPLE: _build_tuple,
    tags.SET: _build_set,
    tags.FROZENSET: _build_frozenset,
    tags.BYTEARRAY: _build_bytearray,
    tags.INT: _build_int,
    tags.COMPLEX: _build_complex,
    tags.RANGE: _build_range,
    tags.SLICE: _build_slice,
    tags.ELLIPSIS: _lone(...),
    tags.NOT_IMPLEMENTED: _lone(NotImplemented),
    tags.ORDERED_DICT: _build_ordered_dict,
    tags.DEFAULT_DICT: _build_default_dict,
    tags.DEQUE: _build_deque,
    tags.COUNTER: _build_counter,
    tags.MEMORYVIEW: _build_memoryview,
    tags.DATETIME: _build_datetime,
    tags.DATE: _build_date,
    tags.TIME: _build_time,
    tags.TIMEDELTA: _build_timedelta,
    tags.TIMEZONE: _build_timezone,
    tags.ZONEINFO: _build_zone,
    tags.PYTZ: _build_pytz,
    tags.DECIMAL: _build_decimal,
    tags.FRACTION: _build_fraction,
    tags.UUID: _build_uuid,
    tags.PATH: _build_path,
    tags.PATTERN: _build_pattern,
}
