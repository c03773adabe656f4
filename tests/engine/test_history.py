"""Runs that pause and resume, and the saved states of a thread (IN-*, SA-*, CP-*, SG-3)."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.errors import InvalidUpdateError
from mpflow.graph import END, START, StateGraph
from mpflow.types import Command, interrupt
from tests.colours import Run

CONFIG: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict):
    log: Annotated[list, operator.add]


def asks(state: State) -> dict:
    return {"log": [interrupt("one?"), interrupt("two?")]}


def questions() -> StateGraph:
    """One node that asks twice, beside one that does not."""
    graph = StateGraph(State)
    graph.add_node("asks", asks).add_node("says", lambda state: {"log": ["said"]})
    graph.add_edge(START, "asks").add_edge(START, "says")
    return graph


def paused(run: Run, graph: Any) -> list[Any]:
    return [question.value for question in run.invoke(graph, {"log": []}, CONFIG)["__interrupt__"]]


def test_in2_several_questions_are_answered_in_their_order(run: Run) -> None:
    graph = questions().compile(checkpointer=InMemorySaver())
    assert paused(run, graph) == ["one?"]
    assert run.invoke(graph, Command(resume="A"), CONFIG)["__interrupt__"][0].value == "two?"
    assert run.invoke(graph, Command(resume="B"), CONFIG) == {"log": ["A", "B", "said"]}


def test_in8_what_finished_before_the_pause_is_told_again_and_not_run(run: Run) -> None:
    graph = questions().compile(checkpointer=InMemorySaver())
    paused(run, graph)
    first = run.stream(graph, Command(resume="A"), CONFIG, stream_mode="updates")[0]
    assert first == {"says": {"log": ["said"]}, "__metadata__": {"cached": True}}


def test_in13_a_question_of_a_graph_within_a_graph_pauses_both(run: Run) -> None:
    outer = StateGraph(State).add_node("inner", questions().compile()).add_edge(START, "inner")
    graph = outer.compile(checkpointer=InMemorySaver())
    assert paused(run, graph) == ["one?"]
    run.invoke(graph, Command(resume="A"), CONFIG)
    assert run.invoke(graph, Command(resume="B"), CONFIG) == {"log": ["A", "B", "said"]}


def test_sa2_the_latest_state_is_live(run: Run) -> None:
    graph = questions().compile(checkpointer=InMemorySaver())
    paused(run, graph)
    state = run.get_state(graph, CONFIG)
    assert (state.values, state.next) == ({"log": ["said"]}, ("asks",))
    assert [question.value for question in state.interrupts] == ["one?"]
    assert {task.name: task.result for task in state.tasks} == {"asks": None, "says": {"log": ["said"]}}


def test_sa5_an_update_is_a_nodes_write_in_a_new_checkpoint(run: Run) -> None:
    graph = StateGraph(State).add_sequence([("a", lambda state: {"log": ["a"]}), ("b", lambda state: {"log": ["b"]})])
    app = graph.add_edge(START, "a").compile(checkpointer=InMemorySaver())
    run.update_state(app, CONFIG, {"log": ["by hand"]}, as_node="a")
    state = run.get_state(app, CONFIG)
    assert (state.values, state.next, state.metadata["source"]) == ({"log": ["by hand"]}, ("b",), "update")
    assert run.invoke(app, None, CONFIG) == {"log": ["by hand", "b"]}


def test_sa6_it_must_be_clear_which_node_an_update_is_of(run: Run) -> None:
    graph = questions().compile(checkpointer=InMemorySaver())
    run.update_state(graph, CONFIG, None, as_node="says")
    with pytest.raises(InvalidUpdateError, match="Node q does not exist"):
        run.update_state(graph, CONFIG, {"log": []}, as_node="q")


def test_sa7_updates_as_end_and_as_a_copy(run: Run) -> None:
    graph = questions().compile(checkpointer=InMemorySaver())
    paused(run, graph)
    run.update_state(graph, CONFIG, None, as_node=END)
    assert (run.get_state(graph, CONFIG).values, run.get_state(graph, CONFIG).next) == ({"log": ["said"]}, ())
    run.update_state(graph, CONFIG, None, as_node="__copy__")
    assert run.get_state(graph, CONFIG).metadata["source"] == "fork"


def test_sa9_going_back_runs_again_on_a_branch_and_keeps_the_old_one(run: Run) -> None:
    graph = StateGraph(State).add_sequence([("a", lambda state: {"log": ["a"]}), ("b", lambda state: {"log": ["b"]})])
    app = graph.add_edge(START, "a").compile(checkpointer=InMemorySaver())
    run.invoke(app, {"log": []}, CONFIG)
    before = run.history(app, CONFIG)
    old = next(state.config for state in before if state.next == ("b",))
    assert run.invoke(app, None, old) == {"log": ["a", "b"]}
    after = run.history(app, CONFIG)
    assert [state.metadata["source"] for state in after[: len(after) - len(before)]] == ["loop", "fork"]
    assert [state.config for state in after[-len(before) :]] == [state.config for state in before]


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_a_thread_that_is_deleted_while_it_runs_begins_anew(run: Run, durability: str) -> None:
    saver = InMemorySaver()

    def reset(state: Any) -> Any:
        if len(state["log"]) == 2:
            saver.delete_thread("1")
        return {"log": [len(state["log"])]}

    builder = StateGraph(State).add_node(reset).add_edge(START, "reset")
    builder.add_conditional_edges("reset", lambda state: END if len(state["log"]) > 4 else "reset")
    graph = builder.compile(checkpointer=saver)
    run.invoke(graph, {"log": []}, CONFIG, durability=durability)
    assert [len(state.values["log"]) for state in run.history(graph, CONFIG)] == [5, 4, 3]
    assert run.invoke(graph, {"log": ["more"]}, CONFIG)["log"] == [0, 1, 2, 3, 4, "more", 6]


def test_cp1_a_run_with_a_checkpointer_needs_a_thread(run: Run) -> None:
    with pytest.raises(ValueError, match="thread_id"):
        run.invoke(questions().compile(checkpointer=InMemorySaver()), {"log": []})


def test_in10_a_breakpoint_pauses_before_the_step_and_is_passed_on_resume(run: Run) -> None:
    graph = StateGraph(State).add_sequence([("a", lambda state: {"log": ["a"]}), ("b", lambda state: {"log": ["b"]})])
    app = graph.add_edge(START, "a").compile(checkpointer=InMemorySaver(), interrupt_before=["b"])
    assert run.invoke(app, {"log": []}, CONFIG) == {"log": ["a"]}
    assert run.invoke(app, None, CONFIG) == {"log": ["a", "b"]}
