"""Going on after a process has ended: with a changed graph, with tasks that must not run twice, with a batch that was cut short."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.checkpoint.sqlite import SqliteSaver
from mpflow.constants import END, START
from mpflow.errors import GraphChangedError, OutcomeUnknown, ReducerError, RunOwnedElsewhere, StorageError
from mpflow.graph.state import StateGraph
from mpflow.runtime import get_runtime
from mpflow.types import Command, Send, interrupt
from tests.colours import Run

CONFIG: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[SqliteSaver]:
    with SqliteSaver.from_conn_string(str(tmp_path / "db")) as saver:
        yield saver


def say(word: str) -> Any:
    return lambda state: {"log": [word]}


# -- row 38 -----------------------------------------------------------------------------------------------------------


def chain(*names: str, **options: Any) -> Any:
    graph = StateGraph(State)
    for name in names:
        graph.add_node(name, say(name))
    for one, other in zip((START, *names), (*names, END), strict=True):
        graph.add_edge(one, other)
    return graph.compile(checkpointer=options.pop("saver"), **options)


def test_row_38_a_due_node_is_gone(run: Run) -> None:
    saver = InMemorySaver()
    run.invoke(chain("a", "b", saver=saver, interrupt_before=["b"]), {"log": []}, CONFIG)
    with pytest.raises(GraphChangedError, match="node 'b'") as caught:
        run.invoke(chain("a", "c", saver=saver), None, CONFIG)
    assert (caught.value.kind, caught.value.name, caught.value.thread_id) == ("node", "b", "t")
    assert run.invoke(chain("a", "b", saver=saver), None, CONFIG) == {"log": ["a", "b"]}


def test_row_38_added_nodes_keys_and_edges_resume(run: Run) -> None:
    saver = InMemorySaver()
    run.invoke(chain("a", "b", saver=saver, interrupt_before=["b"]), {"log": []}, CONFIG)

    class More(State):
        other: str

    graph = StateGraph(More).add_node("a", say("a")).add_node("b", say("b")).add_node("c", say("c"))
    graph.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c")
    assert run.invoke(graph.compile(checkpointer=saver), None, CONFIG) == {"log": ["a", "b", "c"]}


def test_row_38_the_target_of_a_queued_send_is_gone(run: Run) -> None:
    saver = InMemorySaver()

    def graph(target: str) -> Any:
        built = StateGraph(State).add_node("a", say("a")).add_node(target, say("sent")).add_edge(START, "a")
        built.add_conditional_edges("a", lambda state: [Send("target", state)], [target])
        return built.compile(checkpointer=saver, interrupt_before=["target"] if target == "target" else None)

    run.invoke(graph("target"), {"log": []}, CONFIG)
    with pytest.raises(GraphChangedError, match="node 'target'"):
        run.invoke(graph("another"), None, CONFIG)


def test_row_38_a_barrier_that_waits_has_another_member(run: Run) -> None:
    saver = InMemorySaver()

    def graph(*members: str) -> Any:
        built = StateGraph(State).add_node("a", say("a")).add_node("b", say("b")).add_node("end", say("end"))
        built.add_node("b2", say("b2")).add_edge(START, "a").add_edge("a", "b2").add_edge("b2", "b")
        return built.add_edge(list(members), "end").compile(checkpointer=saver, interrupt_before=["b2"])

    run.invoke(graph("a", "b"), {"log": []}, CONFIG)
    with pytest.raises(GraphChangedError, match="waiting edge 'a\\+b:end'"):
        run.invoke(graph("a", "b2"), None, CONFIG)


# -- what happened to the process ---------------------------------------------------------------------------------


DIES = """
import os, sys
from mpflow.checkpoint.sqlite import SqliteSaver
from tests.engine.test_going_on import CONFIG, once
with SqliteSaver.from_conn_string(sys.argv[1]) as saver:
    once(saver, sys.argv[2], die=True).invoke({"log": []}, CONFIG, durability=sys.argv[3])
