"""SQLite files with bytes that nobody wrote, or cut short: an error that says so, or what was saved (FAULTS row 35)."""

from __future__ import annotations

import operator
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

from mpflow.checkpoint.sqlite import SqliteSaver
from mpflow.checkpoint.sqlite import driver as sqlite_driver
from mpflow.errors import CheckpointCorruptError, DatabaseDamagedError, StorageError
from mpflow.graph import START, StateGraph

THREADS = ("one", "two")
FLIPS = 300


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    round: int


def goes_round(state: State) -> State:
    return {"log": ["x" * 50], "round": state.get("round", 0) + 1}


def fails(state: State) -> State:
    raise ValueError("no")


def graph_of(saver: SqliteSaver) -> Any:
    """A few steps, then one of which a task finishes and one fails."""
    builder = StateGraph(State).add_node("round", goes_round, executor="inline")
    builder.add_node("fails", fails, executor="inline").add_node(
        "fine", lambda state: {"log": ["fine"]}, executor="inline"
    )
    builder.add_conditional_edges("round", lambda state: "round" if state["round"] < 5 else ["fine", "fails"])
    return builder.add_edge(START, "round").compile(checkpointer=saver)


def at(thread_id: str, checkpoint_id: str | None = None) -> Any:
    named = {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **named}}


def told(saver: SqliteSaver, where: Any) -> Any:
    found = saver.get_tuple(where)
    return None if found is None else (found.checkpoint, found.metadata, found.pending_writes)


def fill(saver: SqliteSaver) -> None:
    graph = graph_of(saver)
    for thread in THREADS:
        with pytest.raises(ValueError, match="no"):
            graph.invoke({"log": []}, at(thread), durability="sync")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    """What this process has checked: names and numbers of files come again here."""
    known: set[Any] = set()
    monkeypatch.setattr(sqlite_driver, "_checked", known)
    return known


def test_row_35_a_flipped_bit_anywhere_in_the_file_is_told_or_harmless(tmp_path: Path, seen: set[Any]) -> None:
    path, damaged = tmp_path / "db", tmp_path / "damaged"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        fill(saver)
        right = [told(saver, at(thread)) for thread in THREADS]
    data = path.read_bytes()
    dice = random.Random(35)
    outcomes: Counter[str] = Counter()
    for number in range(FLIPS):
        flipped = bytearray(data)
        place = dice.randrange(len(data))
        flipped[place] ^= 1 << dice.randrange(8)
        damaged.write_bytes(flipped)
        seen.clear()
        try:
            with SqliteSaver.from_conn_string(str(damaged)) as saver:
                assert [told(saver, at(thread)) for thread in THREADS] == right, (
                    f"a wrong state: flip {number}, byte {place}"
                )
            outcomes["right"] += 1
        except CheckpointCorruptError as error:
            assert error.thread_id in THREADS and error.checkpoint_id
            outcomes["corrupt"] += 1
        except StorageError as error:
            assert str(damaged) in str(error)
            outcomes["damaged"] += 1
        for side in ("-wal", "-shm"):
            Path(f"{damaged}{side}").unlink(missing_ok=True)
    assert min(outcomes[kind] for kind in ("right", "corrupt", "damaged")) > FLIPS // 50, outcomes


def test_row_35_a_damaged_or_shorter_wal_gives_what_was_true_or_an_error(tmp_path: Path, seen: set[Any]) -> None:
    """The newest commits may be gone with it, which nothing else tells of; what is told was saved, and whole."""
    path, damaged = tmp_path / "db", tmp_path / "damaged"
    dice = random.Random(36)
    with SqliteSaver.from_conn_string(str(path)) as saver:
        fill(saver)
        true = {
            (thread, found.checkpoint["id"]): told(saver, at(thread, found.checkpoint["id"]))
            for thread in THREADS
            for found in saver.list(at(thread))
        }
        wal = Path(f"{path}-wal").read_bytes()
        main = path.read_bytes()
    assert len(wal) > 50_000
    whole = 0
    for number in range(120):
        changed = bytearray(wal)
        if number % 2:
            del changed[dice.randrange(len(wal)) :]
        else:
            changed[dice.randrange(len(wal))] ^= 1 << dice.randrange(8)
        damaged.write_bytes(main)
        Path(f"{damaged}-wal").write_bytes(changed)
        seen.clear()
        try:
            with SqliteSaver.from_conn_string(str(damaged)) as saver:
                for thread in THREADS:
                    found = told(saver, at(thread))
                    if found is not None:
                        checkpoint, metadata, writes = found
                        known, labels, pending = true[thread, checkpoint["id"]]
                        assert (checkpoint, metadata) == (known, labels), f"a wrong state: change {number}"
                        assert writes == pending[: len(writes)]
                        whole += 1
        except StorageError:
            continue
        finally:
            for file in tmp_path.glob("damaged*"):
                file.unlink()
    assert whole > 50, "mostly errors"


@pytest.mark.parametrize("base", ["", "zzz"])
def test_row_35_a_step_that_says_it_builds_on_another_is_told(base: str) -> None:
    with SqliteSaver.from_conn_string(":memory:") as saver:
        fill(saver)
        saver.conn.execute("UPDATE mpflow_rows SET base = ? WHERE kind = 0", (base,))
        with pytest.raises(CheckpointCorruptError, match="checksum"):
            told(saver, at("one"))


def test_a_large_file_is_checked_when_asked(tmp_path: Path, seen: set[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "db"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        fill(saver)
        saver.check()
        newest = told(saver, at("one"))[0]["id"]
        saver.conn.execute("PRAGMA writable_schema = ON")
        saver.conn.execute("DELETE FROM sqlite_schema WHERE name = 'mpflow_rows_by_checkpoint'")
    hidden = tmp_path / "hidden"
    shutil.copy(path, hidden)
    monkeypatch.setattr(sqlite_driver, "CHECKED_BYTES", 0)
    with SqliteSaver.from_conn_string(str(hidden)) as saver, pytest.raises(DatabaseDamagedError, match="hidden"):
        assert told(saver, at("one"))[0]["id"] == newest, "its rows are all there"
        saver.check()
