"""Timeouts end a node that runs, or is silent, for too long (TO-1 to TO-4, D-4)."""

from __future__ import annotations

import asyncio
import operator
import time
from datetime import timedelta
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from mpflow.errors import NodeError, NodeTimeoutError
from mpflow.graph import START, StateGraph
from mpflow.runtime import Runtime
from mpflow.types import RetryPolicy, Send, StreamWriter, TimeoutPolicy


class State(TypedDict):
    x: Annotated[list[str], operator.add]


async def sleeping(state: State) -> State:
    await asyncio.sleep(60)
    return {"x": ["late"]}


def stuck(state: State) -> State:
    time.sleep(60)
    return {"x": ["late"]}


def graph_of(action: Any, **options: Any) -> StateGraph[Any]:
    return StateGraph(State).add_node("a", action, **options).add_edge(START, "a")


def ainvoke(builder: StateGraph[Any]) -> Any:
    return asyncio.run(builder.compile().ainvoke({"x": []}))


@pytest.mark.parametrize("timeout", [0.02, timedelta(seconds=0.02), TimeoutPolicy(run_timeout=0.02)])
def test_an_async_node_is_cancelled_at_its_run_timeout(timeout: Any) -> None:
    """TO-1, TO-3"""
    with pytest.raises(NodeTimeoutError) as caught:
        ainvoke(graph_of(sleeping, timeout=timeout))
    error = caught.value
    assert (error.node, error.kind, error.timeout, error.run_timeout, error.idle_timeout) == (
        "a",
        "run",
        0.02,
        0.02,
        None,
    )
    assert error.elapsed >= 0.02


def test_a_default_timeout_covers_handlers_too() -> None:
    """GB-11"""

    async def rescue(state: State, error: NodeError) -> State:
        return await sleeping(state)

    with pytest.raises(NodeTimeoutError) as caught:
        ainvoke(graph_of(sleeping, error_handler=rescue).set_node_defaults(timeout=0.02))
    assert caught.value.node == "__error_handler__a"


def test_a_sends_own_timeout_comes_first() -> None:
    """TO-1"""
    builder = StateGraph(State).add_node("a", sleeping, timeout=60)
    builder.add_conditional_edges(START, lambda state: [Send("a", state, timeout=0.02)], ["a"])
    with pytest.raises(NodeTimeoutError) as caught:
        ainvoke(builder)
    assert caught.value.timeout == 0.02


def test_a_timeout_is_retried_by_default_and_each_attempt_has_a_clock_of_its_own() -> None:
    """TO-3"""
    attempts: list[int] = []

    async def slow_once(state: State) -> State:
        attempts.append(1)
        await asyncio.sleep(60 if len(attempts) == 1 else 0.03)
        return {"x": ["done"]}

    policy = RetryPolicy(initial_interval=0.0, jitter=False)
    assert ainvoke(graph_of(slow_once, timeout=0.05, retry_policy=policy)) == {"x": ["done"]}
    assert len(attempts) == 2


def test_what_a_node_says_after_its_timeout_is_dropped() -> None:
    """TO-3: and that it took no notice of being cancelled does not save it."""

    async def stubborn(state: State, writer: StreamWriter) -> State:
        writer("in time")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            writer("too late")
        return {"x": ["late"]}

    async def collect() -> list[Any]:
        chunks = []
        with pytest.raises(NodeTimeoutError):
            async for chunk in graph_of(stubborn, timeout=0.02).compile().astream({"x": []}, stream_mode="custom"):
                chunks.append(chunk)
        return chunks

    assert asyncio.run(collect()) == ["in time"]


# -- idle timeouts ----------------------------------------------------------------------------------------------------

IDLE = TimeoutPolicy(idle_timeout=0.08)
STRICT = TimeoutPolicy(idle_timeout=0.08, refresh_on="heartbeat")


async def beating(state: State, runtime: Runtime) -> State:
    for _ in range(8):
        await asyncio.sleep(0.02)
        runtime.heartbeat()
    return {"x": ["done"]}


async def writing(state: State, writer: StreamWriter) -> State:
    for _ in range(8):
        await asyncio.sleep(0.02)
        writer("still here")
    return {"x": ["done"]}


