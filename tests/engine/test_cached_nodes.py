"""Nodes with a `CachePolicy` run once for each input (CA-1 to CA-4)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from mpflow.cache.memory import InMemoryCache
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.errors import NodeError
from mpflow.graph import START, StateGraph
from mpflow.types import CachePolicy, Command, RetryPolicy, Send, interrupt

THREAD = {"configurable": {"thread_id": "1"}}


class State(TypedDict):
    x: Annotated[list[str], operator.add]


class Counted:
    """A node that counts its runs."""

    def __init__(self, goto: Any = ()) -> None:
        self.runs = 0
        self.goto = goto

    def __call__(self, state: State) -> Any:
        self.runs += 1
        return Command(update={"x": [f"run {self.runs}"]}, goto=self.goto)


def last(state: State) -> State:
    return {"x": ["last"]}


def graph_of(action: Any, policy: Any = None, **options: Any) -> StateGraph[Any]:
    builder = StateGraph(State).add_node("a", action, cache_policy=policy or CachePolicy(), **options)
    return builder.add_node("last", last).add_edge(START, "a")


def test_a_hit_skips_the_node_and_replays_its_update_and_its_routes(run: Any) -> None:
    """CA-3"""
    node = Counted(goto=["last", Send("last", {"x": []})])
    graph = graph_of(node).compile(cache=InMemoryCache())
    first = run.invoke(graph, {"x": ["in"]})
    assert first == {"x": ["in", "run 1", "last", "last"]}
    assert run.invoke(graph, {"x": ["in"]}) == first
    assert node.runs == 1
    run.invoke(graph, {"x": ["other"]})
    assert node.runs == 2


def test_branches_are_replayed_without_being_asked(run: Any) -> None:
    """CA-3"""
    asked: list[int] = []

    def route(state: State) -> str:
        asked.append(1)
        return "last"

    builder = graph_of(Counted()).add_conditional_edges("a", route, ["last"])
    graph = builder.compile(cache=InMemoryCache())
    assert run.invoke(graph, {"x": []}) == run.invoke(graph, {"x": []})
    assert len(asked) == 1


def test_what_streams_show_of_a_hit(run: Any) -> None:
    """CA-3: an update marked as cached, and no result among the tasks."""
    graph = graph_of(Counted()).compile(cache=InMemoryCache())
    run.invoke(graph, {"x": []})
    chunks = run.stream(graph, {"x": []}, stream_mode=["updates", "tasks"])
    assert [mode for mode, _ in chunks] == ["tasks", "updates"]
    assert chunks[1][1] == {"a": {"x": ["run 1"]}, "__metadata__": {"cached": True}}


def test_a_hit_is_saved_like_a_run(run: Any) -> None:
    graph = graph_of(Counted()).compile(cache=InMemoryCache(), checkpointer=InMemorySaver())
    for thread in "12":
        run.invoke(graph, {"x": []}, {"configurable": {"thread_id": thread}})
    _, before, *_ = run.history(graph, {"configurable": {"thread_id": "2"}})
    assert [task.result for task in before.tasks] == [{"x": ["run 1"]}]


def test_a_graph_without_a_cache_caches_nothing(run: Any) -> None:
    """CA-1"""
    node = Counted()
    graph = graph_of(node).compile()
    run.invoke(graph, {"x": []})
    run.invoke(graph, {"x": []})
    assert node.runs == 2


def test_the_default_policy_covers_nodes_and_no_handlers(run: Any) -> None:
    """GB-11"""
    node = Counted()
    handled: list[int] = []

    def fail(state: State) -> State:
        raise ValueError

    def rescue(state: State, error: NodeError) -> State:
        handled.append(1)
        return {"x": []}

    builder = StateGraph(State).add_node("a", node).add_node("b", fail, error_handler=rescue)
    builder.add_edge(START, "a").add_edge(START, "b").set_node_defaults(cache_policy=CachePolicy())
    graph = builder.compile(cache=InMemoryCache())
    run.invoke(graph, {"x": []})
    run.invoke(graph, {"x": []})
    assert (node.runs, len(handled)) == (1, 2)


@pytest.mark.parametrize("make", [str, str.encode])
def test_the_key_function_gets_the_nodes_input(run: Any, make: Any) -> None:
    """CA-2"""
    node = Counted()
    policy = CachePolicy(key_func=lambda state: make(str(len(state["x"]))))
    graph = graph_of(node, policy).compile(cache=InMemoryCache())
    run.invoke(graph, {"x": ["one"]})
    run.invoke(graph, {"x": ["other"]})
    assert node.runs == 1


def test_entries_grow_stale(run: Any) -> None:
    """CA-4"""
    now = [100.0]
    node = Counted()
    graph = graph_of(node, CachePolicy(ttl=5)).compile(cache=InMemoryCache(clock=lambda: now[0]))
    run.invoke(graph, {"x": []})
    now[0] += 4
    run.invoke(graph, {"x": []})
    assert node.runs == 1
    now[0] += 1
    run.invoke(graph, {"x": []})
    assert node.runs == 2


def test_clearing(run: Any) -> None:
    """CA-4"""
    node = Counted()
    graph = graph_of(node).compile(cache=InMemoryCache())
    run.invoke(graph, {"x": []})
    run.call(graph, "clear_cache", ["last"])
    run.invoke(graph, {"x": []})
    assert node.runs == 1
    run.call(graph, "clear_cache", nodes=["a"])
    run.invoke(graph, {"x": []})
    run.call(graph, "clear_cache")
    run.invoke(graph, {"x": []})
    assert node.runs == 3
    with pytest.raises(ValueError, match="No cache is set"):
        run.call(graph_of(node).compile(), "clear_cache")


def test_only_what_finished_is_cached(run: Any) -> None:
    """CA-4"""
    attempts: list[int] = []

    def flaky(state: State) -> State:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError
        return {"x": [interrupt("?")]}

    policy = RetryPolicy(initial_interval=0.0, jitter=False)
    graph = graph_of(flaky, retry_policy=policy).compile(cache=InMemoryCache(), checkpointer=InMemorySaver())
    run.invoke(graph, {"x": []}, THREAD)
    assert run.invoke(graph, Command(resume="yes"), THREAD) == {"x": ["yes"]}
    assert len(attempts) == 3
    assert run.invoke(graph, {"x": []}, {"configurable": {"thread_id": "2"}}) == {"x": ["yes"]}
    assert len(attempts) == 3


def test_a_graph_within_uses_the_cache_around_it(run: Any) -> None:
    node = Counted()
    inner = graph_of(node).compile()
    graph = StateGraph(State).add_node("inner", inner).add_edge(START, "inner").compile(cache=InMemoryCache())
    run.invoke(graph, {"x": []})
    run.invoke(graph, {"x": []})
    assert node.runs == 1


class Full(InMemoryCache[Any]):
    def set(self, pairs: Any) -> None:
        raise OSError("disk full")

    async def aset(self, pairs: Any) -> None:
        raise OSError("disk full")


def test_a_cache_that_cannot_keep_a_result_does_not_lose_it(run: Any, caplog: Any) -> None:
    assert run.invoke(graph_of(Counted()).compile(cache=Full()), {"x": []}) == {"x": ["run 1"]}
    assert "the writes of node 'a' could not be cached: OSError: disk full" in caplog.text


class Asked(InMemoryCache[Any]):
    """Notes for how many keys it is asked at once."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    def get(self, keys: Sequence[Any]) -> Any:
        self.counts.append(len(keys))
        return super().get(keys)


def test_a_step_asks_once(run: Any) -> None:
    """And of Sends with equal input, each gets the writes."""
    cache = Asked()
    node = Counted()
    builder = StateGraph(State).add_node("a", node, cache_policy=CachePolicy())
    builder.add_conditional_edges(START, lambda state: [Send("a", name) for name in "ppq"], ["a"])
    graph = builder.compile(cache=cache)
    run.invoke(graph, {"x": []})
    before = node.runs
    assert len(run.invoke(graph, {"x": []})["x"]) == 3
    assert (node.runs, cache.counts) == (before, [2, 2])
