"""Conditional edges that answer with an iterator of sends."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.errors import InvalidUpdateError
from mpflow.graph import END, START, StateGraph
from mpflow.types import Send
from tests.colours import Run


class State(TypedDict, total=False):
    count: int
    total: Annotated[int, operator.add]
    seen: int


def work(number: int) -> State:
    return {"total": number}


def fan_out(state: State) -> Iterator[Send]:
    for number in range(state["count"]):
        yield Send("work", number)


def graph_of(path: Any, executor: Any = None, **options: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("work", work, executor=executor)
    builder.add_node("after", lambda state: {"seen": state["total"]})
    builder.add_conditional_edges(START, path, ["work"])
    builder.add_edge("work", "after")
    builder.add_edge("after", END)
    return builder.compile(**options)


@pytest.mark.warm_pool
@pytest.mark.parametrize("executor", ["inline", "thread", "process"])
def test_every_send_is_run_once_and_the_next_step_sees_them_all(run: Run, executor: str) -> None:
    output = run.invoke(graph_of(fan_out, executor), {"count": 10_000, "total": 1})
    assert output == {"count": 10_000, "total": 1 + sum(range(10_000)), "seen": 1 + sum(range(10_000))}


def test_sends_are_made_while_they_run(run: Run) -> None:
    done = 0
    ahead = []

    def count(number: int) -> State:
        nonlocal done
        done += 1
        return {"total": 1}

    def watch(state: State) -> Iterator[Send]:
        for number in range(15_000):
            ahead.append(number - done)
            yield Send("work", number)

    builder = StateGraph(State)
    builder.add_node("work", count, executor="inline")
    builder.add_conditional_edges(START, watch, ["work"])
    assert run.invoke(builder.compile(), {})["total"] == 15_000
    assert max(ahead) <= 8192


IDS = re.compile(r"[0-9a-f-]{36}")


@pytest.mark.parametrize("mode", ["values", "updates", "tasks", "debug"])
def test_streams_show_what_they_show_of_a_list(run: Run, mode: str) -> None:
    def as_list(state: State) -> list[Send]:
        return list(fan_out(state))

    given = {"count": 5, "total": 0}

    def shown(path: Any) -> list[Any]:
        chunks = run.stream(graph_of(path, "inline"), given, stream_mode=mode)
        return [IDS.sub("<id>", str({**chunk, "timestamp": None})) for chunk in chunks]

    assert shown(fan_out) == shown(as_list)


def test_with_a_saver_all_are_made_and_saved(run: Run) -> None:
    graph = graph_of(fan_out, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    assert run.invoke(graph, {"count": 50, "total": 0}, config)["seen"] == sum(range(50))
    assert max(len(snapshot.tasks) for snapshot in run.history(graph, config)) == 50


def test_what_the_iterator_raises_is_raised_and_what_is_no_send_is_refused(run: Run) -> None:
    def breaks(state: State) -> Iterator[Send]:
        yield Send("work", 1)
        raise LookupError("no more")

    def strays(state: State) -> Iterator[Any]:
        yield Send("work", 1)
        yield "work"

    with pytest.raises(LookupError, match="no more"):
        run.invoke(graph_of(breaks), {"total": 0})
    with pytest.raises(InvalidUpdateError, match="iterator of sends gave str 'work'"):
        run.invoke(graph_of(strays), {"total": 0})


def test_a_generator_is_closed_when_the_run_fails(run: Run) -> None:
    closed = []

    def watched(state: State) -> Iterator[Send]:
        try:
            yield from (Send("work", number) for number in range(100_000))
        finally:
            closed.append(True)

    def fail(number: int) -> State:
        raise ZeroDivisionError

    builder = StateGraph(State)
    builder.add_node("work", fail, executor="inline")
    builder.add_conditional_edges(START, watched, ["work"])
    with pytest.raises(ZeroDivisionError):
        run.invoke(builder.compile(), {})
    assert closed


@pytest.mark.slow
@pytest.mark.warm_pool
def test_memory_stays_level_over_a_million_sends() -> None:
    import os

    def rss_bytes() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    graph = graph_of(fan_out, "process")
    graph.invoke({"count": 100_000, "total": 0})
    before = rss_bytes()
    graph.invoke({"count": 1_000_000, "total": 0})
    assert rss_bytes() - before <= 2 * 2**20
