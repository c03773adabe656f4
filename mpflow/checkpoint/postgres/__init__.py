"""`PostgresSaver`: checkpoints in a Postgres database, by psycopg 3 (``pip install "mpflow-engine[postgres]"``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mpflow.checkpoint.log.saver import LogSaver
from mpflow.checkpoint.postgres.connecting import SyncHands, named
from mpflow.checkpoint.postgres.driver import PostgresDriver

if TYPE_CHECKING:
    import threading

    from typing_extensions import Self

__all__ = ("PostgresSaver",)


class PostgresSaver(LogSaver):
    """A saver in a Postgres database (CP-10). Thread-safe.

    `conn` is a `psycopg.Connection` with ``autocommit=True``, or a `psycopg_pool.ConnectionPool`, of which one connection
    is used at a time: for as long as runs go on, and otherwise for each call. A step costs one round trip. A server that
    is lost is tried again for eight seconds, then `StorageError` names it; a single `Connection` cannot be had again.

    One process at a time runs a thread: others get `RunOwnedElsewhere`. The lock is an advisory one of the session, so
    no pooler may stand in between that gives a session's transactions to several servers. Values are kept as data: see
    `LogSaver`. Ids with NUL or a lone surrogate raise ValueError.
    """

    driver: PostgresDriver

    def __init__(self, conn: Any, pipe: Any = None, serde: Any = None, *, types: Iterable[type] = ()) -> None:
        super().__init__(PostgresDriver(SyncHands(conn, pipe)), serde=serde, types=types)

    @classmethod
    @contextmanager
    def from_conn_string(
        cls, conn_string: str, *, pipeline: bool = False, serde: Any = None, types: Iterable[type] = ()
    ) -> Iterator[Self]:
        """A saver on the database that a connection string or URI of libpq names; closed at the end of the block.

        `pipeline` changes nothing: each operation is one round trip without it.
        """
        saver = cls(named(conn_string), serde=serde, types=types)
        try:
            yield saver
        finally:
            saver.close()

    @property
    def conn(self) -> Any:
        """What the saver was given to connect with."""
        return self.driver.session.hands.source

    @property
    def lock(self) -> threading.RLock:
        return self.driver.lock

    def setup(self) -> None:
        """Make or migrate the tables. Needs not be called: it happens at first use, by whoever may."""
        self.driver.set_up()

    def close(self) -> None:
        """Commit what waits, and give the connection back; one that was given stays open."""
        try:
            self.writer.close()
        finally:
            self.driver.close()
