"""When workers need not be listened to: the rule on its own, and a pool of which nobody reads all the time."""

from __future__ import annotations

import asyncio
import operator
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict

import pytest

from mpflow._exec import calm, slots
from mpflow._exec.calm import LONGEST_S, WATCHED_S, Calm
from mpflow._exec.crew import LEAVING, READY, STARTING
from mpflow._exec.door import Door, Knocker
from mpflow._exec.process import WorkerPool
from mpflow._messages import DONE
from mpflow.graph import START, StateGraph
from mpflow.runtime import Runtime
from mpflow.store.memory import InMemoryStore
from mpflow.types import Send
from tests.colours import Run
from tests.exec.pooling import Drive, Node


class Sum(TypedDict, total=False):
    total: Annotated[int, operator.add]


def worker(waiting: int = 10, mean_s: float = 0.01, **fields: Any) -> Any:
    usual = {
        "state": READY,
        "wants_out": False,
        "taken_back": False,
        "window": SimpleNamespace(is_unwatched=True),
        "is_measured": True,
        "has_more": False,
        "waiting": waiting,
        "mean_s": mean_s,
    }
    return SimpleNamespace(**{**usual, **fields})


def lasts_s(*crew: Any, stalls: Any = ()) -> float:
    return Calm(SimpleNamespace(crew=list(crew)), stalls).lasts_s()  # type: ignore[arg-type]


def test_it_lasts_for_half_of_what_the_first_to_be_done_has_waiting_in_its_last_batch() -> None:
    assert lasts_s(worker(4), worker(3)) == pytest.approx(0.015)
    assert lasts_s(worker(4000)) == LONGEST_S
    assert lasts_s(worker(1, has_more=True)) == LONGEST_S, "it knocks when it comes to its last batch"


@pytest.mark.parametrize(
    "busy",
    [
        worker(0),
        worker(1, 0.001),
        worker(state=STARTING),
        worker(state=LEAVING),
        worker(wants_out=True),
        worker(taken_back=True),
        worker(window=None),
        worker(is_measured=False),
    ],
)
def test_one_worker_that_needs_somebody_ends_it(busy: Any) -> None:
    assert lasts_s(worker(), busy) == 0


def test_it_is_short_where_results_are_watched() -> None:
    assert lasts_s(worker(), worker(window=SimpleNamespace(is_unwatched=False))) == WATCHED_S


def test_nobody_is_calm_without_workers_or_while_one_waits_for_us() -> None:
    assert lasts_s() == 0
    assert lasts_s(worker(), stalls=[worker()]) == 0


def test_a_disturbance_ends_it_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(calm, "monotonic", lambda: now[0])
    quiet = Calm(SimpleNamespace(crew=[worker()]), ())  # type: ignore[arg-type]
    assert quiet.lasts_s() > 0
    quiet.disturb()
    assert quiet.lasts_s() == 0
    now[0] += 1.1
    assert quiet.lasts_s() > 0


def test_a_worker_knocks_at_its_last_batch_at_its_end_and_for_what_cannot_wait_and_not_while_somebody_listens() -> None:
    door = Door()
    page = slots.Page(slots.create())
    knocker = Knocker(page.words)
    knocker.use(os.dup(door.outside()))
    crew = [worker(page=page, next_number=11, has_more=True)]
    quiet = Calm(SimpleNamespace(crew=crew), ())  # type: ignore[arg-type]

    def has_knocked(say: Callable[..., None], *number: int) -> bool:
        say(*number)
        return door.answer()

    try:
        assert not knocker.is_asked()
        assert quiet.begin() == LONGEST_S and knocker.is_asked()
        assert not has_knocked(knocker.begins, 9) and not has_knocked(knocker.ended, 8)
        assert has_knocked(knocker.begins, 10) and has_knocked(knocker.ended, 10) and has_knocked(knocker.speaks)
        quiet.end()
        assert not any((has_knocked(knocker.begins, 10), has_knocked(knocker.ended, 10), has_knocked(knocker.speaks)))
        crew.append(worker(0, page=page))
        assert quiet.begin() == 0
        assert not has_knocked(knocker.speaks), "nobody is calm"
    finally:
        assert knocker._sock is not None
        knocker._sock.close()
        page.close()
        door.close()


