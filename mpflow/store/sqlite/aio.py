"""`AsyncSqliteStore`: the SQLite store, opened, set up and swept by awaiting. What it does is in `base`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

from mpflow._sqlite import open_private
from mpflow.store.base import IndexConfig, TTLConfig
from mpflow.store.sqlite.base import BaseSqliteStore

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("AsyncSqliteStore",)


class AsyncSqliteStore(BaseSqliteStore):
    """The same store, opened, set up and swept by awaiting. Its items are read and written from either colour."""

    __slots__ = ()

    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls, conn_string: str, *, index: IndexConfig | None = None, ttl: TTLConfig | None = None
    ) -> AsyncIterator[Self]:
        """As `SqliteStore.from_conn_string`, for ``async with``."""
        with closing(await asyncio.to_thread(open_private, conn_string)) as conn:
            async with cls(conn, index=index, ttl=ttl) as store:
                yield store

    async def setup(self) -> None:
        """As `SqliteStore.setup`, awaited."""
        await asyncio.to_thread(self._set_up)

    async def sweep_ttl(self) -> int:
        """As `SqliteStore.sweep_ttl`, awaited."""
        return await asyncio.to_thread(self.sweep)

    async def start_ttl_sweeper(self, sweep_interval_minutes: int | None = None) -> asyncio.Future[None]:
        """As `SqliteStore.start_ttl_sweeper`: what can be awaited is the sweeper's end."""
        return asyncio.wrap_future(self._start_sweeper(sweep_interval_minutes))

    async def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """As `SqliteStore.stop_ttl_sweeper`, awaited."""
        return await asyncio.to_thread(self._stop_sweeper, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)
