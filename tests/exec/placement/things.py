"""What a program keeps at the top of its modules: state that hides, and constants in every common dress."""
# ruff: noqa: F401  statements below name what is imported

from __future__ import annotations

import abc
import array
import atexit
import builtins
import collections
import concurrent.futures
import contextlib
import dataclasses
import decimal
import enum
import functools
import gc
import gzip
import io
import itertools
import json
import locale
import math
import operator
import os
import pathlib
import pickle
import queue
import random
import re
import signal
import sqlite3
import string
import sys
import tempfile
import textwrap
import threading
import types
import typing
import warnings
import weakref
from decimal import Decimal
from gzip import open as unpacked
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel

# -- state --------------------------------------------------------------------------------------------------------------

SEEN: list[int] = []
PAIR = (1, [0])
CYCLE = itertools.cycle((1, 2))
RNG = random.Random(3)
NUMPY_RNG = np.random.default_rng(1)
EVENT = threading.Event()
RLOCK = threading.RLock()
LOCAL = threading.local()
BUFFER = bytearray(b"x")
BYTES_IO = io.BytesIO(b"abc")
ARRAY = np.zeros(3)
NUMBERS = array.array("i", [1])
QUEUE: queue.Queue[int] = queue.Queue()
DEFAULTS: dict[str, int] = collections.defaultdict(int)
CONNECTION = sqlite3.connect(":memory:", check_same_thread=False)
POOL = concurrent.futures.ThreadPoolExecutor(1)
FRAME = pd.DataFrame({"a": [1]})
ident = id
opened = open
append = SEEN.append
_BEHIND = {"a": 1}
WINDOW = types.MappingProxyType(_BEHIND)
DEEP = types.MappingProxyType({"a": types.MappingProxyType({"b": SEEN})})
SENTINEL = object()


class Counter:
    def __init__(self) -> None:
        self.n = 0

    def __call__(self, state: Any) -> Any:
        self.n += 1
        return {"out": self.n}

    @property
    def value(self) -> int:
        self.n += 1
        return self.n


COUNTER = Counter()
REFERENCE = weakref.ref(COUNTER)


class Descriptor:
    reads = 0

    def __get__(self, owner: Any, kind: Any) -> int:
        Descriptor.reads += 1
        return Descriptor.reads


class Described:
    field = Descriptor()


class Slotted:
    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items = [1]

    def node(self, state: Any) -> Any:
        return {"out": len(self.items)}


class UnderSlotted(Slotted):
    pass


class Queued(collections.deque):  # type: ignore[type-arg]
    pass


QUEUED = Queued()


class Base:
    known: list[Any] = []

    def __init_subclass__(cls) -> None:
        Base.known.append(cls)


class Meta(type):
    def __call__(cls, *args: Any) -> Any:
        SEEN.append(1)
        return super().__call__(*args)


class OfMeta(metaclass=Meta):
    pass


class Counted:
    made: list[int] = []

    def __new__(cls) -> Any:
        cls.made.append(1)
        return super().__new__(cls)


class Ending:
    def __del__(self) -> None:
        SEEN.append(1)


class Named:
    def __set_name__(self, owner: Any, name: str) -> None:
        SEEN.append(1)


class Dynamic:
    def __getattr__(self, name: str) -> int:
        SEEN.append(1)
        return 1


DYNAMIC = Dynamic()


class Alike:
    def __eq__(self, other: object) -> bool:
        SEEN.append(1)
        return True

    __hash__ = None  # type: ignore[assignment]


ALIKE = Alike()


@dataclasses.dataclass(frozen=True)
class Frozen:
    items: list[int]


FROZEN = Frozen([])


class Listed(NamedTuple):
    items: list[int]


LISTED = Listed([])


class Tuple(tuple):  # type: ignore[type-arg]
    pass


TUPLE = Tuple()


class Lists(enum.Enum):
    A = []


class Logged(enum.Enum):
    A = 1

    def __init__(self, value: int) -> None:
        self.log: list[int] = []

    def note(self) -> None:
        self.log.append(1)


class Growing(enum.Enum):
    A = 1

    def grow(self) -> None:
        self.count = 2


class Abstract(abc.ABC):
    @abc.abstractmethod
    def node(self) -> None: ...


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(state: Any) -> Any:
        wrapper.calls = getattr(wrapper, "calls", 0) + 1  # type: ignore[attr-defined]
        return function(state)

    return wrapper


@decorated
def counted(state: Any) -> Any:
    return {"out": 1}


def keeping(function: Any) -> Any:
    kept: dict[Any, Any] = {}

    @functools.wraps(function)
    def wrapper(state: Any) -> Any:
        if 1 not in kept:
            kept[1] = function(state)
        return kept[1]

    return wrapper


