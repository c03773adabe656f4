"""Kill campaigns: whatever dies when, every task ends once, and with the result of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest

from mpflow._exec.process import WorkerPool
from tests.exec.pooling import DONE, LOST, Drive, Node


def campaign(kills: int, tasks: int, seed: int) -> None:
    """Run `tasks` while workers are killed at random; check what came of each."""
    chance = random.Random(seed)
    node = Node(lambda x: x * 3)
    ended: dict[int, int] = {}
    starts_more = 0
    with WorkerPool(2) as pool:
        drive = Drive(pool)
        chunk = max(1, tasks // kills)
        killed = 0
        for begin in range(0, tasks, chunk):
            inputs = range(begin, min(begin + chunk, tasks))
            # Attempts are numbered within a chunk; the value tells the task.
            attempts = drive.submit(node, inputs)
            pending = {attempt.task + begin for attempt in attempts}
            if killed < kills:
                time.sleep(chance.random() * 0.002)
                # Three in a row before their hello would rightly be given up: that is another test.
                stats = pool.stats()
                pids = sorted(set(stats["pids"]) - set(stats["starting"]))
                if pids:
                    with contextlib.suppress(ProcessLookupError):  # buried meanwhile, of an earlier kill
                        os.kill(chance.choice(pids), signal.SIGKILL)
                        killed += 1

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
        stats = pool.stats()
    assert ended == {value: value * 3 for value in range(tasks)}
    assert starts_more <= killed
    print(f"{killed} kills, {stats['deaths']} deaths, {starts_more} starts more, {tasks} tasks")
    assert stats["submitted"] == tasks + starts_more == stats["ended"]


@pytest.mark.chaos
def test_thirty_kills_in_three_thousand_tasks() -> None:
    campaign(kills=30, tasks=3_000, seed=1)


@pytest.mark.chaos_full
@pytest.mark.timeout(1800)
def test_a_thousand_kills_in_a_hundred_thousand_tasks() -> None:
    campaign(kills=1_000, tasks=100_000, seed=2)
