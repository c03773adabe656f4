"""A node's function by itself: called as a runnable would be, without the graph and without writing to its channels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from mpflow._scope import current
from mpflow.config import ensure_config, merge_configs
from mpflow.runnables.base import is_invokable

if TYPE_CHECKING:
    from mpflow.runnables.base import Callables


class Bound:
    """What a node calls, with ``invoke`` and its kin. ``func`` and ``afunc`` are its sync and its async form.

    Within a running task it is given what that task would be; elsewhere the config it is called with, and a runtime
    with nothing in it.
    """

    __slots__ = ("_callables",)

    def __init__(self, callables: Callables) -> None:
        self._callables = callables

    @property
    def name(self) -> str:
        return self._callables.name

    @property
    def func(self) -> Any:
        return self._callables.func

    @property
    def afunc(self) -> Any:
        return self._callables.afunc

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """What the function returns. Raises TypeError for one that can only be awaited."""
        if self.func is None:
            raise TypeError(f'No synchronous function provided to "{self.name}": it is async. Call ainvoke')
        return self.func(input, **self._given(config), **kwargs)

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """As `invoke`, awaited."""
        if self.afunc is None:
            return self.func(input, **self._given(config), **kwargs)
        return await self.afunc(input, **self._given(config), **kwargs)

    def stream(self, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:
        """The result of `invoke` as the only chunk."""
        yield self.invoke(input, config, **kwargs)

    async def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        """As `stream`, for ``async for``."""
        yield await self.ainvoke(input, config, **kwargs)

    def _given(self, config: Any) -> dict[str, Any]:
        wanted = self._callables.inject
        if not wanted:
            return {}
        scope: Any = current.get()
        if scope is None:
            from mpflow.runtime import Runtime

            runtime: Runtime[Any] = Runtime()
            scope = SimpleNamespace(
                config=ensure_config(config),
                write_custom=runtime.stream_writer,
                store=None,
                facts=SimpleNamespace(previous=None),
                runtime=runtime,
                extras=None,
            )
        given = self._callables.arguments(scope)
        if "config" in given and config:
            given["config"] = merge_configs(scope.config, config)
        return given


def runnable_of(callables: Callables) -> Any:
    """What a node runs, as something with ``invoke``: what the user gave, if it has that."""
    return callables.source if is_invokable(callables.source) else Bound(callables)


def with_own(config: Any, tags: Any, metadata: Mapping[str, Any] | None) -> Any:
    """The config of a call, over a node's own tags and metadata."""
    return merge_configs({"tags": list(tags or ()), "metadata": dict(metadata or {})}, config)
