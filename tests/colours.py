"""One body for two colours: the same calls on a graph, made through its sync methods or through their async twins.

A behavioural test takes the fixture ``run`` and is run twice. Results come back plain (lists instead of iterators), so
nothing in the body shows which colour it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol


class Run(Protocol):
    """What a test body may do with a graph, whichever the colour."""

    colour: str

    def invoke(self, graph: Any, input: Any, config: Any = None, **kw: Any) -> Any: ...

    def stream(self, graph: Any, input: Any, config: Any = None, **kw: Any) -> list[Any]:
        """All chunks of the run."""
        ...

    def batch(self, graph: Any, inputs: Sequence[Any], config: Any = None, **kw: Any) -> list[Any]: ...

    def get_state(self, graph: Any, config: Any, **kw: Any) -> Any: ...

    def history(self, graph: Any, config: Any, **kw: Any) -> list[Any]:
        """All snapshots, newest first."""
        ...

    def update_state(self, graph: Any, config: Any, values: Any, *args: Any, **kw: Any) -> Any: ...

    def call(self, obj: Any, method: str, *args: Any, **kw: Any) -> Any:
        """Any other method that has a twin: ``run.call(saver, "get_tuple", config)``."""
        ...

    def listed(self, obj: Any, method: str, *args: Any, **kw: Any) -> list[Any]:
        """The same for a method that iterates: ``run.listed(saver, "list", config)``."""
        ...


class _Named:
    """The graph's methods by name, on top of the two primitives."""

    def invoke(self, graph: Any, input: Any, config: Any = None, **kw: Any) -> Any:
        return self.call(graph, "invoke", input, config, **kw)

    def stream(self, graph: Any, input: Any, config: Any = None, **kw: Any) -> list[Any]:
        return self.listed(graph, "stream", input, config, **kw)

    def batch(self, graph: Any, inputs: Sequence[Any], config: Any = None, **kw: Any) -> list[Any]:
        return self.call(graph, "batch", inputs, config, **kw)

    def get_state(self, graph: Any, config: Any, **kw: Any) -> Any:
        return self.call(graph, "get_state", config, **kw)

    def history(self, graph: Any, config: Any, **kw: Any) -> list[Any]:
        return self.listed(graph, "get_state_history", config, **kw)

    def update_state(self, graph: Any, config: Any, values: Any, *args: Any, **kw: Any) -> Any:
        return self.call(graph, "update_state", config, values, *args, **kw)


class SyncRun(_Named):
    colour = "sync"

    def call(self, obj: Any, method: str, *args: Any, **kw: Any) -> Any:
        return getattr(obj, method)(*args, **kw)

    def listed(self, obj: Any, method: str, *args: Any, **kw: Any) -> list[Any]:
        return list(getattr(obj, method)(*args, **kw))


class AsyncRun(_Named):
    colour = "async"

    def call(self, obj: Any, method: str, *args: Any, **kw: Any) -> Any:
        async def call() -> Any:
            return await getattr(obj, "a" + method)(*args, **kw)

        return asyncio.run(call())

    def listed(self, obj: Any, method: str, *args: Any, **kw: Any) -> list[Any]:
        async def collect() -> list[Any]:
            return [item async for item in getattr(obj, "a" + method)(*args, **kw)]

        return asyncio.run(collect())