"""


def once(saver: Any, notes: str, *, die: bool, error: bool = False) -> Any:
    def pay(state: State) -> State:
        with open(notes, "a") as file:
            file.write(f"{get_runtime().idempotency_key}\n")
        if die:
            os._exit(9)
        if error:
            raise ValueError("no money")
        return {"log": ["paid"]}

    graph = StateGraph(State).add_node("pay", pay, rerun_on_loss=False, executor="thread").add_edge(START, "pay")
    return graph.compile(checkpointer=saver)


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_promise_2_a_task_that_must_not_run_twice_does_not_on_resume(
    tmp_path: Path, run: Run, saver: SqliteSaver, durability: str
) -> None:
    notes = tmp_path / "notes"
    command = [sys.executable, "-c", DIES, str(tmp_path / "db"), str(notes), durability]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == 9
    graph = once(saver, str(notes), die=False)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown, match="node 'pay'"):
            run.invoke(graph, None, CONFIG)
    assert len(notes.read_text().split()) == 1
    run.update_state(graph, CONFIG, {"log": ["paid by hand"]}, as_node="pay")
    assert run.invoke(graph, None, CONFIG) == {"log": ["paid by hand"]}


def test_promise_2_a_failure_that_is_known_may_be_tried_again_with_the_same_key(
    tmp_path: Path, run: Run, saver: SqliteSaver
) -> None:
    notes = tmp_path / "notes"
    with pytest.raises(ValueError, match="no money"):
        run.invoke(once(saver, str(notes), die=False, error=True), {"log": []}, CONFIG)
    assert run.invoke(once(saver, str(notes), die=False), None, CONFIG) == {"log": ["paid"]}
    keys = notes.read_text().split()
    assert len(keys) == 2 and len(set(keys)) == 1


HOLDS = """
import sys
from mpflow.checkpoint.sqlite import SqliteSaver
from mpflow.graph.state import StateGraph
from mpflow.constants import START
def waits(state):
    print("runs", flush=True)
    sys.stdin.read()
    return {"log": ["first"]}
from tests.engine.test_going_on import CONFIG, State
with SqliteSaver.from_conn_string(sys.argv[1]) as saver:
    StateGraph(State).add_node("waits", waits).add_edge(START, "waits").compile(checkpointer=saver).invoke({"log": []}, CONFIG, durability="sync")
