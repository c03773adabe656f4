"""Serializers: what they keep, what they refuse, what they read of LangGraph's, encryption (CP-11, FAULTS 39, 40)."""

from __future__ import annotations

import datetime
import ipaddress
import pathlib
import re
import subprocess
import sys
import uuid
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgpack
import pytest

from mpflow._wire.errors import DecodeError, DecodeLimitError, EncodeError
from mpflow.checkpoint.base import empty_checkpoint
from mpflow.checkpoint.log import envelope
from mpflow.checkpoint.log.driver import STEP
from mpflow.checkpoint.log.memory import MemoryDriver
from mpflow.checkpoint.log.saver import LogSaver
from mpflow.checkpoint.serde.base import SerializerProtocol, maybe_add_typed_methods
from mpflow.checkpoint.serde.encrypted import EncryptedSerializer
from mpflow.checkpoint.serde.jsonplus import JsonPlusSerializer
from mpflow.checkpoint.serde.types import TASKS, SendProtocol
from mpflow.errors import CheckpointCorruptError
from mpflow.types import Interrupt, Send


@dataclass
class Point:
    x: int
    y: Any = 0


class Pair(NamedTuple):
    a: int
    b: int


class Colour(Enum):
    RED = "r"


VALUES: list[Any] = [
    None,
    b"raw",
    bytearray(b"raw"),
    {"a": [1, 2.5, "text", None, {1, 2}, frozenset({3}), deque([4])]},
    [
        datetime.datetime(2024, 2, 29, tzinfo=ZoneInfo("Europe/Paris")),
        datetime.date(1, 2, 3),
        datetime.time(4, 5, fold=1),
    ],
    [datetime.timedelta(1, 2, 3), datetime.timezone(datetime.timedelta(hours=1)), ZoneInfo("UTC")],
    [uuid.UUID(int=7), Decimal("1.50"), pathlib.Path("a/b"), re.compile("a+", re.I)],
    [Send("node", {"x": 1}), Interrupt("why?", id="i")],
    [Point(1, {"deep": Point(2)}), Pair(1, 2), Colour.RED],
]
MINE = JsonPlusSerializer(types=[Point, Pair, Colour])


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_cp11_values_come_back(value: Any) -> None:
    kept = MINE.loads_typed(MINE.dumps_typed(value))
    assert (type(kept), kept) == (type(value), value)


def test_cp11_objects_of_other_classes_are_refused_by_name() -> None:
    with pytest.raises(EncodeError, match="Point"):
        JsonPlusSerializer().dumps_typed({"deep": [Point(1)]})
    with pytest.raises(DecodeError, match="Point"):
        JsonPlusSerializer().loads_typed(MINE.dumps_typed(Point(1)))


@pytest.mark.parametrize("argument", ["allowed_msgpack_modules", "allowed_json_modules"])
@pytest.mark.parametrize("given", [Point, (__name__, "Point"), (*__name__.split("."), "Point")], ids=repr)
def test_classes_are_allowed_as_langgraph_has_it(argument: str, given: Any) -> None:
    serde = JsonPlusSerializer(**{argument: [given]})
    assert serde.loads_typed(serde.dumps_typed(Point(1))) == Point(1)
    assert serde.with_msgpack_allowlist([Point]) is serde
    wider = serde.with_msgpack_allowlist([Pair])
    assert wider.loads_typed(wider.dumps_typed([Pair(1, 2), Point(1)])) == [Pair(1, 2), Point(1)]


class Reversed(JsonPlusSerializer):
    """Somebody's own."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        kind, data = super().dumps_typed(obj)
        return f"{self.word} {kind}", data[::-1]

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return super().loads_typed((data[0].removeprefix(f"{self.word} "), data[1][::-1]))


class Unlocked:
    """No cipher at all."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "none", plaintext

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return ciphertext


class Named(EncryptedSerializer):
    name = "one"


def test_a_class_of_ones_own_stays_what_it_is_when_it_learns_of_more_classes() -> None:
    serde = Reversed("turned")
    wider = serde.with_msgpack_allowlist([Point])
    kind, data = wider.dumps_typed(Point(1))
    assert kind.startswith("turned ") and wider.loads_typed((kind, data)) == Point(1)
    with pytest.raises(EncodeError, match="Point"):
        serde.dumps_typed(Point(1))

    named = Named(Unlocked(), serde)
    named.name = "two"
    wider_named = named.with_msgpack_allowlist([Point])
    assert type(wider_named) is Named and wider_named.name == "two"
    assert wider_named.loads_typed(wider_named.dumps_typed(Point(1))) == Point(1)


