"""What the process pool costs alone: tiny tasks in bulk, one round trip, the first result of a fresh pool, a death.

Figures depend on what else the machine does; compare them with the ones that a run beside it gives.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from mpflow._exec.process import WorkerPool
from tests.exec.pooling import LOST, Drive, Node, die, one_by_one

TASKS = 10_000


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        Drive(pool).values(Node(lambda x: x), range(1000))
        yield pool


def test_bulk_of_tiny_tasks(pool: WorkerPool, benchmark: Any) -> None:
    """10,000 attempts submitted at once; the figure is for all of them (divide by 10,000)."""
    node = Node(lambda x: x)

    def prepare() -> tuple[tuple[Drive, list[Any]], dict[str, Any]]:
        drive = Drive(pool)
        return (drive, drive.attempts(node, range(TASKS))), {}

    def run(drive: Drive, attempts: list[Any]) -> None:
        pool.submit(attempts)
        done = 0
        while done < TASKS:
            pool.wait(drive.mailbox, 10)
            done += len(one_by_one(drive.mailbox.take()))

    benchmark.pedantic(run, setup=prepare, rounds=20, warmup_rounds=3)


def test_round_trip(pool: WorkerPool, benchmark: Any) -> None:
    """One attempt, there and back."""
    node = Node(lambda x: x)
    drive = Drive(pool)

    def run() -> None:
        drive.submit(node, [1])
        while not drive.mailbox.take():
            pool.wait(drive.mailbox, 10)

    benchmark.pedantic(run, rounds=500, warmup_rounds=50)


def test_first_result_of_a_fresh_pool(benchmark: Any) -> None:
    """From nothing to the first result, and the end of the pool."""

    def run() -> None:
        with WorkerPool(2) as pool:
            Drive(pool).values(Node(lambda x: x), [1])

    benchmark.pedantic(run, rounds=5)


def test_a_death_and_the_task_again(pool: WorkerPool, benchmark: Any) -> None:
    """A task kills its worker; the figure is until it has run again, alone in a fresh one."""
    drive = Drive(pool)

    def run() -> None:
        [(kind, _)] = drive.all(Node(lambda x: die()), [1])
        assert kind == LOST
        drive.values(Node(lambda x: x), [1], alone=True)

    benchmark.pedantic(run, rounds=10, warmup_rounds=1)


def test_large_inputs_and_results(pool: WorkerPool, benchmark: Any) -> None:
    """Eight tasks that take and return 25 MB each."""
    np = pytest.importorskip("numpy")
    array = np.ones(25_000_000 // 8)
    drive = Drive(pool)
    drive.values(Node(lambda a: a + 1), [array] * 2)

    def run() -> None:
        drive.values(Node(lambda a: a + 1), [array] * 8)

    benchmark.pedantic(run, rounds=5)


def test_time_is_measured_with_the_clock_that_workers_share() -> None:
    assert time.get_clock_info("monotonic").implementation == "clock_gettime(CLOCK_MONOTONIC)"
