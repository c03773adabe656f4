"""State in the dress of a constant, and code that no name shows: what makes the values of fields, what is in a tuple's tuple."""

from __future__ import annotations

import abc
import datetime
import enum
import functools
import itertools
import operator
import pathlib
import types
import typing  # noqa: F401  statements name what is here
from collections import namedtuple
from dataclasses import dataclass, field
from http import HTTPStatus  # noqa: F401
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
import pydantic
from pydantic import AfterValidator, BaseModel, Field, PrivateAttr

SEEN: list[int] = []
COUNT = itertools.count()


def tick(value: Any = None) -> int:
    SEEN.append(1)
    return len(SEEN)


class Growing:
    def __init__(self) -> None:
        self.items: list[int] = []


# -- values that were added to, or are more than their fields ----------------------------------------------------------------


@dataclass(frozen=True)
class Width:
    value: Any = 1

    def bump(self) -> int:
        return tick()


@dataclass(frozen=True)
class Rows(list[int]):
    width: int = 1


@dataclass(frozen=True)
class Grown(Growing):
    width: int = 1


MARKED = Width()
object.__setattr__(MARKED, "items", [])
ROWS = Rows()
GROWN = Grown()
object.__setattr__(GROWN, "items", [])
Pair = namedtuple("Pair", "x y")


class Open(Pair):
    pass


class Opener(Open):
    pass


OPENER: Any = Opener(1, 2)
OPENER.items = []


class Place(type(pathlib.PurePosixPath())):  # type: ignore[misc]
    pass


PLACE: Any = Place("/x")
PLACE.items = []
MARKED_PARTIAL: Any = functools.partial(int)
MARKED_PARTIAL.items = []
RANGE = slice([0], 1)


class Zone(datetime.tzinfo):
    def tzname(self, when: Any) -> str:
        return str(tick())


ZONED = datetime.datetime(2020, 1, 1, tzinfo=Zone())
FUNCTION = np.frompyfunc(tick, 1, 1)


class Single:
    instance: Any = None

    def __init__(self) -> None:
        self.items: list[int] = []


Single.instance = Single()

# -- code within values ------------------------------------------------------------------------------------------------------


class Named(NamedTuple):
    x: int = 1

    def bump(self) -> int:
        return tick()


class Colour(enum.Enum):
    RED = 1

    def _value_of(self) -> int:
        return tick()


DEEP = ((1, (tick, 2)),)
DEEP_SET = frozenset([(tick, 1)])
WIDTHS = (MARKED.__class__(),)
OF_FUNCTION = Width((tick, 1))
NAMES = (1, (Named(),))
COLOURS = (Colour.RED,)
UPDATES = operator.methodcaller("update", {"a": SEEN})
ALIAS = types.GenericAlias(Growing, (int,))
NOTED = Annotated[int, tick]

# -- what makes and checks fields --------------------------------------------------------------------------------------------


@dataclass
class Numbered:
    number: int = field(default_factory=lambda: next(COUNT))


@pydantic.dataclasses.dataclass
class NumberedToo:
    number: Annotated[int, AfterValidator(tick)] = 1


class Ticket(BaseModel):
    number: int = Field(default_factory=lambda: next(COUNT))


class Checked(BaseModel):
    number: Annotated[int, AfterValidator(tick)]


class Nested(BaseModel):
    parts: list[dict[str, Ticket]]


class Private(BaseModel):
    _items: list[int] = PrivateAttr(default_factory=lambda: SEEN)


