"""Runnables that hand their input on: as it is, with keys added, or some of its keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mpflow._names import MISSING
from mpflow.runnables.base import Callables, coerce
from mpflow.runnables.chunks import AddableDict, AsyncSharedChunks, SharedChunks, added
from mpflow.runnables.function import for_child, given
from mpflow.runnables.parallel import RunnableParallel
from mpflow.runnables.runnable import Runnable

if TYPE_CHECKING:
    from mpflow.config import RunnableConfig


class RunnablePassthrough(Runnable[Any, Any]):
    """Gives its input back. With `func` or `afunc`, calls that on it first, for its effects."""

    def __init__(self, func: Callable[..., Any] | None = None, afunc: Callable[..., Any] | None = None) -> None:
        self.name: str | None = None
        self.callables = Callables(None, None, (), "", None) if func is None else coerce(func)
        if afunc is not None:
            self.callables.afunc = afunc

    @property
    def is_quick(self) -> bool:
        """Whether it runs no code of the user's."""
        return self.callables.func is None and self.callables.afunc is None

    @classmethod
    def assign(cls, **kwargs: Any) -> RunnableAssign:  # type: ignore[override]
        """A dict handed on with further keys, made of it side by side: functions, Runnables or dicts of them."""
        return RunnableAssign(kwargs)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        if self.callables.func is not None:
            self.callables.func(input, **given(self.callables, config), **kwargs)
        return input

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        if self.callables.afunc is not None:
            await self.callables.afunc(input, **given(self.callables, config), **kwargs)
        elif self.callables.func is not None:
            return await super().ainvoke(input, config, **kwargs)
        return input

    def transform(self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        total: Any = MISSING
        for chunk in input:
            yield chunk
            if not self.is_quick:
                total = chunk if total is MISSING else added(total, chunk)
        if total is not MISSING:
            self.invoke(total, config, **kwargs)

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        total: Any = MISSING
        async for chunk in input:
            yield chunk
            if not self.is_quick:
                total = chunk if total is MISSING else added(total, chunk)
        if total is not MISSING:
            await self.ainvoke(total, config, **kwargs)

    def __repr__(self) -> str:
        return "RunnablePassthrough()"


class RunnableAssign(Runnable[Any, Any]):
    """A dict with further keys that `mapper` makes of it, side by side."""

    def __init__(self, mapper: RunnableParallel | Mapping[str, Any]) -> None:
        self.mapper = mapper if isinstance(mapper, RunnableParallel) else RunnableParallel(mapper)
        self.name: str | None = None

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        return super().get_name(suffix, name=name or self.name or f"RunnableAssign<{','.join(self.mapper.steps)}>")

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        _check_dict(input)
        return {**input, **self.mapper.invoke(input, for_child(config), **kwargs)}

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        _check_dict(input)
        return {**input, **await self.mapper.ainvoke(input, for_child(config), **kwargs)}

    def transform(self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        shared = SharedChunks(input, ("handed on", "mapped"))
        for chunk in shared.reader("handed on"):
            if kept := self._kept(chunk):
                yield kept
        yield from self.mapper.transform(shared.reader("mapped"), for_child(config), **kwargs)

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        shared = AsyncSharedChunks(input, ("handed on", "mapped"))
        async for chunk in shared.reader("handed on"):
            if kept := self._kept(chunk):
                yield kept
        async for chunk in self.mapper.atransform(shared.reader("mapped"), for_child(config), **kwargs):
            yield chunk

    def _kept(self, chunk: Any) -> AddableDict:
        _check_dict(chunk)
        return AddableDict({key: value for key, value in chunk.items() if key not in self.mapper.steps})


class RunnablePick(Runnable[Any, Any]):
    """Of a dict, the value of one key (None if it is not there), or a dict of those of `keys` that are there."""

    is_quick = True

    def __init__(self, keys: str | list[str]) -> None:
        self.keys = keys
        self.name: str | None = None

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        keys = [self.keys] if isinstance(self.keys, str) else self.keys
        return super().get_name(suffix, name=name or self.name or f"RunnablePick<{','.join(keys)}>")

    def _picked(self, value: Any) -> Any:
        _check_dict(value, "RunnablePick")
        if isinstance(self.keys, str):
            return value.get(self.keys)
        found = {key: value[key] for key in self.keys if key in value}
        return AddableDict(found) if found else None

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self._picked(input)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self._picked(input)

    def transform(self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        for chunk in input:
            if (picked := self._picked(chunk)) is not None:
                yield picked

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async for chunk in input:
            if (picked := self._picked(chunk)) is not None:
                yield picked


def _check_dict(value: Any, who: str = "RunnablePassthrough.assign") -> None:
    if not isinstance(value, dict):
        raise ValueError(f"The input to {who}() must be a dict, got {type(value).__name__}: {value!r:.100}")
