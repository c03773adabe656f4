"""Consumers that do not read: what a task in a worker says is bounded, and holds up that task alone."""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest

from mpflow._exec.process import WorkerPool
from mpflow._exec.reports import UNTAKEN
from mpflow.config import get_stream_writer
from mpflow.errors import NodeTimeoutError
from mpflow.graph import START, StateGraph
from mpflow.types import Send, TimeoutPolicy
from tests.exec.pooling import Drive, Node

MANY = 5_000


class State(TypedDict):
    log: Annotated[list[Any], operator.add]


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as pool:
        yield pool


def talk(state: Any) -> Any:
    write = get_stream_writer()
    for number in range(MANY):
        write(number)
    return {"log": ["said"]}


def talking(pool: WorkerPool, **node: Any) -> Any:
    graph = StateGraph(State).add_node("talk", talk, executor="process", **node).add_edge(START, "talk")
    return graph.compile(pool=pool)


def wait_for_stall(pool: WorkerPool) -> None:
    drive = Drive(pool)
    drive.poll_until(lambda: len(pool._foreman._floor.stalls) > 0)


def test_a_run_that_nobody_reads_stands_still_and_no_other(pool: WorkerPool) -> None:
    stream = talking(pool).stream({"log": []}, stream_mode="custom")
    chunks = [next(stream)]
    wait_for_stall(pool)
    before = pool.stats()["bytes_in"]
    assert Drive(pool).values(Node(lambda x: x), range(300)) == list(range(300)), "another run"
    assert pool.stats()["started"] == 2, "one stands in for the one that waits"
    other = StateGraph(State).add_node("n", lambda state: {"log": [1]}, executor="process").add_edge(START, "n")
    assert other.compile(pool=pool).invoke({"log": []}) == {"log": [1]}
    assert pool.stats()["bytes_in"] - before < 40_000
    chunks += stream
    assert chunks == list(range(MANY))


def test_what_waits_undelivered_is_bounded(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpflow._exec.mailbox import Mailbox

    most = 0
    take = Mailbox.take

    def counted(mailbox: Mailbox) -> Any:
        nonlocal most
        taken = take(mailbox)
        most = max(most, len(taken))
        return taken

    monkeypatch.setattr(Mailbox, "take", counted)
    seen = 0
    for _ in talking(pool).stream({"log": []}, stream_mode="custom"):
        seen += 1
        if seen % 500 == 1:
            time.sleep(0.1)  # a consumer that has something else to do
    assert seen == MANY and most <= UNTAKEN + 1


def test_an_async_consumer_that_does_not_read_holds_up_no_other_run(pool: WorkerPool) -> None:
    async def main() -> None:
        stream = talking(pool).astream({"log": []}, stream_mode="custom")
        chunks = [await anext(stream)]
        while not pool._foreman._floor.stalls:
            pool.drain()
            await asyncio.sleep(0.01)
        assert await talking_less(pool).ainvoke({"log": []}) == {"log": [1]}
        chunks += [chunk async for chunk in stream]
        assert chunks == list(range(MANY))

    asyncio.run(main())


def talking_less(pool: WorkerPool) -> Any:
    graph = StateGraph(State).add_node("n", lambda state: {"log": [1]}, executor="process").add_edge(START, "n")
    return graph.compile(pool=pool)


def test_a_fan_out_of_talkers_that_nobody_reads_takes_no_more_than_the_pool(pool: WorkerPool) -> None:
    graph = StateGraph(State).add_node("talk", talk, executor="process")
    graph.add_conditional_edges(START, lambda state: [Send("talk", state)] * 6)
    stream = graph.compile(pool=pool).stream({"log": []}, stream_mode=["custom", "values"])
    next(stream), next(stream)
    wait_for_stall(pool)
    assert Drive(pool).values(Node(lambda x: x), range(50)) == list(range(50))
    assert pool.stats()["started"] == 2, "what else that run has waits with it"
    last = None
    for mode, chunk in stream:
        if mode == "values":
            last = chunk
    assert last == {"log": ["said"] * 6}


def test_the_deadline_of_a_task_that_waits_for_its_consumer_still_runs(pool: WorkerPool) -> None:
    stream = talking(pool, timeout=TimeoutPolicy(run_timeout=0.5)).stream({"log": []}, stream_mode="custom")
    next(stream)
    wait_for_stall(pool)
    Drive(pool).poll_until(lambda: not pool._foreman._floor.stalls)
    with pytest.raises(NodeTimeoutError):
        list(stream)


def test_a_stream_that_is_walked_away_from_frees_its_worker(pool: WorkerPool) -> None:
    stream = talking(pool).stream({"log": []}, stream_mode="custom")
    next(stream)
    wait_for_stall(pool)
    stream.close()
    Drive(pool).poll_until(lambda: "talk" not in pool.stats()["running"].values())
    assert Drive(pool).values(Node(lambda x: x), range(50)) == list(range(50))
