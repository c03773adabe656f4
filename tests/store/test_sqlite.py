"""What the stores in SQLite have besides the contract: files, what is refused, sweeping (FAULTS 35, 41, 42)."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mpflow.errors import StorageError
from mpflow.graph import START, StateGraph
from mpflow.store.sqlite import AsyncSqliteStore, SqliteStore

WAIT_S = 20


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


def test_items_outlive_the_process(path: str) -> None:
    program = f"""
from mpflow.store.sqlite import SqliteStore
with SqliteStore.from_conn_string({path!r}) as store:
    store.put(("users",), "1", {{"name": "Ada", "tags": ["a"]}})
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    with SqliteStore.from_conn_string(path) as store:
        assert store.get(("users",), "1").value == {"name": "Ada", "tags": ["a"]}


def test_two_connections_see_each_others_items(path: str) -> None:
    with SqliteStore.from_conn_string(path) as one, SqliteStore.from_conn_string(path) as other:
        one.put(("n",), "k", {"a": 1})
        assert other.search(("n",), filter={"a": 1})[0].key == "k"
        other.delete(("n",), "k")
        assert one.get(("n",), "k") is None


def test_threads_write_side_by_side(path: str) -> None:
    with SqliteStore.from_conn_string(path) as store:
        threads = [
            threading.Thread(target=lambda n=n: [store.put(("n",), f"{n}-{i}", {"n": n}) for i in range(20)])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert len(store.search(("n",), limit=100)) == 80


def test_row42_files_are_the_owners_alone_and_links_are_refused(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with SqliteStore.from_conn_string(str(tmp_path / "new" / "store.db")) as store:
            store.put(("n",), "k", {})
            modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "new").iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(StorageError, match="symbolic link"), SqliteStore.from_conn_string(str(tmp_path / "link.db")):
        pass
    assert not (tmp_path / "elsewhere.db").exists()


ODD = [
    "'; DROP TABLE mpflow_items; --",
    '"',
    "a\x00b",
    "../../etc/passwd",
    "x" * 4096,
    "line\n",
    "%",
    "_",
    "ü",
    "$.a",
    "]",
]


@pytest.mark.parametrize("text", ODD)
def test_row41_odd_texts_are_literal(path: str, text: str) -> None:
    label = text.replace(".", "·")
    with SqliteStore.from_conn_string(path) as store:
        store.put((label, "below"), text, {text: text, "a": 1})
        store.put((label + "x",), "other", {"a": 1})
        assert store.get((label, "below"), text).value == {text: text, "a": 1}
        assert [item.key for item in store.search((label,), filter={text: text})] == [text]
        assert store.search((label,), filter={text: text + " "}) == []
        assert store.search((), filter={"a": {"." + text: 1}}) == []
        assert store.list_namespaces(prefix=(label,)) == [(label, "below")]
        store.delete((label, "below"), text)
        assert [item.key for item in store.search(())] == ["other"]


def test_row41_what_cannot_be_a_namespace_names_nothing(path: str) -> None:
    with SqliteStore.from_conn_string(path) as store:
        store.put(("a", "b"), "k", {})
        assert store.get(("a.b",), "k") is None
        assert store.search(("a.b",)) == []
        store.delete(("a.b",), "k")
        assert store.get(("a", "b"), "k") is not None
        with pytest.raises(ValueError, match="surrogates"):
            store.put(("\ud800",), "k", {})


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": {"b": [1, object()]}}, r"\['a'\]\['b'\]\[1\]: expected what JSON has, got object"),
        ({"a": {1: 2}}, r"\['a'\]: JSON has no keys but strings, got 1"),
        ({"a": float("nan")}, r"\['a'\]: JSON has no nan"),
    ],
)
def test_values_that_are_not_json_are_refused_by_their_path(path: str, value: Any, where: str) -> None:
    with SqliteStore.from_conn_string(path) as store:
        store.put(("n",), "k", {"old": 1})
        with pytest.raises((TypeError, ValueError), match=where):
            store.put(("n",), "k", value)
        assert store.get(("n",), "k").value == {"old": 1}


