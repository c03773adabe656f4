"""The saver in Postgres: conformance in all the ways to connect (CP-10)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mpflow.testing import SaverConformance
from mpflow.testing.protocol import PendingWrites
from mpflow.testing.threads import ManyHands
from tests.checkpoint.server import server

psycopg = pytest.importorskip("psycopg")
psycopg_pool = pytest.importorskip("psycopg_pool")

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module", autouse=True)
def _server(_module_leaves_nothing: None) -> None:
    server()


class TestFromConnString(SaverConformance):
    persistent = True

    def open(self, place: Path) -> AbstractContextManager[Any]:
        from mpflow.checkpoint.postgres import PostgresSaver

        return PostgresSaver.from_conn_string(server().conninfo(place))

    def aopen(self, place: Path) -> AbstractAsyncContextManager[Any]:
        from mpflow.checkpoint.postgres.aio import AsyncPostgresSaver

        return AsyncPostgresSaver.from_conn_string(server().conninfo(place))


class TestPool(PendingWrites, ManyHands):
    def open(self, place: Path) -> AbstractContextManager[Any]:
        from mpflow.checkpoint.postgres import PostgresSaver

        @contextmanager
        def opened() -> Iterator[Any]:
            with psycopg_pool.ConnectionPool(server().conninfo(place), min_size=1, max_size=2) as pool:
                saver = PostgresSaver(pool)
                yield saver
                saver.close()

        return opened()

    def aopen(self, place: Path) -> AbstractAsyncContextManager[Any]:
        from mpflow.checkpoint.postgres.aio import AsyncPostgresSaver

        @asynccontextmanager
        async def opened() -> AsyncIterator[Any]:
            async with psycopg_pool.AsyncConnectionPool(server().conninfo(place), min_size=1, max_size=2) as pool:
                saver = AsyncPostgresSaver(pool)
                yield saver
                await saver.close()

        return opened()
