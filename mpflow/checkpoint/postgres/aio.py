"""`AsyncPostgresSaver`: the saver in Postgres for asyncio. Its sync methods serve the other threads of the program."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mpflow.checkpoint.log import operations
from mpflow.checkpoint.log.driver import Batch, Row
from mpflow.checkpoint.log.operations import Calls
from mpflow.checkpoint.log.saver import LogSaver
from mpflow.checkpoint.log.writer import GroupWriter
from mpflow.checkpoint.postgres.connecting import AsyncHands, named
from mpflow.checkpoint.postgres.driver import AsyncPostgresDriver

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("AsyncPostgresSaver",)


class AsyncPostgresSaver(LogSaver):
    """As `PostgresSaver`, for asyncio (CP-10). To be made on the event loop that uses it.

    `conn` is a `psycopg.AsyncConnection` with ``autocommit=True``, or a `psycopg_pool.AsyncConnectionPool`. Sync methods
    may be called from any thread but the loop's own, where they raise `asyncio.InvalidStateError`.
    """

    driver: AsyncPostgresDriver

    def __init__(self, conn: Any, pipe: Any = None, serde: Any = None, *, types: Iterable[type] = ()) -> None:
        self.loop = asyncio.get_running_loop()
        super().__init__(AsyncPostgresDriver(AsyncHands(conn, pipe)), serde=serde, types=types)  # type: ignore[arg-type]
        self.writer = GroupWriter(self._commit)

    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls, conn_string: str, *, pipeline: bool = False, serde: Any = None, types: Iterable[type] = ()
    ) -> AsyncIterator[Self]:
        """As `PostgresSaver.from_conn_string`, for ``async with``."""
        saver = cls(named(conn_string), serde=serde, types=types)
        try:
            yield saver
        finally:
            await saver.close()

    @property
    def conn(self) -> Any:
        """What the saver was given to connect with."""
        return self.driver.session.hands.source

    @property
    def lock(self) -> asyncio.Lock:
        return self.driver.lock

    async def setup(self) -> None:
        """Make or migrate the tables. Needs not be called: it happens at first use, by whoever may."""
        await self.driver.set_up()

    async def close(self) -> None:
        """Commit what waits, and give the connection back; one that was given stays open."""
        try:
            await asyncio.to_thread(self.writer.close)
        finally:
            await self.driver.close()

    # -- how the log reaches the driver -------------------------------------------------------------------------------

    def _on_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine of the saver's loop, waited for in another thread."""
        try:
            is_on_loop = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            is_on_loop = False
        if is_on_loop:
            coroutine.close()
            raise asyncio.InvalidStateError(
                "a sync method of AsyncPostgresSaver was called on its event loop, which it would block: await the twin "
                "with the prefix 'a', for example `await saver.aget_tuple(config)` or `await graph.ainvoke(...)`"
            )
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def _commit(self, batches: Sequence[Batch]) -> None:
        self._on_loop(self.driver.append(batches))

    def _perform(self, calls: Calls) -> Any:
        return self._on_loop(self._aperform(calls))

    async def _aperform(self, calls: Calls) -> Any:
        await asyncio.to_thread(self.writer.flush)
        return await operations.aperform(calls, self.driver)

    async def apost(self, thread_id: str, rows: Sequence[Row]) -> None:
        # Not on the loop: when much waits already, whoever posts commits it.
        await asyncio.to_thread(self.post, thread_id, rows)

    def claim(self, thread_id: str) -> None:
        self._on_loop(self.aclaim(thread_id))

    def release(self, thread_id: str) -> None:
        self._on_loop(self.arelease(thread_id))

    async def aclaim(self, thread_id: str) -> None:
        await self.driver.claim(thread_id)
        self.writer.forget(thread_id)

    async def arelease(self, thread_id: str) -> None:
        await self.driver.release(thread_id)
