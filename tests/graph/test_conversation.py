"""`MessageGraph`: a graph whose state is the list of messages."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from mpflow.graph import MessageGraph, message
from mpflow.warnings import LangGraphDeprecatedSinceV10
from tests.colours import Run


def test_the_state_is_the_list_of_messages(run: Run) -> None:
    """MOD-1, GB-19"""
    with pytest.warns(LangGraphDeprecatedSinceV10, match="messages"):
        builder = MessageGraph()
    builder.add_node("greet", lambda state: [("assistant", f"{len(state)} so far")])
    builder.set_entry_point("greet")
    builder.set_finish_point("greet")
    said: Any = run.invoke(builder.compile(), [("user", "Hi")])
    assert [(type(one), one.content) for one in said] == [(HumanMessage, "Hi"), (AIMessage, "1 so far")]


def test_it_is_found_beside_the_state_of_messages_too() -> None:
    """MOD-2"""
    assert message.MessageGraph is MessageGraph
