"""What the files in `saved` hold: databases as earlier versions of mpflow left them, each named by schema and records' format.

A file is never written anew: it stands for databases out there. When the schema or the format changes, write one more,
from the commit before: ``python -m tests.checkpoint.old_formats tests/checkpoint/saved/schema1-format2.db``.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import operator
import os
import sys
import uuid
from pathlib import Path
from typing import Annotated, Any, TypedDict

from mpflow.channels import Topic
from mpflow.checkpoint.sqlite import SqliteSaver
from mpflow.graph import END, START, StateGraph
from mpflow.types import Send, interrupt

SAVED = Path(__file__).parent / "saved"
FILES = sorted(SAVED.glob("*.db"))
ROUNDS = 6
TEXT = "".join(f"line {number} of a long text\n" for number in range(200))


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Values(TypedDict):
    """One of each kind of value that is saved as data, and of each way in which a channel grows."""

    n: int
    items: Annotated[list[str], operator.add]
    total: Annotated[int, operator.add]
    text: Annotated[str, operator.add]
    known: Annotated[dict[str, int], operator.or_]
    names: Annotated[set[str], operator.or_]
    heard: Annotated[list[str], Topic(str, accumulate=True)]
    large: str
    point: Point
    odd: Any


ODD = [
    None, True, -1, 1 << 80, 1.5, b"\0\xff", ("a", 1), {3, 4}, frozenset({5}), {1: "one"}, Colour.RED,
    decimal.Decimal("1.20"), uuid.UUID(int=7), datetime.date(2026, 1, 2),
    datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.timezone.utc), datetime.timedelta(seconds=3), "\ud800",
]  # fmt: skip


def grows(state: Values) -> dict[str, Any]:
    n = state["n"] + 1
    return {
        "n": n,
        "items": [f"item {n}"],
        "total": n,
        "text": f"{n} ",
        "known": {f"key {n}": n},
        "names": {f"name {n}"},
        "heard": f"heard {n}",
        "large": TEXT.replace("line 100 ", f"line {n} "),
        "point": Point(n, n / 2),
        "odd": ODD,
    }


def values_graph(saver: Any) -> Any:
    builder = StateGraph(Values).add_node("grows", grows).add_edge(START, "grows")
    builder.add_conditional_edges("grows", lambda state: "grows" if state["n"] < ROUNDS else END, ["grows", END])
    return builder.compile(checkpointer=saver, types=[Colour])


class Asks(TypedDict):
    answers: Annotated[list[str], operator.add]


def asks(state: Asks) -> dict[str, Any]:
    return {"answers": [f"{interrupt('first?')} {interrupt('second?')}"]}


def inner_graph() -> Any:
    builder = StateGraph(Asks).add_node("says", lambda state: {"answers": ["said"]}).add_node("asks", asks)
    return builder.add_edge(START, "says").add_edge("says", "asks").compile()


def asking_graph(saver: Any) -> Any:
    """A graph within asks two questions, the first of which is answered; its sibling has finished."""
    builder = StateGraph(Asks).add_node("inner", inner_graph())
    builder.add_node("beside", lambda state: {"answers": ["beside"]})
    return builder.add_edge(START, "inner").add_edge(START, "beside").compile(checkpointer=saver)


def sends(state: Asks) -> Any:
    return [Send("sent", number) for number in range(40)]


def sent(number: int) -> dict[str, Any]:
    if number == 7 and os.environ.get("MPFLOW_TEST_FAILS"):
        raise ValueError("seven")
    return {"answers": [str(number)]}


def failing_graph(saver: Any) -> Any:
    """Forty tasks of one step, one of which has failed."""
    builder = StateGraph(Asks).add_node("first", lambda state: {"answers": ["first"]}).add_node("sent", sent)
    builder.add_edge(START, "first").add_conditional_edges("first", sends, ["sent"])
    return builder.compile(checkpointer=saver)


def at(thread: str) -> Any:
    return {"configurable": {"thread_id": thread}}


def fill(saver: SqliteSaver) -> None:
    """Leave the threads that `test_old_formats` goes on with."""
    from mpflow.types import Command

    started = {"n": 0, "items": ["start"], "total": 0, "text": "", "known": {}, "names": set()}
    values_graph(saver).invoke(started, at("values"), durability="sync")
    asking_graph(saver).invoke({"answers": ["start"]}, at("asked"))
    asking_graph(saver).invoke(Command(resume="one"), at("asked"))
    os.environ["MPFLOW_TEST_FAILS"] = "1"
    try:
        failing_graph(saver).invoke({"answers": ["start"]}, at("failed"), durability="sync")
    except ValueError:
        pass
    finally:
        del os.environ["MPFLOW_TEST_FAILS"]
    failing_graph(saver).invoke({"answers": ["start"]}, at("wide"))
    values_graph(saver).invoke(started, at("at exit"), durability="exit")


if __name__ == "__main__":
    from tests.checkpoint import old_formats  # saved classes are known by their module's name

    with SqliteSaver.from_conn_string(sys.argv[1]) as saver:
        old_formats.fill(saver)
        saver.vacuum()
        saver.conn.execute("PRAGMA journal_mode = DELETE")
    os.unlink(sys.argv[1] + "-runs")