async def tick(state: State) -> State:
    await asyncio.sleep(0.02)
    return {"x": ["tick"]}


async def nesting(state: State) -> State:
    builder = StateGraph(State).add_sequence([(str(n), tick) for n in range(8)]).add_edge(START, "0")
    await builder.compile().ainvoke({"x": []})
    return {"x": ["done"]}


def test_a_silent_node_is_cancelled() -> None:
    """TO-4"""
    with pytest.raises(NodeTimeoutError) as caught:
        ainvoke(graph_of(sleeping, timeout=TimeoutPolicy(idle_timeout=0.02, run_timeout=60)))
    assert (caught.value.kind, caught.value.timeout, caught.value.run_timeout) == ("idle", 0.02, 60)


@pytest.mark.parametrize("action", [beating, writing, nesting])
def test_signs_of_life_keep_a_node_going(action: Any) -> None:
    """TO-4: heartbeats, chunks, and the steps of graphs within it."""
    assert ainvoke(graph_of(action, timeout=IDLE)) == {"x": ["done"]}


@pytest.mark.parametrize("action", [writing, nesting])
def test_only_heartbeats_count_if_it_is_said_so(action: Any) -> None:
    assert ainvoke(graph_of(beating, timeout=STRICT)) == {"x": ["done"]}
    with pytest.raises(NodeTimeoutError):
        ainvoke(graph_of(action, timeout=STRICT))


# -- sync nodes -------------------------------------------------------------------------------------------------------


@pytest.mark.warm_pool
def test_a_sync_node_with_a_timeout_runs_on_a_process_which_is_killed(run: Any) -> None:
    """D-4"""
    with pytest.raises(NodeTimeoutError) as caught:
        run.invoke(graph_of(stuck, timeout=0.2).compile(), {"x": []})
    assert (caught.value.node, caught.value.timeout) == ("a", 0.2)


@pytest.mark.warm_pool
def test_a_send_with_a_timeout_to_a_sync_node_goes_to_a_process(run: Any) -> None:
    """TO-1, D-4"""
    builder = StateGraph(State).add_node("a", stuck)
    builder.add_conditional_edges(START, lambda state: [Send("a", state, timeout=0.2)], ["a"])
    with pytest.raises(NodeTimeoutError):
        run.invoke(builder.compile(), {"x": []})


@pytest.mark.parametrize("place", ["thread", "inline"])
def test_a_sync_node_bound_to_a_thread_can_have_no_timeout(run: Any, place: Any) -> None:
    """TO-2, D-4"""
    match = "only supported for async nodes.*'a' is sync"
    with pytest.raises(ValueError, match=match):
        graph_of(stuck, timeout=1, executor=place)
    with pytest.raises(ValueError, match=match):
        graph_of(stuck, executor=place).set_node_defaults(timeout=1).compile()
    with pytest.raises(ValueError, match=match):
        graph_of(stuck, timeout=1).compile(executor=place)
    builder = StateGraph(State).add_node("a", stuck, executor=place)
    builder.add_conditional_edges(START, lambda state: [Send("a", state, timeout=1)], ["a"])
    with pytest.raises(ValueError, match=match):
        run.invoke(builder.compile(), {"x": []})


def test_a_sync_node_can_have_no_idle_timeout() -> None:
    with pytest.raises(ValueError, match="'a' is sync"):
        graph_of(stuck, timeout=IDLE)
    inner = graph_of(stuck).compile()
    with pytest.raises(ValueError, match="'inner' is sync"):
        StateGraph(State).add_node("inner", inner, timeout=IDLE).add_edge(START, "inner").compile().invoke({"x": []})


def test_a_node_on_a_process_can_have_no_idle_timeout() -> None:
    with pytest.raises(ValueError, match="'a' runs on a process"):
        graph_of(sleeping, timeout=IDLE).compile(executor="process")


@pytest.mark.parametrize("timeout", [0, -1, TimeoutPolicy(idle_timeout=0)])
def test_timeouts_are_above_zero(timeout: Any) -> None:
    """TO-1"""
    with pytest.raises(ValueError, match="greater than 0"):
        graph_of(sleeping, timeout=timeout)
    with pytest.raises(ValueError, match="greater than 0"):
        StateGraph(State).set_node_defaults(timeout=timeout)
