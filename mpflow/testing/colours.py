"""One body for both sides of a saver: the same calls, made through its sync methods or through their async twins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from typing import Any

Call = tuple[Any, str, tuple[Any, ...]]
"""An object, the sync name of its method, and the arguments."""


class SyncColour:
    """Calls sync methods, and several at once from threads."""

    name = "sync"

    def __init__(self) -> None:
        self._opened = ExitStack()

    def __enter__(self) -> SyncColour:
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.close()

    def open(self, manager: Any) -> Any:
        """Enter a context manager, left when this colour is."""
        return self._opened.enter_context(manager)

    def call(self, target: Any, method: str, *args: Any, **kw: Any) -> Any:
        """The method's result."""
        return getattr(target, method)(*args, **kw)

    def listed(self, target: Any, method: str, *args: Any, **kw: Any) -> list[Any]:
        """All that the method yields."""
        return list(getattr(target, method)(*args, **kw))

    def together(self, calls: Sequence[Call]) -> list[Any]:
        """The results of calls that run at the same time, in their order."""
        with ThreadPoolExecutor(len(calls)) as threads:
            futures = [threads.submit(getattr(target, method), *args) for target, method, args in calls]
            return [future.result() for future in futures]


class AsyncColour:
    """Awaits the async twins, all in one event loop, since a saver may belong to the loop that it was made in."""

    name = "async"

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._opened = AsyncExitStack()

    def __enter__(self) -> AsyncColour:
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._loop.run_until_complete(self._opened.aclose())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    def open(self, manager: Any) -> Any:
        if not hasattr(manager, "__aenter__"):
            return self._opened.enter_context(manager)
        return self._loop.run_until_complete(self._opened.enter_async_context(manager))

    def call(self, target: Any, method: str, *args: Any, **kw: Any) -> Any:
        async def call() -> Any:
            return await getattr(target, "a" + method)(*args, **kw)

        return self._loop.run_until_complete(call())

    def listed(self, target: Any, method: str, *args: Any, **kw: Any) -> list[Any]:
        async def collect() -> list[Any]:
            return [item async for item in getattr(target, "a" + method)(*args, **kw)]

        return self._loop.run_until_complete(collect())

    def together(self, calls: Sequence[Call]) -> list[Any]:
        async def gather() -> list[Any]:
            return list(await asyncio.gather(*(getattr(target, "a" + method)(*args) for target, method, args in calls)))

        return self._loop.run_until_complete(gather())


Colour = SyncColour | AsyncColour

COLOURS: dict[str, Callable[[], Colour]] = {"sync": SyncColour, "async": AsyncColour}
