"""Conversations (section 19; SM-6 so far as `push_message` goes)."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_type_hints

import pytest

from mpflow._messages import StepFacts
from mpflow._scope import TaskScope, current
from mpflow.graph.message import REMOVE_ALL_MESSAGES, MessagesState, add_messages, push_message

messages = pytest.importorskip("langchain_core.messages")
Human, AI, Remove = messages.HumanMessage, messages.AIMessage, messages.RemoveMessage


def told(merged: Any) -> list[tuple[str, Any, str]]:
    return [(message.id, message.content, message.type) for message in merged]


def test_ms1_messages_are_appended_or_replaced_in_place_by_id() -> None:
    left = [Human("a", id="1"), AI("b", id="2")]
    merged: Any = add_messages(left, [Human("c", id="3"), AI("A", id="1")])
    assert told(merged) == [("1", "A", "ai"), ("2", "b", "ai"), ("3", "c", "human")]
    assert (len(left), left[0].content) == (2, "a")


@pytest.mark.parametrize("right", ["hi", ("user", "hi"), {"role": "user", "content": "hi"}, [("user", "hi")]])
def test_ms1_message_likes_are_coerced_and_get_ids(right: Any) -> None:
    (message,) = add_messages([], right)  # type: ignore[misc]
    assert (message.content, message.type, len(message.id)) == ("hi", "human", 36)


def test_ms1_a_chunk_becomes_a_message() -> None:
    (message,) = add_messages([], [messages.AIMessageChunk(content="x", id="1")])  # type: ignore[misc]
    assert type(message) is AI


@pytest.mark.parametrize(
    ("right", "kept"),
    [
        ([Remove(id="1")], ["2"]),
        ([Remove(id="1"), Human("again", id="1")], ["1", "2"]),
        ([Human("new", id="3"), Remove(id="3")], ["1", "2"]),
        ([Human("new", id="3"), Remove(id=REMOVE_ALL_MESSAGES), Human("rest", id="4")], ["4"]),
        ([Remove(id=REMOVE_ALL_MESSAGES)], []),
    ],
)
def test_ms1_removals(right: Any, kept: list[str]) -> None:
    merged: Any = add_messages([Human("a", id="1"), Human("b", id="2")], right)
    assert [message.id for message in merged] == kept


def test_ms1_removing_what_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"ID that doesn't exist \('7'\)"):
        add_messages([], [Remove(id="7")])


def test_ms1_called_with_keywords_alone_it_returns_a_reducer() -> None:
    reducer: Any = add_messages(format="langchain-openai")
    (message,) = reducer([], [Human([{"type": "text", "text": "x"}], id="1")])
    assert message.content == "x"  # as OpenAI has it
    with pytest.raises(ValueError, match="Unrecognized format='odd'"):
        add_messages([], [], format="odd")
    with pytest.raises(ValueError, match="Only received: 'right'"):
        add_messages(None, [])


def test_ms2_messages_state_is_annotated_with_the_reducer() -> None:
    hint: Any = get_type_hints(MessagesState, include_extras=True)["messages"]
    assert hint.__metadata__ == (add_messages,)
    assert hint.__origin__ == list[messages.AnyMessage]

    class Wider(MessagesState):
        extra: int

    assert set(get_type_hints(Wider)) == {"messages", "extra"}


def test_importing_the_module_does_not_import_langchain() -> None:
    code = "import sys, mpflow.graph.message as m; assert 'langchain_core' not in sys.modules; m.MessagesState"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_langchain_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_core", None)
    with pytest.raises(ImportError, match=r'pip install "mpflow-engine\[langchain\]"'):
        add_messages([], [])


def test_sm6_push_message_emits_and_writes() -> None:
    said: list[tuple[str, Any]] = []
    facts = StepFacts({"configurable": {}}, step=0, stop=5)
    scope = TaskScope(facts, "node", ("__pregel_pull", "node"), (), emit=lambda *one: said.append(one))
    token = current.set(scope)
    try:
        message = push_message(AI("x", id="1"))
        push_message(AI("y", id="2"), state_key=None)
        with pytest.raises(ValueError, match="Message ID is required"):
            push_message(AI("z"))
    finally:
        current.reset(token)
    assert [kind for kind, _ in said] == ["message", "message"]
    assert said[0][1][0] is message
    assert said[0][1][1]["langgraph_node"] == "node"
    assert scope.writes == [("messages", message)]
