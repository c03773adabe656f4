"""The saver in Postgres when things go wrong: lost connections and servers, owners, versions, strange set-ups."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpflow.errors import CheckpointVersionError, RunOwnedElsewhere, StorageError
from mpflow.testing.colours import SyncColour
from mpflow.testing.probe import Probe, Thread, address
from tests.checkpoint.server import Server, server

psycopg = pytest.importorskip("psycopg")
psycopg_pool = pytest.importorskip("psycopg_pool")

from mpflow.checkpoint.postgres import PostgresSaver, session, statements  # noqa: E402 - psycopg first
from mpflow.checkpoint.postgres.aio import AsyncPostgresSaver  # noqa: E402

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module", autouse=True)
def _server(_module_leaves_nothing: None) -> Server:
    return server()


@pytest.fixture
def conninfo(tmp_path: Path) -> str:
    return server().conninfo(tmp_path)


@pytest.fixture
def saver(conninfo: str) -> Iterator[PostgresSaver]:
    with PostgresSaver.from_conn_string(conninfo) as saver:
        yield saver


def thread_of(saver: PostgresSaver, steps: int = 1) -> Thread:
    thread = Thread(Probe(saver, SyncColour()))
    for number in range(steps):
        thread.step({"a": number})
    return thread


def kill_connection(saver: Any, conninfo: str) -> None:
    pid = saver.driver.session.hands.connection.info.backend_pid
    with psycopg.connect(conninfo, autocommit=True) as other:
        assert other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,)).fetchone() == (True,)


def count_rows(conninfo: str) -> int:
    with psycopg.connect(conninfo, autocommit=True) as other:
        return other.execute("SELECT count(*) FROM mpflow_rows").fetchone()[0]


# -- lost connections -------------------------------------------------------------------------------------------------


def test_row37_a_connection_that_was_ended_is_opened_again(saver: PostgresSaver, conninfo: str) -> None:
    thread = thread_of(saver)
    for number in range(1, 4):
        kill_connection(saver, conninfo)
        thread.step({"a": number})
    assert [found.checkpoint["channel_values"] for found in saver.list(address("thread"))] == [
        {"a": n} for n in (3, 2, 1, 0)
    ]


def test_row37_an_insertion_whose_answer_was_lost_is_there_once(saver: PostgresSaver, conninfo: str) -> None:
    thread = thread_of(saver, 3)
    hands = saver.driver.session.hands
    execute, lost = hands.execute, []

    def execute_and_lose(statement: str, parameters: Any = None) -> Any:
        found = execute(statement, parameters)
        if "INSERT INTO mpflow_rows" in statement and not lost:
            lost.append(statement)
            hands.connection.close()
            raise psycopg.OperationalError("the answer is lost")
        return found

    before = count_rows(conninfo)
    hands.execute = execute_and_lose
    saver.put_writes(thread.where, [("a", 1), ("b", 2)], "task")
    assert lost
    assert count_rows(conninfo) == before + 1
    lost.clear()
    thread.step({"a": 9})
    assert (len(lost), count_rows(conninfo)) == (1, before + 2)
    lost.clear()
    saver.prune(["thread"])
    assert lost
    assert thread.saved() == {"a": 9}
    assert [found.metadata["step"] for found in saver.list(address("thread"))] == [3]


def test_row37_a_server_that_is_stopped_at_once_and_started_loses_nothing(saver: PostgresSaver) -> None:
    from mpflow.constants import START
    from mpflow.graph.state import StateGraph

    reached, restarted = threading.Event(), threading.Event()

    def node(state: dict[str, Any]) -> dict[str, Any]:
        if state["count"] == 5:
            reached.set()
        return {"count": state["count"] + 1}

    def restart() -> None:
        reached.wait(30)
        server().stop("immediate")
        server().start()
        restarted.set()

    restarter = threading.Thread(target=restart)
    restarter.start()
    builder = StateGraph(dict).add_node("node", node).add_edge(START, "node")
    builder.add_conditional_edges(
        "node",
        lambda state: "node" if state["count"] < 400 or not restarted.is_set() else "__end__",
        ["node", "__end__"],
    )
    graph = builder.compile(checkpointer=saver)
    config: Any = {**address("t"), "recursion_limit": 100_000}
    result = graph.invoke({"count": 0}, config, durability="sync")
    restarter.join()
    counts = [state.values["count"] for state in graph.get_state_history(address("t")) if state.values]
    assert counts == [*range(result["count"], -1, -1)]


def test_row37_a_server_that_stays_away_is_named(conninfo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "RETRY_S", 0.2)
    with PostgresSaver.from_conn_string(conninfo) as saver:
        thread = thread_of(saver)
        server().stop()
        try:
            with pytest.raises(
                StorageError, match=r"Postgres database 'postgres' at /tmp/postgres-\w+:5432: OperationalError"
            ):
                thread.step({"a": 1})
        finally:
            server().start()
        again = Thread(Probe(saver, SyncColour()), "other")
        again.step({"a": 2})
        assert again.saved() == {"a": 2}


def test_a_connection_that_was_given_is_not_replaced(conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        saver = PostgresSaver(connection)
        thread = thread_of(saver)
        kill_connection(saver, conninfo)
        with pytest.raises(StorageError, match=r"AdminShutdown|OperationalError"):
            thread.step({"a": 1})
        saver.close()


def test_what_the_server_refuses_is_told_without_another_try(saver: PostgresSaver, conninfo: str) -> None:
    thread = thread_of(saver)
    with psycopg.connect(conninfo, autocommit=True) as other:
        other.execute("ALTER TABLE mpflow_rows ADD CHECK (length(data) < 5000)")
    with pytest.raises(StorageError, match="CheckViolation"):
        thread.step({"a": "x" * 10_000})
    other = Thread(Probe(saver, SyncColour()), "other")
    other.step({"a": 1})
    assert other.saved() == {"a": 1}


# -- owners -----------------------------------------------------------------------------------------------------------

_CLAIMS = """
import sys, time
from mpflow.checkpoint.postgres import PostgresSaver
with PostgresSaver.from_conn_string(sys.argv[1]) as saver:
    saver.claim("thread")
    print("claimed", flush=True)
    sys.stdin.read()
