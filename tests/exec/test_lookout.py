"""The lookout's thread on its own: when it looks, sleeps and ends. What it sends for a worker: test_process_faults."""

from __future__ import annotations

import threading

from mpflow._exec.lookout import Lookout
from tests.exec.pooling import LIMIT_S, wait_until


class Seen:
    """A worker whose running task the test names."""

    def __init__(self) -> None:
        self.number = 0
        self.sent = threading.Event()
        self.numbers: list[int] = []
        self.lookout = Lookout(lambda: self.number, self._send)

    def _send(self, number: int) -> None:
        self.numbers.append(number)
        self.sent.set()

    def begins(self, number: int) -> None:
        self.sent.clear()
        self.number = number
        self.lookout.begin()

    def ends(self) -> None:
        self.number = 0
        self.lookout.end()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mpflow-lookout"]


def test_it_looks_again_after_it_has_slept() -> None:
    seen = Seen()
    try:
        for number in (3, 5):
            seen.begins(number)
            assert seen.sent.wait(LIMIT_S)
            seen.ends()
            assert wait_until(lambda: seen.lookout._is_asleep, LIMIT_S)
        assert set(seen.numbers) == {3, 5}
        [thread] = threads()
    finally:
        seen.lookout.pause()
    assert not threads() and not thread.is_alive()


def test_it_ends_for_a_fork_and_goes_on_with_the_batch_that_is_on() -> None:
    seen = Seen()
    seen.lookout.pause()
    seen.lookout.resume()
    assert not threads(), "there was nothing to look at"
    seen.begins(3)
    seen.lookout.pause()
    assert not threads()
    seen.sent.clear()
    seen.lookout.resume()
    try:
        assert seen.sent.wait(LIMIT_S)
    finally:
        seen.lookout.pause()


def test_a_task_that_ends_between_two_looks_is_left_alone() -> None:
    """None is seen twice: each look finds another."""
    looks = threading.Semaphore(0)
    numbers = iter(range(1, 1000))

    def running() -> int:
        looks.release()
        return next(numbers)

    sent: list[int] = []
    lookout = Lookout(running, sent.append)
    lookout.begin()
    try:
        assert all(looks.acquire(timeout=LIMIT_S) for _ in range(4))
    finally:
        lookout.pause()
    assert not sent
