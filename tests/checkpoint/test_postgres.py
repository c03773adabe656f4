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
from tests.checkpoint.test_log import listed_newest_first

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


def test_cp7_checkpoints_of_several_threads_are_listed_newest_first(tmp_path: Path) -> None:
    from mpflow.checkpoint.postgres import PostgresSaver

    with PostgresSaver.from_conn_string(server().conninfo(tmp_path)) as saver:
        listed_newest_first(saver)


def test_a_resumed_batch_asks_once_for_many_finished_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpflow import WorkerPool
    from mpflow.checkpoint.postgres import PostgresSaver
    from mpflow.graph import END, START, StateGraph

    builder = StateGraph(dict)
    builder.add_node("a", lambda state: {**state, "y": state["x"] + 1})
    builder.add_edge(START, "a")
    builder.add_edge("a", END)
    inputs = [{"x": n} for n in range(20)]
    with PostgresSaver.from_conn_string(server().conninfo(tmp_path)) as saver, WorkerPool(1) as pool:
        graph = builder.compile(checkpointer=saver, pool=pool)
        expected = graph.batch(inputs, thread_id_prefix="job/", parallel="items")
        asked: list[str] = []
        perform = saver.driver._perform
        monkeypatch.setattr(saver.driver, "_perform", lambda steps: asked.append(steps.__name__) or perform(steps))
        assert graph.batch(inputs, thread_id_prefix="job/", parallel="items") == expected
        assert 0 < len(asked) < 6 and {*asked} == {"_chains"}
        threads = ["job/7", "none", "job/0"]
        found = saver.driver.chains(threads, "")
        assert found == [(one, row) for one in threads for row in saver.driver.chain(one, "", None)] != []
