"""Programs that end in the middle of a step, again and again: what earlier processes tried counts (FAULTS promises 4 and 7)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict

import pytest

from mpflow._engine.suspicion import CAREFUL_AFTER, STEP, Ledger
from mpflow._names import ATTEMPTS, NULL_TASK_ID, SCHEDULED
from mpflow.checkpoint.sqlite import SqliteSaver
from mpflow.graph import START, StateGraph
from tests.exec.scripts import run_script

pytestmark = pytest.mark.chaos

LIVES = """
import asyncio, json, operator, os, sys, time
from typing import Annotated, Any, TypedDict
from mpflow.checkpoint.sqlite import SqliteSaver
from mpflow.checkpoint.sqlite.aio import AsyncSqliteSaver
from mpflow.graph import START, StateGraph
from mpflow.runtime import get_runtime
from mpflow.types import RetryPolicy

DATABASE = {database!r}
CONFIG = {{"configurable": {{"thread_id": "t"}}}}
NOTES = DATABASE + ".starts"

class State(TypedDict, total=False):
    log: Annotated[list, operator.add]

def starts(name):
    '''Note a start; how many there were before.'''
    fd = os.open(NOTES, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
    os.write(fd, f"{{name}}\\n".encode())
    before = os.pread(fd, 1 << 16, 0).count(b"\\n") - 1
    os.close(fd)
    return before

def one_life(builder, colour, life):
    '''One process of the program: it goes on with what is saved. What came of it, None if it was cut short.'''
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        input = {{"log": []}} if life == 0 else None
        try:
            if colour == "sync":
                with SqliteSaver.from_conn_string(DATABASE) as saver:
                    came = builder.compile(checkpointer=saver).invoke(input, CONFIG, durability="sync")
            else:
                async def main():
                    async with AsyncSqliteSaver.from_conn_string(DATABASE) as saver:
                        return await builder.compile(checkpointer=saver).ainvoke(input, CONFIG, durability="sync")
                came = asyncio.run(main())
        except Exception as error:
            came = [type(error).__name__, str(error)]
        os.write(theirs, json.dumps(came).encode())
        os._exit(0)
    os.close(theirs)
    with open(ours) as file:
        said = file.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else None

def lives(builder, count, colour="sync"):
    print(json.dumps([one_life(builder, colour, life) for life in range(count)]))
"""


def live(folder: Path, program: str) -> tuple[list[Any], list[str]]:
    """What came of each life of a program, and what it noted."""
    database = str(folder / "db")
    done = run_script(LIVES.format(database=database) + program)
    starts = Path(database + ".starts")
    return json.loads(done.stdout), starts.read_text().split()


KILLER = """
def quiet(state):
    starts("quiet")
    return {"log": ["quiet"]}

def killer(state):
    starts("killer")
    os._exit(9)

builder = StateGraph(State).add_node("begin", lambda state: {"log": ["begun"]}).add_edge(START, "begin")
for action in (killer, quiet):  # inline, one after the other: were "quiet" to end first, that would count as progress
    builder.add_node(action.__name__, action, executor="inline").add_edge("begin", action.__name__)
"""


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_task_that_ends_the_program_each_time_is_found_and_given_up(tmp_path: Path, colour: str) -> None:
    deaths = 1 + CAREFUL_AFTER + 2
    came, starts = live(tmp_path, KILLER + f"lives(builder, {deaths + 2}, {colour!r})")
    assert came[:deaths] == [None] * deaths
    kind, text = came[deaths]
    assert kind == "PoisonTaskError"
    assert "node 'killer'" in text and "ran alone" in text and "3 attempts" in text
    assert came[-1] is None, "who goes on once more wants it tried"
    assert starts.count("killer") == deaths + 1


def test_a_program_that_is_killed_by_others_gets_on(tmp_path: Path) -> None:
    """Every second start is the last of its process, whichever task it is: nobody is to blame."""
    program = """
def slow(state):
    before = starts("slow")
    if before % 2:
        os._exit(9)
    return {"log": [before]}

builder = StateGraph(State)
for number in range(10):
    builder.add_node(f"slow{number}", slow, executor="inline").add_edge(START, f"slow{number}")
lives(builder, 10 + 3)
"""
    came, _ = live(tmp_path, program)
    assert came[:-1] == [None] * 12
    assert len(came[-1]["log"]) == 10


def test_graphs_within_are_not_blamed_for_steps_that_take_long(tmp_path: Path) -> None:
    program = f"""
def often(state):
    if starts("often") < {CAREFUL_AFTER} + 4:
        os._exit(9)
    return {{"log": ["at last"]}}

inner = StateGraph(State).add_node("often", often).add_edge(START, "often").compile()
builder = StateGraph(State).add_node("inner", inner).add_edge(START, "inner")
lives(builder, {CAREFUL_AFTER} + 5)
"""
    came, _ = live(tmp_path, program)
    assert came[:-1] == [None] * (CAREFUL_AFTER + 4)
    assert came[-1] == {"log": ["at last"]}


def test_retries_are_counted_over_resumes(tmp_path: Path) -> None:
    program = """
def fails(state):
    number = get_runtime().execution_info.node_attempt
    if starts(number) == 1:
        os._exit(9)
    raise RuntimeError("again")

builder = StateGraph(State)
builder.add_node("fails", fails, retry_policy=RetryPolicy(initial_interval=0.001, max_attempts=3, jitter=False, retry_on=RuntimeError))
builder.add_edge(START, "fails")
lives(builder, 3)
"""
    came, starts = live(tmp_path, program)
    assert came == [None, ["RuntimeError", "again"], ["RuntimeError", "again"]]
    assert starts == ["1", "2", "2", "3", "1", "2", "3"], "a failure that was told begins anew"


def test_deaths_of_workers_are_counted_over_resumes(tmp_path: Path) -> None:
    program = """
def dies(state):
    number = get_runtime().execution_info.node_attempt
    if starts(number) == 2:
        os.kill(os.getppid(), 9)
        time.sleep(60)
    os._exit(9)

builder = StateGraph(State).add_node("dies", dies, executor="process").add_edge(START, "dies")
lives(builder, 2)
"""
    came, starts = live(tmp_path, program)
    assert came[0] is None and came[1][0] == "PoisonTaskError"
    assert "in each of 3 attempts" in came[1][1] and came[1][1].count("exit code 9") == 3
    assert starts == ["1", "2", "3", "3"]


class State(TypedDict, total=False):
    x: int


def test_a_run_that_is_left_in_order_counts_for_nothing(tmp_path: Path) -> None:
    def fails(state: State) -> State:
        raise ValueError("no")

    config: Any = {"configurable": {"thread_id": "t"}}
    with SqliteSaver.from_conn_string(str(tmp_path / "db")) as saver:
        builder = StateGraph(State).add_node("fails", fails, executor="inline").add_edge(START, "fails")
        graph = builder.compile(checkpointer=saver)
        for input in ({"x": 1}, None, None):
            with pytest.raises(ValueError, match="no"):
                graph.invoke(input, config)  # type: ignore[arg-type]
        graph.stream(None, config).close()
        loaded = saver.load(config)
        assert loaded is not None
        notes = [(task, value) for task, names, value in loaded.notes if ATTEMPTS in names]
        assert notes == [(STEP, 1), (STEP, 0)] * 2
        writes = saver.get_tuple(config).pending_writes  # type: ignore[union-attr]
        assert writes is not None and ATTEMPTS not in [name for _, name, _ in writes], "notes are no writes"


# -- the ledger --------------------------------------------------------------------------------------------------------


def ledger(*notes: tuple[str, str, Any]) -> Ledger:
    made = Ledger()
    for task, name, value in notes:
        made.note(task, [name], value)
    return made


BEGINS, WAITS = [0, [], True], [2, [["died", "as it does"]], False]


def test_of_tasks_that_had_begun_the_last_is_suspected() -> None:
    assert ledger(("a", ATTEMPTS, BEGINS), ("b", ATTEMPTS, BEGINS)).suspect == "b"
    assert ledger(("a", ATTEMPTS, BEGINS), ("b", ATTEMPTS, BEGINS), ("b", "out", None)).suspect == "a"
    assert ledger(("a", ATTEMPTS, BEGINS), ("a", "__error__", None)).suspect is None
    assert ledger(("a", ATTEMPTS, WAITS)).suspect is None


def test_only_the_end_of_a_task_or_of_the_run_is_progress() -> None:
    assert ledger((STEP, ATTEMPTS, 2), (NULL_TASK_ID, "x", None), ("a", SCHEDULED, None)).resumes == 2
    assert ledger((STEP, ATTEMPTS, 2), ("a", "x", None)).resumes == 0
    assert ledger(("a", ATTEMPTS, BEGINS), (STEP, ATTEMPTS, 0)).suspect is None


def test_tries_are_those_of_the_last_note_and_gone_with_the_task() -> None:
    [(failures, deaths)] = ledger(("a", ATTEMPTS, BEGINS), ("a", ATTEMPTS, WAITS)).tries.values()
    assert (failures, list(map(str, deaths))) == (2, ["as it does"])
    assert not ledger(("a", ATTEMPTS, WAITS), ("a", "x", None)).tries
