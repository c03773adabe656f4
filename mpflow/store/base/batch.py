"""A base for stores whose operations are dear one by one: those asked for at the same time go out as one batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from mpflow.store.base import BaseStore, GetOp, ListNamespacesOp, Op, PutOp, Result, SearchOp

__all__ = ("AsyncBatchedBaseStore",)

Asked = list[tuple[Op, "asyncio.Future[Result]"]]


class AsyncBatchedBaseStore(BaseStore):
    """Base of stores of one event loop: a subclass has to do `abatch`, which gets what was asked for in one turn of the loop.

    Reads that are the same are done once; of several puts of one key in a turn the last is. To be made within the loop.
    The sync methods wait for the loop and are for other threads: in its own they raise `asyncio.InvalidStateError`.
    """

    __slots__ = ("_asked", "_loop", "_turns")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked: Asked = []
        self._turns: set[asyncio.Task[None]] = set()

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """`abatch`, from another thread than the loop's."""
        try:
            is_own = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            is_own = False
        if is_own:
            name = type(self).__name__
            raise asyncio.InvalidStateError(
                f"a sync method of {name} was called in the thread of its event loop, where it would wait for ever: await "
                f"the method with the prefix 'a' instead"
            )
        return asyncio.run_coroutine_threadsafe(self.abatch(ops), self._loop).result()

    async def _aone(self, op: Op) -> Result:
        future: asyncio.Future[Result] = self._loop.create_future()
        if not self._asked:
            self._loop.call_soon(self._begin)
        self._asked.append((op, future))
        return await future

    def _begin(self) -> None:
        asked, self._asked = self._asked, []
        turn = self._loop.create_task(self._perform([(op, future) for op, future in asked if not future.done()]))
        self._turns.add(turn)  # the loop itself holds tasks weakly
        turn.add_done_callback(self._turns.discard)

    async def _perform(self, asked: Asked) -> None:
        ops, places = _distinct([op for op, _ in asked])
        try:
            results = await self.abatch(ops) if ops else []
        except Exception as error:
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), place in zip(asked, places, strict=True):
            if not future.done():
                future.set_result(results[place])


def _distinct(ops: list[Op]) -> tuple[list[Op], list[int]]:
    """The operations that have to be done, and for each that was asked for the place of the one that does it."""
    distinct: list[Op] = []
    places = []
    puts: dict[tuple[tuple[str, ...], str], int] = {}
    for op in ops:
        if isinstance(op, PutOp):
            place = puts.setdefault((op.namespace, op.key), len(distinct))
            if place < len(distinct):
                distinct[place] = op
        else:  # filters are dicts, so operations have no hash
            place = _place_of(op, distinct)
        if place == len(distinct):
            distinct.append(op)
        places.append(place)
    return distinct, places


def _place_of(op: GetOp | SearchOp | ListNamespacesOp, among: list[Op]) -> int:
    return next((place for place, other in enumerate(among) if type(other) is type(op) and other == op), len(among))
