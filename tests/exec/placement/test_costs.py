"""What a pool costs is measured on it."""

from __future__ import annotations

from typing import Any

import pytest

from mpflow._exec.functions import Watched
from mpflow._exec.placement.costs import ROUNDS, SOUNDING, CostBook, book_of
from mpflow._exec.placement.decide import Costs
from mpflow._messages import DONE_MANY
from mpflow.errors import PoolClosedError


class Pool:
    """Answers at once. Each task costs the parent two microseconds, and its worker three; a round costs ever less."""

    max_workers = 2

    def __init__(self, others: int = 0) -> None:
        self._others = others
        self._cpu_s = 0.0
        self._ended = 0
        self._watched = Watched()
        self.rounds = 0

    def used(self) -> tuple[float, int]:
        return self._cpu_s, self._ended

    def watched(self, program: Any) -> Watched:
        return self._watched

    def submit(self, attempts: Any) -> None:
        self.rounds += 1
        count = len(attempts)
        self._cpu_s += count * 2e-6 * (1 + ROUNDS - self.rounds)
        self._ended += count + self._others
        self._watched.add(count, count * 1000, count * 3000, 0)
        half = count // 2
        for span in (attempts[:half], attempts[half:]):
            attempts.outbox.post((DONE_MANY, span, [[("n", 1)]] * len(span), 0.0))


def test_tasks_that_do_nothing_tell_what_a_task_costs() -> None:
    pool = Pool()
    book = book_of(pool)
    assert book is book_of(pool)
    book.sound(pool)
    book.sound(pool)
    assert pool.rounds == ROUNDS
    costs = book.costs()
    assert (costs.parent_s, costs.task_s) == pytest.approx((2e-6, 3e-6))


def test_what_others_cost_is_not_taken_for_it() -> None:
    pool = Pool(others=SOUNDING)
    book = CostBook(2)
    book.sound(pool)
    assert book.costs() == Costs(2)


def test_a_pool_that_closes_meanwhile_is_left_alone() -> None:
    class Closing(Pool):
        def submit(self, attempts: Any) -> None:
            if self.rounds:
                raise PoolClosedError("an attempt was submitted")
            super().submit(attempts)

    pool = Closing()
    CostBook(2).sound(pool)
    assert pool.rounds == 1