@keeping
def kept(state: Any) -> Any:
    return {"out": 1}


def tagged() -> None:
    pass


tagged.items = []  # type: ignore[attr-defined]


class Holding:
    def __init__(self, function: Any) -> None:
        self.function = function

    def node(self, state: Any) -> Any:
        return self.function(state)


class Inheriting(Holding):
    def node(self, state: Any) -> Any:
        return super().node(state)


class Mixed:
    def bump(self) -> None:
        self.k = 1

    def node(self, state: Any) -> Any:
        self.bump()


def collecting() -> Any:
    def inner(x: int) -> int:
        SEEN.append(x)
        return len(SEEN)

    return lambda state: {"out": (lambda: inner(1))()}


def drawing() -> Any:
    numbers = iter([1, 2, 3])
    return lambda state: {"out": sum(1 for _ in numbers)}


CALLABLES = {
    "a closure in a closure": (collecting(), "the global 'SEEN' is a list"),
    "an iterator in a closure": (drawing(), "the variable 'numbers' is a list_iterator"),
    "a partial of an instance": (functools.partial(COUNTER), "sets 'n' of 'self'"),
    "a partial with a dict": (functools.partial(tagged, box={}), "an argument of it, a partial, is a dict"),
    "a partial of next": (functools.partial(next, itertools.count()), "is a count, which can change"),
    "a counting decorator": (counted, "sets 'calls' of the outer variable 'wrapper'"),
    "a keeping decorator": (kept, "the variable 'kept' is a dict"),
    "slots": (Slotted().node, "holds 'items', a list"),
    "slots of a base": (UnderSlotted().node, "holds 'items', a list"),
    "a function held by an object": (Holding(collecting()).node, "the global 'SEEN' is a list"),
    "a method of a base": (Inheriting(kept).node, "the variable 'kept' is a dict"),
    "a mixin": (Mixed().node, "Mixed.bump sets 'k' of 'self'"),
    "a method of a list": (SEEN.append, "a method of a list"),
    "a default": (lambda state, _seen=[]: _seen.append(1), "default 0 of <lambda> is a list"),
}

