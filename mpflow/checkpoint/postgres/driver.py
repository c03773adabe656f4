"""The log's driver on Postgres, in both colours: each method is one body that a session's hands perform or await."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from mpflow.checkpoint.log.driver import Batch, Drop, Row
from mpflow.checkpoint.postgres import statements
from mpflow.checkpoint.postgres.session import Session, Steps, aperform, perform


def _append(session: Session, batches: Sequence[Batch]) -> Steps:
    if any(rows for _, rows in batches):
        yield from session.run(*statements.append(batches, statements.new_batch()))


def _chain(session: Session, thread_id: str, ns: str, checkpoint_id: str | None) -> Steps:
    found = yield from session.run(*statements.chain(thread_id, ns, checkpoint_id))
    return [Row(ns, *row) for row in found]


def _chains(session: Session, thread_ids: Sequence[str], ns: str) -> Steps:
    found = yield from session.run(*statements.chains(thread_ids, ns))
    return [(thread_ids[place - 1], Row(ns, *row)) for place, *row in found]


def _steps(session: Session, thread_id: str | None, ns: str | None, before: str | None, limit: int | None) -> Steps:
    found = yield from session.run(*statements.steps(thread_id, ns, before, limit))
    return [(row[0], Row(*row[1:])) for row in found]


def _rows(session: Session, thread_id: str) -> Steps:
    found = yield from session.run(statements.ROWS, (statements.text(thread_id),))
    return [Row(*row) for row in found]


def _rewrite(session: Session, thread_id: str, drops: Sequence[Drop], rows: Sequence[Row]) -> Steps:
    yield from session.run(*statements.rewrite(thread_id, drops, rows, statements.new_batch()))


def _delete_thread(session: Session, thread_id: str) -> Steps:
    yield from session.run(statements.DELETE_THREAD, (statements.text(thread_id),))


def _vacuum(session: Session) -> Steps:
    yield from session.run(statements.DELETE_STRAYS, ())
    for table in ("mpflow_rows", "mpflow_spaces"):
        yield from session.run(f"VACUUM {table}", None)


class PostgresDriver:
    """A driver that is called. Thread-safe: one statement at a time."""

    def __init__(self, hands: Any) -> None:
        self.session = Session(hands)
        self.lock = threading.RLock()

    def _perform(self, steps: Steps) -> Any:
        with self.lock:
            return perform(steps, self.session.hands)

    def append(self, batches: Sequence[Batch]) -> None:
        self._perform(_append(self.session, batches))

    def chain(self, thread_id: str, ns: str, checkpoint_id: str | None) -> Sequence[Row]:
        found: list[Row] = self._perform(_chain(self.session, thread_id, ns, checkpoint_id))
        return found

    def chains(self, thread_ids: Sequence[str], ns: str) -> Sequence[tuple[str, Row]]:
        found: list[tuple[str, Row]] = self._perform(_chains(self.session, thread_ids, ns))
        return found

    def steps(
        self, thread_id: str | None, ns: str | None, before: str | None, limit: int | None
    ) -> Sequence[tuple[str, Row]]:
        found: list[tuple[str, Row]] = self._perform(_steps(self.session, thread_id, ns, before, limit))
        return found

    def rows(self, thread_id: str) -> Sequence[Row]:
        found: list[Row] = self._perform(_rows(self.session, thread_id))
        return found

    def rewrite(self, thread_id: str, drops: Sequence[Drop], rows: Sequence[Row]) -> None:
        self._perform(_rewrite(self.session, thread_id, drops, rows))

    def delete_thread(self, thread_id: str) -> None:
        self._perform(_delete_thread(self.session, thread_id))

    def claim(self, thread_id: str) -> None:
        self._perform(self.session.claim(thread_id))

    def release(self, thread_id: str) -> None:
        self._perform(self.session.release(thread_id))

    def vacuum(self) -> None:
        self._perform(_vacuum(self.session))

    def set_up(self) -> None:
        """Bring the database to this version's schema."""
        self._perform(self.session.set_up())

    def close(self) -> None:
        """Give the connection back, or close it if it was opened here."""
        self._perform(self.session.close())


class AsyncPostgresDriver:
    """A driver that is awaited, on one event loop."""

    def __init__(self, hands: Any) -> None:
        self.session = Session(hands)
        self.lock = asyncio.Lock()

    async def _perform(self, steps: Steps) -> Any:
        async with self.lock:
            return await aperform(steps, self.session.hands)

    async def append(self, batches: Sequence[Batch]) -> None:
        await self._perform(_append(self.session, batches))

    async def chain(self, thread_id: str, ns: str, checkpoint_id: str | None) -> Sequence[Row]:
        found: list[Row] = await self._perform(_chain(self.session, thread_id, ns, checkpoint_id))
        return found

    async def chains(self, thread_ids: Sequence[str], ns: str) -> Sequence[tuple[str, Row]]:
        found: list[tuple[str, Row]] = await self._perform(_chains(self.session, thread_ids, ns))
        return found

    async def steps(
        self, thread_id: str | None, ns: str | None, before: str | None, limit: int | None
    ) -> Sequence[tuple[str, Row]]:
        found: list[tuple[str, Row]] = await self._perform(_steps(self.session, thread_id, ns, before, limit))
        return found

    async def rows(self, thread_id: str) -> Sequence[Row]:
        found: list[Row] = await self._perform(_rows(self.session, thread_id))
        return found

    async def rewrite(self, thread_id: str, drops: Sequence[Drop], rows: Sequence[Row]) -> None:
        await self._perform(_rewrite(self.session, thread_id, drops, rows))

    async def delete_thread(self, thread_id: str) -> None:
        await self._perform(_delete_thread(self.session, thread_id))

    async def claim(self, thread_id: str) -> None:
        await self._perform(self.session.claim(thread_id))

    async def release(self, thread_id: str) -> None:
        await self._perform(self.session.release(thread_id))

    async def vacuum(self) -> None:
        await self._perform(_vacuum(self.session))

    async def set_up(self) -> None:
        await self._perform(self.session.set_up())

    async def close(self) -> None:
        await self._perform(self.session.close())
