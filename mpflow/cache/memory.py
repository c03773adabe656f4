"""`InMemoryCache`: node results in this process, gone with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpflow._seal import seal
from mpflow.cache.base import BaseCache, FullKey, Namespace, ValueT

__all__ = ("InMemoryCache",)


class InMemoryCache(BaseCache[ValueT]):
    """A cache that keeps everything in this process's memory. Thread safe.

    `serde` is taken for LangGraph's sake and not used; `clock` counts the seconds that `ttl` is measured in.
    """

    def __init__(self, *, serde: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(serde=serde)
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[Namespace, dict[str, tuple[Callable[[], Any], float | None]]] = {}

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        found: dict[FullKey, Callable[[], Any]] = {}
        now = self._clock()
        with self._lock:
            for full_key in keys:
                namespace, key = tuple(full_key[0]), full_key[1]
                entry = self._entries.get(namespace, {}).get(key)
                if entry is None:
                    continue
                unseal, expires_at = entry
                if expires_at is not None and now >= expires_at:
                    del self._entries[namespace][key]
                else:
                    found[(namespace, key)] = unseal
        return {key: unseal() for key, unseal in found.items()}

    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        now = self._clock()
        sealed = [
            (tuple(namespace), key, (seal(value), None if ttl is None else now + ttl))
            for (namespace, key), (value, ttl) in pairs.items()
        ]
        with self._lock:
            for namespace, key, entry in sealed:
                self._entries.setdefault(namespace, {})[key] = entry

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        with self._lock:
            if namespaces is None:
                self._entries.clear()
            else:
                for namespace in namespaces:
                    self._entries.pop(tuple(namespace), None)

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        return self.get(keys)

    async def aset(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        self.set(pairs)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        self.clear(namespaces)
