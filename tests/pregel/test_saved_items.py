"""Whole runs in workers of a graph that is saved: ``batch(parallel="items")`` with a saver whose rows workers make."""

from __future__ import annotations

import operator
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from mpflow import WorkerPool
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.checkpoint.serde.encrypted import EncryptedSerializer
from mpflow.checkpoint.serde.jsonplus import JsonPlusSerializer
from mpflow.checkpoint.sqlite import SqliteSaver
from mpflow.errors import CheckpointCorruptError, DatabaseDamagedError, RunOwnedElsewhere, StorageError
from mpflow.graph import END, START, StateGraph
from mpflow.pregel.items import Items
from mpflow.types import Command, interrupt
from tests.colours import Run

pytestmark = pytest.mark.warm_pool


class State(TypedDict, total=False):
    x: int
    log: Annotated[list[Any], operator.add]
    text: str


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "items.db"


@pytest.fixture
def saver(path: Path) -> Iterator[SqliteSaver]:
    with SqliteSaver.from_conn_string(str(path)) as saver:
        yield saver


KINDS: Any = {
    "data": lambda path: SqliteSaver.from_conn_string(path),
    "serde": lambda path: SqliteSaver.from_conn_string(path, serde=JsonPlusSerializer()),
    "encrypted": lambda path: SqliteSaver.from_conn_string(
        path, serde=EncryptedSerializer.from_cryptography_aes(key=b"k" * 32)
    ),
    "memory": lambda path: InMemorySaver(),
}


@pytest.fixture(params=list(KINDS))
def any_saver(request: Any, path: Path) -> Iterator[Any]:
    """Those whose rows workers can make."""
    with KINDS[request.param](str(path)) as saver:
        assert saver.has_far_log
        yield saver


def graph_of(*functions: Any, pool: WorkerPool, **options: Any) -> Any:
    builder = StateGraph(State)
    builder.add_sequence([(f"step{index}", function) for index, function in enumerate(functions)])
    builder.add_edge(START, "step0")
    builder.add_edge(f"step{len(functions) - 1}", END)
    return builder.compile(pool=pool, **options)


def add_one(state: State) -> State:
    return {"x": state["x"] + 1, "log": ["one"]}


def double(state: State) -> State:
    return {"x": state["x"] * 2, "log": ["two"]}


def told(snapshot: Any) -> Any:
    """What says the same whoever made the checkpoint."""
    tasks = [(task.name, task.error, task.interrupts, task.result) for task in snapshot.tasks]
    metadata = {key: value for key, value in snapshot.metadata.items() if key != "thread_id"}
    return snapshot.values, snapshot.next, tasks, metadata


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_what_is_kept_is_what_runs_that_are_driven_here_keep(
    run: Run, pool: WorkerPool, saver: SqliteSaver, durability: str
) -> None:
    graph = graph_of(add_one, double, pool=pool, checkpointer=saver)
    inputs = [{"x": n, "log": []} for n in range(20)]
    within = run.batch(graph, inputs, thread_id_prefix="within/", parallel="items", durability=durability)
    here = run.batch(graph, inputs, thread_id_prefix="here/", parallel="nodes", durability=durability)
    assert within == here == [{"x": (n + 1) * 2, "log": ["one", "two"]} for n in range(20)]
    for n in (0, 7, 19):
        kept = [run.history(graph, {"configurable": {"thread_id": f"{where}/{n}"}}) for where in ("within", "here")]
        assert [told(snapshot) for snapshot in kept[0]] == [told(snapshot) for snapshot in kept[1]]


def test_each_item_may_name_its_thread(run: Run, pool: WorkerPool, saver: SqliteSaver) -> None:
    graph = graph_of(add_one, pool=pool, checkpointer=saver)
    configs = [{"configurable": {"thread_id": f"item {n}"}} for n in range(150)]
    before = pool.stats()["deaths"]
    run.batch(graph, [{"x": n, "log": []} for n in range(150)], configs, parallel="items")
    outputs = run.batch(graph, [{"x": n} for n in range(150)], configs, parallel="items")
    assert outputs == [{"x": n + 1, "log": ["one", "one"]} for n in range(150)]
    assert pool.stats()["deaths"] == before


