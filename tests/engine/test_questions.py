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
