"""The savers in SQLite: their files, their errors, and one process a thread (FAULTS rows 34 to 36, 41, 42)."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import pytest

from mpflow._sqlite import open_private
from mpflow._wire.codec import DecodeError
from mpflow.checkpoint.base import empty_checkpoint
from mpflow.checkpoint.serde.jsonplus import JsonPlusSerializer
from mpflow.checkpoint.sqlite import SqliteSaver
from mpflow.checkpoint.sqlite.aio import AsyncSqliteSaver
from mpflow.checkpoint.sqlite.driver import MIGRATIONS
from mpflow.errors import CheckpointVersionError, DatabaseDamagedError, RunOwnedElsewhere, StorageError
from mpflow.graph import END, START, StateGraph


def at(thread_id: str = "t", ns: str = "") -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns}}


def save(saver: SqliteSaver, where: Any, value: Any, **metadata: Any) -> Any:
    made = empty_checkpoint()
    made["channel_values"], made["channel_versions"] = {"x": value}, {"x": str(value)}
    metadata_: Any = metadata
    return saver.put(where, made, metadata_, {"x": str(value)})


def value_of(saver: SqliteSaver, where: Any) -> Any:
    found = saver.get_tuple(where)
    return None if found is None else found.checkpoint["channel_values"]["x"]


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[SqliteSaver]:
    with SqliteSaver.from_conn_string(str(tmp_path / "db")) as saver:
        yield saver


def test_cp10_what_was_put_is_there_for_the_next_process(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    with SqliteSaver.from_conn_string(path) as saver:
        saver.setup()
        saver.setup()
        where = save(saver, at(), 1)
        saver.put_writes(where, [("x", 2)], "task")
    with SqliteSaver.from_conn_string(path) as saver:
        assert value_of(saver, at()) == 1
        found = saver.get_tuple(at())
        assert found is not None and found.pending_writes == [("task", "x", 2)]


def test_cp10_a_connection_of_the_users_own() -> None:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.row_factory = sqlite3.Row
    saver = SqliteSaver(connection)
    save(saver, at(), 1)
    assert value_of(saver, at()) == 1
    assert saver.conn is connection and saver.is_setup
    connection.close()


def test_a_database_that_was_written_through_a_serializer_says_so_to_a_saver_without_one(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    with SqliteSaver.from_conn_string(path, serde=JsonPlusSerializer()) as with_one:
        save(with_one, at("with"), 1)
    with SqliteSaver.from_conn_string(path) as without:
        with pytest.raises(DecodeError, match="with the same serde="):
            without.get_tuple(at("with"))
        with pytest.raises(DecodeError, match="with the same serde="):
            list(without.list(at("with")))
        save(without, at("without"), 1)
        graph = StateGraph(Text).add_node("n", lambda state: {"text": "1"}).add_edge(START, "n")
        graph.compile(checkpointer=without).invoke({"text": "0"}, at("of a run"))
    with SqliteSaver.from_conn_string(path, serde=JsonPlusSerializer()) as with_one:
        assert value_of(with_one, at("with")) == 1
        for thread in ("without", "of a run"):
            with pytest.raises(DecodeError, match="without serde="):
                with_one.get_tuple(at(thread))


def test_row_34_what_is_lost_when_a_run_is_left_is_said_once(
    saver: SqliteSaver, caplog: pytest.LogCaptureFixture
) -> None:
    graph = StateGraph(Text).add_node("a", lambda state: {"text": "a"}).add_node("b", lambda state: {"text": "b"})
    graph.add_edge(START, "a").add_edge("a", "b").add_edge("b", END)
    made = graph.compile(checkpointer=saver, interrupt_before=["b"])
    made.invoke({"text": ""}, at())
    saver.conn.execute("PRAGMA query_only = ON")
    with caplog.at_level("WARNING", "mpflow"), pytest.raises(StorageError, match="readonly"):
        made.invoke(None, at(), durability="sync")
    assert len([record for record in caplog.records if "was lost" in record.message]) == 1


class Text(TypedDict):
    text: str


def test_a_row_alone_takes_one_statement(saver: SqliteSaver) -> None:
    where = save(saver, at(), 1)
    statements: list[str] = []
    saver.conn.set_trace_callback(statements.append)
    saver.put_writes(where, [("x", 2)], "task")
    saver.conn.set_trace_callback(None)
    assert [statement.split()[0] for statement in statements] == ["INSERT"]


def test_cp10_a_connection_that_begins_transactions_by_itself_commits_each_row(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    connection = sqlite3.connect(path, check_same_thread=False)
    assert connection.isolation_level is not None
    theirs = SqliteSaver(connection)
    save(theirs, at(), 1)
    save(theirs, at(), 2)
    with SqliteSaver.from_conn_string(path) as other:
        assert value_of(other, at()) == 2
    theirs.close()


def test_nothing_joins_a_transaction_that_somebody_else_has_open(tmp_path: Path, saver: SqliteSaver) -> None:
    save(saver, at(), 1)
    saver.conn.execute("BEGIN")
    with pytest.raises(StorageError, match="transaction"):
        save(saver, at(), 2)
    saver.conn.execute("ROLLBACK")
    assert value_of(saver, at()) == 1


def test_cp10_sync_methods_of_the_async_saver_raise_on_its_loop() -> None:
    async def main() -> None:
        async with AsyncSqliteSaver.from_conn_string(":memory:") as saver:
            await saver.setup()
            made = empty_checkpoint()
            made["channel_values"], made["channel_versions"] = {"x": 1}, {"x": "1"}
            where = await saver.aput(at(), made, {}, {"x": "1"})
            with pytest.raises(asyncio.InvalidStateError, match="aget_tuple"):
                saver.get_tuple(where)
            assert await asyncio.to_thread(value_of, saver, where) == 1
            assert [found.checkpoint["id"] async for found in saver.alist(at())] == [made["id"]]

    asyncio.run(main())


def test_row_41_any_text_is_an_id_and_nothing_else(saver: SqliteSaver) -> None:
    odd = ["'; DROP TABLE mpflow_rows; --", 'a"b', "nul\0nul", "../../etc", "line\n", "x" * 4096, "%", "_", ""]
    for number, text in enumerate(odd):
        save(saver, at(text, text), number, key=number)
    for number, text in enumerate(odd):
        assert value_of(saver, at(text, text)) == number
        assert [found.checkpoint["channel_values"]["x"] for found in saver.list(at(text, text))] == [number]
    assert list(saver.list(at(), filter={"'; DROP TABLE mpflow_rows; --": 1})) == []
    saver.delete_thread("%")
    assert [value_of(saver, at(text, text)) for text in odd] == [0, 1, 2, 3, 4, 5, None, 7, 8]
    with pytest.raises(ValueError):
        value_of(saver, at("\ud800"))


def test_row_42_files_are_the_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "db"
    before = os.umask(0)
    try:
        with SqliteSaver.from_conn_string(str(path)) as saver:
            save(saver, at(), 1)
            saver.claim("t")
            modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
            saver.release("t")
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["db", "db-wal", "db-shm", "db-runs"], 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("planted", ["", "-wal", "-shm", "-journal", "-runs"])
def test_row_42_symbolic_links_are_refused(tmp_path: Path, planted: str) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / f"db{planted}").symlink_to(target)
    with pytest.raises(StorageError, match="symbolic link"), SqliteSaver.from_conn_string(str(tmp_path / "db")):
        pass
    assert target.read_text() == "precious"


def test_a_second_connection_of_a_process_frees_no_lock_of_the_first(tmp_path: Path, saver: SqliteSaver) -> None:
    path = str(tmp_path / "db")
    save(saver, at(), 1)
    with SqliteSaver.from_conn_string(path) as second:
        assert value_of(second, at()) == 1
        # The last who closes a database deletes its log: another process must see that it is not the last.
        ask = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM mpflow_rows').fetchone())"
        for count in (1, 2):
            told = subprocess.run([sys.executable, "-Ic", ask, path], capture_output=True, text=True, check=True).stdout
            assert told == f"({count},)\n"
            save(saver, at(), 2)
    assert value_of(saver, at()) == 2


def test_row_35_a_later_schema_is_refused(tmp_path: Path, saver: SqliteSaver) -> None:
    saver.setup()
    saver.conn.execute("UPDATE mpflow_schema SET version = 99")
    with SqliteSaver.from_conn_string(str(tmp_path / "db")) as other:
        with pytest.raises(CheckpointVersionError, match=f"99.*{len(MIGRATIONS)}"):
            value_of(other, at())


def test_row_35_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    for content in (b"\0" * 8192, b"not a database, but long enough to be read as one " * 100):
        path.write_bytes(content)
        with SqliteSaver.from_conn_string(str(path)) as saver, pytest.raises(StorageError, match=str(path)):
            value_of(saver, at())


def test_a_path_that_leads_to_something_else_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("name,age\n" * 500)
    with SqliteSaver.from_conn_string(str(path)) as saver, pytest.raises(StorageError) as caught:
        value_of(saver, at())
    assert "no SQLite database: it begins with b'name,age" in str(caught.value)
    assert not isinstance(caught.value, DatabaseDamagedError)
    with pytest.raises(StorageError) as caught:
        open_private(str(tmp_path))
    assert "can be resumed" not in str(caught.value)


def test_a_saver_used_after_its_block_says_so(tmp_path: Path) -> None:
    with SqliteSaver.from_conn_string(str(tmp_path / "db")) as saver:
        save(saver, at(), 1)
    with pytest.raises(StorageError, match="connection is closed; use the saver before"):
        value_of(saver, at())


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_row_34_a_connection_that_is_closed_under_a_run_is_told_as_such(saver: SqliteSaver, durability: Any) -> None:
    def close(state: Any) -> Any:
        saver.conn.close()
        return {}

    builder: Any = StateGraph(dict).add_node(close).add_edge(START, "close")
    with pytest.raises(StorageError, match="connection is closed"):
        builder.compile(checkpointer=saver).invoke({}, at(), durability=durability)


def test_row_34_a_full_disk_is_named_and_the_last_commit_stays(tmp_path: Path, saver: SqliteSaver) -> None:
    where = save(saver, at(), "small")
    pages = saver.conn.execute("PRAGMA page_count").fetchone()[0]
    saver.conn.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match=r"db.*full.*the last commit is whole"):
        save(saver, where, "x" * 100_000)
    saver.conn.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert value_of(saver, at()) == "small"
    save(saver, where, "y" * 100_000)
    assert value_of(saver, at()) == "y" * 100_000


def test_row_34_a_locked_database_is_named(tmp_path: Path, saver: SqliteSaver) -> None:
    where = save(saver, at(), 1)
    saver.conn.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(tmp_path / "db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match=r"db.*locked"):
        save(saver, where, 2)
    other.execute("ROLLBACK")
    other.close()
    save(saver, where, 3)
    assert value_of(saver, at()) == 3


HOLDER = """
import sys
from mpflow.checkpoint.sqlite import SqliteSaver
with SqliteSaver.from_conn_string(sys.argv[1]) as saver:
    saver.claim("t")
    print("claimed", flush=True)
    sys.stdin.read()
