"""Graphs of ours that are called as LangGraph's are: they take its `Command` and the like as input."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from mpflow.interop.bridge import ours
from mpflow.pregel.compiled import CompiledGraph


class TakesTheirs(CompiledGraph):
    """Makes ours of what LangGraph's callers pass."""

    def invoke(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the graph on `input` and return its output."""
        return super().invoke(ours(input), *args, **kwargs)

    async def ainvoke(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        """As `invoke`, awaited."""
        return await super().ainvoke(ours(input), *args, **kwargs)

    def stream(self, input: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Run the graph, yielding what happens as it happens."""
        return super().stream(ours(input), *args, **kwargs)

    def astream(self, input: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """As `stream`, for ``async for``."""
        return super().astream(ours(input), *args, **kwargs)

    def update_state(self, config: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        """Write `values` to a saved state, as a node would."""
        return super().update_state(config, ours(values), *args, **kwargs)

    async def aupdate_state(self, config: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        """As `update_state`, awaited."""
        return await super().aupdate_state(config, ours(values), *args, **kwargs)