def test_a_batch_that_was_cut_short_goes_on(run: Run, pool: WorkerPool, saver: SqliteSaver, tmp_path: Path) -> None:
    def first(state: State) -> State:
        (tmp_path / f"first {state['x']} {os.urandom(4).hex()}").touch()
        return {"log": ["first"]}

    def second(state: State) -> State:
        (tmp_path / f"second {state['x']} {os.urandom(4).hex()}").touch()
        if state["x"] == 2 and not (tmp_path / "mended").exists():
            raise ValueError("not yet")
        return {"log": ["second"]}

    def ran() -> list[str]:
        names = sorted(path.name.rsplit(" ", 1)[0] for path in tmp_path.glob("* * *"))
        for path in tmp_path.glob("* * *"):
            path.unlink()
        return names

    graph = graph_of(first, second, pool=pool, checkpointer=saver)
    inputs = [{"x": n, "log": []} for n in range(4)]
    ways: Any = {"thread_id_prefix": "job/", "parallel": "items"}
    found = run.batch(graph, inputs, return_exceptions=True, **ways)
    assert isinstance(found[2], ValueError)
    assert found[3] == {"x": 3, "log": ["first", "second"]}
    (tmp_path / "mended").touch()
    ran()
    expected = [{"x": n, "log": ["first", "second"]} for n in range(5)]
    assert run.batch(graph, [*inputs, {"x": 4, "log": []}], **ways) == expected
    assert ran() == ["first 4", "second 2", "second 4"]
    assert dict(run.listed(graph, "batch_as_completed", inputs, **ways)) == dict(enumerate(expected[:4]))
    assert ran() == []