HELD = {
    "out = PAIR[1]": "part 1 of the global 'PAIR' is a list",
    "out = next(CYCLE)": "the global 'CYCLE' is a cycle",
    "out = RNG.random()": "the global 'RNG' is a Random",
    "out = NUMPY_RNG.random()": "the global 'NUMPY_RNG' is a Generator",
    "out = np.random.rand()": "'numpy.random.rand'",
    "np.random.seed(1)": "'numpy.random.seed'",
    "EVENT.set()": "the global 'EVENT' is an Event",
    "RLOCK.acquire()": "the global 'RLOCK' is a lock that is not only entered by 'with'",
    "lock = RLOCK": "the global 'RLOCK' is a lock",
    "out = LOCAL.x": "the global 'LOCAL' is a _local",
    "BUFFER.extend(b'y')": "the global 'BUFFER' is a bytearray",
    "out = BYTES_IO.read(1)": "the global 'BYTES_IO' is a BytesIO",
    "ARRAY[0] += 1": "the global 'ARRAY' is a ndarray",
    "NUMBERS.append(1)": "the global 'NUMBERS' is an array",
    "QUEUE.put(1)": "the global 'QUEUE' is a Queue",
    "DEFAULTS['a'] += 1": "the global 'DEFAULTS' is a defaultdict",
    "CONNECTION.execute('select 1')": "the global 'CONNECTION' is a Connection",
    "POOL.submit(int)": "the global 'POOL' is a ThreadPoolExecutor",
    "out = FRAME.a.sum()": "the global 'FRAME' is a DataFrame",
    "QUEUED.append(1)": "the global 'QUEUED' is a Queued",
    "out = ident(state)": "the global 'ident' is 'id'",
    "opened('x', 'w')": "is 'open' by another name",
    "append(1)": "the global 'append' is a method of a list",
    "out = WINDOW['a']": "the global 'WINDOW' is a mappingproxy of a dict that others hold too",
    "out = DEEP['a']['b']": "the global 'DEEP'['a']['b'] is a list",
    "out = state.get('x') is SENTINEL": "the global 'SENTINEL' is an object",
    "out = COUNTER.value": "Counter.value sets 'n' of 'self'",
    "out = REFERENCE()": "the global 'REFERENCE' is a ReferenceType",
    "out = Described().field": "Descriptor.__get__ sets 'reads' of the global 'Descriptor'",
    "class A(Base): pass": "'known' of the class Base is a list",
    "type('A', (Base,), {})": "'known' of the class Base is a list",
    "OfMeta()": "has the metaclass 'Meta'",
    "Counted()": "'made' of the class Counted is a list",
    "Ending()": "the global 'SEEN' is a list",
    "class A: x = Named()": "the global 'SEEN' is a list",
    "out = DYNAMIC.x": "the global 'SEEN' is a list",
    "out = ALIKE == 1": "the global 'SEEN' is a list",
    "FROZEN.items.append(1)": "the global 'FROZEN' holds 'items', a list",
    "LISTED.items.append(1)": "part 0 of the global 'LISTED' is a list",
    "out = TUPLE.x": "the global 'TUPLE' is a Tuple",
    "Lists.A.value.append(1)": "Lists.A holds '_value_', a list",
    "Logged.A.note()": "Logged.A holds 'log', a list",
    "Growing.A.grow()": "Growing.grow sets 'count' of 'self'",
    "Abstract.register(Frozen)": "calls 'register'",
    "tagged()": "the attribute 'items' of tagged is a list",
    "exec('SEEN.append(1)', globals())": "the global 'exec'",
    "sys.modules['x'] = 1": "'sys.modules' is a dict",
    "sys.path.append('x')": "'sys.path' is a list",
    "os.chdir('/')": "'os.chdir'",
    "os.environ.update(A='b')": "'os.environ' is a _Environ",
    "os.putenv('A', 'b')": "'os.putenv'",
    "warnings.simplefilter('ignore')": "'warnings.simplefilter'",
    "signal.signal(signal.SIGUSR1, signal.SIG_IGN)": "'signal.signal'",
    "gc.disable()": "'gc.disable'",
    "decimal.getcontext().prec = 3": "'decimal.getcontext'",
    "decimal.setcontext(decimal.Context(prec=3))": "'decimal.setcontext'",
    "decimal.DefaultContext.prec = 3": "sets 'prec' of the global 'decimal'",
    "locale.setlocale(locale.LC_ALL, 'C')": "'locale.setlocale'",
    "sys.setrecursionlimit(5000)": "'sys.setrecursionlimit'",
    "atexit.register(len)": "calls 'register'",
    "builtins.x = 1": "sets 'x' of the global 'builtins'",
    "out = __builtins__": "the global '__builtins__'",
    "out = sys.exc_info()": "'sys.exc_info'",
    "out = sys._getframe(0)": "'sys._getframe'",
    "out = '{0.__globals__}'.format(tagged)": "names looked up in a text",
    "out = string.Formatter().format('{0.__globals__}', tagged)": "names looked up in a text",
    "out = 'a'.__hash__()": "looks at '__hash__'",
    "out = operator.attrgetter('__glob' + 'als__')": "names '__globals__'",
    "tagged.__annotations__['x'] = 1": "looks at '__annotations__'",
    "operator.setitem(DEFAULTS, 'a', 1)": "the global 'DEFAULTS' is a defaultdict",
    "list.append(SEEN, 1)": "the global 'SEEN' is a list",
    "list(map(BUFFER.append, [1]))": "the global 'BUFFER' is a bytearray",
    "pickle.loads(state['x'])": "'pickle.loads'",
    "gzip.open(state['x'], 'wt')": "opens a file that it may write",
    "gzip.GzipFile(state['x'], mode='wb')": "opens a file that it may write",
    "unpacked(state['x'], 'wb')": "is 'open' by another name",
    "state['x'].open('a')": "opens a file that it may write",
    "pathlib.Path('a').rename('b')": "calls 'rename', which moves a file",
    "pathlib.Path('a').replace('b')": "calls 'replace', which moves a file",
    "out = pathlib.Path('~').expanduser()": "looks at 'expanduser'",
    "out = os.path.expandvars('$X')": "looks at 'expandvars'",
    "tempfile.mkdtemp()": "'tempfile.mkdtemp'",
    "np.seterr(all='ignore')": "'numpy.seterr'",
    "np.set_printoptions(precision=2)": "'numpy.set_printoptions'",
    "pd.set_option('display.width', 3)": "set_option",
    "pd.options.display.width = 3": "sets 'width' of the global 'pd'",
    "pd.DataFrame(state).to_json('x')": "calls 'to_json'",
    "pd.DataFrame(state).query('a > @SEEN')": "names looked up in a text",
    "pd.read_sql('select 1', state['x'])": "read_sql",
}
"""A statement, and what the reason to stay must name."""

# -- constants ------------------------------------------------------------------------------------------------------------

PATTERNS = (re.compile("a"), re.compile("b"))
PLACES = types.MappingProxyType({"a": 1, "b": (2, 3)})
TABLE = types.MappingProxyType({"+": operator.add, "twice": lambda x: 2 * x})
STEADY = np.arange(5)
STEADY.flags.writeable = False
TAX = Decimal("0.19")
HOME = pathlib.Path("/tmp")
Point = collections.namedtuple("Point", "x y")
ORIGIN = Point(0, 1)
T = TypeVar("T")


