"""Databases that earlier versions wrote, kept as files: they are read, gone on with and asked about as the day they were made."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpflow.checkpoint.log import envelope, records
from mpflow.checkpoint.log.driver import STEP, Row
from mpflow.checkpoint.sqlite import SqliteSaver
from mpflow.checkpoint.sqlite.driver import MIGRATIONS
from mpflow.types import Command
from tests.checkpoint.old_formats import (
    FILES,
    ODD,
    ROUNDS,
    TEXT,
    Point,
    asking_graph,
    at,
    failing_graph,
    values_graph,
)


@pytest.fixture(params=FILES, ids=[file.stem for file in FILES])
def saver(request: Any, tmp_path: Path) -> Iterator[SqliteSaver]:
    path = tmp_path / "db"
    shutil.copy(request.param, path)
    with SqliteSaver.from_conn_string(str(path)) as saver:
        yield saver


def expected(n: int) -> dict[str, Any]:
    rounds = range(1, n + 1)
    return {
        "n": n,
        "items": ["start", *(f"item {one}" for one in rounds)],
        "total": sum(rounds),
        "text": "".join(f"{one} " for one in rounds),
        "known": {f"key {one}": one for one in rounds},
        "names": {f"name {one}" for one in rounds},
        "heard": [f"heard {one}" for one in rounds],
        "large": TEXT.replace("line 100 ", f"line {n} "),
        "point": Point(n, n / 2),
        "odd": ODD,
    }


def test_there_is_a_file_of_the_present_schema_and_format() -> None:
    assert f"schema{len(MIGRATIONS)}-format{records.FORMAT}" in {file.stem for file in FILES}


@pytest.mark.parametrize("thread", ["values", "at exit"])
def test_every_kind_of_value_and_of_growth_is_read(saver: SqliteSaver, thread: str) -> None:
    assert values_graph(saver).get_state(at(thread)).values == expected(ROUNDS)


def test_each_step_of_a_history_is_read(saver: SqliteSaver) -> None:
    graph = values_graph(saver)
    history = list(graph.get_state_history(at("values")))
    assert [one.metadata["step"] for one in history] == list(range(ROUNDS, -2, -1))
    for snapshot in history[:-2]:
        n = snapshot.metadata["step"]
        assert snapshot.values == expected(n)
        assert graph.get_state(snapshot.config).values == expected(n)


def test_a_fork_goes_on_from_an_old_step(saver: SqliteSaver) -> None:
    graph = values_graph(saver)
    third = next(one for one in graph.get_state_history(at("values")) if one.metadata["step"] == 3)
    assert graph.invoke(None, third.config) == expected(ROUNDS)
    assert graph.get_state(at("values")).values == expected(ROUNDS)


def test_questions_of_a_graph_within_are_answered(saver: SqliteSaver) -> None:
    graph = asking_graph(saver)
    (task,) = (one for one in graph.get_state(at("asked"), subgraphs=True).tasks if one.interrupts)
    assert task.interrupts[0].value == "second?"
    assert task.state.values == {"answers": ["start", "said"]}
    assert graph.invoke(Command(resume="two"), at("asked"))["answers"] == [
        "start", "beside", "start", "said", "one two",
    ]  # fmt: skip


def test_a_wide_step_is_read(saver: SqliteSaver) -> None:
    assert failing_graph(saver).get_state(at("wide")).values["answers"] == ["start", "first", *map(str, range(40))]


def test_what_finished_beside_a_failure_is_kept(saver: SqliteSaver, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = failing_graph(saver)
    failed = [task for task in graph.get_state(at("failed")).tasks if task.result is None]
    assert len(failed) == 1
    assert "seven" in str(failed[0].error)
    started = []
    monkeypatch.setattr("tests.checkpoint.old_formats.os.environ.get", lambda name: started.append(name))
    assert graph.invoke(None, at("failed"))["answers"] == ["start", "first", *map(str, range(40))]
    assert len(started) == 1


def test_the_present_format_is_kept_with_all_its_operations() -> None:
    """What the file does not have was never seen to be read."""
    path = next(file for file in FILES if file.stem.endswith(f"format{records.FORMAT}"))
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT thread_id, ns, checkpoint_id, kind, base, data FROM mpflow_rows JOIN mpflow_spaces USING (space)"
        ).fetchall()
    finally:
        connection.close()
    steps = [envelope.load_step(thread, Row(*row)) for thread, *row in rows if row[2] == STEP]
    codes = {op[1] for step in steps for op in step.frame.ops}
    codes |= {code for step in steps for apart in step.apart.values() for code, _ in apart.values()}
    assert codes == set(records.OPERATIONS)
    assert any(row[3] != STEP for row in rows)
    assert any(step.numbers for step in steps)
