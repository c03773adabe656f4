"""LangGraph's own conformance tests of savers, on ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mpflow.checkpoint.langgraph import to_langgraph

conformance = pytest.importorskip("langgraph.checkpoint.conformance")


@asynccontextmanager
async def memory(place: Path) -> AsyncIterator[Any]:
    from mpflow.checkpoint.memory import InMemorySaver

    yield InMemorySaver()


@asynccontextmanager
async def sqlite(place: Path) -> AsyncIterator[Any]:
    from mpflow.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with AsyncSqliteSaver.from_conn_string(str(place / "saver.db")) as saver:
        yield saver


@asynccontextmanager
async def postgres(place: Path) -> AsyncIterator[Any]:
    from mpflow.checkpoint.postgres.aio import AsyncPostgresSaver
    from tests.checkpoint.server import server

    async with AsyncPostgresSaver.from_conn_string(server().conninfo(place)) as saver:
        yield saver


@pytest.mark.parametrize("opened", [memory, sqlite, pytest.param(postgres, marks=pytest.mark.postgres)])
def test_langgraphs_conformance_tests_pass(opened: Any, tmp_path: Path) -> None:
    if opened is postgres:
        from tests.checkpoint.server import server

        pytest.importorskip("psycopg")
        server()
    places = iter(range(1000))

    @conformance.checkpointer_test(name=opened.__name__)
    async def checked() -> AsyncIterator[Any]:
        async with opened(tmp_path / str(next(places))) as saver:
            yield to_langgraph(saver)

    report = asyncio.run(conformance.validate(checked))
    assert {name: result.failures for name, result in report.results.items() if result.failures} == {}
    assert all(result.passed for result in report.results.values())
