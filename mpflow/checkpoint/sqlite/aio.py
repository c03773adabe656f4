"""`AsyncSqliteSaver`: the saver in SQLite for asyncio. Its waits happen in threads, never on the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mpflow._sqlite import open_private
from mpflow.checkpoint.log.operations import Calls
from mpflow.checkpoint.sqlite import SqliteSaver

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("AsyncSqliteSaver",)


class AsyncSqliteSaver(SqliteSaver):
    """As `SqliteSaver`, for asyncio (CP-10). To be made on the event loop that uses it.

    `conn` is a `sqlite3.Connection` open with ``check_same_thread=False``. Sync methods may be called from any thread but
    the loop's own, where they raise `asyncio.InvalidStateError`.
    """

    def __init__(self, conn: sqlite3.Connection, *, serde: Any = None, types: Iterable[type] = ()) -> None:
        super().__init__(conn, serde=serde, types=types)
        self.loop = asyncio.get_running_loop()

    @classmethod
    @asynccontextmanager
    async def from_conn_string(  # type: ignore[override]  # its twin's block is entered without await
        cls, conn_string: str, *, serde: Any = None, types: Iterable[type] = ()
    ) -> AsyncIterator[Self]:
        """As `SqliteSaver.from_conn_string`, for ``async with``."""
        saver = cls._owning(await asyncio.to_thread(open_private, conn_string), serde, types)
        try:
            yield saver
        finally:
            await asyncio.to_thread(saver.close)

    async def setup(self) -> None:  # type: ignore[override]  # as LangGraph has it
        """Make or migrate the tables. Needs not be called: it happens at first use."""
        await asyncio.to_thread(self.driver.set_up)

    def _perform(self, calls: Calls) -> Any:
        self._refuse_on_loop()
        return super()._perform(calls)

    async def _aperform(self, calls: Calls) -> Any:
        return await asyncio.to_thread(super()._perform, calls)

    def _refuse_on_loop(self) -> None:
        try:
            on_loop = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return
        if on_loop:
            raise asyncio.InvalidStateError(
                "a sync method of AsyncSqliteSaver was called on its event loop, which it would block: await the twin "
                "with the prefix 'a', for example `await saver.aget_tuple(config)` or `await graph.ainvoke(...)`"
            )
