"""Messages in a `DeltaChannel` have ids that do not change from one reading to the next (ST-12)."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from typing_extensions import TypedDict

from mpflow.channels.delta import DeltaChannel, with_message_ids
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.graph import START, StateGraph
from mpflow.types import Overwrite, interrupt
from tests.colours import Run

THREAD: Any = {"configurable": {"thread_id": "1"}}


def _append(value: list[Any], writes: list[Any]) -> list[Any]:
    return [*value, *(item for write in writes for item in (write if isinstance(write, list) else [write]))]


class State(TypedDict):
    messages: Annotated[list[Any], DeltaChannel(_append, list)]


def test_messages_and_dicts_that_are_messages_get_ids() -> None:
    given = [HumanMessage("a"), {"role": "user", "content": "b"}, {"type": "other"}, AIMessage("c", id="own")]
    first, second, other, own = with_message_ids(given)
    assert first is given[0] and first.id
    assert isinstance(second, HumanMessage) and second.id
    assert (other, own.id) == ({"type": "other"}, "own")
    assert isinstance(given[1], dict), "the caller's list stays as it is"


def test_what_replaces_the_value_keeps_its_dicts() -> None:
    given = Overwrite([HumanMessage("a"), {"role": "user", "content": "b"}])
    assert with_message_ids(given) is given
    assert given.value[0].id and given.value[1] == {"role": "user", "content": "b"}


def test_a_dict_that_only_looks_like_a_message_is_refused() -> None:
    with pytest.raises(ValueError):
        with_message_ids([{"role": "user"}])


def test_ids_are_those_of_the_saved_write_while_a_step_is_unfinished(run: Run) -> None:
    def say(state: State) -> Any:
        return {"messages": [{"role": "ai", "content": "said"}]}

    def ask(state: State) -> Any:
        interrupt("?")

    builder = StateGraph(State).add_node(say).add_node(ask).add_edge(START, "say").add_edge(START, "ask")
    graph = builder.compile(checkpointer=InMemorySaver())
    run.invoke(graph, {"messages": [HumanMessage("hi")]}, THREAD)
    ids = [[message.id for message in run.get_state(graph, THREAD).values["messages"]] for _ in range(2)]
    assert len(ids[0]) == 2 and all(ids[0]) and ids[0] == ids[1]
