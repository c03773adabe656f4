"""Connections of psycopg, in either colour: where one comes from, one statement on it, and giving it back.

The one place that knows psycopg. It must not know what the statements are for, nor when to try again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

try:
    import psycopg
    from psycopg import AsyncConnection, Connection
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.pq import TransactionStatus
    from psycopg.rows import tuple_row
    from psycopg_pool import AsyncConnectionPool, ConnectionPool
except ImportError as error:
    raise ImportError(f'Postgres needs psycopg 3 ({error}): pip install "mpflow-engine[postgres]"') from error

Rows = list[Any]

_TRANSIENT = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)


def is_lost(error: BaseException, connection: Any) -> bool:
    """Whether it is the connection that failed, or a conflict that a second try may not meet."""
    if isinstance(error, _TRANSIENT):
        return True
    if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return False
    return connection is None or bool(connection.closed) or bool(connection.broken)


def is_of_postgres(error: BaseException) -> bool:
    return isinstance(error, psycopg.Error)


def described(connection: Any) -> str:
    """A server and database, for errors."""
    info = connection.info
    return f"Postgres database '{info.dbname}' at {info.host or 'localhost'}:{info.port}"


def _where(source: Any) -> str:
    """The same before there is a connection."""
    if not isinstance(source, str):
        return "Postgres"
    known = conninfo_to_dict(source)
    host = known.get("host") or os.environ.get("PGHOST", "localhost")
    name = known.get("dbname") or known.get("user") or os.environ.get("PGDATABASE", "")
    return f"Postgres database '{name}' at {host}:{known.get('port') or os.environ.get('PGPORT', 5432)}"


def named(conninfo: str) -> str:
    """The connection string, with a name by which others see who holds a lock. Raises psycopg.ProgrammingError."""
    known = conninfo_to_dict(conninfo)
    if "application_name" in known or "PGAPPNAME" in os.environ:
        return conninfo
    return make_conninfo(conninfo, application_name=f"mpflow pid {os.getpid()} on {socket.gethostname()}"[:63])


class SyncHands:
    """A connection as one is needed, from a connection string, a pool, or one that is given and cannot be replaced."""

    def __init__(self, source: str | Connection[Any] | ConnectionPool[Any], pipe: Any = None) -> None:
        if isinstance(source, Connection):
            _check_given(source)
        elif not isinstance(source, (str, ConnectionPool)):
            raise TypeError(f"expected a psycopg Connection or ConnectionPool, got {type(source).__name__}")
        self.source = source
        self.pipe = pipe
        self.where = _where(source)
        self.can_reopen = not isinstance(source, Connection)
        self.connection: Any = None

    def open(self) -> None:
        """Have a connection."""
        source = self.source
        if isinstance(source, str):
            self.connection = Connection.connect(source, autocommit=True, prepare_threshold=0)
        elif isinstance(source, Connection):
            self.connection = source
        else:
            self.connection = source.getconn()
            self._was_autocommit = self.connection.autocommit
            if not self._was_autocommit:
                self.connection.autocommit = True

    def execute(self, statement: str, parameters: Sequence[Any] | None = None) -> Rows:
        """Its rows; what it changed is committed."""
        with self.connection.cursor(row_factory=tuple_row, binary=True) as cursor:
            cursor.execute(statement, parameters)
            if self.pipe is not None:  # before it nothing is known of the outcome
                self.pipe.sync()
            return cursor.fetchall() if cursor.description else []

    def give_back(self) -> None:
        """Return the connection to where it came from, where there is such a place."""
        connection = self.connection
        if connection is None or not isinstance(self.source, ConnectionPool):
            return
        self.connection = None
        if not connection.closed and not self._was_autocommit:
            connection.autocommit = False
        self.source.putconn(connection)

    def drop(self) -> None:
        """Be done with a connection that failed, or that was opened here."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if isinstance(self.source, ConnectionPool):
            connection.close()
            self.source.putconn(connection)
        elif isinstance(self.source, str):
            connection.close()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class AsyncHands:
    """As `SyncHands`, awaited."""

    def __init__(self, source: str | AsyncConnection[Any] | AsyncConnectionPool[Any], pipe: Any = None) -> None:
        if isinstance(source, AsyncConnection):
            _check_given(source)
        elif not isinstance(source, (str, AsyncConnectionPool)):
            raise TypeError(f"expected a psycopg AsyncConnection or AsyncConnectionPool, got {type(source).__name__}")
        self.source = source
        self.pipe = pipe
        self.where = _where(source)
        self.can_reopen = not isinstance(source, AsyncConnection)
        self.connection: Any = None

    async def open(self) -> None:
        source = self.source
        if isinstance(source, str):
            self.connection = await AsyncConnection.connect(source, autocommit=True, prepare_threshold=0)
        elif isinstance(source, AsyncConnection):
            self.connection = source
        else:
            self.connection = await source.getconn()
            self._was_autocommit = self.connection.autocommit
            if not self._was_autocommit:
                await self.connection.set_autocommit(True)

    async def execute(self, statement: str, parameters: Sequence[Any] | None = None) -> Rows:
        async with self.connection.cursor(row_factory=tuple_row, binary=True) as cursor:
            await cursor.execute(statement, parameters)
            if self.pipe is not None:
                await self.pipe.sync()
            return await cursor.fetchall() if cursor.description else []

    async def give_back(self) -> None:
        connection = self.connection
        if connection is None or not isinstance(self.source, AsyncConnectionPool):
            return
        self.connection = None
        if not connection.closed and not self._was_autocommit:
            await connection.set_autocommit(False)
        await self.source.putconn(connection)

    async def drop(self) -> None:
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if isinstance(self.source, AsyncConnectionPool):
            await connection.close()
            await self.source.putconn(connection)
        elif isinstance(self.source, str):
            await connection.close()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _check_given(connection: Any) -> None:
    if not connection.autocommit and connection.info.transaction_status != TransactionStatus.UNKNOWN:
        raise ValueError(
            "the connection must be open with autocommit=True: the saver begins and ends transactions itself"
        )
