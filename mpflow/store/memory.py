"""`InMemoryStore`: items in this process, gone with it; searched by filter and, if told how to embed, by meaning."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import islice
from typing import cast

from mpflow.store.base import GetOp, IndexConfig, Item, ListNamespacesOp, PutOp, SearchOp, TTLConfig
from mpflow.store.performing import Entry, PerformingStore, Vectors, Where, passes

__all__ = ("InMemoryStore",)


class _Kept:
    """An item in memory."""

    __slots__ = ("expires_at_s", "item", "ttl_s", "vectors")

    def __init__(self, item: Item, ttl_s: float | None, expires_at_s: float | None, vectors: Vectors) -> None:
        self.item = item
        self.vectors = vectors
        self.ttl_s = ttl_s
        self.expires_at_s = expires_at_s


class InMemoryStore(PerformingStore):
    """A store that keeps everything in this process's memory. Thread safe.

    `index` says how to compare by meaning; without it a `query` is ignored. `ttl` sets defaults for how long items
    live. `clock` counts the seconds that this is measured in.
    """

    __slots__ = ("_clock", "_data", "_lock")

    def __init__(
        self,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(index, ttl)
        self._data: dict[tuple[str, ...], dict[str, _Kept]] = {}
        self._lock = threading.RLock()
        self._clock = clock

    def sweep_ttl(self) -> int:
        """Drop the items whose time is over, and return how many there were. Reads skip them anyway."""
        with self._lock:
            return sum([self._drop_expired(namespace) for namespace in list(self._data)])

    def _is_live(self, entry: _Kept) -> bool:
        return entry.expires_at_s is None or self._clock() < entry.expires_at_s

    def _drop_expired(self, namespace: tuple[str, ...]) -> int:
        entries = self._data.get(namespace, {})
        stale = [key for key, entry in entries.items() if not self._is_live(entry)]
        for key in stale:
            del entries[key]
        if not entries:
            self._data.pop(namespace, None)
        return len(stale)

    def _read(self, op: GetOp) -> Item | None:
        with self._lock:
            entry = self._data.get(op.namespace, {}).get(op.key)
            if entry is None or not self._is_live(entry):
                return None
            if op.refresh_ttl:
                self._refresh([entry])
            return entry.item

    def _candidates(self, op: SearchOp, limit: int | None, with_vectors: bool) -> Sequence[Entry]:
        with self._lock:
            return list(islice(self._found(op), limit))

    def _found(self, op: SearchOp) -> Iterator[_Kept]:
        prefix = tuple(op.namespace_prefix)
        for namespace, entries in self._data.items():
            if namespace[: len(prefix)] == prefix:
                for entry in entries.values():
                    if self._is_live(entry) and passes(entry.item.value, op.filter):
                        yield entry

    def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        with self._lock:
            return [
                namespace
                for namespace, entries in self._data.items()
                if any(self._is_live(entry) for entry in entries.values())
            ]

    def _refresh(self, entries: Sequence[Entry]) -> None:
        with self._lock:
            for entry in cast("Sequence[_Kept]", entries):
                if entry.ttl_s is not None and self._is_live(entry):
                    entry.expires_at_s = self._clock() + entry.ttl_s

    def _write(self, puts: Mapping[Where, PutOp], vectors: Mapping[Where, Vectors]) -> None:
        with self._lock:
            for where, op in puts.items():
                if op.value is None:
                    self._drop(*where)
                else:
                    self._put(op, op.value, vectors.get(where, {}))

    def _drop(self, namespace: tuple[str, ...], key: str) -> None:
        entries = self._data.get(namespace, {})
        entries.pop(key, None)
        if not entries:
            self._data.pop(namespace, None)

    def _put(self, op: PutOp, value: Mapping[str, object], vectors: Vectors) -> None:
        now = datetime.now(timezone.utc)
        before = self._data.get(op.namespace, {}).get(op.key)
        created_at = before.item.created_at if before is not None and self._is_live(before) else now
        item = Item(value=dict(value), key=op.key, namespace=op.namespace, created_at=created_at, updated_at=now)
        ttl_s = None if op.ttl is None else op.ttl * 60
        entry = _Kept(item, ttl_s, None if ttl_s is None else self._clock() + ttl_s, vectors)
        self._data.setdefault(op.namespace, {})[op.key] = entry
