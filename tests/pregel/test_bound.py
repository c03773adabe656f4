"""A compiled graph's nodes called by themselves, and copies of graphs (PR-1, GB-16)."""

import asyncio
from typing import Any

import pytest

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.config import RunnableConfig
from mpflow.func import entrypoint
from mpflow.graph import START, StateGraph
from mpflow.runtime import Runtime


def _graph() -> Any:
    def plain(state: int, config: RunnableConfig, runtime: Runtime) -> Any:
        return config["metadata"].get("key"), runtime.context

    async def awaited(state: int) -> int:
        return state + 1

    builder = StateGraph(int).add_node("plain", plain, metadata={"key": 1}).add_node("awaited", awaited)
    return builder.add_edge(START, "plain").compile()


def test_a_node_called_by_itself_sees_its_own_metadata_and_an_empty_runtime() -> None:
    assert _graph().nodes["plain"].invoke(0) == (1, None)
    assert _graph().nodes["plain"].invoke(0, {"metadata": {"key": 2}}) == (2, None)


def test_a_node_called_within_a_task_is_given_the_tasks_runtime() -> None:
    nodes = _graph().nodes

    @entrypoint(context_schema=dict)
    def work(x: int) -> Any:
        return nodes["plain"].invoke(x)

    assert work.invoke(0, context={"user": "u"})[1] == {"user": "u"}


def test_an_async_node_is_awaited() -> None:
    node = _graph().nodes["awaited"]
    assert asyncio.run(node.ainvoke(1)) == 2
    with pytest.raises(TypeError, match='No synchronous function provided to "awaited"'):
        node.invoke(1)


def test_a_copy_has_its_own_name_and_saver() -> None:
    graph = _graph()
    saver = InMemorySaver()
    twin = graph.copy({"name": "twin", "checkpointer": saver})
    assert (graph.name, graph.checkpointer) == ("LangGraph", None)
    assert (twin.name, twin.checkpointer) == ("twin", saver)
    graph.name = "renamed"
    assert (graph.name, twin.name) == ("renamed", "twin")


def test_a_copy_cannot_be_made_of_other_nodes() -> None:
    with pytest.raises(ValueError, match="cannot change 'nodes'"):
        _graph().copy({"nodes": {}})
