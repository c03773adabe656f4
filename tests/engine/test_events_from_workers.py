"""Handlers are told of what runs in workers as of what runs in threads: which lies within which, in which order (CF-1, D-11)."""

from __future__ import annotations

import asyncio
import operator
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.manager import _executor
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from mpflow import WorkerPool
from mpflow.func import entrypoint, task
from mpflow.graph import START, StateGraph
from mpflow.types import RetryPolicy

pytestmark = pytest.mark.warm_pool
# For handlers that are coroutines langchain keeps a thread of its own, from the first one on: here from before the leak check.
_executor().submit(int).result()


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool


def programs(place: Any, pool: WorkerPool) -> dict[str, Any]:
    """What is told of where it matters: edges, graphs within, tasks within tasks, models, failures."""

    @task(executor=place)
    def plus_one(x: int) -> int:
        return x + 1

    @task(executor=place)
    def twice(x: int) -> int:
        return RunnableLambda(lambda y: y * 2).with_config(run_name="inner").invoke(plus_one(x).result())

    @task(executor=place)
    def chat(text: str) -> str:
        model = GenericFakeChatModel(messages=iter([AIMessage("one two", id="1")]))
        return str(model.invoke(text).content)

    @entrypoint(pool=pool)
    def flow(x: int) -> Any:
        return [twice(plus_one(x).result()).result(), chat("hi").result()]

    def deep(state: State) -> State:
        return {"log": [RunnableLambda(lambda x: x, name="deepest").invoke("deep")]}

    def fails(state: State) -> State:
        raise KeyError("gone")

    def route(state: State) -> str:
        return "child"

    child = StateGraph(State).add_node("grandchild", deep, executor=place).add_edge(START, "grandchild")
    graph = StateGraph(State).add_node("deep", deep, executor=place, metadata={"of": "node"})
    graph.add_node("child", child.compile(name="a graph"), executor=place)
    graph.add_edge(START, "deep").add_conditional_edges("deep", route, ["child"])
    failing = StateGraph(State).add_node("fails", fails, executor=place).add_edge(START, "fails")
    return {"tasks": flow, "graphs": graph.compile(pool=pool), "failure": failing.compile(pool=pool)}


def events_of(graph: Any, input: Any) -> list[Any]:
    """The events, runs told by name, those of one run in the order in which they came."""

    async def collect() -> list[Any]:
        names: dict[str, str] = {}
        told: list[Any] = []
        try:
            async for event in graph.astream_events(input, {"tags": ["mine"]}, version="v2"):
                run = names.setdefault(event["run_id"], event["name"])
                parents = [names[run_id] for run_id in event["parent_ids"]]
                metadata = {key: event["metadata"].get(key) for key in ("langgraph_node", "langgraph_step", "of")}
                data = {key: getattr(value, "content", value) for key, value in event["data"].items()}
                told.append((event["event"], run, parents, sorted(event["tags"]), metadata, str(data)))
        except KeyError as error:
            told.append(("raised", str(error)))
        return told

    return asyncio.run(collect())


@pytest.mark.parametrize("name", ["tasks", "graphs", "failure"])
def test_event_streams_are_those_of_threads(pool: WorkerPool, name: str) -> None:
    input = 1 if name == "tasks" else {"log": []}
    in_threads = events_of(programs("thread", pool)[name], input)
    in_workers = events_of(programs("process", pool)[name], input)
    assert in_workers == in_threads


class Told(BaseCallbackHandler):
    """Notes how each task's attempts went."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_chain_start(self, serialized: Any, inputs: Any, *, name: str = "", **kwargs: Any) -> None:
        self.seen.append(f"{name} starts")

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.seen.append("ends")

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.seen.append(type(error).__name__)


@pytest.mark.chaos
@pytest.mark.parametrize("by", ["death", "error"])
def test_each_attempt_is_told_of(tmp_path: Path, by: str) -> None:
    """RY-2"""

    def stumbles(state: State) -> State:
        if not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch()
            if by == "death":
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyError("once")
        return {"log": ["done"]}

    at_once = RetryPolicy(initial_interval=0.0, jitter=False, retry_on=KeyError)
    builder = StateGraph(State).add_node("stumbles", stumbles, executor="process", retry_policy=at_once)
    told = Told()
    with WorkerPool(1) as pool:
        graph = builder.add_edge(START, "stumbles").compile(pool=pool, name="graph")
        assert graph.invoke({"log": []}, {"callbacks": [told]}) == {"log": ["done"]}
    failure = "WorkerLost" if by == "death" else "KeyError"
    assert told.seen == ["graph starts", "stumbles starts", failure, "stumbles starts", "ends", "ends"]
