"""Stores that are asked in batches: what is asked for in one turn of the loop goes out at once (KV-2)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from mpflow.store.base import GetOp, Op, PutOp, Result
from mpflow.store.base.batch import AsyncBatchedBaseStore
from mpflow.store.memory import InMemoryStore

HOME = ("home",)


class Counted(AsyncBatchedBaseStore):
    """Keeps items in memory, and the batches that it was asked for."""

    __slots__ = ("batches", "kept")

    def __init__(self) -> None:
        super().__init__()
        self.kept = InMemoryStore()
        self.batches: list[list[Op]] = []

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        self.batches.append(list(ops))
        if any(isinstance(op, GetOp) and op.key == "broken" for op in self.batches[-1]):
            raise KeyError("broken")
        return await self.kept.abatch(self.batches[-1])


def test_what_is_asked_for_together_is_one_batch() -> None:
    async def main() -> Any:
        store = Counted()
        await asyncio.gather(*(store.aput(HOME, str(number), {"n": number}) for number in range(3)))
        found = await asyncio.gather(store.aget(HOME, "1"), store.asearch(HOME), store.alist_namespaces())
        return store.batches, found

    batches, (item, items, namespaces) = asyncio.run(main())
    assert [len(batch) for batch in batches] == [3, 3]
    assert (item.value, len(items), namespaces) == ({"n": 1}, 3, [HOME])


def test_the_same_read_is_done_once_and_of_several_puts_the_last() -> None:
    async def main() -> Any:
        store = Counted()
        await asyncio.gather(*(store.aput(HOME, "key", {"n": number}) for number in range(3)))
        found = await asyncio.gather(*(store.asearch(HOME, filter={"n": 2}) for _ in range(3)))
        return store.batches, found

    batches, found = asyncio.run(main())
    assert batches[0] == [PutOp(HOME, "key", {"n": 2})]
    assert len(batches[1]) == 1
    assert [[item.value for item in items] for items in found] == [[{"n": 2}]] * 3


def test_an_error_reaches_all_that_asked_and_the_next_turn_is_served() -> None:
    async def main() -> Any:
        store = Counted()
        failed = await asyncio.gather(store.aget(HOME, "broken"), store.aget(HOME, "1"), return_exceptions=True)
        return failed, await store.aget(HOME, "1")

    failed, found = asyncio.run(main())
    assert [type(error) for error in failed] == [KeyError, KeyError]
    assert found is None


def test_who_no_longer_waits_is_left_out() -> None:
    async def main() -> Any:
        store = Counted()
        one, other = (asyncio.ensure_future(store.aget(HOME, key)) for key in "ab")
        await asyncio.sleep(0)  # both have asked, none has been served
        one.cancel()
        return await other, store.batches

    found, batches = asyncio.run(main())
    assert found is None
    assert all(op.key == "b" for op in batches[0])


def test_sync_methods_serve_other_threads_alone() -> None:
    async def main() -> Any:
        store = Counted()
        await asyncio.to_thread(store.put, HOME, "key", {"n": 1})
        item = await asyncio.to_thread(store.get, HOME, "key")
        with pytest.raises(asyncio.InvalidStateError, match="prefix 'a'"):
            store.get(HOME, "key")
        return item

    assert asyncio.run(main()).value == {"n": 1}
