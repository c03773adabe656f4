from __future__ import annotations

import sys
import threading
import traceback
from typing import Any

import pydantic
import pytest

from mpflow._wire.codec import (
    Codec,
    DecodeError,
    RemoteError,
    WorkerTraceback,
    decode_exception,
    encode_exception,
)
from tests.wire.shapes import Model

WIRE = Codec(trust=True)


class Custom(Exception):
    """Its constructor takes other arguments than it passes on: pickle would fail to unpickle it."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code


class FailsToPickle(Exception):
    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


class FailsToUnpickle(Exception):
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class FailsToBuild(Exception):
    def __new__(cls, *args: Any) -> FailsToBuild:
        if cls.armed:
            raise SystemExit
        return super().__new__(cls, *args)

    armed = False


class FailsToSpeak(Exception):
    def __str__(self) -> str:
        raise RecursionError

    __repr__ = __str__


def across(error: BaseException, codec: Codec | None = None) -> BaseException:
    carrier = codec or WIRE
    return decode_exception(carrier.decode(carrier.encode(encode_exception(error, codec))), codec)


def raised(make: Any) -> BaseException:
    try:
        make()
    except BaseException as error:
        return error
    raise AssertionError


ERRORS = [
    ValueError("a", 1), KeyError(("k",)), OSError(2, "no", "file"), FileNotFoundError(2, "a", "b"), SystemExit(3),
    UnicodeDecodeError("utf8", b"a", 0, 1, "r"), StopIteration(4), ImportError("x", name="n", path="p"),
    KeyboardInterrupt(), AttributeError("a"), SyntaxError("s", ("f", 1, 2, "text")),
]  # fmt: skip


@pytest.mark.parametrize("codec", [None, Codec()], ids=["wire", "disk"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_builtin_exception_comes_back_as_itself(error: BaseException, codec: Codec | None) -> None:
    back = across(error, codec)
    assert (type(back), back.args, str(back)) == (type(error), error.args, str(error))
    for name in ("errno", "filename", "start", "value", "code", "name", "path", "lineno"):
        assert getattr(back, name, None) == getattr(error, name, None)


def test_custom_exception_keeps_type_arguments_and_attributes() -> None:
    error = Custom(5, "so")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    error.items = (1, {2})  # type: ignore[attr-defined]
    back = across(error)
    assert isinstance(back, Custom)
    assert (back.args, back.code, back.items) == (("5: so",), 5, (1, {2}))  # type: ignore[attr-defined]
    assert "lock" in back.lock  # type: ignore[attr-defined]  # what cannot be carried is shown


def test_local_exception_travels_by_value() -> None:
    class Local(Exception):
        pass

    assert type(across(Local("x"))) is Local


def test_validation_error_of_pydantic_comes_back_as_itself() -> None:
    error = raised(lambda: Model(count=-1))
    back = across(error)
    assert isinstance(back, pydantic.ValidationError) and back.errors()[0]["loc"] == ("count",)


def test_cause_context_and_notes_are_kept_above_the_workers_traceback() -> None:
    def fail() -> None:
        try:
            {}["missing"]
        except KeyError as error:
            raise Custom(1, "b") from error

    error = raised(fail)
    error.__dict__["__notes__"] = ["a note"]
    back = across(error)
    assert back.__notes__ == ["a note"]  # type: ignore[attr-defined]
    cause = back.__cause__
    assert isinstance(cause, KeyError) and cause.args == ("missing",)
    assert isinstance(cause.__cause__, WorkerTraceback)
    shown = "".join(traceback.format_exception(type(back), back, None))
    assert '{}["missing"]' in shown and "in fail" in shown
    again = across(back)
    assert isinstance(again, Custom) and isinstance(again.__cause__, KeyError)


def test_suppressed_context_stays_suppressed() -> None:
    def fail() -> None:
        try:
            raise KeyError(1)
        except KeyError:
            raise ValueError(2) from None

    back = across(raised(fail))
    assert isinstance(back.__cause__, WorkerTraceback) and back.__context__ is None


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with 3.11")
def test_groups_keep_their_exceptions() -> None:
    back = across(ExceptionGroup("g", [ValueError(1), ExceptionGroup("h", [Custom(1, "x")])]))  # noqa: F821
    assert repr(back) == "ExceptionGroup('g', [ValueError(1), ExceptionGroup('h', [Custom('1: x')])])"


@pytest.mark.parametrize("kind", [FailsToPickle, FailsToUnpickle])
def test_exception_with_harmful_pickling_is_rebuilt_by_its_parts(kind: Any) -> None:
    back = across(kind("message"))
    assert (type(back), back.args) == (kind, ("message",))


def test_exception_that_cannot_be_rebuilt_has_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    record = encode_exception(raised(lambda: (_ for _ in ()).throw(FailsToBuild("message"))))
    monkeypatch.setattr(FailsToBuild, "armed", True)
    back = decode_exception(record)
    assert isinstance(back, RemoteError)
    assert (back.type_name, back.message) == ("tests.wire.test_failures.FailsToBuild", "message")
    assert "Traceback" in back.traceback_text
    assert str(across(back)) == str(back)


def test_exception_that_cannot_speak_is_carried_all_the_same() -> None:
    assert type(across(FailsToSpeak(1))) is FailsToSpeak


def test_user_class_is_a_stand_in_on_the_disk_unless_given() -> None:
    assert isinstance(across(Custom(1, "x"), Codec()), RemoteError)
    assert isinstance(across(Custom(1, "x"), Codec(types=[Custom])), Custom)


def test_endless_chain_is_cut() -> None:
    error: BaseException = ValueError(0)
    for number in range(100):
        outer = ValueError(number)
        outer.__cause__ = error
        error = outer
    error.__context__ = error
    assert across(error).args == (99,)


def test_exception_within_a_value() -> None:
    inner: BaseException = ValueError(0)
    for _ in range(40):
        inner = ValueError(inner)
    for codec in (WIRE, Codec()):
        back = codec.decode(codec.encode({"e": [KeyError(1), inner]}))["e"]
        assert repr(back[0]) == "KeyError(1)" and isinstance(back[1].args[0].args[0], ValueError)


@pytest.mark.parametrize("record", [None, [], ["a"] * 8, [1, 2, 3, None, None, None, False, []], {"a": 1}])
def test_damaged_record_is_a_decode_error_or_a_stand_in(record: Any) -> None:
    try:
        back = decode_exception(record)
    except DecodeError:
        return
    assert isinstance(back, RemoteError)
