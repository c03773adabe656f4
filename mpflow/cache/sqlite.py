"""`SqliteCache`: node results in a file that outlives the process. Values are kept as data only, never as pickles."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mpflow._sqlite import open_private
from mpflow._wire.codec import Codec
from mpflow.cache.base import BaseCache, FullKey, Namespace, ValueT
from mpflow.types import Send

__all__ = ("SqliteCache",)

_SEPARATOR = "\x1f"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS writes "
    "(ns TEXT NOT NULL, key TEXT NOT NULL, expires REAL, value BLOB NOT NULL, PRIMARY KEY (ns, key)) WITHOUT ROWID"
)


class SqliteCache(BaseCache[ValueT]):
    """A cache in the SQLite file at `path`, shared by the threads and processes that open it.

    The file is made readable by its owner alone, and must not be a symbolic link (StorageError). Values are plain data, `Send` and objects of the classes in `types`;
    what is none of these is refused with `mpflow._wire.errors.EncodeError`, and a run then goes on without caching it.
    An entry that cannot be read any more counts as absent. `clock` gives the seconds since the epoch that `ttl` is
    measured in. Close it when done, or use it as a context manager.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        types: Iterable[type] = (),
        serde: Any = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(serde=serde)
        self._clock = clock
        self._codec = Codec(types=(Send, *types), trust=False)
        self._lock = threading.Lock()
        self._connection = open_private(os.fspath(path))
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(_SCHEMA)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def __enter__(self) -> SqliteCache[ValueT]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        now = self._clock()
        rows: dict[FullKey, bytes] = {}
        with self._lock:
            for namespace, key in keys:
                row = self._connection.execute(
                    "SELECT value FROM writes WHERE ns = ? AND key = ? AND (expires IS NULL OR expires > ?)",
                    (_text(namespace), key, now),
                ).fetchone()
                if row is not None:
                    rows[tuple(namespace), key] = row[0]
        found: dict[FullKey, ValueT] = {}
        for full_key, data in rows.items():
            try:
                found[full_key] = self._codec.decode(data)
            except Exception:  # written by another version, or damaged: the node runs again
                continue
        return found

    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        now = self._clock()
        rows = [
            (
                _text(namespace),
                key,
                None if ttl is None else now + ttl,
                self._codec.encode(value, path=f"the writes of '{namespace[-1]}'"),
            )
            for (namespace, key), (value, ttl) in pairs.items()
        ]
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.execute("DELETE FROM writes WHERE expires <= ?", (now,))
                self._connection.executemany("INSERT OR REPLACE INTO writes VALUES (?, ?, ?, ?)", rows)
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        with self._lock:
            if namespaces is None:
                self._connection.execute("DELETE FROM writes")
            else:
                self._connection.executemany(
                    "DELETE FROM writes WHERE ns = ?", [(_text(namespace),) for namespace in namespaces]
                )

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        return await asyncio.to_thread(self.get, keys)

    async def aset(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        await asyncio.to_thread(self.set, pairs)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        await asyncio.to_thread(self.clear, namespaces)


def _text(namespace: Namespace) -> str:
    return _SEPARATOR.join(namespace)
