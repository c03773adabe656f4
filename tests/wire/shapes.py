"""Classes for the tests of the codec, in a module that other processes can import."""

from __future__ import annotations

import enum
from collections import namedtuple
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pydantic


@dataclass
class Point:
    x: Any = 0
    y: Any = None


@dataclass(frozen=True)
class Frozen:
    x: Any
    tags: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Slotted:
    x: Any
    y: Any = None


@dataclass
class Strict:
    """Its constructor and its setting of attributes must not run."""

    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("negative")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, int) and value < 0:
            raise ValueError("negative")
        super().__setattr__(name, value)


class Guarded:
    """A descriptor that a field of the same name must not go through."""

    def __set__(self, obj: Any, value: Any) -> None:
        raise RuntimeError("the descriptor ran")

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        return obj.__dict__.get("x", 5) if obj is not None else self


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"
    ROUGE = 1  # noqa: PIE796


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Flags(enum.Flag):
    A = 1
    B = 2
    C = 4


Pair = namedtuple("Pair", "left right")


class Named(NamedTuple):
    name: str
    value: Any = 1


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str = "anna"
    count: int = 0
    items: list[Any] = []
    _secret: Any = pydantic.PrivateAttr(default=None)

    @pydantic.field_validator("count")
    @classmethod
    def _not_negative(cls, value: int) -> int:
        if value < 0:
            raise ValueError("negative")
        return value


class Holder:
    """A plain class, for pickle or for ``types``."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is Holder and self.value == other.value

    __hash__ = None  # type: ignore[assignment]


class Text(str):
    pass


class Number(int):
    pass


class Table(dict):  # type: ignore[type-arg]
    pass


ALL = [Point, Frozen, Slotted, Strict, Colour, Level, Flags, Pair, Named, Model, Holder]
