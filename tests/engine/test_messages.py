"""The messages stream: tokens of models, messages of nodes, and callbacks of the user's (SM-6), in both colours."""

from __future__ import annotations

from typing import Any

import pytest

from mpflow.graph import START, StateGraph
from mpflow.types import Command
from tests.colours import Run

messages = pytest.importorskip("langchain_core.messages")

from langchain_core.callbacks import BaseCallbackHandler  # noqa: E402
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel  # noqa: E402

from mpflow.graph.message import MessagesState, push_message  # noqa: E402

INPUT: Any = {"messages": [messages.HumanMessage("hi", id="in")]}


def _model(text: str, **options: Any) -> Any:
    return GenericFakeChatModel(messages=iter([messages.AIMessage(text)]), **options)


def _graph(*nodes: tuple[str, Any]) -> Any:
    graph = StateGraph(MessagesState)
    before = START
    for name, action in nodes:
        graph.add_node(name, action)
        graph.add_edge(before, name)
        before = name
    return graph.compile()


def _asks(text: str, **options: Any) -> Any:
    return lambda state: {"messages": _model(text, **options).invoke(state["messages"])}


def _texts(chunks: list[Any]) -> list[str]:
    return [message.content for message, _ in chunks]


def test_tokens_arrive_one_by_one_and_the_message_is_not_told_again(run: Run):
    """SM-6"""
    chunks = run.stream(_graph(("ask", _asks("one two"))), INPUT, {"tags": ["mine"]}, stream_mode="messages")
    assert _texts(chunks) == ["one", " ", "two"]
    metadata = chunks[0][1]
    assert metadata["langgraph_node"] == "ask"
    assert metadata["langgraph_step"] == 1
    assert metadata["langgraph_triggers"] == ("branch:to:ask",)
    assert metadata["checkpoint_ns"] == metadata["langgraph_checkpoint_ns"]
    assert metadata["tags"] == ["mine"]


def test_a_model_that_is_awaited_streams_too():
    async def ask(state: Any) -> Any:
        return {"messages": await _model("one two").ainvoke(state["messages"])}

    import asyncio

    async def collect() -> list[Any]:
        return [chunk async for chunk in _graph(("ask", ask)).astream(INPUT, stream_mode="messages")]

    assert _texts(asyncio.run(collect())) == ["one", " ", "two"]


def test_whole_messages_are_told_once_and_input_not_at_all(run: Run):
    """SM-6"""
    told = messages.AIMessage("whole", id="w")
    graph = _graph(
        ("all", lambda state: {"messages": [*state["messages"], told]}),
        ("again", lambda state: Command(update={"messages": [told, messages.AIMessage("new")]})),
    )
    assert _texts(run.stream(graph, INPUT, stream_mode="messages")) == ["whole", "new"]


def test_the_tag_nostream_mutes_a_models_tokens(run: Run):
    """SM-6"""
    chunks = run.stream(_graph(("ask", _asks("one two", tags=["nostream"]))), INPUT, stream_mode="messages")
    assert _texts(chunks) == ["one two"]


def test_a_pushed_message_is_told_and_written_whether_anyone_listens_or_not(run: Run):
    """SM-6"""

    def push(state: Any) -> Any:
        push_message(messages.AIMessage("pushed", id="p"))
        return {"messages": messages.AIMessage("returned", id="r")}

    graph = _graph(("push", push))
    assert _texts(run.stream(graph, INPUT, stream_mode="messages")) == ["pushed", "returned"]
    assert [message.id for message in run.invoke(graph, INPUT)["messages"]] == ["in", "p", "r"]


def test_nested_graphs_are_heard_if_subgraphs_are_asked_for(run: Run):
    """SM-2, SM-6"""
    graph = _graph(("outer", _graph(("ask", _asks("one two")))))
    below = run.stream(graph, INPUT, stream_mode="messages", subgraphs=True)
    assert [(ns[0].partition(":")[0], chunk[0].content) for ns, chunk in below] == [
        ("outer", "one"),
        ("outer", " "),
        ("outer", "two"),
    ]
    graph = _graph(("outer", _graph(("ask", _asks("one two")))))
    assert _texts(run.stream(graph, INPUT, stream_mode="messages")) == ["one two"]


def test_callbacks_in_the_config_reach_models_within_nodes(run: Run):
    """CF-1"""
    started = []

    class Listener(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            started.append(kwargs["metadata"]["langgraph_node"])

    run.invoke(_graph(("ask", _asks("one")), ("outer", _graph(("inner", _asks("two"))))), INPUT, {
        "callbacks": [Listener()]
    })  # fmt: skip
    assert started == ["ask", "inner"]
