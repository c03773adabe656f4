"""How a batch spreads its calls: laziness, the limit, who makes them, and what a failure leaves undone (AS-3)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mpflow.runnables import RunnableLambda


def counted(items: range, taken: list[int]) -> Iterator[int]:
    for item in items:
        taken.append(item)
        yield item


def test_calls_are_made_beside_the_consumer_and_come_back_in_order() -> None:
    threads: set[int] = set()

    def call(n: int) -> int:
        threads.add(threading.get_ident())
        return n * 2

    assert RunnableLambda(call).batch(range(200)) == [n * 2 for n in range(200)]
    assert threading.get_ident() not in threads


def test_calls_that_wait_for_one_another_all_get_a_thread() -> None:
    together = threading.Barrier(5, timeout=30)
    assert sorted(RunnableLambda(lambda n: together.wait()).batch(range(5), {"max_concurrency": 5})) == [0, 1, 2, 3, 4]


def test_a_limit_of_one_makes_the_calls_in_the_consumers_thread_as_they_are_asked_for() -> None:
    threads: set[int] = set()
    taken: list[int] = []

    def call(n: int) -> int:
        threads.add(threading.get_ident())
        return n

    made = RunnableLambda(call).batch_as_completed(counted(range(3), taken), {"max_concurrency": 1})
    assert next(made) == (0, 0)
    assert taken == [0]
    assert list(made) == [(1, 1), (2, 2)]
    assert threads == {threading.get_ident()}


def test_inputs_are_taken_only_as_there_is_room_for_them() -> None:
    taken: list[int] = []
    made = RunnableLambda(lambda n: n).batch_as_completed(counted(range(100), taken), {"max_concurrency": 3})
    next(made)
    assert len(taken) <= 3
    made.close()
    assert len(taken) <= 3


def test_after_a_failure_what_no_thread_has_begun_is_not_made() -> None:
    begun: list[int] = []

    def call(n: int) -> int:
        begun.append(n)
        if n == 0:
            raise ValueError(n)
        return n

    taken: list[int] = []
    with pytest.raises(ValueError, match="0"):
        list(RunnableLambda(call).batch_as_completed(counted(range(1000), taken), {"max_concurrency": 4}))
    assert len(taken) <= 4
    assert set(begun) <= set(taken)


def test_a_consumer_that_leaves_early_leaves_no_call_behind_that_had_not_begun() -> None:
    gate = threading.Event()
    begun: list[int] = []

    def call(n: int) -> Any:
        begun.append(n)
        if n:
            gate.wait(30)
        return n

    made = RunnableLambda(call).batch_as_completed(range(50), {"max_concurrency": 2})
    assert next(made) == (0, 0)
    made.close()
    gate.set()
    assert len(begun) <= 2
