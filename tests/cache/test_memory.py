"""The cache in memory (CA-4, CA-5)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mpflow.cache.memory import InMemoryCache

A = (("ns", "a"), "k")
B = (("ns", "b"), "k")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_ca5_what_was_set_is_found_and_the_rest_is_left_out() -> None:
    cache: InMemoryCache[Any] = InMemoryCache()
    cache.set({A: ([1], None), B: (2, None)})
    assert cache.get([A, B, (("ns",), "k")]) == {A: [1], B: 2}
    assert cache.get([]) == {}


def test_ca4_an_entry_lives_for_its_ttl_in_seconds() -> None:
    clock = Clock()
    cache: InMemoryCache[int] = InMemoryCache(clock=clock)
    cache.set({A: (1, 10), B: (2, None)})
    clock.now += 9.9
    assert cache.get([A, B]) == {A: 1, B: 2}
    clock.now += 0.1
    assert cache.get([A, B]) == {B: 2}
    cache.set({A: (3, 10)})
    assert cache.get([A]) == {A: 3}


def test_ca4_clearing_names_whole_namespaces_or_all() -> None:
    cache: InMemoryCache[int] = InMemoryCache()
    cache.set({A: (1, None), B: (2, None)})
    cache.clear([("ns",), ("ns", "a")])
    assert cache.get([A, B]) == {B: 2}
    cache.clear()
    assert cache.get([B]) == {}


def test_ca5_the_cache_shares_no_object_with_its_users() -> None:
    cache: InMemoryCache[Any] = InMemoryCache()
    value = [("xs", [1])]
    cache.set({A: (value, None)})
    value[0][1].append(2)
    cache.get([A])[A][0][1].append(3)
    assert cache.get([A]) == {A: [("xs", [1])]}


@pytest.mark.parametrize("value", [lambda: 1, [object], iter([1])], ids=["lambda", "class", "iterator"])
def test_what_cannot_be_pickled_is_kept_all_the_same(value: Any) -> None:
    cache: InMemoryCache[Any] = InMemoryCache()
    cache.set({A: (value, None)})
    assert type(cache.get([A])[A]) is type(value)


def test_ca5_the_async_twins_do_the_same() -> None:
    async def use() -> dict[Any, Any]:
        cache: InMemoryCache[int] = InMemoryCache()
        await cache.aset({A: (1, None), B: (2, None)})
        await cache.aclear([A[0]])
        return await cache.aget([A, B])

    assert asyncio.run(use()) == {B: 2}
