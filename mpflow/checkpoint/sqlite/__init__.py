"""`SqliteSaver`: checkpoints in a SQLite database, by the standard library's sqlite3. The embedded default."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mpflow._sqlite import open_private
from mpflow.checkpoint.log.saver import LogSaver
from mpflow.checkpoint.sqlite.driver import SqliteDriver

if TYPE_CHECKING:
    import threading

    from typing_extensions import Self

__all__ = ("SqliteSaver",)


class SqliteSaver(LogSaver):
    """A saver in a SQLite database (CP-10), in WAL mode with ``synchronous=FULL``. Thread-safe.

    `conn` must be open with ``check_same_thread=False`` and is used under ``lock``; `setup` happens at first use. One
    process at a time runs a thread: others get `RunOwnedElsewhere`. Values are kept as data: see `LogSaver`.
    """

    driver: SqliteDriver

    def __init__(self, conn: sqlite3.Connection, *, serde: Any = None, types: Iterable[type] = ()) -> None:
        super().__init__(SqliteDriver(conn), serde=serde, types=types)

    @classmethod
    @contextmanager
    def from_conn_string(cls, conn_string: str, *, serde: Any = None, types: Iterable[type] = ()) -> Iterator[Self]:
        """A saver on the database at this path, ``":memory:"`` for one in memory; closed at the end of the block.

        A new file is readable by its owner alone; a symbolic link is refused with `StorageError`.
        """
        saver = cls._owning(open_private(conn_string), serde, types)
        try:
            yield saver
        finally:
            saver.close()

    @classmethod
    def _owning(cls, connection: sqlite3.Connection, serde: Any, types: Iterable[type]) -> Self:
        """A saver on this connection, which is closed if there can be none."""
        try:
            return cls(connection, serde=serde, types=types)
        except BaseException:
            connection.close()
            raise

    @property
    def conn(self) -> sqlite3.Connection:
        """The connection, to be used under ``lock``."""
        return self.driver.connection

    @property
    def lock(self) -> threading.RLock:
        lock: threading.RLock = self.driver.lock
        return lock

    @property
    def is_setup(self) -> bool:
        return self.driver.is_set_up

    def setup(self) -> None:
        """Make or migrate the tables. Needs not be called: it happens at first use."""
        self.driver.set_up()

    def check(self) -> None:
        """Read the whole database, some 2 ms a MiB, and raise `DatabaseDamagedError` if it is not as it was written.

        A small one is checked by itself when a process first uses it.
        """
        self.driver.set_up()
        self.driver.check()

    def close(self) -> None:
        """Commit what waits and close the connection."""
        try:
            self.writer.close()
        finally:
            with self.driver.lock:
                self.driver.connection.close()
