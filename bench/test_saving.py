"""What it costs to keep a run in SQLite and in memory: time and bytes a step, and a bare commit a step beside it.

Steps in this process, so CPU time; what waits for the disk is timed by the clock. LangGraph's savers run the same graphs.
"""

from __future__ import annotations

import operator
import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from typing import Annotated, Any, TypedDict

from bench.graphs import library, loop
from bench.race import Against, Race, cpu_time

STEPS = 1_000
KB = "x" * 1_000
MOST_BYTES = 2_500_000

_threads = count()


class Log(TypedDict):
    log: Annotated[list[str], operator.add]
    n: int


def appending(name: str, saver: Any, steps: int) -> Callable[..., Any]:
    """A loop whose every step appends a kilobyte to the state, on a new thread each time."""
    lib = library(name)
    graph = lib.StateGraph(Log)
    graph.add_node("a", lambda state: {"log": [KB], "n": state["n"] + 1})
    graph.add_edge(lib.START, "a")
    graph.add_conditional_edges("a", lambda state: "a" if state["n"] < steps else lib.END, ["a", lib.END])
    app = graph.compile(checkpointer=saver)

    def run(durability: str = "async") -> Any:
        config = {"configurable": {"thread_id": str(next(_threads))}, "recursion_limit": steps + 10}
        return app.invoke({"log": [], "n": 0}, config, durability=durability)

    return run


@contextmanager
def in_sqlite(name: str) -> Any:
    """A saver of this library in a new file, and the folder that it is in."""
    with tempfile.TemporaryDirectory() as folder:
        module = import_module(f"{name}.checkpoint.sqlite")
        with module.SqliteSaver.from_conn_string(os.path.join(folder, "db")) as saver:
            yield saver, folder


def loop_in_sqlite(race: Race, name: str, steps: int = STEPS) -> tuple[Callable[..., Any], str]:
    saver, folder = race.stack.enter_context(in_sqlite(name))
    return appending(name, saver, steps), folder


@cpu_time
def test_async_in_sqlite(race: Race) -> None:
    ours, _ = loop_in_sqlite(race, "mpflow")
    ours()
    against = Against("LangGraph", lambda: loop_in_sqlite(race, "langgraph")[0], wanted=40, rounds=1)
    race(f"a step of {STEPS} that append 1 KB, SQLite async", ours, against, each=STEPS, rounds=5)


def test_bytes_in_sqlite(race: Race) -> None:
    with in_sqlite("mpflow") as (saver, folder):
        appending("mpflow", saver, STEPS)()
        saver.close()
        size_bytes = sum(os.path.getsize(os.path.join(folder, one)) for one in os.listdir(folder))
    race.benchmark.extra_info["size_bytes"] = size_bytes
    race.benchmark(lambda: None)
    print(f"{STEPS} steps of 1 KB take {size_bytes:,} bytes in SQLite; wanted: at most {MOST_BYTES:,}")


@cpu_time
def test_ten_times_as_many_steps(race: Race) -> None:
    few, _ = loop_in_sqlite(race, "mpflow")
    many, _ = loop_in_sqlite(race, "mpflow", 10 * STEPS)
    against = Against(f"{STEPS} steps, ten times", lambda: lambda: [few() for _ in range(10)], wanted=1 / 1.3)
    race(f"{10 * STEPS} steps that append 1 KB, SQLite async", many, against, rounds=3)


def test_sync_in_sqlite(race: Race) -> None:
    ours, _ = loop_in_sqlite(race, "mpflow", 200)
    against = Against("a bare WAL FULL commit", lambda: bare_commits(race, 200), wanted=1 / 1.4)
    race("a step of 200, SQLite sync", lambda: ours("sync"), against, each=200, rounds=9)


def bare_commits(race: Race, steps: int) -> Callable[[], Any]:
    folder = race.stack.enter_context(tempfile.TemporaryDirectory())
    connection = sqlite3.connect(os.path.join(folder, "db"), isolation_level=None)
    race.stack.callback(connection.close)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, data BLOB)")

    def run() -> None:
        for _ in range(steps):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO rows (data) VALUES (?)", (KB,))
            connection.execute("COMMIT")

    return run


@cpu_time
def test_in_memory(race: Race) -> None:
    ours = counting("mpflow")
    against = [
        Against("no saver", lambda: loop("mpflow", STEPS)),
        Against("LangGraph in memory", lambda: counting("langgraph"), rounds=3),
        Against("LangGraph, no saver", lambda: loop("langgraph", STEPS), rounds=3),
    ]
    race(f"a step of {STEPS}, saved in memory", ours, *against, each=STEPS, rounds=9)


def counting(name: str) -> Callable[[], Any]:
    """The loop that does nothing, with a saver in memory."""
    from bench.graphs import Count, add_one

    lib = library(name)
    graph = lib.StateGraph(Count)
    graph.add_node("a", add_one)
    graph.add_edge(lib.START, "a")
    graph.add_conditional_edges("a", lambda state: "a" if state["n"] < STEPS else lib.END, ["a", lib.END])

    def run() -> Any:
        app = graph.compile(checkpointer=import_module(f"{name}.checkpoint.memory").InMemorySaver())
        return app.invoke({"n": 0}, {"configurable": {"thread_id": "t"}, "recursion_limit": STEPS + 10})

    return run
