"""Compiled graphs as langchain takes them: with listeners, as tools, and called in its runnables (CF-1)."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, TypedDict

import pytest
from langchain_core.runnables import RunnableLambda

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.config import get_config
from mpflow.graph import START, StateGraph
from tests.colours import Run

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    x: int


def graph_of(node: Any) -> Any:
    return StateGraph(State).add_node("node", node).add_edge(START, "node").compile(checkpointer=InMemorySaver())


def doubles(state: State) -> State:
    return {"x": state["x"] * 2}


def fails(state: State) -> State:
    raise KeyError("gone")


def test_listeners_are_told_of_each_run_by_itself(run: Run) -> None:
    told: list[Any] = []
    graph = graph_of(doubles).with_listeners(
        on_start=lambda record: told.append(("starts", record.inputs)),
        on_end=lambda record, config: told.append(("ends", record.outputs, config["configurable"]["thread_id"])),
        on_error=lambda record: told.append("fails"),
    )
    for number in (1, 2):
        assert run.invoke(graph.with_config(tags=["mine"]), {"x": number}, THREAD) == {"x": number * 2}
    assert told == [
        ("starts", {"x": 1}),
        ("ends", {"x": 2}, "1"),
        ("starts", {"x": 2}),
        ("ends", {"x": 4}, "1"),
    ]
    assert run.stream(graph, {"x": 3}, THREAD, stream_mode="updates") == [{"node": {"x": 6}}]
    assert len(told) == 6


def test_listeners_are_told_of_failures(run: Run) -> None:
    told: list[str] = []
    graph = graph_of(fails).with_listeners(on_error=lambda record: told.append(record.error))
    with pytest.raises(KeyError):
        run.invoke(graph, {"x": 1}, THREAD)
    assert len(told) == 1 and "gone" in told[0]


def test_async_listeners_are_awaited() -> None:
    told: list[str] = []

    async def ended(record: Any) -> None:
        await asyncio.sleep(0)
        told.append("ended")

    asyncio.run(graph_of(doubles).with_alisteners(on_end=ended).ainvoke({"x": 1}, THREAD))
    assert told == ["ended"]


@pytest.mark.filterwarnings("ignore:This API is in beta")
def test_a_graph_is_a_tool_with_its_input_as_arguments(run: Run) -> None:
    tool = graph_of(doubles).as_tool(name="double", description="Doubles a number.")
    assert (tool.name, list(tool.args)) == ("double", ["x"])
    assert run.invoke(tool, {"x": 4}, THREAD) == {"x": 8}


def test_a_graph_that_a_runnable_calls_takes_over_its_config() -> None:
    seen: list[Any] = []

    def node(state: State) -> State:
        config: Any = get_config()
        seen.append((config["tags"], config["configurable"]["thread_id"], config["configurable"].get("user")))
        return doubles(state)

    graph = graph_of(node)
    calls = RunnableLambda(lambda x: graph.invoke(x), afunc=lambda x: graph.ainvoke(x))
    given: Any = {"configurable": {"thread_id": "1", "user": "me"}, "tags": ["mine"]}
    assert calls.invoke({"x": 1}, given) == {"x": 2}
    if sys.version_info >= (3, 11):  # before, langchain's async functions do not find their run
        assert asyncio.run(calls.ainvoke({"x": 2}, given)) == {"x": 4}
    else:
        assert calls.invoke({"x": 2}, given) == {"x": 4}
    other = RunnableLambda(lambda x: graph.invoke(x, {"configurable": {"thread_id": "2"}}))
    assert other.invoke({"x": 1}, given) == {"x": 2}
    assert seen == [(["mine"], "1", "me")] * 2 + [(["mine"], "2", None)]
    assert [len(list(graph.get_state_history({"configurable": {"thread_id": name}}))) for name in "12"] == [6, 3]
