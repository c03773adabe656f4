from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import fractions
import math
import pathlib
import re
import struct
import subprocess
import sys
import threading
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpflow._wire.classes import Record
from mpflow._wire.codec import (
    NAMES,
    PICKLED,
    Codec,
    DecodeError,
    EncodeError,
    Limits,
    is_portable,
)
from mpflow.types import Command, Interrupt, Send
from tests.naming import shown
from tests.wire import shapes
from tests.wire.shapes import Colour, Flags, Frozen, Holder, Level, Model, Named, Pair, Point, Slotted, Strict

WIRE = Codec(trust=True)
DISK = Codec(types=shapes.ALL)


@pytest.fixture(params=[WIRE, DISK], ids=["wire", "disk"])
def codec(request: pytest.FixtureRequest) -> Codec:
    return request.param  # type: ignore[no-any-return]


def same(a: Any, b: Any) -> bool:
    """Equal in type and value all the way down, NaN and the sign of zero included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(p, q) and same(v, w) for (p, v), (q, w) in zip(a.items(), b.items(), strict=True)
        )
    if isinstance(a, (list, tuple, deque)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (dt.datetime, dt.time)):
        return a == b and a.fold == b.fold and repr(a.tzinfo) == repr(b.tzinfo)
    if isinstance(a, decimal.Decimal):
        return repr(a) == repr(b)
    if isinstance(a, Send):
        return (a.node, a.timeout) == (b.node, b.timeout) and same(a.arg, b.arg)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return bool(a == b)


ZONES = [
    dt.timezone.utc,
    dt.timezone(dt.timedelta(hours=-3, minutes=-30)),
    dt.timezone(dt.timedelta(hours=1), "CET"),
    zoneinfo.ZoneInfo("Europe/Paris"),
]

VALUES = [
    (), (1, (2, ())), set(), {1, 2}, frozenset(), frozenset({frozenset({1})}), bytearray(b"abc"), [bytearray(b"")],
    {"a": {"b": [bytearray(b"deep")]}}, 2**64, -(2**63) - 1, 10**100, -(10**100), 2**63, 1j, complex(-0.0, math.nan),
    range(1, 10, 3), range(2**70), slice(None, 3), ..., NotImplemented, memoryview(b"view"),
    memoryview(struct.pack("4i", 1, 2, 3, 4)).cast("i").cast("B").cast("i", (2, 2)), memoryview(b"abcdef")[::2],
    OrderedDict([("b", 1), ("a", 2)]), defaultdict(list, {1: [2]}), defaultdict(None, {}), deque([1, 2], 3), deque(),
    Counter("abca"), Counter({"a": -1}),
    dt.datetime(2020, 2, 29, 23, 59, 59, 999_999), dt.datetime.min, dt.datetime.max,
    *(dt.datetime(2021, 10, 31, 2, 30, tzinfo=zone) for zone in ZONES),
    dt.datetime(2021, 10, 31, 2, 30, fold=1, tzinfo=ZONES[3]), dt.date(1, 1, 1), dt.time(1, 2, 3, 4, ZONES[1], fold=1),
    dt.timedelta(-1, 5, 7), dt.timedelta.max, *ZONES,
    decimal.Decimal("1.500"), decimal.Decimal("-0"), decimal.Decimal("NaN123"), decimal.Decimal("1E+999999"),
    fractions.Fraction(-1, 3), uuid.UUID(int=5), pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("c:\\a"),
    pathlib.Path("x"), re.compile("a+", re.IGNORECASE), re.compile(b"b"),
    Point(1, [Point()]), Frozen((1,)), Slotted(1, {2}), Colour.RED, Colour.GREEN, Colour.ROUGE, Level.HIGH, Flags.A,
    Flags.A | Flags.C, Flags(0), Pair(1, (2,)), Named("n"), Model(count=3), Model(name="b", more=[1]),
    Send("node", {"a": (1,)}), Send("node", 1, timeout=2.5), Command(update={1: 2}, goto=[Send("b", None)]),
    Interrupt("why?", "id"),
    {1: "int", 1.5: "float", False: 0, None: "none", (1, 2): "tuple", b"b": "bytes", frozenset({1}): 1, "s": 1},
    {"z": 1, "a": 2}, "\ud800 lone", {"\udfff": "\ud83d\ude00"}, "\U0001f600", "", b"", [], {}, None, True, False,
    0, -1, 2**63 - 1, -(2**63), 0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, b"\xc4\xc5\xc6" * 10,
    [1.5] * 100, [Point(i, i) for i in range(100)], [(i, i) for i in range(100)], [()] * 100, [(1,)] * 70 + [(1, 2)],
    [{i} for i in range(100)], [frozenset({1})] * 100, [Slotted(i) for i in range(100)], [Point(1)] * 99 + [Slotted(1)],
    {"rows": [(i, bytearray(b"x")) for i in range(100)]}, (({"a": [[(i,) for i in range(70)]]},),),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__} {shown(value)[:30]}")
def test_value_comes_back_as_it_was(codec: Codec, value: Any) -> None:
    data, flags = codec.encode_flagged([value, {"again": value}])
    back, again = codec.decode(data)
    assert same(back, value)
    assert same(again["again"], value)
    assert not flags & PICKLED


atoms = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**80), 2**80), st.floats(), st.binary(max_size=20),
    st.text(st.characters(exclude_categories=()), max_size=10), st.complex_numbers(), st.uuids(), st.decimals(),
    st.datetimes(timezones=st.sampled_from([None, *ZONES])), st.dates(), st.timedeltas(), st.fractions(),
    st.sampled_from([*Colour, *Level, ..., pathlib.PurePosixPath("a")]), st.binary().map(bytearray),
)  # fmt: skip
keys = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4), st.binary())
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.lists(inner).map(deque),
        st.dictionaries(keys, inner),
        st.dictionaries(st.tuples(keys, keys), inner),
        st.sets(keys),
        st.frozensets(keys),
        st.builds(Point, inner, inner),
        st.builds(Slotted, inner, inner),
        st.builds(Pair, inner, inner),
        st.builds(Send, st.text(), inner),
        st.lists(st.tuples(inner, inner), min_size=64, max_size=70),
    ),
    max_leaves=20,
)


@given(values)
def test_any_value_comes_back_as_it_was(value: Any) -> None:
    for codec in (WIRE, DISK):
        assert same(codec.decode(codec.encode(value)), value)


@given(values)
def test_both_levels_of_trust_write_the_same_bytes(value: Any) -> None:
    assert Codec(trust=True, types=shapes.ALL).encode(value) == DISK.encode(value)


@pytest.mark.parametrize("bits", [0x7FF8000000000001, 0xFFF8000000000000, 0x7FFC00000000BEEF])
def test_bits_of_nan_are_kept(codec: Codec, bits: int) -> None:
    (value,) = struct.unpack("d", struct.pack("Q", bits))
    (back,) = struct.unpack("Q", struct.pack("d", codec.decode(codec.encode([value]))[0]))
    assert back == bits


@pytest.mark.parametrize("depth", [512, 1000])
@pytest.mark.parametrize(
    "wrap", [lambda v: [v], lambda v: {"k": v}, lambda v: (v,), Point, lambda v: deque([v])], ids=["list", "dict", "tuple", "dataclass", "deque"]
)  # fmt: skip
def test_deep_value_comes_back(codec: Codec, wrap: Any, depth: int) -> None:
    """FAULTS row 20"""
    value: Any = b"\xc4 bottom"
    for _ in range(depth):
        value = wrap(value)
    back = codec.decode(codec.encode(value))
    for _ in range(depth):
        assert type(back) is type(value)
        back, value = (
            (next(iter(vars(back).values())), value.x)
            if isinstance(value, Point)
            else (back["k"], value["k"])
            if isinstance(value, dict)
            else (back[0], value[0])
        )
    assert back == b"\xc4 bottom"


@pytest.mark.parametrize("leaf", [1, bytearray(b"x")])
@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {1: v}, Point])
def test_too_deep_a_value_is_refused_even_with_a_small_stack(codec: Codec, wrap: Any, leaf: Any) -> None:
    value = leaf
    for _ in range(5_000):
        value = wrap(value)
    caught: list[tuple[type, str]] = []

    def encode() -> None:
        try:
            codec.encode(value)
        # Not the error itself: it and this frame would keep one another, and with them the value, until a collection.
        except BaseException as error:
            caught.append((type(error), str(error)))

    size = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=encode)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(size)
    ((kind, message),) = caught
    assert kind is EncodeError
    assert "1024" in message
    # Here, and level by level: an interpreter that is left to free this much nesting by itself does so by recursion,
    # and Python 3.13.0 overruns such a stack by it, whoever made the value.
    while value is not leaf:
        value = value.x if isinstance(value, Point) else value[1] if isinstance(value, dict) else value[0]


def test_cycle_is_refused_by_name(codec: Codec) -> None:
    value: dict[str, Any] = {"list": []}
    value["list"].append(value)
    with pytest.raises(EncodeError, match=r"value\[\"list\"\]\[0\].*contains itself"):
        codec.encode(value)


@pytest.mark.parametrize("value", [shapes.Text("a"), shapes.Number(1), shapes.Table(a=1)])
def test_subclass_of_a_builtin_keeps_its_class_on_the_wire(value: Any) -> None:
    data, flags = WIRE.encode_flagged({"v": value})
    assert type(WIRE.decode(data)["v"]) is type(value)
    assert flags & PICKLED


@pytest.mark.parametrize("value", [shapes.Text("a"), shapes.Number(1), shapes.Number(2**80)])
def test_subclass_of_text_or_number_is_bare_on_disk(value: Any) -> None:
    found = DISK.decode(DISK.encode({value: [value, bytearray(b"b")]}))
    assert found == {value: [value, bytearray(b"b")]}
    assert {type(item) for item in (*found, *found[value])} <= {str, int, bytearray}


def test_subclass_of_a_container_or_with_attributes_is_refused_on_disk() -> None:
    text = shapes.Text("a")
    text.more = 1  # type: ignore[attr-defined]
    for value in (shapes.Table(a=1), text):
        with pytest.raises(EncodeError):
            DISK.encode({"v": value})


def test_user_ext_type_is_refused_beside_bytes() -> None:
    import msgpack

    with pytest.raises(EncodeError, match="ExtType"):
        WIRE.encode([msgpack.ExtType(1, b""), b"bytes"])


# -- classes -----------------------------------------------------------------------------------------------------------


def test_constructors_validators_and_setters_do_not_run(codec: Codec) -> None:
    strict = Strict(1)
    strict.__dict__["x"] = -1
    model = Model()
    model.__dict__["count"] = -1
    back = codec.decode(codec.encode([strict, model, [strict] * 100]))
    assert [back[0].x, back[1].count, back[2][99].x] == [-1, -1, -1]


def test_attributes_besides_the_fields_are_kept_and_missing_ones_stay_missing(codec: Codec) -> None:
    point = Point(1)
    point.extra = [1]  # type: ignore[attr-defined]
    less = Point(1)
    del less.y
    unset = object.__new__(Slotted)
    object.__setattr__(unset, "x", 1)
    back = codec.decode(codec.encode([point, less, unset, *[Point(1, 2)] * 99, less]))
    assert back[0].extra == [1]
    assert "y" not in vars(back[1]) and "y" not in vars(back[-1])
    assert not hasattr(back[2], "y")


def test_model_keeps_fields_set_extras_and_private_attributes(codec: Codec) -> None:
    model = Model(name="x", other=5)
    model._secret = (1,)
    back = codec.decode(codec.encode(model))
    assert (back, back.model_fields_set, back.model_extra, back._secret) == (
        model,
        {"name", "other"},
        {"other": 5},
        (1,),
    )


def test_class_without_a_plan_is_pickled_on_the_wire_and_refused_on_the_disk() -> None:
    data, flags = WIRE.encode_flagged(Holder([1]))
    assert (WIRE.decode(data), flags) == (Holder([1]), PICKLED)
    with pytest.raises(EncodeError, match=r"compile\(types=\[Holder\]\)"):
        Codec().encode({"a": Holder(1)})


def test_class_that_was_given_is_data_at_both_levels() -> None:
    for trust in (True, False):
        codec = Codec(types=[Holder], trust=trust)
        data, flags = codec.encode_flagged(Holder([1]))
        assert (codec.decode(data), is_portable(flags)) == (Holder([1]), True)


def test_flags_tell_what_is_portable() -> None:
    assert WIRE.encode_flagged([1, (2,)])[1] == 0
    data, flags = WIRE.encode_flagged(Point(1))
    assert flags == NAMES and not is_portable(flags) and is_portable(flags, known_types=True)
    assert DISK.decode(data) == Point(1)


def test_unknown_class_is_a_typed_error_or_an_inert_record() -> None:
    data = DISK.encode([Point(1, Pair(2, Colour.GREEN)), Model(count=2), [Slotted(i) for i in range(64)]])
    with pytest.raises(DecodeError, match=r"tests\.wire\.shapes:Point"):
        Codec().decode(data)
    point, model, slotted = Codec(inert=True).decode(data)
    pair = Record("tests.wire.shapes:Pair", [2, Record("tests.wire.shapes:Colour", "GREEN")])
    assert point == Record("tests.wire.shapes:Point", {"x": 1, "y": pair})
    assert model.fields["count"] == 2
    assert slotted[63] == Record("tests.wire.shapes:Slotted", {"x": 63, "y": None})


def test_names_of_the_users_choice_survive_a_move_of_the_class() -> None:
    data = Codec(types={"point": Point}).encode(Point(3))
    assert Codec(types={"point": Slotted}).decode(data) == Slotted(3)


def test_fields_that_came_since_get_their_defaults() -> None:
    old = dataclasses.make_dataclass("Data", ["x"])
    new = dataclasses.make_dataclass(
        "Data", ["x", ("tags", list, dataclasses.field(default_factory=list)), ("n", int, 7)]
    )
    back = Codec(types={"d": new}).decode(Codec(types={"d": old}).encode([old(1)] * 70))[69]
    assert (back.x, back.tags, back.n) == (1, [], 7)


def test_enum_member_that_is_gone_is_a_typed_error() -> None:
    import enum

    old = enum.Enum("Kind", "A B")
    new = enum.Enum("Kind", "A C")
    data = Codec(types={"k": old}).encode(old.B)  # type: ignore[attr-defined]
    with pytest.raises(DecodeError, match="no member 'B'"):
        Codec(types={"k": new}).decode(data)


def test_one_name_in_a_message_serves_all_objects_of_a_class(codec: Codec) -> None:
    data = codec.encode([Point(1), {"a": Point(2)}, Pair(1, Point(3))])
    assert data.count(b"tests.wire.shapes:Point") == 1


def test_authors_own_pickling_is_followed_on_the_wire() -> None:
    value = WithLock(5)
    back = WIRE.decode(WIRE.encode(value))
    assert (back.x, type(back.lock)) == (5, type(value.lock))


@dataclasses.dataclass
class WithLock:
    x: int
    lock: Any = dataclasses.field(default_factory=threading.Lock)

    def __getstate__(self) -> Any:
        return {"x": self.x}

    def __setstate__(self, state: Any) -> None:
        self.x, self.lock = state["x"], threading.Lock()


# -- other processes ---------------------------------------------------------------------------------------------------

_CHILD = """
import sys
from mpflow._wire.codec import Codec
codec = Codec(trust=True)
first, second = sys.stdin.buffer.read().split(b"|||")
(a, made), (b, _) = codec.decode(first), codec.decode(second)
assert type(a[0]) is type(b[0]) is made, "shipped twice, one class"
sys.stdout.buffer.write(codec.encode([a[0].double(), a, b]))
"""


def test_class_by_value_is_one_class_there_and_itself_back_here() -> None:
    @dataclasses.dataclass
    class Local:
        x: int

        def double(self) -> Local:
            return Local(self.x * 2)

    data, flags = WIRE.encode_flagged(([Local(2)], Local))
    assert flags & PICKLED
    other = Codec(trust=True).encode(([Local(3)], None))
    child = subprocess.run(
        [sys.executable, "-c", _CHILD], input=data + b"|||" + other, stdout=subprocess.PIPE, check=True, timeout=60
    )
    double, a, b = WIRE.decode(child.stdout)
    assert (double, a, b) == (Local(4), [Local(2)], [Local(3)])
    assert type(double) is Local


def test_instance_of_a_local_plain_class_travels() -> None:
    class Plain:
        pass

    value = Plain()
    value.other = Plain  # type: ignore[attr-defined]
    script = (
        "import sys; from mpflow._wire.codec import Codec; c = Codec(trust=True); v = c.decode(sys.stdin.buffer.read());"
        "assert type(v) is v.other; sys.stdout.buffer.write(c.encode([v, v.other]))"
    )
    child = subprocess.run(
        [sys.executable, "-c", script], input=WIRE.encode(value), stdout=subprocess.PIPE, check=True, timeout=60
    )
    back, kind = WIRE.decode(child.stdout)
    assert type(back) is Plain and kind is Plain


def test_import_of_the_codec_is_light() -> None:
    script = "import sys, mpflow._wire.codec; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, timeout=60, text=True)
    heavy = {
        "asyncio",
        "numpy",
        "pandas",
        "pyarrow",
        "pydantic",
        "cloudpickle",
        "decimal",
        "fractions",
        "uuid",
        "zoneinfo",
    }
    assert heavy & set(loaded.stdout.split()) == set()


# -- use ---------------------------------------------------------------------------------------------------------------


def test_codec_is_safe_to_share_between_threads() -> None:
    codec = Codec(trust=True)
    wrong: list[Any] = []

    def work(number: int) -> None:
        value = [Point(number, (i,)) for i in range(50)]
        for _ in range(50):
            if codec.decode(codec.encode(value)) != value:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_codec_may_be_used_by_what_it_pickles() -> None:
    value = [Reentrant(), Point(2)]
    assert WIRE.decode(WIRE.encode(value)) == [Point("inner"), Point(2)]


class Reentrant:
    def __reduce__(self) -> Any:
        return _decode, (WIRE.encode(Point("inner")),)


def _decode(data: bytes) -> Any:
    return WIRE.decode(data)


def test_codec_works_after_a_failure(codec: Codec) -> None:
    with pytest.raises(EncodeError):
        codec.encode([Point(1), threading.Lock()])
    with pytest.raises(DecodeError):
        codec.decode(b"\x92\xc7\x00\x01")
    assert codec.decode(codec.encode([Point(1)])) == [Point(1)]


def test_what_the_limits_would_refuse_to_read_is_refused_when_written() -> None:
    codec = Codec(limits=Limits(memory_bytes=100_000, memory_per_byte=10))
    for value in ([[]] * 2_000, [(i, i) for i in range(2_000)]):
        try:
            data = codec.encode(value)
        except EncodeError as error:
            assert "100000 bytes" in str(error)
        else:
            assert codec.decode(data) == value
