"""The log in a SQLite database: schema, statements, and what SQLite's errors mean. It knows rows, and no checkpoint."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import eq
from typing import Any, Final

from mpflow._sqlite import BUSY_S
from mpflow.checkpoint.log.driver import NEAR, RESUMABLE, Batch, Drop, Row
from mpflow.checkpoint.sqlite.ownership import Ownership
from mpflow.errors import CheckpointVersionError, DatabaseDamagedError, StorageError

# Each is applied once, in order; their count is the schema's version. What was released is never changed.
MIGRATIONS: Final = (
    # Rows have rowids, since blobs of a few KB would spill over in an index. Read backwards, the index has the step of a
    # checkpoint before the results beside it, which may be thousands.
    """
    CREATE TABLE mpflow_spaces (
        space INTEGER PRIMARY KEY, thread_id TEXT NOT NULL, ns TEXT NOT NULL, UNIQUE (thread_id, ns)
    );
    CREATE TABLE mpflow_rows (
        seq INTEGER PRIMARY KEY, space INTEGER NOT NULL, checkpoint_id TEXT NOT NULL, kind INTEGER NOT NULL,
        base TEXT NOT NULL, data BLOB NOT NULL
    );
    CREATE INDEX mpflow_rows_by_checkpoint ON mpflow_rows (space, checkpoint_id, kind DESC)
    """,
)

_COLUMNS: Final = "r.checkpoint_id, r.kind, r.base, r.data"
_BASE: Final = "min(last.base, last.checkpoint_id)"
"""Whatever damage has made of it, the step that has it is found, and its checksum tells."""
_LAST: Final = (
    "WITH last AS (SELECT r.space, r.checkpoint_id, r.base FROM mpflow_rows r "
    "WHERE r.space = (SELECT space FROM mpflow_spaces WHERE thread_id = ? AND ns = ?) AND r.kind = 0 {} "
    "ORDER BY r.checkpoint_id DESC, r.kind LIMIT 1)"
)
_CHAIN_OF_LATEST: Final = (
    f"{_LAST.format('')} SELECT {_COLUMNS} FROM last JOIN mpflow_rows r "
    f"ON r.space = last.space AND r.checkpoint_id >= {_BASE} AND r.checkpoint_id <= last.checkpoint_id "
    "ORDER BY r.checkpoint_id, r.kind DESC, r.seq"
)
_CHAIN: Final = (
    f"{_LAST.format('AND r.checkpoint_id = ?')}, near AS (SELECT max(checkpoint_id) AS id FROM ("
    "SELECT n.checkpoint_id FROM last JOIN mpflow_rows n ON n.space = last.space AND n.kind = 0 "
    f"AND n.checkpoint_id > last.checkpoint_id ORDER BY n.checkpoint_id LIMIT {NEAR})) "
    f"SELECT {_COLUMNS} FROM last JOIN near JOIN mpflow_rows r ON r.space = last.space "
    f"AND r.checkpoint_id >= {_BASE} AND r.checkpoint_id <= coalesce(near.id, last.checkpoint_id) "
    "AND (r.kind = 0 OR r.checkpoint_id <= last.checkpoint_id) ORDER BY r.checkpoint_id, r.kind DESC, r.seq"
)
_MOST_AT_ONCE: Final = 128


CHECKED_BYTES: Final = 16 << 20
"""A database up to this size is checked as a whole when a process first opens it: some 2 ms a MiB."""

_checked: set[tuple[str, int, int]] = set()
_MAGIC: Final = b"SQLite format 3\0"
_DAMAGE: Final = ("malformed", "not a database", "Could not decode", "no such column", "no such table")


def _insert(count: int) -> str:
    """One statement for many rows: each statement gives up the GIL, and getting it back from a busy thread takes 5 ms."""
    return "INSERT INTO mpflow_rows (space, checkpoint_id, kind, base, data) VALUES " + ", ".join(
        ["(?, ?, ?, ?, ?)"] * count
    )


_INSERTS: Final = {1 << power: _insert(1 << power) for power in range(8)}
_INSERT_ALONE: Final = (
    "INSERT INTO mpflow_rows (space, checkpoint_id, kind, base, data) "
    "SELECT space, ?, ?, ?, ? FROM mpflow_spaces WHERE thread_id = ? AND ns = ?"
)


class SqliteDriver:
    """Rows in the database of `connection`, which is used by one thread at a time, under `lock`.

    Raises `StorageError` with the file's name for whatever SQLite raises.
    """

    def __init__(self, connection: sqlite3.Connection, lock: Any = None) -> None:
        if getattr(connection, "autocommit", -1) not in (-1, True):
            raise ValueError(
                "the connection must not have autocommit=False: the saver begins and ends transactions itself"
            )
        self.connection = connection
        self.lock = lock or threading.RLock()
        self.path = _path_of(connection)
        self.where = f"SQLite database {self.path or 'in memory'}"
        self.is_set_up = False
        self._ownership = Ownership(f"{self.path}-runs") if self.path else None

    # -- transactions -------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Bring the database to this version's schema. Raises CheckpointVersionError for a later one."""
        with self.lock:
            if self.is_set_up:
                return
            with self._told():
                execute = self._cursor().execute
                execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")
                if self._is_to_be_checked():
                    self.check()
                execute("PRAGMA journal_mode = WAL")
                execute("PRAGMA synchronous = FULL")
                if self._version(self._cursor()) < len(MIGRATIONS):
                    with self._transaction() as cursor:  # another process may have come first
                        self._migrate(cursor, self._version(cursor))
            self.is_set_up = True

    def _is_to_be_checked(self) -> bool:
        """Whether this process sees the file for the first time, and can read it all in some ten milliseconds."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        known = self.path, found.st_dev, found.st_ino
        if known in _checked or not 0 < found.st_size <= CHECKED_BYTES:
            return False
        _checked.add(known)
        return True

    def check(self) -> None:
        """Compare all there is with what refers to it. Raises DatabaseDamagedError.

        A row has a checksum, but one that its index does not lead to is missed by nobody: an older state would be the last.
        """
        with self.lock, self._told():
            (found,) = self._cursor().execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise DatabaseDamagedError(self.where, found)

    def _version(self, cursor: sqlite3.Cursor) -> int:
        """The version of the database's schema, 0 for none. Raises CheckpointVersionError for a later one."""
        if not cursor.execute("SELECT 1 FROM sqlite_master WHERE name = 'mpflow_schema'").fetchone():
            return 0
        found = int(cursor.execute("SELECT max(version) FROM mpflow_schema").fetchone()[0] or 0)
        if found > len(MIGRATIONS):
            raise CheckpointVersionError(self.where, found, len(MIGRATIONS))
        return found

    def _migrate(self, cursor: sqlite3.Cursor, version: int) -> None:
        cursor.execute("CREATE TABLE IF NOT EXISTS mpflow_schema (version INTEGER NOT NULL)")
        for migration in MIGRATIONS[version:]:
            for statement in migration.split(";"):
                cursor.execute(statement)
        cursor.execute("INSERT INTO mpflow_schema VALUES (?)", (len(MIGRATIONS),))

    def _cursor(self) -> sqlite3.Cursor:
        cursor = self.connection.cursor()
        cursor.row_factory = None  # the connection may be the user's, with a factory of theirs
        return cursor

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        cursor = self._cursor()
        cursor.execute("BEGIN IMMEDIATE")
        try:
            yield cursor
            cursor.execute("COMMIT")
        except BaseException:
            try:
                cursor.execute("ROLLBACK")
            except sqlite3.Error:  # SQLite has rolled back by itself
                pass
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (UnicodeDecodeError, sqlite3.Error) as error:
            raise self._meaning_of(error) from error

    def _meaning_of(self, error: Exception) -> StorageError:
        if isinstance(error, UnicodeDecodeError):  # of what SQLite says is wrong
            return DatabaseDamagedError(self.where, "its schema is malformed")
        text = str(error)
        if "not a database" in text and (begin := self._foreign_begin()):
            return StorageError(
                self.where,
                f"it is no SQLite database: it begins with {begin!r}",
                "give the path of a new file or of a database; if it was one, restore it from a backup",
            )
        if "closed database" in text:
            return StorageError(self.where, "its connection is closed", "use the saver before its `with` block ends")
        detail = f"{type(error).__name__}: {text}"
        if any(sign in text for sign in _DAMAGE):
            return DatabaseDamagedError(self.where, detail)
        if "locked" in text or "busy" in text:
            detail += f" (another connection has been writing for {BUSY_S:.0f} s)"
        return StorageError(self.where, detail, RESUMABLE if self.is_set_up else "")

    def _foreign_begin(self) -> bytes:
        """What the file begins with, if that never was the beginning of a database; else nothing."""
        try:
            with open(self.path, "rb") as file:
                begin = file.read(16)
        except OSError:
            return b""
        is_like = sum(map(eq, begin, _MAGIC)) >= len(_MAGIC) // 2
        return b"" if is_like or not begin.strip(b"\0") else begin

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Cursor]:
        with self.lock:
            self.set_up()
            with self._told(), self._transaction() as cursor:
                yield cursor

    def _read(self, statement: str, parameters: Sequence[Any]) -> list[Any]:
        with self.lock:
            self.set_up()
            with self._told():
                return self._cursor().execute(statement, parameters).fetchall()

    # -- the contract -------------------------------------------------------------------------------------------------

    def append(self, batches: Sequence[Batch]) -> None:
        if len(batches) == 1:
            ((thread_id, rows),) = batches
            if len(rows) == 1 and self._appended_alone(thread_id, rows[0]):
                return
        with self._writing() as cursor:
            for thread_id, rows in batches if len(batches) == 1 else _joined(batches):
                self._insert(cursor, thread_id, rows)

    def _appended_alone(self, thread_id: str, row: Row) -> bool:
        """Add one row, the usual step's, by one statement that is a transaction of its own: half of what four would take.

        Not so where the namespace is new, or somebody else has a transaction open or has Python begin them.
        """
        with self.lock:
            if not self.is_set_up:
                self.set_up()
            connection = self.connection
            parameters = row.checkpoint_id, row.kind, row.base, row.data, thread_id, row.ns
            try:
                if connection.in_transaction or (
                    connection.isolation_level is not None and getattr(connection, "autocommit", -1) is not True
                ):
                    return False
                return connection.execute(_INSERT_ALONE, parameters).rowcount == 1
            except (UnicodeDecodeError, sqlite3.Error) as error:
                raise self._meaning_of(error) from error

    def _insert(self, cursor: sqlite3.Cursor, thread_id: str, rows: Sequence[Row]) -> None:
        spaces: dict[str, int] = {}
        parameters: list[Any] = []
        for row in rows:
            space = spaces.get(row.ns)
            if space is None:
                space = spaces[row.ns] = self._space(cursor, thread_id, row.ns)
            parameters += (space, row.checkpoint_id, row.kind, row.base, row.data)
        at, left = 0, len(rows)
        while left:
            count = min(_MOST_AT_ONCE, 1 << left.bit_length() - 1)
            cursor.execute(_INSERTS[count], parameters[5 * at : 5 * (at + count)])
            at += count
            left -= count

    def _space(self, cursor: sqlite3.Cursor, thread_id: str, ns: str) -> int:
        # Asked for each time: another process may have deleted the thread since.
        found = cursor.execute(
            "SELECT space FROM mpflow_spaces WHERE thread_id = ? AND ns = ?", (thread_id, ns)
        ).fetchone()
        if found is not None:
            return int(found[0])
        cursor.execute("INSERT INTO mpflow_spaces (thread_id, ns) VALUES (?, ?)", (thread_id, ns))
        return int(cursor.lastrowid or 0)

    def chain(self, thread_id: str, ns: str, checkpoint_id: str | None) -> Sequence[Row]:
        if checkpoint_id is None:
            found = self._read(_CHAIN_OF_LATEST, (thread_id, ns))
        else:
            found = self._read(_CHAIN, (thread_id, ns, checkpoint_id))
        return [Row(ns, *row) for row in found]

    def chains(self, thread_ids: Sequence[str], ns: str) -> Sequence[tuple[str, Row]]:
        found: list[tuple[str, Row]] = []
        with self.lock:
            self.set_up()
            with self._told():
                execute = self._cursor().execute
                for thread_id in thread_ids:
                    rows = execute(_CHAIN_OF_LATEST, (thread_id, ns)).fetchall()
                    found += [(thread_id, Row(ns, *row)) for row in rows]
        return found

    def steps(
        self, thread_id: str | None, ns: str | None, before: str | None, limit: int | None
    ) -> Sequence[tuple[str, Row]]:
        conditions, parameters = ["r.kind = 0"], []
        for condition, value in (("s.thread_id = ?", thread_id), ("s.ns = ?", ns), ("r.checkpoint_id < ?", before)):
            if value is not None:
                conditions.append(condition)
                parameters.append(value)
        found = self._read(
            f"SELECT s.thread_id, s.ns, {_COLUMNS} FROM mpflow_spaces s JOIN mpflow_rows r ON r.space = s.space "
            f"WHERE {' AND '.join(conditions)} ORDER BY r.checkpoint_id DESC, s.thread_id, s.ns LIMIT ?",
            [*parameters, -1 if limit is None else limit],
        )
        return [(row[0], Row(*row[1:])) for row in found]

    def rows(self, thread_id: str) -> Sequence[Row]:
        found = self._read(
            f"SELECT s.ns, {_COLUMNS} FROM mpflow_spaces s JOIN mpflow_rows r ON r.space = s.space "
            "WHERE s.thread_id = ? ORDER BY s.ns, r.seq",
            (thread_id,),
        )
        return [Row(*row) for row in found]

    def rewrite(self, thread_id: str, drops: Sequence[Drop], rows: Sequence[Row]) -> None:
        with self._writing() as cursor:
            cursor.executemany(
                "DELETE FROM mpflow_rows WHERE checkpoint_id = ? AND kind = ? "
                "AND space = (SELECT space FROM mpflow_spaces WHERE thread_id = ? AND ns = ?)",
                [(checkpoint_id, kind, thread_id, ns) for ns, checkpoint_id, kind in drops],
            )
            self._insert(cursor, thread_id, rows)

    def delete_thread(self, thread_id: str) -> None:
        with self._writing() as cursor:
            cursor.execute(
                "DELETE FROM mpflow_rows WHERE space IN (SELECT space FROM mpflow_spaces WHERE thread_id = ?)",
                (thread_id,),
            )
            cursor.execute("DELETE FROM mpflow_spaces WHERE thread_id = ?", (thread_id,))

    def claim(self, thread_id: str) -> None:
        if self._ownership is not None:
            self._ownership.claim(thread_id)

    def release(self, thread_id: str) -> None:
        if self._ownership is not None:
            self._ownership.release(thread_id)

    def vacuum(self) -> None:
        with self.lock:
            self.set_up()
            with self._told():
                self._cursor().execute("VACUUM")
                self._cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _joined(batches: Sequence[Batch]) -> list[Batch]:
    """The batches of each thread as one."""
    by_thread: dict[str, list[Row]] = {}
    for thread_id, rows in batches:
        by_thread.setdefault(thread_id, []).extend(rows)
    return list(by_thread.items())


def _path_of(connection: sqlite3.Connection) -> str:
    """The main database's file; empty for one in memory."""
    cursor = connection.cursor()
    cursor.row_factory = None
    try:
        return next((path for _, name, path in cursor.execute("PRAGMA database_list") if name == "main"), "") or ""
    except sqlite3.Error as error:
        raise StorageError("SQLite database", f"{type(error).__name__}: {error}") from error