def test_what_langgraph_allows_in_general_is_told_to_change_nothing() -> None:
    with pytest.warns(UserWarning, match="no pickle is written"):
        serde = JsonPlusSerializer(pickle_fallback=True)
    with pytest.raises(EncodeError):
        serde.dumps_typed(object())
    with pytest.warns(UserWarning, match="allows nothing"):
        JsonPlusSerializer(allowed_msgpack_modules=True)
    with pytest.raises(TypeError, match="expected classes"):
        JsonPlusSerializer(allowed_msgpack_modules=[("os", "system")])


def test_messages_are_known_once_they_are_loaded() -> None:
    serde = JsonPlusSerializer()
    messages = pytest.importorskip("langchain_core.messages")
    value = [
        messages.HumanMessage("hi", id="1"),
        messages.AIMessage("yes", tool_calls=[{"name": "f", "args": {}, "id": "2"}]),
    ]
    assert serde.loads_typed(serde.dumps_typed(value)) == value


def test_a_serializer_without_formats_is_given_them() -> None:
    import json

    class Text:
        def dumps(self, obj: Any) -> bytes:
            return json.dumps(obj).encode()

        def loads(self, data: bytes) -> Any:
            return json.loads(data)

    serde = maybe_add_typed_methods(Text())
    assert isinstance(serde, SerializerProtocol)
    assert serde.dumps_typed([1]) == ("list", b"[1]")
    assert serde.loads_typed(("list", b"[1]")) == [1]
    assert maybe_add_typed_methods(MINE) is MINE
    assert isinstance(Send("n", 1), SendProtocol)
    assert TASKS == "__pregel_tasks"


# -- what LangGraph wrote ---------------------------------------------------------------------------------------------


@pytest.fixture
def theirs() -> Any:
    return pytest.importorskip("langgraph.checkpoint.serde.jsonplus").JsonPlusSerializer()


@pytest.mark.parametrize(
    "value",
    [
        *VALUES[:7],
        VALUES[8],
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_address("::1"),
        {(1, (2, 3))},
        {1: {2: "b"}},
    ],
    ids=repr,
)
def test_what_langgraph_wrote_is_read(theirs: Any, value: Any) -> None:
    assert MINE.loads_typed(theirs.dumps_typed(value)) == value


def test_langgraphs_own_classes_are_read_as_ours(theirs: Any) -> None:
    types = pytest.importorskip("langgraph.types")
    value = [types.Send("node", {"x": [1]}), types.Interrupt(value="why?", id="i"), types.Overwrite([1])]
    found = MINE.loads_typed(theirs.dumps_typed(value))
    assert found[:2] == [Send("node", {"x": [1]}), Interrupt("why?", id="i")]
    assert [type(one).__module__ for one in found] == ["mpflow.types"] * 3


def test_langgraphs_messages_and_arrays_are_read(theirs: Any) -> None:
    import numpy as np

    messages = pytest.importorskip("langchain_core.messages")
    value = {"messages": [messages.HumanMessage("hi", id="1"), messages.ToolMessage("t", tool_call_id="c", id="2")]}
    assert MINE.loads_typed(theirs.dumps_typed(value)) == value
    array = np.arange(6, dtype=">i4").reshape(2, 3)
    for one in (array, array.T):
        found = MINE.loads_typed(theirs.dumps_typed(one))
        assert found.dtype == one.dtype
        assert (found == one).all()


def test_what_langgraph_wrote_long_ago_as_json_is_read() -> None:
    assert MINE.loads_typed(("json", b'{"a": [1, null]}')) == {"a": [1, None]}
    stored = b'{"lc": 2, "type": "constructor", "id": ["uuid", "UUID"], "args": ["00000000000000000000000000000007"]}'
    assert MINE.loads_typed(("json", stored)) == uuid.UUID(int=7)
    named = b'{"lc": 2, "type": "constructor", "id": ["%s", "Point"], "kwargs": {"x": 1}}' % __name__.encode()
    assert MINE.loads_typed(("json", named)) == Point(1)
    with pytest.raises(DecodeError, match=r"os\.system"):
        MINE.loads_typed(("json", b'{"lc": 2, "type": "constructor", "id": ["os", "system"], "args": ["true"]}'))


def _packed(code: int, *parts: Any) -> tuple[str, bytes]:
    return "msgpack", msgpack.packb(msgpack.ExtType(code, msgpack.packb(parts)))


