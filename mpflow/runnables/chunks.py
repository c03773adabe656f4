"""Outputs in pieces: adding chunks up, and one stream of them read by several."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from mpflow._names import MISSING


class AddableDict(dict[str, Any]):
    """A dict that adds up: ``{"a": 1} + {"b": 2}``; values under one key are added in turn, or replaced if they cannot be."""

    def __add__(self, other: Any) -> AddableDict:
        summed = AddableDict(self)
        for key, value in other.items():
            if key not in summed or summed[key] is None:
                summed[key] = value
            elif value is not None:
                summed[key] = added(summed[key], value)
        return summed

    def __radd__(self, other: Any) -> AddableDict:
        return AddableDict(other) + self


def added(one: Any, other: Any) -> Any:
    """Two chunks as one; the later, where they do not add."""
    try:
        return one + other
    except TypeError:
        return other


def whole(chunks: Iterable[Any]) -> Any:
    """All chunks added up. Raises ValueError when there are none."""
    total: Any = MISSING
    for chunk in chunks:
        total = chunk if total is MISSING else added(total, chunk)
    return _checked(total)


async def awhole(chunks: AsyncIterator[Any]) -> Any:
    """As `whole`, awaiting them."""
    total: Any = MISSING
    async for chunk in chunks:
        total = chunk if total is MISSING else added(total, chunk)
    return _checked(total)


def _checked(total: Any) -> Any:
    if total is MISSING:
        raise ValueError("a stream that ended without a chunk has nothing to go on with")
    return total


class SharedChunks:
    """One iterator that several threads read, each from its start. Whoever is first pulls for all."""

    def __init__(self, source: Iterator[Any], readers: Iterable[str]) -> None:
        self._source = source
        self._waiting: dict[str, deque[Any]] = {name: deque() for name in readers}
        self._lock = threading.Lock()

    def reader(self, name: str) -> Iterator[Any]:
        own = self._waiting[name]
        while True:
            try:
                chunk = own.popleft()
            except IndexError:
                with self._lock:
                    if not own:  # another may have pulled it while this one waited for the lock
                        try:
                            pulled = next(self._source)
                        except StopIteration:
                            return
                        for queue in self._waiting.values():
                            queue.append(pulled)
                continue
            yield chunk


class AsyncSharedChunks:
    """The same on an event loop."""

    def __init__(self, source: AsyncIterator[Any], readers: Iterable[str]) -> None:
        from asyncio import Lock

        self._source = source
        self._waiting: dict[str, deque[Any]] = {name: deque() for name in readers}
        self._lock = Lock()

    async def reader(self, name: str) -> AsyncIterator[Any]:
        own = self._waiting[name]
        while True:
            if not own:
                async with self._lock:
                    if not own:
                        try:
                            pulled = await self._source.__anext__()
                        except StopAsyncIteration:
                            return
                        for queue in self._waiting.values():
                            queue.append(pulled)
            yield own.popleft()
