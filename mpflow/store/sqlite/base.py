"""`SqliteStore`: items in a SQLite file, shared by the threads and processes that open it.

Values are JSON: what JSON does not have is refused by its path. Every value in a statement is bound.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from mpflow._sqlite import BUSY_S, open_private
from mpflow.errors import StorageError
from mpflow.store.base import GetOp, IndexConfig, Item, ListNamespacesOp, PutOp, SearchOp, TTLConfig
from mpflow.store.jsonable import json_of
from mpflow.store.performing import Asks, Entry, PerformingStore, Vectors, Where, passes, step
from mpflow.store.sweeping import Sweeper

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("BaseSqliteStore", "SqliteStore")

VERSION = 1
_SCHEMA = """
CREATE TABLE mpflow_items (
    id INTEGER PRIMARY KEY, ns TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL, ttl_s REAL, expires_at_s REAL, UNIQUE (ns, key)
);
CREATE INDEX mpflow_items_by_expiry ON mpflow_items (expires_at_s) WHERE expires_at_s IS NOT NULL;
CREATE TABLE mpflow_vectors (
    item INTEGER NOT NULL REFERENCES mpflow_items (id), path TEXT NOT NULL, vector BLOB NOT NULL,
    PRIMARY KEY (item, path)
) WITHOUT ROWID;
CREATE TABLE mpflow_store (version INTEGER NOT NULL);
"""
_COLUMNS = "id, ns, key, value, created_at, updated_at"
_LIVE = "(expires_at_s IS NULL OR expires_at_s > ?)"
_SEPARATOR = "."
_AFTER_SEPARATOR = "/"
"""The character after it: what begins with a namespace and a period lies between the two."""
_EXACT_INT = 1 << 53


class _Found:
    """A row, as the item that it is."""

    __slots__ = ("id", "item", "vectors")

    def __init__(self, row: tuple[Any, ...]) -> None:
        self.id, ns, key, value, created_at, updated_at = row
        self.item = Item(
            value=json.loads(value),
            key=key,
            namespace=tuple(ns.split(_SEPARATOR)),
            created_at=created_at,
            updated_at=updated_at,
        )
        self.vectors: Vectors = {}


class BaseSqliteStore(PerformingStore):
    """The items of both colours."""

    __slots__ = ("_clock", "_is_set_up", "_lock", "_sweeper", "conn")

    def __init__(
        self,
        conn: sqlite3.Connection,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(index, ttl)
        self.conn = conn
        self._clock = clock
        self._lock = threading.RLock()
        self._is_set_up = False
        self._sweeper: Sweeper | None = None

    def close(self) -> None:
        """Stop sweeping and close the database."""
        self._stop_sweeper(None)
        with self._lock:
            self.conn.close()

    def _set_up(self) -> None:
        with self._lock:
            if self._is_set_up:
                return
            with self._errors():
                self.conn.isolation_level = None
                self.conn.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")
                self.conn.execute("PRAGMA journal_mode = WAL")
                self.conn.execute("PRAGMA synchronous = NORMAL")
                with self._transaction():
                    self._make_tables()
            self._is_set_up = True

    def _make_tables(self) -> None:
        known = self.conn.execute("SELECT name FROM sqlite_master WHERE name = 'mpflow_store'").fetchone()
        if known is None:
            for statement in _SCHEMA.split(";"):
                self.conn.execute(statement)
            self.conn.execute("INSERT INTO mpflow_store VALUES (?)", (VERSION,))
            return
        (version,) = self.conn.execute("SELECT version FROM mpflow_store").fetchone()
        if version > VERSION:
            raise StorageError(
                self._where(), f"its store has the layout {version}, made by a later mpflow; this one knows {VERSION}"
            )

    def sweep(self) -> int:
        """Delete the items whose time is over, and return how many there were."""
        with self._writing():
            stale = "SELECT id FROM mpflow_items WHERE expires_at_s <= ?"
            now = self._clock()
            self.conn.execute(f"DELETE FROM mpflow_vectors WHERE item IN ({stale})", (now,))
            return self.conn.execute("DELETE FROM mpflow_items WHERE expires_at_s <= ?", (now,)).rowcount

    def _start_sweeper(self, sweep_interval_minutes: int | None) -> Future[None]:
        if self._sweeper is not None and not self._sweeper.future.done():
            return self._sweeper.future
        if self.ttl_config is None:
            done: Future[None] = Future()
            done.set_result(None)
            return done
        minutes = sweep_interval_minutes or self.ttl_config.get("sweep_interval_minutes") or 5
        self._sweeper = Sweeper(self.sweep, minutes * 60.0)
        return self._sweeper.future

    def _stop_sweeper(self, timeout_s: float | None) -> bool:
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is None or sweeper.stop(timeout_s):
            return True
        self._sweeper = sweeper
        return False

    # -- the driver ---------------------------------------------------------------------------------------------------

    def _read(self, op: GetOp) -> Item | None:
        ns = _text(op.namespace)
        if not ns:
            return None
        with self._reading():
            row = self.conn.execute(
                f"SELECT {_COLUMNS} FROM mpflow_items WHERE ns = ? AND key = ? AND {_LIVE}", (ns, op.key, self._clock())
            ).fetchone()
        if row is None:
            return None
        found = _Found(row)
        if op.refresh_ttl:
            self._refresh([found])
        return found.item

    def _candidates(self, op: SearchOp, limit: int | None, with_vectors: bool) -> Sequence[Entry]:
        where, bound = _below(tuple(op.namespace_prefix))
        for key, wanted in (op.filter or {}).items():
            if (condition := _condition(key, wanted)) is not None:
                where += " AND json_extract(value, ?) IS ?"
                bound += condition
        statement = f"SELECT {_COLUMNS} FROM mpflow_items WHERE {where} AND {_LIVE} ORDER BY id"
        with self._reading():
            # Rows are decoded one at a time, so that a page of many items costs what it shows.
            rows = map(_Found, self.conn.execute(statement, (*bound, self._clock())))
            found = list(islice((row for row in rows if passes(row.item.value, op.filter)), limit))
            if with_vectors:
                self._add_vectors(found, where, bound)
        return found

    def _add_vectors(self, found: Sequence[_Found], where: str, bound: tuple[Any, ...]) -> None:
        by_id = {row.id: row.vectors for row in found}
        statement = f"SELECT item, path, vector FROM mpflow_vectors JOIN mpflow_items ON item = id WHERE {where}"
        for item, path, vector in self.conn.execute(statement, bound):
            if item in by_id:
                by_id[item][path] = list(array("d", vector))

    def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        with self._reading():
            rows = self.conn.execute(f"SELECT DISTINCT ns FROM mpflow_items WHERE {_LIVE}", (self._clock(),)).fetchall()
        return [tuple(ns.split(_SEPARATOR)) for (ns,) in rows]

    def _refresh(self, entries: Sequence[Entry]) -> None:
        mortal = [(self._clock(), entry.id) for entry in cast("Sequence[_Found]", entries)]
        if mortal:
            with self._writing():
                self.conn.executemany(
                    "UPDATE mpflow_items SET expires_at_s = ? + ttl_s WHERE id = ? AND ttl_s IS NOT NULL", mortal
                )

    def _write(self, puts: Mapping[Where, PutOp], vectors: Mapping[Where, Vectors]) -> None:
        # Encoded before anything is locked: a value that cannot be stored leaves the store as it was.
        texts = {
            where: None if op.value is None else json_of(op.value, f"the value of '{op.key}' in {op.namespace}")
            for where, op in puts.items()
        }
        with self._writing():
            for where, op in puts.items():
                self._put(op, texts[where], vectors.get(where, {}))

    def _put(self, op: PutOp, text: str | None, vectors: Vectors) -> None:
        ns = _text(op.namespace)
        row = self.conn.execute("SELECT id FROM mpflow_items WHERE ns = ? AND key = ?", (ns, op.key)).fetchone()
        if row is not None:
            self.conn.execute("DELETE FROM mpflow_vectors WHERE item = ?", row)
        if text is None:
            self.conn.execute("DELETE FROM mpflow_items WHERE ns = ? AND key = ?", (ns, op.key))
            return
        now_s = self._clock()
        now = datetime.now(timezone.utc).isoformat()
        ttl_s = None if op.ttl is None else op.ttl * 60
        (item,) = self.conn.execute(
            "INSERT INTO mpflow_items (ns, key, value, created_at, updated_at, ttl_s, expires_at_s) "
            "VALUES (:ns, :key, :value, :now, :now, :ttl_s, :expires_at_s) "
            "ON CONFLICT (ns, key) DO UPDATE SET value = :value, updated_at = :now, ttl_s = :ttl_s, "
            "expires_at_s = :expires_at_s, created_at = iif(expires_at_s <= :now_s, :now, created_at) RETURNING id",
            {
                "ns": ns,
                "key": op.key,
                "value": text,
                "now": now,
                "ttl_s": ttl_s,
                "expires_at_s": None if ttl_s is None else now_s + ttl_s,
                "now_s": now_s,
            },
        ).fetchone()
        self.conn.executemany(
            "INSERT INTO mpflow_vectors VALUES (?, ?, ?)",
            [(item, path, array("d", vector).tobytes()) for path, vector in vectors.items()],
        )

    # -- the database -------------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._set_up()
        with self._lock, self._errors():
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._set_up()
        with self._lock, self._errors(), self._transaction():
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self.conn.in_transaction:  # SQLite ends it itself after some errors
                self.conn.execute("ROLLBACK")
            raise
        self.conn.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(self._where(), f"{type(error).__name__}: {error}") from error

    def _where(self) -> str:
        try:
            databases = self.conn.execute("PRAGMA database_list").fetchall()
        except sqlite3.Error:
            return "SQLite store"
        return f"SQLite store {next((path for _, name, path in databases if name == 'main'), '') or ':memory:'}"

    async def _astep(self, work: Asks, vectors: list[list[float]] | None) -> Any:
        return await asyncio.to_thread(step, work, vectors)


class SqliteStore(BaseSqliteStore):
    """A store in the database of `conn`, which must be free for other threads (``check_same_thread=False``).

    `index` says how to compare by meaning; without it a `query` is ignored. `ttl` sets defaults for how long items live;
    those whose time is over are never found, and `sweep_ttl` deletes them. `clock` gives the seconds since the epoch.

    Raises StorageError, which names the file, for what SQLite refuses.
    """

    __slots__ = ()

    @classmethod
    @contextmanager
    def from_conn_string(
        cls, conn_string: str, *, index: IndexConfig | None = None, ttl: TTLConfig | None = None
    ) -> Iterator[Self]:
        """A store in the file `conn_string`, or in memory for ``":memory:"``; closed at the end of the block.

        A new file is readable by its owner alone; symbolic links are refused.
        """
        with closing(open_private(conn_string)) as conn, cls(conn, index=index, ttl=ttl) as store:
            yield store

    def setup(self) -> None:
        """Make the tables, if need be. Every other method does so itself: calling this is optional."""
        self._set_up()

    def sweep_ttl(self) -> int:
        """Delete the items whose time is over, and return how many there were. Reads skip them anyway."""
        return self.sweep()

    def start_ttl_sweeper(self, sweep_interval_minutes: int | None = None) -> Future[None]:
        """Sweep every so many minutes (the ttl's ``sweep_interval_minutes``, or 5) in a thread, until it is stopped.

        The future ends with the sweeper; at once, for a store without `ttl`. Cancelling it stops the sweeper.
        """
        return self._start_sweeper(sweep_interval_minutes)

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Stop sweeping; whether the thread has ended within `timeout` seconds (None: however long it takes)."""
        return self._stop_sweeper(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _text(namespace: Sequence[str]) -> str:
    """A namespace as it is stored; "" for one that nothing can be stored under."""
    if any(not isinstance(label, str) or not label or _SEPARATOR in label for label in namespace):
        return ""
    return _SEPARATOR.join(namespace)


def _below(prefix: tuple[str, ...]) -> tuple[str, tuple[Any, ...]]:
    """A condition on `ns`, with what it binds: all that is in or below a namespace."""
    if not prefix:
        return "1", ()
    ns = _text(prefix)
    return "(ns = ? OR (ns > ? AND ns < ?))", (ns, ns + _SEPARATOR, ns + _AFTER_SEPARATOR)


def _condition(key: str, wanted: Any) -> tuple[Any, ...] | None:
    """What SQLite can tell of a filter beforehand, the path and its value; None where only Python knows."""
    if isinstance(wanted, dict):
        wanted = wanted.get("$eq") if len(wanted) == 1 else None
    if not (isinstance(key, str) and key.isascii() and key.isidentifier()):
        return None
    if (isinstance(wanted, str) and wanted.isascii() and wanted.isprintable()) or (
        isinstance(wanted, int) and abs(wanted) < _EXACT_INT
    ):
        return f"$.{key}", wanted
    return None