class Shared(BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    growing: Growing = Growing()


class Afterwards(BaseModel):
    _kept: int = 1

    def model_post_init(self, context: Any) -> None:
        tick()


class Likewise:
    def model_bump(self) -> int:
        return tick()


class Own:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return pydantic.GetCoreSchemaHandler.__call__ if SEEN else handler(int)


class OfOwn(BaseModel):
    own: Own


class Meta(abc.ABCMeta):
    def __instancecheck__(cls, value: Any) -> bool:
        return bool(tick())


Meta.__name__ = "ABCMeta"


class OfMeta(metaclass=Meta):
    pass


# -- what must not be asked --------------------------------------------------------------------------------------------------


class Making(types.ModuleType):
    @property
    def number(self) -> int:
        return tick()


making: Any = Making(f"{__name__}_making")
asked: Any = types.ModuleType(f"{__name__}_asked")
asked.__getattr__ = lambda name: {}[name] if name.startswith("__") else tick()


class Lying:
    @property
    def __class__(self) -> Any:
        return (int, tick())[0]

    @__class__.setter
    def __class__(self, kind: Any) -> None: ...


class Listening:
    def __getattribute__(self, name: str) -> Any:
        tick()
        return object.__getattribute__(self, name)


LYING = Lying()
LISTENING = Listening()
TEXT: dict[str, Any] = {}
exec(
    compile(
        """
import dataclasses
SEEN = []
@dataclasses.dataclass
class Told:
    a: int = 1
    def __eq__(self, other):
        SEEN.append(1)
        return len(SEEN) > 3
""",
        "<string>",
        "exec",
    ),
    TEXT,
)
Told = TEXT["Told"]
Told.__module__ = __name__

HELD = {
    "MARKED.items.append(1)": "'MARKED' holds 'items', a list",
    "ROWS.append(1)": "the global 'ROWS' is a Rows",
    "GROWN.items.append(1)": "'GROWN' holds 'items', a list",
    "OPENER.items.append(1)": "the global 'OPENER' is an Opener",
    "PLACE.items.append(1)": "the global 'PLACE' is a Place",
    "MARKED_PARTIAL.items.append(1)": "the attribute 'items' of the global 'MARKED_PARTIAL', a partial, is a list",
    "RANGE.start.append(1)": "the global 'RANGE' is a slice",
    "out = ZONED.tzname()": "the global 'ZONED' is a datetime",
    "out = int(FUNCTION(3))": "the global 'FUNCTION' is a ufunc made of a function",
    "Single.instance.items.append(1)": "holds 'items', a list",
    "out = DEEP[0][1][0]()": "the global 'SEEN' is a list",
    "out = [f() for f, _ in DEEP_SET]": "the global 'SEEN' is a list",
    "out = WIDTHS[0].bump()": "the global 'SEEN' is a list",
    "out = OF_FUNCTION.value[0]()": "the global 'SEEN' is a list",
    "out = NAMES[1][0].bump()": "the global 'SEEN' is a list",
    "out = COLOURS[0]._value_of()": "the global 'SEEN' is a list",
    "UPDATES({})": "a part of the global 'UPDATES' is a dict",
    "out = typing.get_args(NOTED)[1]()": "the global 'SEEN' is a list",
    "out = Numbered().number": "the global 'COUNT' is a count",
    "out = NumberedToo(2).number": "the global 'SEEN' is a list",
    "out = Ticket().number": "the global 'COUNT' is a count",
    "out = Checked(number=1).number": "the global 'SEEN' is a list",
    "out = Nested(parts=[{'a': {}}]).parts[0]['a'].number": "the global 'COUNT' is a count",
    "Private()._items.append(1)": "the global 'SEEN' is a list",
    "Shared().growing.items.append(1)": "'growing' of the class Shared holds 'items', a list",
    "Afterwards()": "the global 'SEEN' is a list",
    "out = Likewise().model_bump()": "the global 'SEEN' is a list",
    "out = OfOwn(own=3)": "the global 'SEEN' is a list",
    "out = isinstance(1, OfMeta)": "has the metaclass 'Meta'",
    "out = Told() == Told()": "the global 'SEEN' is a list",
    "out = making.number": "made when it is asked for",
    "out = asked.number": "made when it is asked for",
    "from tests.exec.placement.disguises_asked import number; out = number": "made when it is asked for",
    "out = isinstance(LYING, int)": "the global 'SEEN' is a list",
    "out = LISTENING.x": "looks at '__getattribute__'",
    "np.load(state['x'], mmap_mode='r+')[0] = 1": "loads an array from a file that it may write",
    "pd.api.extensions.register_dataframe_accessor('x')(Growing)": "register_dataframe_accessor",
}
"""A statement, and what the reason to stay must name."""

# -- as people write them ----------------------------------------------------------------------------------------------------


class Address(BaseModel):
    street: str = ""
    zip: Annotated[str, Field(pattern=r"^\d*$")] = ""


class Person(BaseModel):
    name: str = Field(min_length=1, default="x")
    tags: list[str] = []
    extra: dict[str, int] = Field(default_factory=dict)
    address: Address = Field(default_factory=Address)
    others: list[Address] | None = None
    path: pathlib.Path = pathlib.Path()
    _kept: int = PrivateAttr(default=2)

    @pydantic.field_validator("name")
    @classmethod
    def upper(cls, value: str) -> str:
        return value.upper()

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def label(self) -> str:
        return f"{self.name}{self._kept}"


@dataclass
class Tree:
    value: int
    below: list[Any] = field(default_factory=list)
    options: dict[str, int] = field(default_factory=lambda: {"a": 1})


@dataclass(frozen=True)
class Size:
    width: int = 1


@dataclass(frozen=True)
class Box(Size):
    height: int = 2

    def area(self) -> int:
        return self.width * self.height


class Shape(Protocol):
    def area(self) -> int: ...


class Square(Shape):
    def __init__(self) -> None:
        pass

    def area(self) -> int:
        return 4


class Point(NamedTuple):
    x: int
    y: int

    def total(self) -> int:
        return self.x + self.y


class Constant:
    zero: Any = None

    def __init__(self, value: int) -> None:
        self.value = value


Constant.zero = Constant(0)
BOXES = (Box(), Box(2, 3))
POINTS = (Point(1, 2), Point(3, 4))
RULES = (("a", str.upper), ("b", lambda text: text + "!"))
SPLITS = operator.methodcaller("split", ",")
NOON = datetime.datetime(2020, 1, 1, 12, tzinfo=datetime.timezone.utc)
SQUARES = np.square

HARMLESS = [
    "out = Person(name='a', others=[{'street': 's'}]).model_dump(mode='json')",
    "out = len(Tree(1, [Tree(2)]).below)",
    "out = [box.area() for box in BOXES]",
    "out = [point.total() for point in POINTS]",
    "out = [rule('x') for _, rule in RULES]",
    "out = Square().area()",
    "out = Constant.zero.value",
    "out = SPLITS('a,b')",
    "out = NOON.isoformat()",
    "out = float(SQUARES(3))",
    "out = HTTPStatus(404).phrase",
]
"""What ordinary nodes do, a statement each."""
