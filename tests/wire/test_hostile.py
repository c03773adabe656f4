"""Bytes from the disk that mean harm: typed errors only, in bounded time and memory, and nothing runs or is imported."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpflow._wire import limits, tags
from mpflow._wire.codec import Codec, DecodeError, DecodeLimitError, WireError
from tests.wire import shapes
from tests.wire.test_codec import VALUES, values

DISK = Codec(types=shapes.ALL)
WIRE = Codec(trust=True)


def attempt(data: bytes) -> None:
    try:
        DISK.decode(data)
    except WireError:
        pass


def ext(tag: int, payload: bytes = b"") -> Any:
    return msgpack.ExtType(tag, payload)


@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    attempt(data)


@given(values, st.data())
def test_mutated_and_truncated_messages(value: Any, data: st.DataObject) -> None:
    whole = bytearray(DISK.encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    attempt(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_message_with_any_byte_changed(value: Any) -> None:
    whole = DISK.encode(value)[:300]
    for at in range(len(whole)):
        for byte in (0, whole[at] ^ 1, whole[at] ^ 0x80, 0x93, 0xC7, 0xFF):
            attempt(whole[:at] + bytes([byte]) + whole[at + 1 :])


junk = st.recursive(
    st.one_of(
        st.none(), st.integers(-(2**63), 2**63), st.floats(), st.text(max_size=3), st.binary(max_size=3),
        st.builds(ext, st.integers(0, 127), st.sampled_from([b"", b"", b"", b"x"])),
        st.sampled_from(["tests.wire.shapes:Point", "x", "<i8", "C", "builtins:ValueError", "mpflow.types:Command"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.builds(lambda tag, items: [ext(tag), *items], st.integers(0, 110), st.lists(inner, max_size=9)),
    ),
    max_leaves=15,
)  # fmt: skip


@given(junk)
def test_well_formed_nonsense_under_every_tag(value: Any) -> None:
    try:
        data = msgpack.packb(value)
    except OverflowError:
        return
    attempt(data)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"\x90\x90", b"\xc7\x00\x01", b"\x92\x01\xc7\x00\x01", b"\x81\xc7\x00\x01\x01", b"\x91\xc7\x01\x01a",
        b"\x91\xc7\x00\x7e", b"\xd4\x01\x00", b"\x92\x91\xc7\x00\x01\xc7\x00\x02", b"\x81\x90\x01", b"\xa1\xff",
        msgpack.packb([ext(tags.CLASS), "tests.wire.shapes:Point", ["x", "y"]]),
        msgpack.packb([[ext(tags.CLASS), "tests.wire.shapes:Point", ["x", "y"]], 1]),
        msgpack.packb([ext(tags.OBJECT), 0, 1, 2]), msgpack.packb([ext(tags.OBJECT), "os:system", "true"]),
        msgpack.packb([ext(tags.TUPLE), ext(tags.TUPLE)]),
    ],
)  # fmt: skip
def test_damaged_message_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        DISK.decode(data)


@pytest.mark.parametrize(
    "value",
    [
        [ext(tags.PICKLE), pickle.dumps(print)], [ext(tags.SHARED), 0, 0, 1, 1],
        [ext(tags.CLASS_BY_VALUE), "id", pickle.dumps(print), []],
        [ext(tags.EXCEPTION), ["a", "b", "", msgpack.packb([1, pickle.dumps(print)]), None, None, False, []]],
    ],
)  # fmt: skip
def test_what_belongs_to_the_private_wire_is_unknown_on_the_disk(value: Any) -> None:
    try:
        back = DISK.decode(msgpack.packb(value))
    except DecodeError:
        return
    assert type(back).__name__ == "RemoteError"


_AUDITED = """
import sys
from mpflow._wire.codec import Codec, WireError
import mpflow.types
import tests.wire.shapes as shapes, numpy, re, datetime, mpflow._wire.arrays, mpflow._wire.failures, mpflow._wire.batches
codec = Codec(types=shapes.ALL)
messages = sys.stdin.buffer.read().split(b"|||")
for warm in range(2):
    for message in messages:
        try:
            codec.decode(message)
        except WireError:
            pass
    if warm == 0:
        seen = []
        def hook(event, args):
            if event in ("import", "exec", "compile", "open", "os.system", "subprocess.Popen", "pickle.find_class") \\
                    or event.startswith(("ctypes", "socket", "os.exec", "os.spawn")):
                seen.append((event, args))
        sys.addaudithook(hook)
