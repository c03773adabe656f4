"""Under "sync" a worker's next tasks wait until the results of its last ones are durable (FAULTS promise 3)."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

from mpflow._engine import portions
from mpflow._engine.portions import Portions
from mpflow._exec.mailbox import Mailbox
from mpflow._exec.process import WorkerPool
from mpflow._messages import CANCELLED, DONE, DONE_MANY, EVENT, FAILED, Attempt
from mpflow.checkpoint.log.driver import RESULT, Batch
from mpflow.checkpoint.log.memory import MemoryDriver
from mpflow.checkpoint.log.saver import LogSaver
from mpflow.errors import PoolClosedError
from mpflow.graph import START, StateGraph
from mpflow.types import Send
from tests.colours import Run

WORKERS = 2


class Program:
    name = "n"


class Pool:
    """Notes what it is given."""

    max_workers = WORKERS

    def __init__(self, seen: int = 0, mean_s: float = 0.0) -> None:
        self.given: list[Attempt] = []
        self.cancelled: list[Attempt] = []
        self.seen, self.mean_s = seen, mean_s
        self.refuses = False

    def submit(self, attempts: Sequence[Attempt]) -> None:
        if self.refuses:
            raise PoolClosedError("an attempt was submitted")
        self.given += attempts

    def cancel(self, attempts: Sequence[Attempt], *, kill: bool) -> None:
        self.cancelled += attempts

    def measured(self, program: Any) -> tuple[int, float, int]:
        return self.seen, self.mean_s, 0


def attempts(count: int) -> list[Attempt]:
    facts: Any = None
    return [Attempt(None, 1, Program, None, facts, (), ()) for _ in range(count)]


def portions_of(pool: Any) -> tuple[Portions, Mailbox]:
    outbox = Mailbox()
    return Portions(pool, outbox), outbox


def test_what_was_heard_makes_room_only_when_it_is_handed_out() -> None:
    pool = Pool()
    given, _ = portions_of(pool)
    mine = attempts(6)
    given.submit(mine)
    assert pool.given == mine[:2]
    given.heard([(EVENT, mine[0], ("custom", 1), 0.0), (DONE, mine[0], [], 0.1)])
    assert pool.given == mine[:2]
    given.hand_out()
    assert pool.given == mine[:3]
    given.heard([(DONE_MANY, mine[1:3], [[], []], 0.1), (FAILED, attempts(1)[0], ValueError(), 0.0)])
    given.hand_out()
    assert pool.given == mine[:5]


@pytest.mark.parametrize(
    ("seen", "mean_s", "size"),
    [
        (0, 0.0, 1),
        (100, 0.001, 1),
        (100, 0.0005, 6),
        (1, 0.00001, portions.GROWTH),
        (1000, 0.0, portions.LIMIT),
    ],
)
def test_quick_tasks_go_by_the_message(seen: int, mean_s: float, size: int) -> None:
    pool = Pool(seen, mean_s)
    given, _ = portions_of(pool)
    given.submit(attempts(WORKERS * size + 1))
    assert len(pool.given) == WORKERS * size


def test_what_a_task_waits_for_does_not_wait() -> None:
    pool = Pool()
    given, _ = portions_of(pool)
    given.submit(attempts(2))
    (called,) = attempts(1)
    called.is_called = True
    given.submit([called])
    assert called in pool.given


def test_what_was_not_given_yet_is_cancelled_here() -> None:
    pool = Pool()
    given, outbox = portions_of(pool)
    mine = attempts(5)
    given.submit(mine)
    given.cancel(mine[1:4], kill=True)
    assert pool.cancelled == mine[1:2]
    assert outbox.take() == [(CANCELLED, attempt, None, 0.0) for attempt in mine[2:4]]
    given.heard([(DONE, mine[0], [], 0.0), (CANCELLED, mine[1], None, 0.0)])
    given.hand_out()
    assert pool.given == [*mine[:2], mine[4]]


def test_a_pool_that_is_closed_meanwhile_fails_all_that_is_left() -> None:
    pool = Pool()
    given, outbox = portions_of(pool)
    mine = attempts(4)
    given.submit(mine)
    given.heard([(DONE, mine[0], [], 0.0)])
    pool.refuses = True
    given.hand_out()
    failed = outbox.take()
    assert [(kind, attempt, type(error)) for kind, attempt, error, _ in failed] == [
        (FAILED, attempt, PoolClosedError) for attempt in mine[2:]
    ]


class State(TypedDict):
    log: Annotated[list[int], operator.add]


class SlowDriver(MemoryDriver):
    """Each commit takes until whatever runs has ended; what had begun by then is noted beside what was durable."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.durable = 0
        self.seen: list[tuple[int, int]] = []

    def append(self, batches: Sequence[Batch]) -> None:
        results = sum(row.kind == RESULT for _, rows in batches for row in rows)
        if results:
            pause = threading.Event()
            while len([*self.folder.glob("*.begun")]) > len([*self.folder.glob("*.ended")]):
                pause.wait(0.001)
            self.seen.append((len([*self.folder.glob("*.begun")]), self.durable))
        super().append(batches)
        self.durable += results


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(WORKERS) as pool:
        yield pool


@pytest.mark.warm_pool
def test_a_worker_begins_nothing_while_its_last_result_is_not_durable(
    run: Run, pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portions, "SINGLE_S", 0.0)

    def work(state: Any) -> State:
        number = state["log"][0]
        (tmp_path / f"{number}.begun").touch()
        (tmp_path / f"{number}.ended").touch()
        return {"log": [number]}

    driver = SlowDriver(tmp_path)
    builder = StateGraph(State).add_node("work", work, executor="process")
    builder.add_conditional_edges(START, lambda state: [Send("work", {"log": [n]}) for n in range(24)], ["work"])
    graph = builder.compile(checkpointer=LogSaver(driver), pool=pool)
    config: Any = {"configurable": {"thread_id": "t"}}
    assert run.invoke(graph, {"log": []}, config, durability="sync") == {"log": [*range(24)]}
    assert len(driver.seen) > 5
    assert [(begun, durable) for begun, durable in driver.seen if begun > durable + WORKERS] == []
