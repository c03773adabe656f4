"""Questions that nodes ask and the answers they get, on every place to run (IN-1, IN-2, IN-11; ER-2)."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest
from pydantic import BaseModel, ValidationError

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.errors import is_invalid_resume
from mpflow.graph import START, StateGraph
from mpflow.types import Command, interrupt
from tests.colours import Run

pytestmark = pytest.mark.warm_pool

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


class Decision(BaseModel):
    approved: bool


def decide(state: State) -> State:
    decision = interrupt("decide", response_schema=Decision)
    return {"log": [decision.approved, interrupt("and?")]}


def ask(state: State) -> State:
    return {"log": [interrupt("ask")]}


@pytest.mark.parametrize("given", [{}, {"unknown": 1}])
def test_a_question_shows_the_state_though_nothing_was_written(run: Run, given: Any) -> None:
    """IN-4, ST-17"""
    graph = StateGraph(State).add_node(ask).add_edge(START, "ask").compile()
    told = run.invoke(graph, given)
    assert (told["log"], [asked.value for asked in told["__interrupt__"]]) == ([], ["ask"])


@pytest.mark.parametrize("executor", ["inline", "thread", "process"])
def test_an_answer_that_does_not_fit_can_be_given_again(run: Run, executor: str) -> None:
    graph = StateGraph(State).add_node(decide).add_edge(START, "decide")
    graph = graph.compile(checkpointer=InMemorySaver(), executor=executor)  # type: ignore[assignment]
    run.invoke(graph, {"log": []}, THREAD)
    with pytest.raises(ValidationError) as refused:
        run.invoke(graph, Command(resume={"approved": "never"}), THREAD)
    assert is_invalid_resume(refused.value)
    assert [asked.value for asked in run.get_state(graph, THREAD).interrupts] == ["decide"]
    run.invoke(graph, Command(resume={"approved": "yes"}), THREAD)
    assert run.invoke(graph, Command(resume="end"), THREAD) == {"log": [True, "end"]}


def ask_twice(state: State) -> State:
    return {"log": [interrupt("first"), interrupt("second")]}


@pytest.mark.parametrize("where", ["node", "nested"])
@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_in2_an_answer_is_that_to_one_question_however_the_run_goes_on(run: Run, where: str, durability: str) -> None:
    """LangGraph gives it to the second question too, if the run goes on without a new one."""
    builder = StateGraph(State).add_node(ask_twice).add_edge(START, "ask_twice")
    if where == "nested":
        builder = StateGraph(State).add_node("within", builder.compile()).add_edge(START, "within")
    graph = builder.compile(checkpointer=InMemorySaver())
    asked = [
        [one.value for one in run.invoke(graph, given, THREAD, durability=durability).get("__interrupt__", ())]
        for given in ({"log": []}, Command(resume="one"), None, None)
    ]
    assert asked == [["first"], ["second"], ["second"], ["second"]]
    assert run.invoke(graph, Command(resume="two"), THREAD)["log"] == ["one", "two"]


def test_in6_an_answer_to_nothing_is_not_kept_for_a_later_question(run: Run) -> None:
    builder = StateGraph(State).add_node("before", lambda state: {"log": ["before"]}).add_node(ask)
    graph = (
        builder.add_edge(START, "before")
        .add_edge("before", "ask")
        .compile(checkpointer=InMemorySaver(), interrupt_before=["before"])
    )
    run.invoke(graph, {"log": []}, THREAD)
    told = run.invoke(graph, Command(resume="early"), THREAD)
    assert [asked.value for asked in told["__interrupt__"]] == ["ask"]
    assert run.invoke(graph, Command(resume="late"), THREAD)["log"] == ["before", "late"]


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_an_answer_that_does_not_fit_lets_others_finish(run: Run, executor: str) -> None:
    graph = StateGraph(State).add_node(decide).add_node(ask).add_edge(START, "decide").add_edge(START, "ask")
    graph = graph.compile(checkpointer=InMemorySaver(), executor=executor)  # type: ignore[assignment]
    run.invoke(graph, {"log": []}, THREAD)
    ids = {asked.value: asked.id for asked in run.get_state(graph, THREAD).interrupts}
    with pytest.raises(ValidationError):
        run.invoke(graph, Command(resume={ids["decide"]: "bad", ids["ask"]: 1}), THREAD)
    state = run.get_state(graph, THREAD)
    assert ([asked.value for asked in state.interrupts], state.values) == (["decide"], {"log": [1]})


def test_an_error_is_saved_as_its_text(run: Run) -> None:
    def fail(state: State) -> None:
        raise KeyError("gone")

    saver = InMemorySaver()
    graph = StateGraph(State).add_node(fail).add_edge(START, "fail").compile(checkpointer=saver)
    with pytest.raises(KeyError):
        run.invoke(graph, {"log": []}, THREAD)
    assert run.get_state(graph, THREAD).tasks[0].error == "KeyError('gone')"