"""


def test_row36_a_thread_has_one_process_and_is_free_when_that_is_killed(saver: PostgresSaver, conninfo: str) -> None:
    command = [sys.executable, "-c", _CLAIMS, conninfo]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        with pytest.raises(RunOwnedElsewhere, match=f"mpflow pid {other.pid} on .*, server process"):
            saver.claim("thread")
        saver.claim("another")
        saver.release("another")
        other.kill()
    deadline = time.monotonic() + 10
    while True:  # until the server has seen the end of its client
        try:
            saver.claim("thread")
            break
        except RunOwnedElsewhere:
            assert time.monotonic() < deadline
    saver.release("thread")


def is_free(conninfo: str, thread_id: str) -> bool:
    """Whether another process could run the thread."""
    with psycopg.connect(conninfo, autocommit=True) as other:
        schema = other.execute("SELECT current_schema()").fetchone()[0]
        return bool(
            other.execute("SELECT pg_try_advisory_lock(%s)", (statements.lock_of(schema, thread_id),)).fetchone()[0]
        )


def test_row36_within_one_process_a_thread_is_shared(saver: PostgresSaver, conninfo: str) -> None:
    with PostgresSaver.from_conn_string(conninfo) as second:
        saver.claim("t")
        saver.claim("t")
        second.claim("t")
        for release in (saver.release, saver.release, second.release):
            assert not is_free(conninfo, "t")
            release("t")
        saver.get_tuple(address("t"))
        assert is_free(conninfo, "t")
        second.release("t")  # one too many changes nothing


def test_row36_a_lock_that_was_lost_with_its_connection_is_taken_again(saver: PostgresSaver, conninfo: str) -> None:
    thread = thread_of(saver)
    saver.claim("thread")
    saver.claim("other")
    kill_connection(saver, conninfo)
    thread.step({"a": 1})
    assert not is_free(conninfo, "thread")
    assert not is_free(conninfo, "other")
    saver.release("thread")
    assert is_free(conninfo, "thread")


def test_row36_what_took_the_lock_over_meanwhile_keeps_it(
    saver: PostgresSaver, conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "RETRY_S", 0.2)
    thread = thread_of(saver)
    saver.claim("thread")
    with psycopg.connect(conninfo, autocommit=True) as thief:
        kill_connection(saver, conninfo)
        schema = thief.execute("SELECT current_schema()").fetchone()[0]
        thief.execute("SELECT pg_advisory_lock(%s)", (statements.lock_of(schema, "thread"),))
        with pytest.raises(RunOwnedElsewhere, match="taken over while the connection was lost"):
            thread.step({"a": 1})
    assert [found.checkpoint["channel_values"] for found in saver.list(None)] == [{"a": 0}]


def test_closing_frees_what_was_claimed(conninfo: str) -> None:
    with PostgresSaver.from_conn_string(conninfo) as saver:
        saver.claim("t")
    assert is_free(conninfo, "t")


# -- set-up -----------------------------------------------------------------------------------------------------------


def test_many_that_set_up_at_once_make_one_schema(conninfo: str) -> None:
    errors: list[BaseException] = []
    ready = threading.Barrier(6)

    def set_up() -> None:
        try:
            ready.wait()
            with PostgresSaver.from_conn_string(conninfo) as saver:
                saver.setup()
                saver.setup()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=set_up) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert errors == []
    with psycopg.connect(conninfo, autocommit=True) as other:
        assert other.execute("SELECT version FROM mpflow_schema").fetchall() == [(len(statements.MIGRATIONS),)]


def test_migrations_go_on_from_the_version_that_is_there(conninfo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with PostgresSaver.from_conn_string(conninfo) as saver:
        thread_of(saver, 2)
    more = (
        *statements.MIGRATIONS,
        "ALTER TABLE mpflow_spaces ADD COLUMN note text; COMMENT ON COLUMN mpflow_spaces.note IS 'x'",
    )
    monkeypatch.setattr(statements, "MIGRATIONS", more)
    with PostgresSaver.from_conn_string(conninfo) as saver:
        found = saver.get_tuple(address("thread"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": 1}
    monkeypatch.undo()
    with PostgresSaver.from_conn_string(conninfo) as saver, pytest.raises(CheckpointVersionError, match="2"):
        saver.get_tuple(address("thread"))


def test_a_migration_that_fails_leaves_nothing(conninfo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        statements, "MIGRATIONS", (*statements.MIGRATIONS, "CREATE TABLE half (a int); SELECT nonsense")
    )
    with PostgresSaver.from_conn_string(conninfo) as saver, pytest.raises(StorageError, match="nonsense"):
        saver.setup()
    monkeypatch.undo()
    with PostgresSaver.from_conn_string(conninfo) as saver:
        assert thread_of(saver).saved() == {"a": 0}


def test_who_may_not_make_tables_may_use_those_that_are_there(conninfo: str) -> None:
    with PostgresSaver.from_conn_string(conninfo) as saver:
        saver.setup()
    with psycopg.connect(conninfo, autocommit=True) as other:
        schema = other.execute("SELECT current_schema()").fetchone()[0]
        other.execute("DO $$ BEGIN CREATE ROLE plain LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        other.execute(f"GRANT USAGE ON SCHEMA {schema} TO plain")
        other.execute(f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {schema} TO plain")
    with PostgresSaver.from_conn_string(conninfo.replace("user=tests", "user=plain")) as saver:
        thread = thread_of(saver, 2)
        saver.prune(["thread"])
        assert thread.saved() == {"a": 1}


def test_a_pools_connection_is_held_while_a_thread_is_claimed_and_no_longer(conninfo: str) -> None:
    with psycopg_pool.ConnectionPool(conninfo, min_size=1, max_size=1) as pool:
        saver = PostgresSaver(pool)
        thread = thread_of(saver)
        with pool.connection(timeout=5) as connection:
            assert not connection.autocommit
        saver.claim("thread")
        assert pool.get_stats()["pool_available"] == 0
        thread.step({"a": 1})
        saver.release("thread")
        assert pool.get_stats()["pool_available"] == 1
        assert thread.saved() == {"a": 1}


def test_a_connection_in_a_pipeline(conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection, connection.pipeline() as pipe:
        saver = PostgresSaver(connection, pipe)
        thread = thread_of(saver, 3)
        assert thread.saved() == {"a": 2}
        with psycopg.connect(conninfo, autocommit=True) as other:
            assert other.execute("SELECT count(*) FROM mpflow_rows").fetchone() == (3,)
        saver.close()


def test_only_connections_that_can_serve_are_taken(conninfo: str) -> None:
    with psycopg.connect(conninfo) as connection, pytest.raises(ValueError, match="autocommit=True"):
        PostgresSaver(connection)
    with pytest.raises(TypeError, match="expected a psycopg Connection or ConnectionPool, got int"):
        PostgresSaver(5)

    async def make() -> None:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            with pytest.raises(TypeError, match="expected a psycopg AsyncConnection or AsyncConnectionPool"):
                AsyncPostgresSaver(connection)

    asyncio.run(make())


def test_cp10_a_sync_method_on_the_loop_of_an_async_saver_says_what_to_await(conninfo: str) -> None:
    async def use() -> Any:
        async with AsyncPostgresSaver.from_conn_string(conninfo) as saver:
            with pytest.raises(asyncio.InvalidStateError, match="aget_tuple"):
                saver.get_tuple(address("t"))
            return await asyncio.to_thread(saver.get_tuple, address("t"))

    assert asyncio.run(use()) is None


def test_vacuum_deletes_rows_that_belong_to_no_thread(saver: PostgresSaver, conninfo: str) -> None:
    thread_of(saver, 3)
    with psycopg.connect(conninfo, autocommit=True) as other:
        other.execute("DELETE FROM mpflow_spaces")
    saver.vacuum()
    assert count_rows(conninfo) == 0


def test_without_psycopg_the_line_that_installs_it_is_named() -> None:
    program = "import sys; sys.modules['psycopg'] = None\ntry: import mpflow.checkpoint.postgres\nexcept ImportError as error: print(error)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert 'pip install "mpflow-engine[postgres]"' in told