@pytest.mark.parametrize(
    "data",
    [
        ("pickle", b"cos\nsystem\n(S'true'\ntR."),
        *(_packed(code, "os", "system", argument) for code, argument in ((0, "true"), (1, ["true"]), (2, {"command": "true"}))),
        *(_packed(code, "subprocess", "Popen", {"args": "true"}, None) for code in (4, 5)),
        _packed(3, "os", "environ", "HOME", "get"),
        _packed(3, "builtins", "str", "x", "__class__"),
        _packed(6, "O", [1], "C", b"12345678"),
        _packed(0, "antigravity", "x", 1),
        _packed(0, ["os"], "system", 1),
        _packed(7, 1, 2, 3),
        _packed(99, 1, 2, 3),
        ("msgpack", b"\xc1"),
        ("msgpack", b"\xdd\xff\xff\xff\xff"),
        ("msgpack", b""),
        ("json", b"{"),
        ("mpflow", b"\xc7\x00\x63"),
        ("?", b""),
    ],
    ids=lambda data: f"{data[0]}-{data[1][:24]!r}",
)  # fmt: skip
def test_row39_hostile_data_is_refused_and_runs_nothing(data: tuple[str, bytes]) -> None:
    _WATCHED.clear()
    _watch()
    try:
        with pytest.raises(DecodeError):
            MINE.loads_typed(data)
    finally:
        seen = list(_WATCHED)
        _WATCHED.clear()
        _STATE["on"] = False
    assert seen == []


_WATCHED: list[str] = []
_STATE: dict[str, bool] = {}


def _watch() -> None:
    """An audit hook cannot be taken back: there is one, which looks only while it is asked to."""
    if not _STATE:
        import numpy as np  # its own lazy imports are not the data's

        MINE.loads_typed(
            ("msgpack", msgpack.packb(msgpack.ExtType(6, msgpack.packb([np.dtype("i1").str, [1], "C", b"1"]))))
        )
        sys.addaudithook(
            lambda event, _: (
                _WATCHED.append(event)
                if _STATE.get("on") and event in ("import", "exec", "subprocess.Popen", "os.system", "open")
                else None
            )
        )
    _STATE["on"] = True


def test_row40_objects_within_objects_have_a_limit() -> None:
    nested = b"\x01"
    for _ in range(200):
        parts = b"\x93" + msgpack.packb("builtins") + msgpack.packb("frozenset") + b"\x91" + nested
        nested = msgpack.packb(msgpack.ExtType(0, parts))
    with pytest.raises(DecodeLimitError):
        MINE.loads_typed(("msgpack", nested))


def test_row40_bombs_within_objects_share_one_limit() -> None:
    count = 500_000
    lists = b"\xdd" + count.to_bytes(4, "big") + b"\x90" * count
    bomb = msgpack.packb(msgpack.ExtType(0, b"\x93" + msgpack.packb("builtins") + msgpack.packb("x") + lists))
    with pytest.raises(DecodeError, match="x, which is not known"):
        MINE.loads_typed(("msgpack", bomb))
    with pytest.raises(DecodeLimitError):
        MINE.loads_typed(("msgpack", b"\x98" + bomb * 8))


# -- encryption -------------------------------------------------------------------------------------------------------

KEY = b"0123456789abcdef"


def _pycryptodome(key: bytes = KEY, **options: Any) -> EncryptedSerializer:
    pytest.importorskip("Crypto.Cipher.AES")
    return EncryptedSerializer.from_pycryptodome_aes(serde=MINE, key=key, **options)


def _cryptography(key: bytes = KEY) -> EncryptedSerializer:
    pytest.importorskip("cryptography.hazmat")
    return EncryptedSerializer.from_cryptography_aes(MINE, key=key)