@pytest.mark.parametrize(
    ("stored", "wanted", "fits"),
    [(1, True, True), (1.0, 1, True), ("1", 1, False), (True, 1, True), (None, 0, False), ([1], 1, False)],
)
def test_what_sqlite_filters_is_what_python_would(path: str, stored: Any, wanted: Any, fits: bool) -> None:
    with SqliteStore.from_conn_string(path) as store:
        store.put(("n",), "k", {"a": stored})
        assert bool(store.search(("n",), filter={"a": wanted})) is fits is (stored == wanted)


def test_a_store_of_a_later_version_is_refused(path: str) -> None:
    with SqliteStore.from_conn_string(path) as store:
        store.setup()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE mpflow_store SET version = 99")
    with SqliteStore.from_conn_string(path) as store:
        with pytest.raises(StorageError, match=r"store\.db: its store has the layout 99"):
            store.get(("n",), "k")


def test_what_is_no_database_is_told_by_its_name(path: str) -> None:
    Path(path).write_bytes(b"no database" * 100)
    with SqliteStore.from_conn_string(path) as store, pytest.raises(StorageError, match=r"store\.db"):
        store.get(("n",), "k")


class Sweeps(SqliteStore):
    __slots__ = ("swept",)

    def sweep(self) -> int:
        count = super().sweep()
        self.swept.set()
        return count


def test_a_sweeper_deletes_what_is_over_until_it_is_stopped(path: str) -> None:
    now = [100.0]
    with Sweeps(sqlite3.connect(path, check_same_thread=False), ttl={"default_ttl": 1}, clock=lambda: now[0]) as store:
        store.swept = threading.Event()
        store.put(("n",), "k", {})
        now[0] += 61
        sweeper = store.start_ttl_sweeper(sweep_interval_minutes=0.0001)  # type: ignore[arg-type]
        assert store.start_ttl_sweeper() is sweeper
        assert store.swept.wait(WAIT_S)
        assert store.stop_ttl_sweeper(WAIT_S) and sweeper.done()
        assert store.conn.execute("SELECT count(*) FROM mpflow_items").fetchone() == (0,)
        assert store.stop_ttl_sweeper()


def test_a_store_without_ttl_has_nothing_to_sweep(path: str) -> None:
    with SqliteStore.from_conn_string(path) as store:
        assert store.start_ttl_sweeper().done()


def test_the_async_store_is_opened_and_swept_by_awaiting(path: str) -> None:
    async def main() -> Any:
        async with AsyncSqliteStore.from_conn_string(path, ttl={"default_ttl": None}) as store:
            await store.setup()
            await store.aput(("n",), "k", {"a": 1})
            sweeper = await store.start_ttl_sweeper(10)
            assert await store.stop_ttl_sweeper(WAIT_S)
            await asyncio.wait_for(sweeper, WAIT_S)
            return await store.sweep_ttl(), await store.aget(("n",), "k")

    swept, item = asyncio.run(main())
    assert (swept, item.value) == (0, {"a": 1})


def test_vectors_are_kept_in_the_file(path: str) -> None:
    def lengths(texts: Any) -> list[list[float]]:
        return [[float(len(text)), 1.0] for text in texts]

    with SqliteStore.from_conn_string(path, index={"dims": 2, "embed": lengths, "fields": ["text"]}) as store:
        store.put(("d",), "short", {"text": "a"})
        store.put(("d",), "long", {"text": "x" * 40})
        store.put(("d",), "long", {"text": "y" * 40})
    with SqliteStore.from_conn_string(path, index={"dims": 2, "embed": lengths}) as store:
        assert [hit.key for hit in store.search(("d",), query="b", limit=1)] == ["short"]
        store.delete(("d",), "long")
        assert store.conn.execute("SELECT count(*) FROM mpflow_vectors").fetchone() == (1,)


def test_kv1_nodes_share_it_with_those_in_processes(path: str) -> None:
    def remember(state: dict[str, Any], *, store) -> dict[str, Any]:
        store.put(("seen",), str(state["x"]), {"pid": os.getpid()})
        return {"x": len(store.search(("seen",)))}

    with SqliteStore.from_conn_string(path) as store:
        for place in ("thread", "process"):
            graph = StateGraph(dict)
            graph.add_node("remember", remember, executor=place)
            graph.add_edge(START, "remember")
            graph.compile(store=store).invoke({"x": place})
        pids = {item.key: item.value["pid"] for item in store.search(("seen",))}
    assert pids["thread"] == os.getpid() != pids["process"]
