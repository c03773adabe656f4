"""What values are made of: constants, and the copies that could be told from their originals."""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from mpflow._exec.placement.values import survey, token
from tests.exec.placement.corpus import SETTING, Colour, Point, Tree


@dataclass
class Row:
    name: str
    cells: list[int]


@pytest.mark.parametrize(
    "value",
    [None, 1, 1.5, "a", b"a", (1, ("a",)), frozenset({1, 2}), re.compile("a"), SETTING, Colour.RED, Point(1, 2)],
)
def test_constants_have_a_token(value: Any) -> None:
    assert token(value) == token(value) is not None


@pytest.mark.parametrize(
    "value", [[1], {}, {1}, bytearray(), ([1],), Row("a", []), Tree(1), np.zeros(2), object(), iter([])]
)
def test_what_can_change_has_none(value: Any) -> None:
    assert token(value) is None


@pytest.mark.parametrize("large", [b"x" * 5000, "\udc80" * 5000])
def test_a_large_constant_is_told_by_a_digest(large: Any) -> None:
    told = token(large)
    assert told is not None
    assert len(told) < 100
    assert told == token(large[:-1] + large[-1:])
    assert told != token(large[:-1] + large[:1] * 2)


def test_a_frozen_set_has_the_same_token_in_any_order() -> None:
    assert token(frozenset(["a", "b", "c"])) == token(frozenset(["c", "b", "a"]))


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, "b", None], "c": {"d": (1, 2)}},
        [{1, 2}, frozenset({3}), deque([1]), Counter("aab")],
        {"x": np.zeros((2, 2)), "y": np.float32(1)},
        Row("a", [1]),
        [Point(1, 2), Colour.RED, Colour.RED],
    ],
)
def test_plain_data_may_be_copied(value: Any) -> None:
    assert survey(value, "it").odd is None


SHARED = [1]
ARRAY = np.zeros(4)


@pytest.mark.parametrize(
    ("value", "odd"),
    [
        ({"a": Tree(1)}, "it['a'] is a Tree, which is equal to itself alone"),
        ([object()], "it[0] is a object"),
        ((x for x in ()), "it is a generator"),
        ({"a": SHARED, "b": SHARED}, "is one object with another part of it"),
        ([ARRAY[:2], ARRAY], "is one object with another part of it"),
        ([np.array([[1], None], dtype=object)], "holds objects, one of them a list"),
        (Row("a", [Tree(1)]), "it.cells[0] is a Tree"),
        (bytearray(b"a"), "it is a bytearray"),
    ],
)
def test_what_a_copy_could_be_told_from_is_named(value: Any, odd: str) -> None:
    assert odd in str(survey(value, "it").odd)


def test_a_result_that_holds_a_part_of_the_input_is_odd() -> None:
    parts: dict[int, Any] = {}
    row = {"n": 1}
    assert survey({"rows": [row]}, "its input", parts).odd is None
    assert "is an object of the input itself" in str(survey([row], "what it returns", parts).odd)


def test_the_size_is_roughly_that_of_the_data() -> None:
    assert survey({"a": "x" * 1000, "b": [1.0] * 100}, "it").size_bytes == pytest.approx(1800, rel=0.1)
    assert survey(np.zeros(1000), "it").size_bytes == 8000