"""


def test_row_36_the_loser_of_two_processes_gets_an_error_and_the_winners_death_frees_the_thread(
    tmp_path: Path, run: Run, saver: SqliteSaver
) -> None:
    graph = StateGraph(State).add_node("waits", say("second")).add_edge(START, "waits").compile(checkpointer=saver)
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "db")]
    holder = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "runs\n"
        with pytest.raises(RunOwnedElsewhere, match="thread 't'"):
            run.invoke(graph, None, CONFIG)
        holder.kill()
        holder.wait()
        assert run.invoke(graph, None, CONFIG) == {"log": ["second"]}


# -- rows 26 and 34 ---------------------------------------------------------------------------------------------------


broken = [True]


def reduce(old: list[int], new: list[int]) -> list[int]:
    if broken[0] and new == [2]:
        raise ZeroDivisionError("bad reducer")
    return old + new


class Reduced(TypedDict, total=False):
    x: Annotated[list[int], reduce]
    log: Annotated[list[str], operator.add]


def test_row_26_a_reducer_that_raises_leaves_the_old_state_whole(run: Run, saver: SqliteSaver) -> None:
    graph: Any = StateGraph(Reduced).add_node("a", lambda state: {"x": [1], "log": ["a"]})
    graph.add_node("b", lambda state: {"log": ["b"], "x": [2]}).add_edge(START, "a").add_edge("a", "b")
    graph = graph.compile(checkpointer=saver)
    for durability in ("sync", "async", "exit"):
        where = {"configurable": {"thread_id": durability}}
        broken[0] = True
        with pytest.raises(ReducerError, match="channel 'x'"):
            run.invoke(graph, {"x": [], "log": []}, where, durability=durability)
        broken[0] = False
        assert run.invoke(graph, None, where) == {"x": [1, 2], "log": ["a", "b"]}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_row_34_a_failed_save_fails_the_run_and_the_last_commit_resumes(
    run: Run, saver: SqliteSaver, durability: str
) -> None:
    def grow(state: State) -> State:
        return {"log": ["x" * 50_000]}

    graph = StateGraph(State).add_node("grow", grow).add_edge(START, "grow")
    graph.add_conditional_edges("grow", lambda state: END if len(state["log"]) >= 20 else "grow", ["grow", END])
    built = graph.compile(checkpointer=saver)
    built.get_state(CONFIG)
    saver.conn.execute("PRAGMA max_page_count = 60")
    with pytest.raises(StorageError, match=r"db.*full"):
        run.invoke(built, {"log": []}, CONFIG, durability=durability)
    saver.conn.execute("PRAGMA max_page_count = 1000000")
    known = run.get_state(built, CONFIG)
    input = None if known.metadata is not None else {"log": []}
    assert run.invoke(built, input, CONFIG) == {"log": ["x" * 50_000] * 20}


# -- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_goes_on_where_it_was_cut_short(run: Run, saver: SqliteSaver) -> None:
    ran: list[Any] = []
    broken = [True]

    def first(state: State) -> State:
        ran.append(("first", state["log"][0]))
        return {"log": ["first"]}

    def second(state: State) -> State:
        ran.append(("second", state["log"][0]))
        if broken[0] and state["log"][0] == 2:
            raise ValueError("not yet")
        return {"log": ["second"]}

    graph = StateGraph(State).add_node(first).add_node(second).add_edge(START, "first").add_edge("first", "second")
    built = graph.compile(checkpointer=saver)
    inputs = [{"log": [number]} for number in range(4)]
    found = run.batch(built, inputs, {"max_concurrency": 1}, thread_id_prefix="job/", return_exceptions=True)
    assert isinstance(found[2], ValueError) and found[3] == {"log": [3, "first", "second"]}
    broken[0] = False
    ran.clear()
    more = [*inputs, {"log": [4]}]
    expected = [{"log": [number, "first", "second"]} for number in range(5)]
    assert run.batch(built, more, {"max_concurrency": 1}, thread_id_prefix="job/") == expected
    assert ran == [("second", 2), ("first", 4), ("second", 4)]
    assert dict(run.listed(built, "batch_as_completed", more, thread_id_prefix="job/")) == dict(enumerate(expected))
    assert built.get_state({"configurable": {"thread_id": "job/4"}}).values == expected[4]


def test_a_batch_on_threads_says_what_it_needs(run: Run, saver: SqliteSaver) -> None:
    graph = StateGraph(State).add_node("a", say("a")).add_edge(START, "a")
    with pytest.raises(ValueError, match="checkpointer"):
        run.batch(graph.compile(), [{"log": []}], thread_id_prefix="x")
    with pytest.raises(ValueError, match="one config"):
        run.batch(graph.compile(checkpointer=saver), [{"log": []}], [CONFIG], thread_id_prefix="x")


def test_a_question_of_an_item_stays_one(run: Run, saver: SqliteSaver) -> None:
    graph = StateGraph(State).add_node("asks", lambda state: {"log": [interrupt("?")]}).add_edge(START, "asks")
    built = graph.compile(checkpointer=saver)
    for _ in range(2):
        (found,) = run.batch(built, [{"log": []}], thread_id_prefix="q")
        assert found["__interrupt__"][0].value == "?"
    run.invoke(built, Command(resume="!"), {"configurable": {"thread_id": "q0"}})
    assert run.batch(built, [{"log": []}], thread_id_prefix="q") == [{"log": ["!"]}]
