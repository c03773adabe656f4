"""How values of a state are shown in JSON."""

import enum
import json
import math
from collections import deque
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import Any, NamedTuple

import pytest

from mpflow.cli.documents import to_json


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Point:
    x: int
    inner: Any


class Pair(NamedTuple):
    one: int
    other: int


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


@pytest.mark.parametrize(
    "value, shown",
    [
        (None, None),
        ({"a": (1, 2.5, True)}, {"a": [1, 2.5, True]}),
        ({1: "a", ("b", 2): "c"}, {"1": "a", "('b', 2)": "c"}),
        ({3, 1, 2}, [1, 2, 3]),
        ({"a", 1}, [1, "a"]),
        (b"\x00\xff", "AP8="),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc), "2026-01-02T03:04:00+00:00"),
        ([Colour.RED, Level.HIGH], ["red", 3]),
        (Point(1, {"p": Point(2, None)}), {"x": 1, "inner": {"p": {"x": 2, "inner": None}}}),
        (Pair(1, 2), {"one": 1, "other": 2}),
        (deque([1]), [1]),
        (Odd(), "<odd>"),
        (Point, repr(Point)),
        ("\ud800", "\ud800"),
    ],
)
def test_plain_forms(value, shown):
    assert to_json(value) == shown
    json.dumps(to_json(value))


def test_numpy():
    np = pytest.importorskip("numpy")
    assert to_json({"a": np.arange(4).reshape(2, 2), "s": np.float64(0.5)}) == {"a": [[0, 1], [2, 3]], "s": 0.5}


def test_pydantic():
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):
        x: int
        when: date

    assert to_json([Model(x=1, when=date(2026, 1, 2))]) == [{"x": 1, "when": "2026-01-02"}]


def test_not_a_number_stays_what_it_is():
    assert math.isnan(to_json(math.nan))