"""


def test_row_36_one_process_runs_a_thread_and_its_death_frees_it(tmp_path: Path, saver: SqliteSaver) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "claimed\n"
        with pytest.raises(RunOwnedElsewhere) as caught:
            saver.claim("t")
        assert caught.value.thread_id == "t"
        if sys.platform == "linux":
            assert str(holder.pid) in caught.value.owner
        with pytest.raises(RunOwnedElsewhere):
            saver.delete_thread("t")
        saver.claim("another")
        saver.release("another")
        holder.kill()
        holder.wait()
        saver.claim("t")
        saver.release("t")


def test_row_36_within_a_process_a_thread_is_shared_by_savers(tmp_path: Path, saver: SqliteSaver) -> None:
    program = HOLDER.replace("sys.stdin.read()", "")
    command = [sys.executable, "-c", program, str(tmp_path / "db")]
    with SqliteSaver.from_conn_string(str(tmp_path / "db")) as other:
        saver.claim("t")
        other.claim("t")
        saver.release("t")
        saver.release("unknown")
        assert b"RunOwnedElsewhere" in subprocess.run(command, capture_output=True).stderr
        other.release("t")
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_deleted_space_is_given_back(tmp_path: Path, saver: SqliteSaver) -> None:
    save(saver, at(), "x" * 1_000_000)
    save(saver, at("kept"), 1)
    saver.delete_thread("t")
    saver.vacuum()
    assert sum(one.stat().st_size for one in tmp_path.iterdir()) < 200_000
    assert value_of(saver, at("kept")) == 1


def test_a_saver_that_nobody_closed_holds_up_no_exit_and_what_it_was_given_is_there(tmp_path: Path) -> None:
    program = """
import sys, threading, time
from contextlib import ExitStack
from mpflow.checkpoint.log.driver import Row
from mpflow.checkpoint.sqlite import SqliteSaver

kept = ExitStack()  # closed by nobody, collected when the interpreter ends
saver = kept.enter_context(SqliteSaver.from_conn_string(sys.argv[1]))
saver.setup()
begun, commit = threading.Event(), saver.writer._commit

def slow(batches):
    begun.set()
    time.sleep(0.2)
    commit(batches)

saver.writer._commit = slow
saver.post("t", [Row("", "1", 0, "1", b"x")])
begun.wait()
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "db")], check=True, timeout=60)
    with sqlite3.connect(tmp_path / "db") as connection:
        assert connection.execute("SELECT count(*) FROM mpflow_rows").fetchone() == (1,)
    connection.close()