class Rule:
    def __init__(self, factor: int, inner: Any = None) -> None:
        self.factor = factor
        self.inner = inner

    def apply(self, x: int) -> int:
        return x * self.factor

    def node(self, state: Any) -> Any:
        return {"out": self.inner.apply(2)}


RULES = (Rule(1), Rule(2))


class Scale:
    __slots__ = ("k",)

    def __init__(self, k: int) -> None:
        self.k = k

    def node(self, state: Any) -> Any:
        return {"out": self.k}


@dataclasses.dataclass(frozen=True)
class Setting:
    width: int = 3
    names: tuple[str, ...] = ("a",)


SETTING = Setting()


class Kind(str, enum.Enum):
    A = "a"

    @property
    def label(self) -> str:
        return self.name.lower()

    @classmethod
    def of(cls, text: str) -> Kind:
        return cls(text)


class Planet(enum.Enum):
    EARTH = (5.9, 6.3)

    def __init__(self, mass: float, radius: float) -> None:
        self.mass = mass
        self.radius = radius


class Access(enum.IntFlag):
    R = 1
    W = 2


class State(TypedDict):
    x: int


class Model(BaseModel):
    x: int
    y: str = "a"


class Box(Generic[T]):
    def __init__(self, content: T) -> None:
        self.content = content


@dataclasses.dataclass
class Tree:
    value: int
    children: list[Any] = dataclasses.field(default_factory=list)


class Remembering:
    def __init__(self, x: int) -> None:
        self.x = x

    @functools.cached_property
    def square(self) -> int:
        return self.x**2


@contextlib.contextmanager
def entered() -> Any:
    yield 1


def timed(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return {**function(*args, **kwargs), "took": 0}

    return wrapper


@timed
def wrapped(state: Any) -> Any:
    return {"out": 1}


def recursive(n: int) -> int:
    return n if n < 2 else recursive(n - 1) + recursive(n - 2)


MOVING = {
    "a wrapped node": wrapped,
    "an object in an object": Rule(1, Rule(2)).node,
    "slots": Scale(3).node,
    "a partial of a lambda": functools.partial(lambda state, k: {"out": k}, k=3),
}

HARMLESS = [
    "out = [p.findall('ab') for p in PATTERNS]",
    "out = [PLACES['a'], TABLE['+'](1, 2), TABLE['twice'](3)]",
    "out = float(STEADY.sum())",
    "out = str((Decimal('1.005') * TAX).quantize(Decimal('0.01')))",
    "with decimal.localcontext() as c: c.prec = 3; out = str(Decimal(1) / 3)",
    "out = str(HOME / 'a') + os.path.basename('b/c')",
    "out = pathlib.Path('x').suffix or pathlib.Path('x').exists()",
    "out = ORIGIN.x + ORIGIN._replace(x=3).x",
    "out = [rule.apply(2) for rule in RULES]",
    "out = SETTING.width + len(SETTING.names)",
    "out = [Kind.A.value, Kind.of('a').label, Kind('a').name, [k.value for k in Kind], Access.R | Access.W]",
    "out = Planet.EARTH.mass",
    "given: State = {'x': 1}; out = State(x=given['x'])",
    "out = Model(x=1).model_dump()",
    "out = Box[int](3).content",
    "tree = Tree(1); tree.children.append(Tree(2)); out = dataclasses.asdict(tree)",
    "out = Remembering(2).square",
    "with entered() as x: out = x",
    "out = recursive(8)",
    "out = json.dumps({'a': Decimal('1')}, default=str)",
    "out = pd.DataFrame({'k': ['a', 'b', 'a'], 'v': [1, 2, 3]}).groupby('k')['v'].sum().to_dict()",
    "out = pd.read_csv(io.StringIO('a,b\\n1,2')).rename(columns={'a': 'c'}).describe().to_dict()",
    "out = float(np.random.default_rng(3).normal())",
    "out = np.linalg.norm(np.clip(np.arange(9.0), 0, 1)).item()",
    "out = random.Random(state.get('seed', 1)).random()",
    "with contextlib.suppress(KeyError): out = state['nope']",
    "out = textwrap.wrap('a b')[0].translate(str.maketrans('', '', string.punctuation))",
    "out = '{:>{}}'.format(1, 3).replace(' ', '0') + f'{math.pi:.2f}'",
    "out = sorted(RULES, key=operator.attrgetter('factor'))[0].factor",
    "out = getattr(SETTING, 'width', 0) + len(typing.cast(str, 'a'))",
]
"""What ordinary nodes do, a statement each."""
