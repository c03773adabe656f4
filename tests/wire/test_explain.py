from __future__ import annotations

import functools
import pickle
import socket
import threading
from typing import Any

import pytest

from mpflow._wire.codec import Codec, EncodeError
from tests.wire.shapes import Holder, Pair, Point

LOCK = threading.Lock()


def closure() -> Any:
    lock = LOCK
    return lambda: lock


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"model": Holder(LOCK)}, '["model"].value'),
        ([1, (2, LOCK)], "[1][1]"),
        ({1: {(2, 3): LOCK}}, "[1][(2, 3)]"),
        (Point(1, {"a": LOCK}), '.y["a"]'),
        (Pair(1, LOCK), ".right"),
        (functools.partial(print, 1, sep=LOCK), ".keywords['sep']"),
        (closure(), ".<closure>.lock"),
        (Holder(Holder([LOCK])), ".value.value[0]"),
        ([Holder(1)] * 100 + [LOCK], "[100]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_path_leads_to_what_cannot_be_pickled(value: Any, path: str) -> None:
    with pytest.raises(EncodeError) as caught:
        Codec(trust=True).encode(value, path="state.cfg")
    error = caught.value
    assert error.path == f"state.cfg{path}"
    assert error.type_name == "_thread.lock"
    assert "cannot pickle '_thread.lock' object" in str(error)
    assert "Could not pickle the task" in str(error)


def test_generator_and_socket_are_named() -> None:
    with pytest.raises(EncodeError, match=r"value\[0\]: .*generator"):
        Codec(trust=True).encode([(i for i in ())])
    with socket.socket() as sock, pytest.raises(EncodeError, match=r'value\["s"\]'):
        Codec(trust=True).encode({"s": sock})


def test_on_the_disk_the_innermost_unknown_class_is_named_with_the_line_to_add() -> None:
    with pytest.raises(EncodeError) as caught:
        Codec().encode({"a": [Point(Holder(1))]})
    assert caught.value.path == 'value["a"][0]'
    assert "compile(types=[Point])" in str(caught.value)
    with pytest.raises(EncodeError) as caught:
        Codec(types=[Point]).encode({"a": [Point(Holder(1))]})
    assert caught.value.path == 'value["a"][0].x'
    assert "compile(types=[Holder])" in str(caught.value)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, RecursionError, ValueError])
def test_whatever_user_code_raises_while_it_is_pickled_becomes_an_error_with_a_path(kind: Any) -> None:
    with pytest.raises(EncodeError) as caught:
        Codec(trust=True).encode({"a": [Raises(kind)]})
    assert caught.value.path == 'value["a"][0]'
    assert kind.__name__ in str(caught.value) or "recursion" in str(caught.value)  # pickle's word for it


class Raises:
    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def __reduce__(self) -> Any:
        raise self.kind("on purpose")


def test_object_whose_repr_and_attributes_raise_is_still_named() -> None:
    with pytest.raises(EncodeError) as caught:
        Codec(trust=True).encode([Hostile()])
    assert caught.value.path == "value[0]"


class Hostile:
    def __reduce__(self) -> Any:
        raise SystemExit

    def __repr__(self) -> str:
        raise SystemExit

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            raise SystemExit
        return super().__getattribute__(name)


def test_error_survives_pickling_with_its_fields() -> None:
    with pytest.raises(EncodeError) as caught:
        Codec(trust=True).encode([LOCK])
    back = pickle.loads(pickle.dumps(caught.value))
    assert (back.path, back.type_name, str(back)) == ("value[0]", "_thread.lock", str(caught.value))
