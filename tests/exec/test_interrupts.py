"""Ctrl-C: it waits for work that others rely on, and its traceback shows where of the user's code it came (FAULTS row 27)."""

from __future__ import annotations

import asyncio
import gc
import operator
import os
import signal
import sys
import threading
import time
import traceback
from typing import Annotated, Any, TypedDict

import pytest

from mpflow._exec.hearing import Hearing
from mpflow._exec.interrupts import Uninterrupted, pass_on
from mpflow._exec.process import WorkerPool
from mpflow.graph import END, START, StateGraph
from mpflow.runnables import RunnableParallel
from tests.exec.pooling import Drive, Node, is_alive, wait_until


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.chaos
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_one_that_comes_while_a_run_is_given_up_is_answered_when_the_pool_is_whole(
    colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_all = Hearing.read_all

    def interrupted(self: Hearing, worker: Any) -> None:
        interrupt()
        read_all(self, worker)

    with WorkerPool(1) as pool:
        graph = StateGraph(State)
        graph.add_node("quick", lambda state: {"log": ["quick"]}, executor="inline").add_edge(START, "quick")
        graph.add_node("sleeper", lambda state: time.sleep(60), executor="process").add_edge(START, "sleeper")
        runs = graph.compile(pool=pool)

        def leave_no_earlier_than_it_runs() -> None:
            Drive(pool).poll_until(lambda: bool(pool.stats()["running"]))
            monkeypatch.setattr(Hearing, "read_all", interrupted)

        def give_up() -> None:
            chunks = runs.stream({"log": []}, stream_mode="updates")
            next(chunks)
            leave_no_earlier_than_it_runs()
            chunks.close()

        async def agive_up() -> None:
            chunks = runs.astream({"log": []}, stream_mode="updates")
            await anext(chunks)
            leave_no_earlier_than_it_runs()
            await chunks.aclose()

        with pytest.raises(KeyboardInterrupt):
            give_up() if colour == "sync" else asyncio.run(agive_up())
        monkeypatch.undo()
        assert Drive(pool).values(Node(lambda x: x), range(9)) == list(range(9)), "the next run on the same pool"
        assert pool.stats()["deaths"] == 0


@pytest.mark.chaos
def test_one_that_comes_while_messages_are_read_costs_their_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    with WorkerPool(1) as pool:
        pid = Drive(pool).values(Node(lambda x: os.getpid()), [0])[0]
        drive = Drive(pool)
        attempts = drive.submit(Node(time.sleep, "sleeper"), [60])
        drive.poll_until(lambda: bool(pool.stats()["running"]))
        monkeypatch.setattr(Hearing, "_read", lambda self, worker: interrupt())
        with pytest.raises(KeyboardInterrupt):
            pool.cancel(attempts, kill=True)
        monkeypatch.undo()
        assert wait_until(lambda: not is_alive(pid), 5.0)
        pool.cancel(attempts, kill=True)  # the task that it ran goes on elsewhere
        assert Drive(pool).values(Node(lambda x: x), range(9)) == list(range(9))


def test_it_waits_for_the_end_and_comes_once() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):
        with Uninterrupted() as work:
            interrupt()
            interrupt()
            done.append("work")
        assert work.came
        done.append("whole")
        pass_on()
    assert done == ["work", "whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_is_not_passed_on_where_one_is_on_its_way() -> None:
    with pytest.raises(KeyboardInterrupt, match="the first"):
        try:
            raise KeyboardInterrupt("the first")
        finally:
            try:
                raise asyncio.CancelledError
            except asyncio.CancelledError:
                pass_on()


def test_a_handler_of_the_users_hears_of_it_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with Uninterrupted():
            interrupt()
            assert not heard
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass_on()
    finally:
        signal.signal(signal.SIGINT, usual)
    assert heard == [signal.SIGINT]


def test_off_the_main_thread_and_where_it_is_ignored_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    changed: list[Any] = []

    def work() -> None:
        with Uninterrupted() as ending:
            pass
        changed.append(ending.came)

    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    monkeypatch.setattr(signal, "signal", lambda *what: changed.append(what))
    try:
        work()
    finally:
        monkeypatch.undo()
        signal.signal(signal.SIGINT, usual)
    monkeypatch.setattr(signal, "signal", lambda *what: changed.append(what))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert changed == [False, False]


OUR_FRAMES = int(sys.version_info < (3, 11))
"""What a traceback shows of us: on Python 3.10 the public method that was called."""


def ours_in(error: BaseException) -> list[str]:
    """The names of our frames in a traceback."""
    return [frame.name for frame in traceback.extract_tb(error.__traceback__) if "/mpflow/" in frame.filename]


def test_its_traceback_names_the_users_code_and_nothing_of_ours() -> None:
    def my_node(state: Any) -> None:
        interrupt()
        time.sleep(5)

    graph = StateGraph(State).add_node("n", my_node, executor="inline").add_edge(START, "n").compile()
    with pytest.raises(KeyboardInterrupt) as caught:
        graph.invoke({"log": []})
    assert ours_in(caught.value) == ["invoke"][:OUR_FRAMES]
    assert "my_node" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert caught.value.__suppress_context__


async def alist(chunks: Any) -> None:
    async for _ in chunks:
        pass


@pytest.mark.parametrize("way", ["invoke", "stream", "batch", "batch_as_completed", "RunnableParallel"])
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_what_it_finds_waiting_is_not_shown(colour: str, way: str) -> None:
    """In threads, so that the caller waits: in code of ours and of the standard library's, and nobody else's."""
    release, caller = threading.Event(), threading.main_thread().ident
    assert caller is not None

    first = threading.Lock()

    def node(state: Any) -> None:
        if first.acquire(blocking=False):  # a second one, of another run of a batch, would come when nobody expects it
            signal.pthread_kill(caller, signal.SIGINT)
        release.wait(60)

    graph: Any = StateGraph(State).add_node("n", node, executor="thread").add_edge(START, "n")
    graph = graph.add_node("other", lambda state: {"log": []}, executor="thread").add_edge(START, "other").compile()
    if way == "RunnableParallel":
        graph = RunnableParallel({"n": node, "other": len})
    name = "invoke" if way == "RunnableParallel" else way
    call = getattr(graph, name if colour == "sync" else f"a{name}")
    arguments = [[{"log": []}] * 2] if "batch" in way else [{"log": []}]

    async def main() -> None:
        made = call(*arguments)
        await (made if hasattr(made, "__await__") else alist(made))

    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            list(call(*arguments)) if colour == "sync" else asyncio.run(main())
    finally:
        release.set()
    error: BaseException | None = caught.value
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        assert len(ours_in(error)) <= OUR_FRAMES + (way == "RunnableParallel")
        assert colour == "async" or not [frame for frame in frames if "threading" in frame.filename]
        error = None if error.__suppress_context__ else error.__context__


def test_one_that_comes_while_asyncio_ends_says_nothing_of_each_task() -> None:
    """The second of two may come when asyncio cancels what runs, and then it leaves that as it is."""
    loop = asyncio.new_event_loop()
    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    begun, ended = asyncio.Event(), []

    async def node(state: Any) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("node")

    graph = StateGraph(State).add_node("n", node).add_edge(START, "n").add_edge("n", END).compile()
    run = loop.create_task(graph.ainvoke({"log": []}))
    run._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_until_complete(begun.wait())
    loop.close()
    del run
    gc.collect()
    assert told == []
    assert ended == ["node"]