@pytest.mark.parametrize("make", [_pycryptodome, _cryptography])
class TestEncryption:
    @pytest.mark.parametrize("value", [None, b"x", {"a": Point(1)}], ids=repr)
    def test_values_come_back_and_do_not_show(self, make: Any, value: Any) -> None:
        serde = make()
        label, data = serde.dumps_typed({"secret": value})
        assert label.startswith("sealed+aes")
        assert b"secret" not in data
        assert serde.loads_typed((label, data)) == {"secret": value}
        assert serde.dumps_typed({"secret": value})[1] != data

    def test_what_was_changed_is_refused(self, make: Any) -> None:
        serde = make()
        label, data = serde.dumps_typed([1])
        for at in range(len(data)):
            with pytest.raises(DecodeError, match="cannot be decrypted"):
                serde.loads_typed((label, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]))
        for cut in (b"", data[:10], data[:-1]):
            with pytest.raises(DecodeError):
                serde.loads_typed((label, cut))
        with pytest.raises(DecodeError, match="another key"):
            make(b"another key 1234").loads_typed((label, data))
        with pytest.raises(DecodeError, match="cannot be decrypted"):
            serde.loads_typed(("sealed+rot13", data))

    def test_what_was_not_encrypted_is_refused(self, make: Any) -> None:
        with pytest.raises(DecodeError, match="expected an encrypted value"):
            make().loads_typed(MINE.dumps_typed([1]))

    def test_records_that_were_moved_are_refused_though_their_checksum_fits(self, make: Any) -> None:
        log = LogSaver(MemoryDriver(), serde=make())
        for thread_id in ("theirs", "mine"):
            made = empty_checkpoint()
            made["channel_values"], made["channel_versions"] = {"a": thread_id}, {"a": "1"}
            where: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": made["id"]}}
            log.put(where, made, {}, {})
            log.put_writes(where, [("a", "written")], "task")
        theirs: Any = {"configurable": {"thread_id": "theirs"}}
        found = log.get_tuple(theirs)
        assert found is not None and found.pending_writes == [("task", "a", "written")]
        for row in log.driver.rows("theirs"):
            bare, seal = row._replace(data=row.data[: -envelope.SEAL_BYTES]), row.data[-envelope.SEAL_BYTES :]
            if row.kind == STEP:  # whoever can write can make checksums
                moved = envelope.dump_step("mine", "", envelope.load_step("theirs", bare), row.base)
            else:
                moved = envelope.dump_result("mine", "", envelope.load_result("theirs", bare))
            for forged in (moved, moved._replace(data=moved.data + seal)):
                log.driver.delete_thread("mine")
                log.driver.add("mine", [forged])
                with pytest.raises(DecodeError, match="not sealed with this key"):
                    list(log.records("mine", log.driver.rows("mine")))

    def test_a_saver_with_another_key_or_none_says_so(self, make: Any) -> None:
        log = LogSaver(MemoryDriver(), serde=make())
        where: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        log.put(where, empty_checkpoint(), {}, {})
        with pytest.raises(DecodeError, match="saved with another"):
            LogSaver(log.driver, serde=make(b"another key 1234")).get_tuple(where)
        with pytest.raises(DecodeError, match="open the saver with the serde="):
            LogSaver(log.driver).get_tuple(where)
        (row,) = log.driver.rows("t")
        log.driver.add("t", [row._replace(data=row.data[:9] + b"?" + row.data[10:])])
        with pytest.raises(CheckpointCorruptError, match="checksum"):
            log.get_tuple(where)

    def test_keys_have_a_length(self, make: Any) -> None:
        with pytest.raises(ValueError, match="16, 24 or 32 bytes, this one has 3"):
            make(b"abc")

    def test_more_classes_may_be_allowed(self, make: Any) -> None:
        serde = make()
        assert serde.with_msgpack_allowlist([Point]) is serde
        wider = serde.with_msgpack_allowlist([Wider])
        assert wider.loads_typed(wider.dumps_typed(Wider(1))) == Wider(1)


@dataclass
class Wider:
    a: int


def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MPFLOW_AES_KEY", "LANGGRAPH_AES_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="MPFLOW_AES_KEY"):
        EncryptedSerializer.from_pycryptodome_aes()
    monkeypatch.setenv("LANGGRAPH_AES_KEY", KEY.decode())
    sealed = _pycryptodome().dumps_typed([1])
    assert EncryptedSerializer.from_pycryptodome_aes().loads_typed(sealed) == [1]


def test_what_langgraph_encrypted_is_read() -> None:
    pytest.importorskip("Crypto.Cipher.AES")
    module = pytest.importorskip("langgraph.checkpoint.serde.encrypted")
    theirs = module.EncryptedSerializer.from_pycryptodome_aes(key=KEY)
    assert _pycryptodome().loads_typed(theirs.dumps_typed({"a": {1}})) == {"a": {1}}


def test_modes_that_do_not_authenticate_are_refused() -> None:
    aes = pytest.importorskip("Crypto.Cipher.AES")
    with pytest.raises(ValueError, match="EAX, GCM, CCM, OCB"):
        _pycryptodome(mode=aes.MODE_CBC)
    with pytest.raises(ValueError, match="anew"):
        _pycryptodome(nonce=b"1234567890123456")
    for mode in (aes.MODE_GCM, aes.MODE_CCM, aes.MODE_OCB):
        serde = _pycryptodome(mode=mode)
        assert serde.loads_typed(serde.dumps_typed([1])) == [1]


@pytest.mark.parametrize(("package", "make"), [("Crypto", "pycryptodome"), ("cryptography", "cryptography")])
def test_a_missing_package_is_named_with_the_line_that_installs_it(package: str, make: str) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from mpflow.checkpoint.serde.encrypted import EncryptedSerializer as E\n"
        f"try: E.from_{make}_aes(key=b'0123456789abcdef')\n"
        "except ImportError as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert f'pip install "mpflow-engine[{make}]"' in told
