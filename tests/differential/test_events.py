"""The events of a run are those that langchain tells of LangGraph's (CF-1)."""

from __future__ import annotations

import asyncio
import operator
import sys
from typing import Annotated, Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from typing_extensions import TypedDict

from tests.differential.scenarios import Library

KEPT = ("langgraph_node", "langgraph_step", "of")


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


@tool
def echo(text: str) -> str:
    """Say it again."""
    return text


def route(state: State) -> str:
    return "within"


def _graph(lib: Any) -> Any:
    async def chat(state: State) -> State:
        model = GenericFakeChatModel(messages=iter([AIMessage("one two", id="1")])).with_config(
            metadata={"of": "model"}
        )
        return {"log": [(await model.ainvoke("hi")).content]}

    async def ask(state: State) -> State:
        model = GenericFakeChatModel(messages=iter([AIMessage("three", id="2")]))
        return {"log": [(await model.ainvoke("hi")).content, await echo.ainvoke({"text": "tool"})]}

    child = lib.graph.StateGraph(State).add_sequence([chat, ask]).add_edge("__start__", "chat").compile(name="child")
    builder = lib.graph.StateGraph(State).add_node("within", child).add_node("last", lambda state: {"log": ["last"]})
    builder.add_conditional_edges("__start__", route, ["within"])
    return builder.add_conditional_edges("within", lambda state: "last", ["last"]).compile(name="outer")


def _told(event: Any) -> Any:
    data = {key: getattr(value, "content", value) for key, value in event["data"].items()}
    metadata = {key: value for key, value in event["metadata"].items() if key in KEPT}
    return event["event"], event["name"], event["tags"], metadata, len(event["parent_ids"]), str(data)


def _events(library: str, **options: Any) -> list[Any]:
    async def collect() -> list[Any]:
        config = {"tags": ["mine"], "metadata": {"of": "run"}}
        events = _graph(Library(library)).astream_events({"log": ["in"]}, config, version="v2", **options)
        return [_told(event) async for event in events]

    return asyncio.run(collect())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="before, LangGraph's async nodes do not find their run")
@pytest.mark.parametrize(
    "options", [{}, {"include_names": ["ask"]}, {"exclude_types": ["chain"]}, {"stream_mode": "values"}]
)
def test_events_are_the_same(options: Any) -> None:
    found = _events("mpflow", **options)
    assert len(found) > 2
    assert found == _events("langgraph", **options)


def test_errors_come_through() -> None:
    from mpflow.graph import StateGraph

    def fail(state: State) -> State:
        raise KeyError("gone")

    async def collect(graph: Any) -> list[Any]:
        return [event async for event in graph.astream_events({"log": []})]

    with pytest.raises(KeyError, match="gone"):
        asyncio.run(collect(StateGraph(State).add_node(fail).add_edge("__start__", "fail").compile()))
