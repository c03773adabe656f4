"""Nodes that a walk must hold, each for one reason, and nodes that it must let through. Imported by name in workers too."""

from __future__ import annotations

import collections
import contextvars
import functools
import json
import logging
import math
import os
import random
import re
import secrets
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, getcontext
from enum import Enum
from typing import Any, NamedTuple

State = dict[str, Any]

ITEMS: list[int] = []
TABLE = {"a": 1}
COUNT = 0
LIMIT = 10
NAMES = ("a", "b")
WORD = re.compile(r"\w+")
LOCK = threading.Lock()
VAR: contextvars.ContextVar[int] = contextvars.ContextVar("VAR", default=1)
LOCAL = threading.local()
LOG = logging.getLogger(__name__)
COUNTER = iter(range(10))


@functools.lru_cache
def remembered(number: int) -> int:
    return number


class Counted:
    total = 0

    def __init__(self) -> None:
        Counted.total += 1


class Registry:
    known: list[int] = []

    @classmethod
    def add(cls, number: int) -> None:
        cls.known.append(number)


class Stepping:
    step = 0

    @classmethod
    def advance(cls) -> None:
        cls.step += 1


class Model:
    def __init__(self) -> None:
        self.weights = [1, 2]

    def node(self, state: State) -> State:
        return {"out": sum(self.weights)}


class Caching:
    def __init__(self) -> None:
        self.base = 1

    @functools.cached_property
    def slow(self) -> int:
        return self.base + 1

    def node(self, state: State) -> State:
        return {"out": self.slow}


class Counting:
    def __init__(self) -> None:
        self.calls = 0

    def node(self, state: State) -> State:
        self.calls += 1
        return {"out": self.calls}


class Fixed:
    def __init__(self) -> None:
        self.factor = 3

    def node(self, state: State) -> State:
        return {"out": self.scaled(2)}

    def scaled(self, number: int) -> int:
        return self.factor * number

    def __call__(self, state: State) -> State:
        return self.node(state)


@dataclass(frozen=True)
class Setting:
    width: int
    names: tuple[str, ...] = ()


SETTING = Setting(3, ("a",))


