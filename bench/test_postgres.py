"""What it costs to keep a run in Postgres: round trips, time and space a step, and going on with a long thread.

The server is the tests' own, on this machine; LangGraph's PostgresSaver runs the same graphs on it.
"""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from typing import Annotated, Any, TypedDict

import pytest

from bench.graphs import library
from bench.race import Against, Race
from tests.checkpoint.server import server

STEPS = 300
LONG = 10_000
KB = "x" * 1_000
MOST_ROUND_TRIPS = 1.5
RESUME_S = 0.1

_places = count()


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    server()


class Log(TypedDict):
    log: Annotated[list[str], operator.add]
    n: int


def appending(name: str, saver: Any, text: str) -> Any:
    """A loop whose every step appends a text to the state, until `n` is nothing."""
    lib = library(name)
    graph = lib.StateGraph(Log)
    graph.add_node("a", lambda state: {"log": [text] if text else [], "n": state["n"] - 1})
    graph.add_edge(lib.START, "a")
    graph.add_conditional_edges("a", lambda state: "a" if state["n"] > 0 else lib.END, ["a", lib.END])
    return graph.compile(checkpointer=saver)


def opened(race: Race, name: str) -> tuple[Any, str]:
    """A saver on a schema of its own, and how to connect to that."""
    conninfo = server().conninfo(f"bench {next(_places)}")
    saver = race.stack.enter_context(
        import_module(f"{name}.checkpoint.postgres").PostgresSaver.from_conn_string(conninfo)
    )
    saver.setup()
    return saver, conninfo


def run(app: Any, thread: int, steps: int, durability: str) -> Any:
    config = {"configurable": {"thread_id": str(thread)}, "recursion_limit": steps + 10}
    return app.invoke({"log": [], "n": steps}, config, durability=durability)


def runs(race: Race, name: str, durability: str) -> Callable[[], Any]:
    app = appending(name, opened(race, name)[0], KB)
    threads = count()
    return lambda: run(app, next(threads), STEPS, durability)


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_step(race: Race, durability: str) -> None:
    against = Against("LangGraph", lambda: runs(race, "langgraph", durability), rounds=3)
    race(
        f"Postgres, {durability}: a step that appends 1 KB, of {STEPS}",
        runs(race, "mpflow", durability),
        against,
        each=STEPS,
    )


@contextmanager
def round_trips(connection: Any) -> Iterator[list[int]]:
    """How often the connection waited for the server: the times that it asked for an answer, as libpq tells them."""
    counted: list[int] = []
    with tempfile.TemporaryFile() as trace:
        connection.pgconn.trace(trace.fileno())
        try:
            yield counted
        finally:
            connection.pgconn.untrace()
            trace.seek(0)
            counted.append(
                sum((line.split(b"\t")[1:2] == [b"F"] and b"Sync" in line) or b"\tQuery\t" in line for line in trace)
            )


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_round_trips(race: Race, durability: str) -> None:
    told = []
    for name in ("mpflow", "langgraph"):
        try:
            saver, _ = opened(race, name)
        except ImportError:
            continue
        app = appending(name, saver, KB)
        run(app, -1, 10, durability)  # what is prepared is prepared
        session = getattr(getattr(saver, "driver", None), "session", None)
        connection = saver.conn if session is None else session.hands.connection
        with round_trips(connection) as counted:
            run(app, 0, STEPS, durability)
        told.append(counted[0] / STEPS)
    note = f"{told[0]:.2f}" + "".join(f", LangGraph {other:.2f}" for other in told[1:])
    race.benchmark.pedantic(lambda: None)
    race.tell(
        f"Postgres, {durability}: round trips a step", f"at most {MOST_ROUND_TRIPS}", note, told[0] <= MOST_ROUND_TRIPS
    )


@pytest.mark.parametrize("text", ["", KB], ids=["small state", "10 MB state"])
def test_resume(race: Race, text: str) -> None:
    """A new process's first look at a thread of 10,000 steps."""

    def looks(name: str) -> Callable[[], Any]:
        saver, conninfo = opened(race, name)
        steps = LONG if name == "mpflow" or not text else 1_000  # LangGraph saves 10,000 such states as 50 GB
        run(appending(name, saver, text), 0, steps, "async")
        kind = type(saver)

        def look() -> None:
            with kind.from_conn_string(conninfo) as fresh:
                found = fresh.get_tuple({"configurable": {"thread_id": "0", "checkpoint_ns": ""}})
                assert found.metadata["step"] >= steps

        return look

    what = f"with {LONG * len(text) // 1_000_000} MB" if text else "with a small state"
    other = "LangGraph" if not text else "LangGraph, 1,000 steps"
    ours = race(
        f"Postgres: opening a thread of {LONG} steps {what}",
        looks("mpflow"),
        Against(other, lambda: looks("langgraph"), rounds=3),
    )
    race.compare(f"Postgres: opening a thread of {LONG} steps {what}", ours, "the promise", RESUME_S, 1.0)
