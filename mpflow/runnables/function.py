"""Functions, generators and bare objects as Runnables: what a call is given besides its input, and what it gives back."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import Token, copy_context
from typing import TYPE_CHECKING, Any, cast

from mpflow._names import MISSING
from mpflow._scope import current
from mpflow.config import ensure_config
from mpflow.runnables.base import Callables, coerce, name_of, signature_of, wants
from mpflow.runnables.chunks import awhole, whole
from mpflow.runnables.runnable import Runnable, is_runnable

if TYPE_CHECKING:
    from mpflow.config import RunnableConfig

_THEIR_CONFIG = "langchain_core.runnables.config"


class RunnableLambda(Runnable[Any, Any]):
    """A function as a Runnable. `afunc` is its async form, or `func` may be async itself.

    It is given its input and, by name, the ``config``; in a node of a graph also what a node may ask for. A Runnable that
    it returns is invoked with the same input in its turn. A generator's chunks are streamed, and added up by `invoke`.
    """

    def __init__(
        self, func: Callable[..., Any], afunc: Callable[..., Any] | None = None, name: str | None = None
    ) -> None:
        if is_runnable(func) or not callable(func):
            raise TypeError(f"RunnableLambda takes a function, got {type(func).__name__}; Runnables need no wrapping")
        self.source = func
        self.name = name or _name_of(func)
        if inspect.isasyncgenfunction(func):
            self.callables = Callables(None, func, (), self.name or "", func)
        else:
            self.callables = coerce(func, self.name or type(self).__name__)
        self.callables.inject = _injected(func)
        if afunc is not None:
            self.callables.afunc = afunc
        self._yields = inspect.isgeneratorfunction(self.callables.func)
        self._ayields = inspect.isasyncgenfunction(self.callables.afunc)

    @property
    def func(self) -> Any:
        """The sync form; raises AttributeError if there is none."""
        if self.callables.func is None:
            raise AttributeError("func: this RunnableLambda is async only")
        return self.callables.func

    @property
    def afunc(self) -> Any:
        """The async form; raises AttributeError if there is none."""
        if self.callables.afunc is None:
            raise AttributeError("afunc: this RunnableLambda is sync only")
        return self.callables.afunc

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        func = self._sync("ainvoke")
        if self.callables.inject:
            kwargs = {**given(self.callables, config), **kwargs}
        output = func(input, **kwargs) if config is None else within(config, func, input, **kwargs)
        if self._yields:
            output = whole(output)
        return output.invoke(input, deeper(self, config)) if is_runnable(output) else output

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        afunc = self.callables.afunc
        if afunc is None:
            return await super().ainvoke(input, config, **kwargs)
        if self.callables.inject:
            kwargs = {**given(self.callables, config), **kwargs}
        with _Within(config):
            output = await (awhole(afunc(input, **kwargs)) if self._ayields else afunc(input, **kwargs))
        return await output.ainvoke(input, deeper(self, config)) if is_runnable(output) else output

    def transform(self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        value = whole(input)
        func = self._sync("astream")
        if self.callables.inject:
            kwargs = {**given(self.callables, config), **kwargs}
        output = func(value, **kwargs) if config is None else within(config, func, value, **kwargs)
        if self._yields:
            yield from output
        elif is_runnable(output):
            yield from output.stream(value, deeper(self, config))
        else:
            yield output

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        value = await awhole(input)
        callables = self.callables
        if callables.inject:
            kwargs = {**given(callables, config), **kwargs}
        if self._ayields:
            assert callables.afunc is not None
            with _Within(config):
                chunks = callables.afunc(value, **kwargs)
            async for chunk in chunks:
                yield chunk
        elif callables.afunc is None and self._yields:
            async for chunk in stepped(cast("Any", callables.func)(value, **kwargs)):
                yield chunk
        else:
            output = await self._awaited(value, config, kwargs)
            if is_runnable(output):
                async for chunk in output.astream(value, deeper(self, config)):
                    yield chunk
            else:
                yield output

    async def _awaited(self, value: Any, config: Any, kwargs: dict[str, Any]) -> Any:
        """What the function returns, a Runnable as it is."""
        import asyncio

        with _Within(config):
            if self.callables.afunc is not None:
                return await self.callables.afunc(value, **kwargs)
            return await asyncio.to_thread(cast("Any", self.callables.func), value, **kwargs)

    def _sync(self, instead: str) -> Any:
        if self.callables.func is None:
            raise TypeError(
                f'No synchronous function provided to "{self.get_name()}": it is async. Call {instead} on what it is '
                "part of"
            )
        return self.callables.func

    def __repr__(self) -> str:
        return f"RunnableLambda({self.name or '...'})"


class RunnableGenerator(Runnable[Any, Any]):
    """A generator function from chunks to chunks as a Runnable: it may answer before its input is complete."""

    def __init__(
        self, transform: Callable[..., Any], atransform: Callable[..., Any] | None = None, *, name: str | None = None
    ) -> None:
        is_async = inspect.isasyncgenfunction(transform)
        if not is_async and not inspect.isgeneratorfunction(transform):
            raise TypeError(f"RunnableGenerator takes a generator function, got {transform!r}")
        self.name = name or _name_of(transform)
        self._function = None if is_async else transform
        self._async_function = transform if is_async else atransform

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return whole(self.stream(input, config, **kwargs))

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return await awhole(self.astream(input, config, **kwargs))

    def transform(self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        if self._function is None:
            raise TypeError(f'No synchronous function provided to "{self.get_name()}": it is async. Call astream')
        yield from self._function(input, **_wanted(self._function, config), **kwargs)

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        if self._async_function is not None:
            chunks = self._async_function(input, **_wanted(self._async_function, config), **kwargs)
        else:  # it pulls its input itself, which only complete input can stand
            assert self._function is not None
            given = iter([chunk async for chunk in input])
            chunks = stepped(self._function(given, **_wanted(self._function, config), **kwargs))
        async for chunk in chunks:
            yield chunk


class RunnableObject(Runnable[Any, Any]):
    """An object with ``invoke`` that speaks no more of the protocol than that."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.name = name_of(source)
        self.callables = coerce(source)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self.source.invoke(input, **given(self.callables, config), **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        if self.callables.afunc is None:
            return await super().ainvoke(input, config, **kwargs)
        return await self.source.ainvoke(input, **given(self.callables, config), **kwargs)


# -- what a call is given ----------------------------------------------------------------------------------------------


def given(callables: Callables, config: Any) -> dict[str, Any]:
    """What is injected into a call: its config, and within a graph's task what a node may ask for."""
    if not callables.inject:
        return {}
    scope = current.get()
    found = {} if scope is None else callables.arguments(scope)
    if "config" in callables.inject:
        found["config"] = config_of_call(config)
    return found


def _wanted(function: Any, config: Any) -> dict[str, Any]:
    return given(Callables(function, None, _injected(function), "", function), config)


def _injected(function: Any) -> tuple[str, ...]:
    """What a function is given by name. A ``config`` it takes is that of the call, whatever its hint says."""
    found = wants(function)
    signature = signature_of(function)
    if signature is None or "config" in found or "config" not in list(signature.parameters)[1:]:
        return found
    return (*found, "config")


def config_of_call(config: RunnableConfig | None) -> RunnableConfig:
    """A complete config: what was given, over that of the surrounding task."""
    scope = current.get()
    if scope is None:
        return ensure_config(config)
    around = cast("RunnableConfig", scope.config)
    if config is None:
        return around
    return ensure_config({**around, **{key: value for key, value in config.items() if value is not None}})


def deeper(runnable: Runnable[Any, Any], config: RunnableConfig | None) -> RunnableConfig:
    """The config for a Runnable that a function returned. Raises RecursionError when they go on returning each other."""
    complete = config_of_call(config)
    limit = complete["recursion_limit"] - 1
    if limit <= 0:
        raise RecursionError(
            f"'{runnable.get_name()}' returned a Runnable that returned a Runnable, and so on beyond the recursion_limit"
        )
    return {**complete, "recursion_limit": limit}


def for_child(config: RunnableConfig | None) -> RunnableConfig | None:
    """A composite's config as its parts get it: without the name and the id of its own run."""
    if config is None or ("run_name" not in config and "run_id" not in config):
        return config
    kept = {key: value for key, value in config.items() if key not in ("run_name", "run_id")}
    return cast("RunnableConfig", kept)


def within(config: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function so that langchain's runnables, called in it without a config, find this one."""
    theirs = sys.modules.get(_THEIR_CONFIG)
    if theirs is None:
        return function(*args, **kwargs)
    context = copy_context()
    context.run(theirs.var_child_runnable_config.set, config)
    return context.run(function, *args, **kwargs)


class _Within:
    """The same around an await, in the context of the running task."""

    __slots__ = ("_config", "_token", "_variable")

    def __init__(self, config: Any) -> None:
        self._config = config
        self._token: Token[Any] | None = None

    def __enter__(self) -> None:
        theirs = None if self._config is None else sys.modules.get(_THEIR_CONFIG)
        if theirs is not None:
            self._variable = theirs.var_child_runnable_config
            self._token = self._variable.set(self._config)

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            self._variable.reset(self._token)


async def stepped(chunks: Iterator[Any]) -> AsyncIterator[Any]:
    """A sync iterator's items, each waited for in a thread."""
    import asyncio

    while (chunk := await asyncio.to_thread(next, chunks, MISSING)) is not MISSING:
        yield chunk


def _name_of(function: Any) -> str | None:
    name = name_of(function)
    return None if name == "<lambda>" else name