class Colour(Enum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


class Tree:
    def __init__(self, value: int) -> None:
        self.value = value
        self.children: list[Tree] = []

    def total(self) -> int:
        return self.value + sum(child.total() for child in self.children)


def appends_to_a_global(state: State) -> None:
    ITEMS.append(1)


def reads_a_global_dict(state: State) -> State:
    return {"out": TABLE["a"]}


def assigns_a_global(state: State) -> None:
    global COUNT
    COUNT += 1


def _helper() -> None:
    _deeper()


def _deeper() -> None:
    ITEMS.append(1)


def appends_through_helpers(state: State) -> None:
    _helper()


def appends_in_a_lambda(state: State) -> None:
    (lambda: ITEMS.append(1))()


def appends_in_a_comprehension(state: State) -> None:
    [ITEMS.append(i) for i in range(3)]


def remembers(state: State) -> State:
    return {"out": remembered(1)}


def counts_in_a_class(state: State) -> None:
    Counted()


def registers_in_a_class(state: State) -> None:
    Registry.add(1)


def sets_a_class_attribute(state: State) -> None:
    Fixed.factor = 4


def sets_an_attribute_of_a_function(state: State) -> None:
    remembers_nothing.calls = 1  # type: ignore[attr-defined]


def remembers_nothing(state: State) -> None:
    pass


def sets_an_attribute_of_a_module(state: State) -> None:
    math.tau = 6  # type: ignore[misc]


def draws_by_chance(state: State) -> State:
    return {"out": random.random()}


def shuffles(state: State) -> None:
    random.shuffle([1, 2, 3])


def draws_secrets(state: State) -> State:
    return {"out": secrets.token_hex()}


def makes_ids(state: State) -> State:
    return {"out": str(uuid.uuid4())}


def sets_the_environment(state: State) -> None:
    os.environ["MPFLOW_TEST"] = "1"


def reads_the_environment(state: State) -> State:
    return {"out": os.getenv("HOME")}


def changes_directory(state: State) -> None:
    os.chdir("/")


def tells_its_process(state: State) -> State:
    return {"out": os.getpid()}


def tells_its_thread(state: State) -> State:
    return {"out": threading.current_thread().name}


def reads_a_context_variable(state: State) -> State:
    return {"out": VAR.get()}


def uses_a_thread_local(state: State) -> None:
    LOCAL.x = 1


def computes_in_a_context(state: State) -> State:
    return {"out": Decimal(1) / 3, "precision": getcontext().prec}


def tells_identities(state: State) -> State:
    return {"out": id(state)}


def hashes(state: State) -> State:
    return {"out": hash("a")}


def prints(state: State) -> None:
    print("hello")


def logs(state: State) -> None:
    LOG.info("hello")


def writes_a_file(state: State) -> None:
    with open(state["path"], "a") as file:
        file.write("line")


def opens_somehow(state: State) -> None:
    open(state["path"], state["mode"]).close()


def defaults_to_a_list(state: State, seen: list[int] = []) -> None:  # noqa: B006
    seen.append(1)


def acquires_a_lock(state: State) -> State:
    return {"out": LOCK.acquire(blocking=False)}


def evaluates(state: State) -> State:
    return {"out": eval("1 + 1")}


def reaches_for_globals(state: State) -> State:
    return {"out": remembers_nothing.__globals__}


def reaches_by_name(state: State) -> State:
    return {"out": getattr(remembers_nothing, "__globals__")}  # noqa: B009


def hands_a_module_about(state: State) -> State:
    module = sys.modules["os"]
    return {"out": module.getpid()}


def draws_from_an_iterator(state: State) -> State:
    return {"out": next(COUNTER)}


def imports_what_is_not_loaded(state: State) -> None:
    import this_module_is_not_there  # type: ignore[import-not-found] # noqa: F401


def asks(state: State) -> State:
    from mpflow.types import interrupt

    return {"out": interrupt("?")}


def counting_closure() -> Any:
    count = 0

    def counts(state: State) -> State:
        nonlocal count
        count += 1
        return {"out": count}

    return counts


def collecting_closure() -> Any:
    seen: list[int] = []
    return lambda state: seen.append(1)


def sharing_closures() -> tuple[Any, Any]:
    """One that counts, and one that only reads what the other counts."""
    count = 0

    def counts(state: State) -> State:
        nonlocal count
        count += 1
        return {"out": count}

    def reads(state: State) -> State:
        return {"out": count}

    return counts, reads


HELD = [
    appends_to_a_global,
    reads_a_global_dict,
    assigns_a_global,
    appends_through_helpers,
    appends_in_a_lambda,
    appends_in_a_comprehension,
    remembers,
    counts_in_a_class,
    registers_in_a_class,
    sets_a_class_attribute,
    sets_an_attribute_of_a_function,
    sets_an_attribute_of_a_module,
    draws_by_chance,
    shuffles,
    draws_secrets,
    makes_ids,
    sets_the_environment,
    reads_the_environment,
    changes_directory,
    tells_its_process,
    tells_its_thread,
    reads_a_context_variable,
    uses_a_thread_local,
    computes_in_a_context,
    tells_identities,
    hashes,
    prints,
    logs,
    writes_a_file,
    opens_somehow,
    defaults_to_a_list,
    acquires_a_lock,
    evaluates,
    reaches_for_globals,
    reaches_by_name,
    hands_a_module_about,
    draws_from_an_iterator,
    imports_what_is_not_loaded,
    asks,
    counting_closure(),
    collecting_closure(),
    remembered,
    Model().node,
    Caching().node,
    Counting().node,
    functools.partial(appends_to_a_global),
    functools.partial(remembers_nothing, []),
]


def computes(state: State) -> State:
    return {"out": [math.sqrt(number) for number in range(LIMIT)], "names": NAMES}


def parses(state: State) -> State:
    return {"out": json.loads(json.dumps([match.group() for match in WORD.finditer("a b")]))}


def imports_at_home(state: State) -> State:
    import statistics
    from math import floor as down

    return {"out": statistics.mean([down(1.5), 2])}


def reads_a_file(state: State) -> State:
    with open(state["path"], "rb") as file:
        return {"out": len(file.read()), "size": os.stat(os.path.join(state["path"])).st_size}


def keeps_others_out(state: State) -> State:
    with LOCK:
        return {"out": 1}


def builds_objects(state: State) -> State:
    root = Tree(1)
    root.children.append(Tree(2))
    root.value += 1
    return {"out": root.total()}


def draws_from_a_seed(state: State) -> State:
    return {"out": random.Random(7).random()}


def goes_by_settings(state: State) -> State:
    return {"out": SETTING.width, "colour": Colour.RED.value, "point": Point(1, 2).x}


def counts_locally(state: State) -> State:
    count = 0

    def add() -> None:
        nonlocal count
        count += 1

    add()
    return {"out": count, "most": collections.Counter("aab").most_common(1)}


def takes_time(state: State) -> State:
    started = time.monotonic()
    time.sleep(0)
    return {"out": time.monotonic() >= started, "year": datetime(2020, 1, 1).year}


def fails(state: State) -> State:
    raise ValueError(f"no {state['x']}")


def closure_over_values(factor: int) -> Any:
    return lambda state: {"out": factor * LIMIT}


LET_THROUGH = [
    computes,
    parses,
    imports_at_home,
    reads_a_file,
    keeps_others_out,
    builds_objects,
    draws_from_a_seed,
    goes_by_settings,
    counts_locally,
    takes_time,
    fails,
    closure_over_values(3),
    Fixed().node,
    Fixed(),
    functools.partial(computes),
    lambda state: {"out": sorted(state.values(), key=lambda value: -value)},
]