def test_what_has_finished_is_told_from_its_thread_and_all_else_runs(
    run: Run, pool: WorkerPool, any_saver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_of(add_one, double, pool=pool, checkpointer=any_saver)
    inputs = [{"x": n, "log": []} for n in range(40)]
    ways: Any = {"thread_id_prefix": "job/", "parallel": "items"}
    run.batch(graph, inputs[:30], **ways)
    for n, node in ((5, "step0"), (6, "step1")):
        run.update_state(graph, {"configurable": {"thread_id": f"job/{n}"}}, {"x": 100, "log": ["set"]}, node)
    claimed: list[str] = []
    claim = any_saver.driver.claim
    monkeypatch.setattr(any_saver.driver, "claim", lambda thread_id: claimed.append(thread_id) or claim(thread_id))
    outputs = run.batch(graph, inputs, **ways)
    assert claimed == ["job/5", *(f"job/{n}" for n in range(30, 40))]
    assert outputs[5:7] == [
        {"x": 200, "log": ["one", "two", "set", "two"]},
        {"x": 100, "log": ["one", "two", "set"]},
    ]
    assert outputs[7:] == [{"x": (n + 1) * 2, "log": ["one", "two"]} for n in range(7, 40)]
    assert outputs[:5] == run.batch(graph, inputs[:5], thread_id_prefix="job/", parallel="nodes")
    outputs[0]["log"].clear()
    assert run.batch(graph, inputs[:1], **ways) == [{"x": 2, "log": ["one", "two"]}]


@pytest.mark.parametrize(
    ("damaged", "error"),
    [("data || x'ff'", DatabaseDamagedError), ("CAST(data || x'ff' AS BLOB)", CheckpointCorruptError)],
)
def test_items_that_have_not_finished_keep_within_the_limit_and_the_error_of_a_broken_thread_is_its_own(
    run: Run, pool: WorkerPool, saver: SqliteSaver, monkeypatch: pytest.MonkeyPatch, damaged: str, error: Any
) -> None:
    graph = graph_of(add_one, pool=pool, checkpointer=saver)
    inputs = [{"x": n, "log": []} for n in range(24)]
    ways: Any = {"thread_id_prefix": "job/", "parallel": "items"}
    run.batch(graph, inputs[:12], **ways)
    saver.conn.execute(f"UPDATE mpflow_rows SET data = {damaged} WHERE space = 3 AND kind = 0")
    counts: list[int] = []
    take_in = Items._take_in
    monkeypatch.setattr(
        Items, "_take_in", lambda self, items: take_in(self, items) or counts.append(len(self._running))
    )
    outputs = run.batch(graph, inputs, {"max_concurrency": 1}, return_exceptions=True, **ways)
    (broken,) = [output for output in outputs if not isinstance(output, dict)]
    assert isinstance(broken, error)
    assert [output["x"] for output in outputs if output is not broken] == [
        n + 1 for n in range(24) if n != outputs.index(broken)
    ]
    assert max(counts) == 1


class Listed(JsonPlusSerializer):
    """Somebody's own: nobody knows what it would do elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        self.kept.append(obj)
        return super().dumps_typed(obj)


def test_with_any_other_saver_it_goes_on_as_well(run: Run, pool: WorkerPool) -> None:
    serde = Listed()
    with SqliteSaver.from_conn_string(":memory:", serde=serde) as saver:
        assert not saver.has_far_log
        graph = graph_of(add_one, pool=pool, checkpointer=saver)
        ways: Any = {"thread_id_prefix": "job/", "parallel": "items"}
        inputs = [{"x": n, "log": []} for n in range(3)]
        expected = [{"x": n + 1, "log": ["one"]} for n in range(3)]
        assert run.batch(graph, inputs, **ways) == run.batch(graph, inputs, **ways) == expected
    assert serde.kept


class Odd:
    """Of no kind that is data."""

    def __init__(self, x: int) -> None:
        self.x = x


def make_odd(state: State) -> Any:
    return {"text": Odd(state["x"]), "log": [Odd(state["x"])]}


def test_a_saver_in_memory_keeps_any_value_that_a_worker_makes(run: Run, pool: WorkerPool) -> None:
    graph = graph_of(add_one, make_odd, pool=pool, checkpointer=InMemorySaver())
    run.batch(graph, [{"x": n, "log": []} for n in range(3)], thread_id_prefix="job/", parallel="items")
    found = [run.get_state(graph, {"configurable": {"thread_id": f"job/{n}"}}).values for n in range(3)]
    assert [(values["x"], values["text"].x, values["log"][1].x) for values in found] == [
        (1, 1, 1),
        (2, 2, 2),
        (3, 3, 3),
    ]
    found[0]["log"].clear()
    assert len(run.get_state(graph, {"configurable": {"thread_id": "job/0"}}).values["log"]) == 2


def test_a_thread_goes_on_in_workers_and_here_in_turns(run: Run, pool: WorkerPool, any_saver: Any) -> None:
    graph = graph_of(add_one, double, pool=pool, checkpointer=any_saver)
    configs: Any = [{"configurable": {"thread_id": f"item {n}"}} for n in range(2)]
    outputs = []
    for x, parallel in enumerate(("items", "nodes", "items")):
        outputs += run.batch(
            graph, [{"x": x, "log": [f"{parallel} {n}"]} for n in range(2)], configs, parallel=parallel
        )
    log = [word for parallel in ("items 1", "nodes 1", "items 1") for word in (parallel, "one", "two")]
    assert outputs[-1] == {"x": 6, "log": log}
    history = run.history(graph, configs[1])
    assert [snapshot.values.get("x") for snapshot in history] == [6, 3, 2, 4, 4, 2, 1, 2, 2, 1, 0, None]
    assert history[5].tasks[0].result == {"x": 4, "log": ["two"]}


@pytest.mark.parametrize("any_saver", ["data", "memory"], indirect=True)
def test_a_run_whose_worker_died_goes_on_from_what_it_had_saved(
    run: Run, pool: WorkerPool, any_saver: Any, tmp_path: Path
) -> None:
    def heavy(state: State) -> State:
        (tmp_path / f"heavy {os.urandom(4).hex()}").touch()
        return {"text": "x" * (2 << 20)}  # more than is kept back for the end

    def deadly(state: State) -> State:
        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), 9)
        return {"log": [len(state["text"])]}

    graph = graph_of(heavy, deadly, pool=pool, checkpointer=any_saver)
    (output,) = run.batch(graph, [{"x": 1, "log": []}], thread_id_prefix="job/", parallel="items")
    assert output["log"] == [2 << 20]
    assert len(list(tmp_path.glob("heavy *"))) == 1


def test_a_result_is_durable_before_it_is_told(pool: WorkerPool, saver: SqliteSaver, path: Path) -> None:
    graph = graph_of(add_one, double, pool=pool, checkpointer=saver)
    inputs = [{"x": n, "log": []} for n in range(200)]
    for index, output in graph.batch_as_completed(inputs, thread_id_prefix="job/", parallel="items"):
        if index % 50 == 0:
            with SqliteSaver.from_conn_string(str(path)) as other:
                saved = other.get_tuple({"configurable": {"thread_id": f"job/{index}"}})
            assert saved is not None and saved.checkpoint["channel_values"]["x"] == output["x"]


def test_a_thread_that_another_process_has_fails_its_item_alone(
    run: Run, pool: WorkerPool, saver: SqliteSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = saver.driver.claim

    def refuse(thread_id: str) -> None:
        if thread_id == "job/3":
            raise RunOwnedElsewhere(thread_id, "pid 1")
        claim(thread_id)

    monkeypatch.setattr(saver.driver, "claim", refuse)
    graph = graph_of(add_one, pool=pool, checkpointer=saver)
    inputs = [{"x": n, "log": []} for n in range(5)]
    outputs = run.batch(graph, inputs, thread_id_prefix="job/", parallel="items", return_exceptions=True)
    assert isinstance(outputs.pop(3), RunOwnedElsewhere)
    assert [output["x"] for output in outputs] == [1, 2, 3, 5]


def write_much(state: State) -> State:
    return {"text": "x" * (2 << 20)}  # is sent before the run has ended, which then has nothing left to send


@pytest.mark.parametrize("function", [add_one, write_much])
def test_what_could_not_be_saved_is_not_told_as_done(
    run: Run, pool: WorkerPool, saver: SqliteSaver, monkeypatch: pytest.MonkeyPatch, function: Any
) -> None:
    graph = graph_of(function, pool=pool, checkpointer=saver)
    inputs = [{"x": n, "log": []} for n in range(5)]
    ways: Any = {"thread_id_prefix": "job/", "parallel": "items"}
    run.batch(graph, inputs[:1], thread_id_prefix="before/", parallel="items")

    def full(batches: Any) -> None:
        raise StorageError("the disk", "full")

    with monkeypatch.context() as patched:
        patched.setattr(saver.writer, "_commit", full)
        outputs = run.batch(graph, inputs, return_exceptions=True, **ways)
        assert [type(output) for output in outputs] == [StorageError] * 5
        with pytest.raises(StorageError, match="full"):
            run.batch(graph, inputs, **ways)
    outputs = run.batch(graph, inputs, **ways)
    assert [type(output) for output in outputs] == [dict] * 5


def test_questions_wait_in_the_saver(run: Run, pool: WorkerPool, any_saver: Any) -> None:
    graph = graph_of(lambda state: {"log": [interrupt(state["x"])]}, pool=pool, checkpointer=any_saver)
    ways: Any = {"thread_id_prefix": "q/", "parallel": "items"}
    inputs = [{"x": n, "log": []} for n in range(3)]
    for _ in range(2):
        assert [found["__interrupt__"][0].value for found in run.batch(graph, inputs, **ways)] == [0, 1, 2]
    run.invoke(graph, Command(resume="!"), {"configurable": {"thread_id": "q/1"}})
    found = run.batch(graph, inputs, **ways)
    assert found[1] == {"x": 1, "log": ["!"]}
    assert "__interrupt__" in found[0]


def test_graphs_within_keep_their_own_state(run: Run, pool: WorkerPool, any_saver: Any) -> None:
    inner = graph_of(lambda state: {"log": [f"inner {len(state['log'])}"]}, pool=pool, checkpointer=True)
    graph = graph_of(lambda state: {"log": inner.invoke({"log": ["a"]})["log"]}, pool=pool, checkpointer=any_saver)
    configs = [{"configurable": {"thread_id": f"item {n}"}} for n in range(3)]
    inputs = [{"x": n, "log": []} for n in range(3)]
    first = ["a", "inner 1"]
    assert [output["log"] for output in run.batch(graph, inputs, configs, parallel="items")] == [first] * 3
    expected = [*first, "a", "inner 1", "a", "inner 3"]
    assert [output["log"] for output in run.batch(graph, inputs, configs, parallel="items")] == [expected] * 3


def test_safe_and_busy_runs_go_to_workers_by_themselves(
    run: Run, pool: WorkerPool, saver: SqliteSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpflow.pregel import spreading

    monkeypatch.setattr(spreading, "BUSY", (0.0, 100.0))
    monkeypatch.setattr(spreading, "TRIAL_S", 0.0)
    monkeypatch.setattr(spreading, "START_S", 0.0)
    graph = graph_of(add_one, pool=pool, checkpointer=saver)
    before = pool.stats()["ended"]
    inputs = [{"x": n, "log": []} for n in range(50)]
    outputs = run.batch(graph, inputs, thread_id_prefix="job/")
    assert [output["x"] for output in outputs] == list(range(1, 51))
    assert pool.stats()["ended"] > before
    assert run.batch(graph, inputs, thread_id_prefix="job/") == outputs


PROGRAM = """
    import os, sys
    from typing import TypedDict
    from mpflow.checkpoint.sqlite import SqliteSaver
    from mpflow.graph import START, StateGraph

    class State(TypedDict, total=False):
        x: int
        y: int

    def note(name):
        fd = os.open(os.environ["MPFLOW_TEST_STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, (name + "\\n").encode())
        os.close(fd)

    def first(state):
        note(f"first {state['x']}")
        return {"y": state["x"] * 3}

    def second(state):
        note(f"second {state['x']}")
        return {"y": state["y"] + 1}

    builder = StateGraph(State).add_sequence([("first", first), ("second", second)]).add_edge(START, "first")
    with SqliteSaver.from_conn_string(sys.argv[1]) as saver:
        graph = builder.compile(checkpointer=saver)
        inputs = ({"x": n} for n in range(400))
        for index, output in graph.batch_as_completed(inputs, thread_id_prefix="job/", parallel="items"):
            assert output == {"x": index, "y": index * 3 + 1}, (index, output)
            print(index, flush=True)
"""


def test_a_program_that_is_killed_again_and_again_loses_nothing_it_told(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = tmp_path / "starts"
    monkeypatch.setenv("MPFLOW_TEST_STARTS", str(starts))
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(path)]
    done: set[int] = set()
    for kills in range(3):
        before = set(done)
        starts.write_text("")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            told = [int(line) for line, _ in zip(program.stdout, range(100 * (kills + 1)), strict=False)]
            program.kill()
        done.update(told)
        again = {int(line.split()[1]) for line in starts.read_text().splitlines()}
        assert not before & again, "an item that was told as done ran again"
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert sorted(map(int, result.stdout.split())) == list(range(400))
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the kernel's lists of sockets are Linux's")
def test_row_42_nothing_listens(pool: WorkerPool, saver: SqliteSaver) -> None:
    graph = graph_of(where_it_runs, pool=pool, checkpointer=saver)
    told = graph.batch([{}] * 8, {"max_concurrency": 2}, thread_id_prefix="t/", parallel="items")
    pids = {os.getpid(), *(one["x"] for one in told)}
    assert len(pids) > 1
    listening = {line.split()[9] for kind in ("tcp", "tcp6") for line in lines_of(kind) if line.split()[3] == "0A"}
    listening |= {line.split()[6] for line in lines_of("unix") if int(line.split()[3], 16) & 1 << 16}
    assert not {f"socket:[{inode}]" for inode in listening} & {file for pid in pids for file in files_of(pid)}


def where_it_runs(state: State) -> State:
    return {"x": os.getpid()}


def lines_of(kind: str) -> list[str]:
    path = Path(f"/proc/net/{kind}")
    return path.read_text().splitlines()[1:] if path.exists() else []


def files_of(pid: int) -> list[str]:
    found = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(file))
        except FileNotFoundError:  # that with which they are listed
            continue
    return found
