"""Kill campaigns: whatever dies when, every task ends once, and with the result of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time

import pytest

from mpflow._exec.process import WorkerPool
from tests.exec.pooling import DONE, LOST, Drive, Node


class Killer:
    """Kills workers at random, none of them twice."""

    def __init__(self, pool: WorkerPool, seed: int) -> None:
        self._pool = pool
        self._chance = random.Random(seed)
        self.killed: set[int] = set()

    def victims(self) -> list[int]:
        """The workers that have said hello: three deaths in a row before it would rightly be given up."""
        stats = self._pool.stats()
        return sorted(set(stats["pids"]) - set(stats["starting"]) - self.killed)

    def strike(self) -> None:
        """Kill one within the next two milliseconds."""
        time.sleep(self._chance.random() * 0.002)
        pid = self._chance.choice(self.victims())
        os.kill(pid, signal.SIGKILL)
        self.killed.add(pid)


def campaign(kills: int, tasks: int, seed: int) -> None:
    """Run `tasks` while workers are killed at random; check what came of each."""
    node = Node(lambda x: x * 3)
    ended: dict[int, int] = {}
    starts_more = 0
    spent_s: list[float] = []
    with WorkerPool(2) as pool:
        drive = Drive(pool)
        drive.values(node, range(100))
        drive.outcomes.clear()
        killer = Killer(pool, seed)
        chunk = max(1, tasks * 4 // (5 * kills))  # not every chunk finds a victim
        for begin in range(0, tasks, chunk):
            inputs = range(begin, min(begin + chunk, tasks))
            before = time.perf_counter()
            # Attempts are numbered within a chunk; the value tells the task.
            attempts = drive.submit(node, inputs)
            pending = {attempt.input for attempt in attempts}
            if len(killer.killed) < kills:
                # Somebody comes up, since work has been given; unless it was done by one who died after it.
                drive.poll_until(lambda: bool(killer.victims()) or not pool.stats()["pids"])
                if killer.victims():
                    killer.strike()

            def settle(pending: set[int] = pending) -> bool:
                nonlocal starts_more
                while drive.outcomes:
                    kind, attempt, payload, _ = drive.outcomes.pop()
                    value = attempt.input
                    assert value in pending, "a task has ended twice"
                    if kind == LOST:
                        assert attempt.number < 3, f"an innocent task is charged {attempt.number} times: {payload}"
                        starts_more += 1
                        attempt.number += 1
                        attempt.alone = True
                        pool.submit([attempt])
                        continue
                    assert kind == DONE, payload
                    pending.discard(value)
                    ended[value] = payload[0][1]
                return not pending

            drive.wait(settle)
            spent_s.append(time.perf_counter() - before)
        stats = pool.stats()
    assert ended == {value: value * 3 for value in range(tasks)}
    assert len(killer.killed) == kills
    # None of them ran twice but for a death, and each death has cost at most the one that ran.
    assert stats["submitted"] == 100 + tasks + starts_more == stats["ended"]
    assert starts_more <= stats["deaths"] <= kills
    print(
        f"{kills} kills ({stats['deaths']} not of workers told to leave), {starts_more} starts more, {tasks} tasks, "
        f"median {statistics.median(spent_s) * 1000:.0f} ms a kill"
    )


@pytest.mark.chaos
def test_ten_kills_in_a_thousand_tasks() -> None:
    campaign(kills=10, tasks=1_000, seed=1)


@pytest.mark.chaos_full
@pytest.mark.timeout(1800)
def test_a_thousand_kills_in_a_hundred_thousand_tasks() -> None:
    campaign(kills=1_000, tasks=100_000, seed=2)
