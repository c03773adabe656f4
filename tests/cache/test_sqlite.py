"""The cache in a file (CA-4, CA-5): it outlives its maker, is private, and holds data only."""

from __future__ import annotations

import operator
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from mpflow._wire.errors import EncodeError
from mpflow.cache.sqlite import SqliteCache
from mpflow.graph import START, StateGraph
from mpflow.types import CachePolicy, Command, Send

A = (("ns", "a"), "k")
B = (("ns", "b"), "k")
DEEP = (("ns", "a", "deep"), "k")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def cache(path: Path) -> Iterator[SqliteCache[Any]]:
    with SqliteCache(path) as made:
        yield made


def test_values_come_back_in_each_colour(cache: SqliteCache[Any], run: Any) -> None:
    """CA-5"""
    run.call(cache, "set", {A: ([("x", (1, 2))], None), B: ({"b"}, 60)})
    assert run.call(cache, "get", [A, B, DEEP]) == {A: [("x", (1, 2))], B: {"b"}}
    run.call(cache, "set", {A: ("new", None)})
    assert run.call(cache, "get", [A]) == {A: "new"}


def test_clearing_takes_exactly_the_namespaces_named(cache: SqliteCache[Any], run: Any) -> None:
    """CA-4"""
    cache.set({A: (1, None), B: (2, None), DEEP: (3, None)})
    run.call(cache, "clear", [A[0]])
    assert cache.get([A, B, DEEP]) == {B: 2, DEEP: 3}
    run.call(cache, "clear")
    assert cache.get([A, B, DEEP]) == {}


def test_entries_grow_stale_and_are_dropped_at_the_next_write(path: Path) -> None:
    """CA-4"""
    clock = Clock()
    with SqliteCache[Any](path, clock=clock) as cache:
        cache.set({A: (1, 5), B: (2, None)})
        clock.now += 5
        assert cache.get([A, B]) == {B: 2}
        cache.set({DEEP: (3, 5)})
        assert _rows(path) == 2


def _rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM writes").fetchone()[0])
    finally:
        connection.close()


def test_what_was_cached_is_there_when_the_file_is_opened_again(path: Path) -> None:
    with SqliteCache[Any](path) as cache:
        cache.set({A: (1, None)})
    with SqliteCache[Any](path) as cache:
        assert cache.get([A]) == {A: 1}


def test_the_file_is_its_owners_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        with SqliteCache[Any](path) as cache:
            cache.set({A: (1, None)})
            files = list(path.parent.iterdir())
            assert len(files) > 1  # the log beside it too
            assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    finally:
        os.umask(before)


@dataclass
class Point:
    x: int


def test_classes_must_be_named(path: Path) -> None:
    with SqliteCache[Any](path) as cache, pytest.raises(EncodeError, match="the writes of 'a'"):
        cache.set({A: (Point(1), None)})
    with SqliteCache[Any](path, types=[Point]) as cache:
        cache.set({A: (Point(1), None)})
        assert cache.get([A]) == {A: Point(1)}
    with SqliteCache[Any](path) as cache:
        assert cache.get([A]) == {}


def test_a_damaged_entry_is_absent(path: Path) -> None:
    with SqliteCache[Any](path) as cache:
        cache.set({A: (1, None), B: (2, None)})
        connection = sqlite3.connect(path)
        connection.execute("UPDATE writes SET value = x'c1ff' WHERE ns LIKE '%a'")
        connection.commit()
        connection.close()
        assert cache.get([A, B]) == {B: 2}


def test_threads_share_one_cache(cache: SqliteCache[Any]) -> None:
    def fill(number: int) -> None:
        for index in range(20):
            cache.set({(("t", str(number)), str(index)): (index, None)})

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [(("t", str(number)), str(index)) for number in range(4) for index in range(20)]
    assert len(cache.get(keys)) == 80


class State(TypedDict):
    x: Annotated[list[str], operator.add]


def test_a_graph_replays_updates_and_sends_from_it(path: Path, run: Any) -> None:
    """CA-3"""
    runs: list[int] = []

    def node(state: State) -> Command[Any]:
        runs.append(1)
        return Command(update={"x": ["a"]}, goto=Send("b", {"x": []}))

    builder = StateGraph(State).add_node("a", node, cache_policy=CachePolicy()).add_edge(START, "a")
    builder.add_node("b", lambda state: {"x": ["b"]})
    for _ in range(2):
        with SqliteCache[Any](path) as cache:
            assert run.invoke(builder.compile(cache=cache), {"x": []}) == {"x": ["a", "b"]}
    assert len(runs) == 1