@pytest.mark.parametrize("asking", [None, 150])
def test_workers_that_come_to_an_end_or_ask_are_heard_however_long_it_lasts(
    monkeypatch: pytest.MonkeyPatch, run: Run, asking: int | None
) -> None:
    monkeypatch.setattr(calm, "LONGEST_S", 3600.0)
    monkeypatch.setattr(calm, "WATCHED_S", 3600.0)

    def work(n: int, runtime: Runtime) -> dict[str, int]:
        for _ in range(40_000 if n % 7 == 0 else 4_000):
            pass
        if n == asking:
            assert runtime.store is not None
            runtime.store.put(("asked",), str(n), {})
        return {"total": n}

    builder = StateGraph(Sum)
    builder.add_node("work", work, executor="process")
    builder.add_conditional_edges(START, lambda _: [Send("work", n) for n in range(200)])
    store = InMemoryStore()
    with WorkerPool(1 if asking else 2) as pool:
        graph = builder.compile(pool=pool, store=store)
        assert run.invoke(graph, {"total": 0})["total"] == sum(range(200))
    assert len(store.search(("asked",))) == (asking is not None)


def test_what_lies_in_the_sockets_is_taken_in_and_a_death_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With every worker always calm, and for long: only the bell and the end of the calm are left to wake the run."""
    monkeypatch.setattr(Calm, "lasts_s", lambda _: 0.01)

    def once(value: int) -> int:
        if value == 7:
            try:
                os.close(os.open(tmp_path / "died", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return value
            os.kill(os.getpid(), 9)
        return value

    with WorkerPool(2) as pool:
        drive = Drive(pool)
        ended = drive.rerunning(Node(once), range(50))
        assert ended == {value: (DONE, [("out", value)]) for value in range(50)}
        assert len(drive.lost) == 1


def test_another_run_need_not_wait_behind_a_full_window(tmp_path: Path) -> None:
    gate, order = str(tmp_path / "gate"), str(tmp_path / "order")
    os.mkfifo(gate)

    def long(value: int) -> int:
        with open(order, "a") as file:
            file.write("a")
        if value == 0:
            with open(gate) as opened:
                opened.read()
        return value

    def other(_: int) -> None:
        with open(order, "a") as file:
            file.write("b")

    with WorkerPool(1) as pool:
        first, second, node = Drive(pool), Drive(pool), Node(long)
        first.values(node, [1])
        # As if such tasks took 10 ms each.
        pool._foreman._floor.parcels.shipments.of(node).measured(10_000, 100.0)
        first.submit(node, range(40))
        first.running_pid()
        (busy,) = pool._foreman._floor.roster.crew
        assert busy.waiting >= 8  # and two have begun before
        second.submit(Node(other), [0])
        with open(gate, "w"):
            pass
        second.finish(1)
        first.finish(41)
        assert Path(order).read_text().index("b") < 10


def test_an_event_loop_need_not_listen_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Calm, "lasts_s", lambda _: 0.01)

    builder = StateGraph(Sum)
    builder.add_node("work", lambda n: {"total": n}, executor="process")
    builder.add_conditional_edges(START, lambda _: [Send("work", n) for n in range(2_000)])
    with WorkerPool(2) as pool:
        graph = builder.compile(pool=pool)

        async def twice() -> list[Any]:
            return await asyncio.gather(graph.ainvoke({"total": 0}), graph.ainvoke({"total": 1}))

        assert [result["total"] for result in asyncio.run(twice())] == [1_999_000, 1_999_001]