assert not seen, seen
"""


def test_audit_hook_sees_no_import_exec_or_open_for_hostile_names() -> None:
    named = "tests.wire.hostile_module:Thing"
    messages = [
        [[ext(tags.CLASS), named, ["x"]]], [ext(tags.OBJECT), [ext(tags.CLASS), named, ["x"]], 1],
        [ext(tags.OBJECT), [ext(tags.CLASS), "os:system", []], "true"], [ext(tags.PICKLE), pickle.dumps(print)],
        [ext(tags.ZONEINFO), "../../etc/passwd"], [ext(tags.ENUM), [ext(tags.CLASS), "builtins:eval", []], "1"],
        [ext(tags.EXCEPTION), ["a", "b", "", msgpack.packb([0, "builtins:exec", ["1"], {}]), None, None, False, []]],
        [ext(tags.EXCEPTION), ["a", "b", "", msgpack.packb([0, "os:error", ["1"], {}]), None, None, False, []]],
        [ext(tags.NDARRAY), "|O", [1], "C", b"\0" * 8], [ext(tags.NUMPY_SCALAR), "|O8", b"\0" * 8],
        [ext(tags.TYPE), [ext(tags.CLASS), "builtins:eval", []]],
    ]  # fmt: skip
    data = b"|||".join(msgpack.packb(message) for message in messages)
    subprocess.run([sys.executable, "-c", _AUDITED], input=data, check=True, timeout=60)


_BOMBS = {
    "empty lists": b"\xdd" + (8 << 20).to_bytes(4, "big") + b"\x90" * (8 << 20),
    "empty dicts": b"\xdd" + (8 << 20).to_bytes(4, "big") + b"\x80" * (8 << 20),
    "empty sets": b"\xdd" + (3 << 20).to_bytes(4, "big") + b"\x91\xc7\x00\x02" * (3 << 20),
    "nesting": b"\x91" * (8 << 20) + b"\x01",
    "declared lengths": b"\xdd\x00\x7f\xff\xff" * 1_000 + b"\x00" * (8 << 20),
    "declared maps": b"\xdf\x00\x3f\xff\xff" * 1_000 + b"\x00" * (8 << 20),
    "a batch of sets": msgpack.packb([ext(tags.BATCH), 1, 1]).replace(b"\x93", b"\xdd\x00\x80\x00\x03", 1)
    + b"\x01" * (8 << 20),
    "a batch of empty sets": msgpack.packb([ext(tags.BATCH), 1]).replace(b"\x92", b"\x93", 1)
    + b"\xdd\x00\x80\x00\x00" + b"\x00" * (8 << 20),
    "bytearray": msgpack.packb([ext(tags.BYTEARRAY), 1 << 40]),
    "array": msgpack.packb([ext(tags.NDARRAY), "<f8", [1 << 40], "C", b""]),
    "items without bytes": msgpack.packb([ext(tags.NDARRAY), "|S0", [1 << 40], "C", b""]),
    "series": msgpack.packb([ext(tags.PANDAS_SERIES), 5, [ext(tags.PANDAS_INDEX), 0, 0, 1 << 40, 1, None], None, {}]),
}  # fmt: skip

_BOUNDED = """
import pickle, resource, sys
from mpflow._wire.codec import Codec, DecodeError
import numpy, mpflow._wire.arrays
try:
    import pandas
except ImportError:
    pass
codec = Codec()
bombs = pickle.load(sys.stdin.buffer)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, bomb in bombs.items():
    try:
        codec.decode(bomb)
    except DecodeError as error:
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        assert grown < 150, (name, grown)
    else:
        raise AssertionError(name)
"""


def test_bombs_are_refused_before_they_grow() -> None:
    subprocess.run([sys.executable, "-c", _BOUNDED], input=pickle.dumps(_BOMBS), check=True, timeout=60)


def test_limits_name_themselves() -> None:
    for name in ("empty lists", "nesting", "a batch of sets"):
        with pytest.raises(DecodeLimitError):
            DISK.decode(_BOMBS[name])


def test_lists_of_small_containers_are_no_bombs() -> None:
    value = [[1]] * 1_150_000  # enough for the slowest count
    assert len(DISK.decode(DISK.encode(value))) == len(value)


@given(st.binary(max_size=100))
def test_the_private_wire_too_raises_nothing_but_wire_errors(data: bytes) -> None:
    try:
        WIRE.decode(data)
    except WireError:
        pass


def test_unpickling_that_exits_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="SystemExit"):
        WIRE.decode(WIRE.encode([Exits()]))


class Exits:
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


@pytest.mark.parametrize("name", ["empty lists", "empty dicts"])
def test_a_bomb_of_empty_containers_is_told_without_unpacking_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS row 40: in about a tenth of a second."""
    monkeypatch.setattr(limits, "_count", lambda data, allowance: pytest.fail("it was unpacked"))
    with pytest.raises(DecodeLimitError):
        DISK.decode(_BOMBS[name])


def _containers(value: Any) -> int:
    items = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return isinstance(value, (list, dict)) + sum(map(_containers, items))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary()
        | st.sampled_from([1, 2, 4, 8, 16, 3, 300]).map(lambda size: msgpack.ExtType(5, b"\x90" * size))
        | st.sampled_from([31, 32, 255, 256]).map(lambda size: b"\x90" * size)
        | st.sampled_from([31, 32, 255, 256]).map(lambda size: "\x00" * size),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | inner.map(lambda item: [item] * 16),
        max_leaves=5,
    )
)  # fmt: skip
def test_what_looks_like_a_container_within_something_else_is_none(value: Any) -> None:
    data = msgpack.packb(value)
    assert not limits._is_bomb(data, _containers(value))
