"""`Runnable`: what can be invoked, batched, streamed and put together with ``|``. It owns the protocol and its defaults.

Objects of langchain-core speak the same protocol and are used as they are; ours become theirs by being registered.
"""

from __future__ import annotations

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from mpflow.runnables.base import is_invokable
from mpflow.runnables.batching import (
    aas_completed,
    ain_order,
    as_completed,
    configured,
    failure_of,
    in_order,
    limit_of,
)

if TYPE_CHECKING:
    from mpflow.config import RunnableConfig
    from mpflow.runnables.binding import RunnableBinding, RunnableEach, RunnableRetry, RunnableWithFallbacks
    from mpflow.runnables.sequence import RunnableSequence

Input = TypeVar("Input")
Output = TypeVar("Output")

__all__ = ("Runnable", "coerce_to_runnable", "is_runnable")

_LANGCHAIN = "langchain_core.runnables.base"


class Runnable(ABC, Generic[Input, Output]):
    """Something that takes one input and gives one output, alone, in batches or in chunks.

    A subclass defines `invoke`; the rest follows from it, and may be done better where that is possible.
    """

    InputType: Any = Any
    OutputType: Any = Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        introduce_to_langchain()
        return object.__new__(cls)

    @property
    def config_specs(self) -> list[Any]:
        """The configurable fields that langchain's tools ask a runnable for: there are none."""
        return []

    @abstractmethod
    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        """Turn one input into one output. Blocks until it is there."""

    async def ainvoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        """As `invoke`, awaited; in a thread, where there is no better way."""
        import asyncio

        return await asyncio.to_thread(self.invoke, input, config, **kwargs)

    # -- chunks -------------------------------------------------------------------------------------------------------

    def stream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """The output in chunks, as they come. What cannot do better gives its output as the only one."""
        return self.transform(iter((input,)), config, **kwargs)

    async def astream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        """As `stream`, for ``async for``."""

        async def only() -> AsyncIterator[Input]:
            yield input

        async for chunk in self.atransform(only(), config, **kwargs):
            yield chunk

    def transform(self, input: Iterator[Input], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """Chunks of input to chunks of output. What cannot do better adds up its input first."""
        from mpflow.runnables.chunks import whole

        if type(self).stream is Runnable.stream:
            yield self.invoke(whole(input), config, **kwargs)
        else:
            yield from self.stream(whole(input), config, **kwargs)

    async def atransform(
        self, input: AsyncIterator[Input], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """As `transform`, for ``async for``."""
        from mpflow.runnables.chunks import awhole

        if type(self).astream is Runnable.astream:
            yield await self.ainvoke(await awhole(input), config, **kwargs)
        else:
            async for chunk in self.astream(await awhole(input), config, **kwargs):
                yield chunk

    # -- many inputs --------------------------------------------------------------------------------------------------

    async def astream_events(
        self, input: Any, config: RunnableConfig | None = None, *, version: Literal["v1", "v2"] = "v2", **options: Any
    ) -> AsyncIterator[Any]:
        """What happens in a run as langchain's events: of the run itself, its nodes, and the models and tools in it.

        `options` are langchain's (``include_names``, ``exclude_tags`` and the like) and those of `astream`. Raises
        ImportError without langchain-core.
        """
        from mpflow.runnables.events import events_of

        async with aclosing(events_of(self, input, config, version, options)) as events:
            async for event in events:
                yield event

    def batch(
        self,
        inputs: Iterable[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Invoke with every input, side by side, and return the outputs in the order of the inputs (AS-3).

        ``max_concurrency`` in the config bounds how many are under way. The first failure is raised when those that had
        started are over; with `return_exceptions` failures are results.
        """
        return in_order(self.batch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs))

    async def abatch(
        self,
        inputs: Iterable[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """As `batch`, awaited."""
        found = self.abatch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs)
        return await ain_order(found)

    def batch_as_completed(
        self,
        inputs: Iterable[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """As `batch`, yielding ``(index, output)`` as they come. Inputs are taken as there is room for them."""
        return as_completed(
            self, configured(inputs, config), limit_of(self, config), failure_of(return_exceptions), **kwargs
        )

    def abatch_as_completed(
        self,
        inputs: Iterable[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Any]]:
        """As `batch_as_completed`, for ``async for``."""
        return aas_completed(
            self, configured(inputs, config), limit_of(self, config), failure_of(return_exceptions), **kwargs
        )

    # -- composition --------------------------------------------------------------------------------------------------

    def __or__(self, other: Any) -> RunnableSequence:
        from mpflow.runnables.sequence import RunnableSequence

        return RunnableSequence(self, other)

    def __ror__(self, other: Any) -> RunnableSequence:
        from mpflow.runnables.sequence import RunnableSequence

        return RunnableSequence(other, self)

    def pipe(self, *others: Any, name: str | None = None) -> RunnableSequence:
        """This and the `others`, one after the other, as ``|`` does."""
        from mpflow.runnables.sequence import RunnableSequence

        return RunnableSequence(self, *others, name=name)

    def pick(self, keys: str | list[str]) -> RunnableSequence:
        """Of a dict that this returns, the value of one key, or the dict of several."""
        from mpflow.runnables.passthrough import RunnablePick

        return self | RunnablePick(keys)

    def assign(self, **kwargs: Any) -> RunnableSequence:
        """The dict that this returns, with further keys that are made of it, side by side."""
        from mpflow.runnables.passthrough import RunnableAssign

        return self | RunnableAssign(kwargs)

    def map(self, *, executor: Any = None, pool: Any = None) -> RunnableEach:
        """This for each item of a list, side by side: a list of outputs. `executor` says where, as for a node."""
        from mpflow.runnables.binding import RunnableEach

        return RunnableEach(self, executor=executor, pool=pool)

    def bind(self, **kwargs: Any) -> RunnableBinding:
        """This with arguments that each call is given besides its input."""
        from mpflow.runnables.binding import RunnableBinding

        return RunnableBinding(self, kwargs=kwargs)

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """This with a config that is merged under that of each call (CF-1)."""
        from mpflow.config import merge_configs
        from mpflow.runnables.binding import RunnableBinding

        return RunnableBinding(self, config=merge_configs(config, cast("Any", kwargs)))

    def with_retry(
        self,
        *,
        retry_if_exception_type: tuple[type[BaseException], ...] = (Exception,),
        wait_exponential_jitter: bool = True,
        exponential_jitter_params: Mapping[str, float] | None = None,
        stop_after_attempt: int = 3,
    ) -> RunnableRetry:
        """This, tried again when it fails, up to `stop_after_attempt` times in all.

        With `wait_exponential_jitter` it waits in between: ``initial`` seconds (1), times ``exp_base`` (2) each time, up to
        ``max``, and up to a second more by chance; else not at all.
        """
        from mpflow.runnables.binding import RunnableRetry

        params = dict(exponential_jitter_params or {}) if wait_exponential_jitter else {"initial": 0.0, "jitter": 0.0}
        return RunnableRetry(self, retry_if_exception_type, stop_after_attempt, params)

    def with_fallbacks(
        self,
        fallbacks: Sequence[Any],
        *,
        exceptions_to_handle: tuple[type[BaseException], ...] = (Exception,),
        exception_key: str | None = None,
    ) -> RunnableWithFallbacks:
        """This, or the first of `fallbacks` that does not fail; with `exception_key` told in its input what went wrong."""
        from mpflow.runnables.binding import RunnableWithFallbacks

        return RunnableWithFallbacks(self, fallbacks, exceptions_to_handle, exception_key)

    def with_types(self, *, input_type: Any = None, output_type: Any = None) -> Any:
        """This: types are for readers and type checkers."""
        return self

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """What this is called: its ``name``, else that of its class."""
        return (name or getattr(self, "name", None) or type(self).__name__) + (suffix or "")


_DATA = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})


def is_runnable(value: Any) -> bool:
    """Whether it is a Runnable of ours or of langchain-core."""
    if type(value) in _DATA:  # outputs mostly are; asking an abstract class takes longer than many a branch
        return False
    if isinstance(value, Runnable):
        return True
    theirs = sys.modules.get(_LANGCHAIN)
    return theirs is not None and isinstance(value, theirs.Runnable)


def coerce_to_runnable(value: Any) -> Any:
    """Make a Runnable of what can be one: functions, generators, dicts, objects with ``invoke``. Raises TypeError.

    Runnables stay as they are, langchain-core's among them.
    """
    if is_runnable(value):
        return value
    from mpflow.runnables.function import RunnableGenerator, RunnableLambda, RunnableObject

    if inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value):
        return RunnableGenerator(value)
    if is_invokable(value):
        return RunnableObject(value)
    if callable(value):
        return RunnableLambda(value)
    if isinstance(value, Mapping):
        from mpflow.runnables.parallel import RunnableParallel

        return RunnableParallel(value)
    raise TypeError(
        f"Expected a Runnable, callable or dict. Instead got an unsupported type: {type(value)}. What stands beside | or "
        "in a RunnableParallel is a function, a generator, a dict of such, or an object with .invoke"
    )


_known_to: Callable[..., Any] | None = None


def introduce_to_langchain() -> None:
    """Let langchain-core, where the program has loaded it, take our runnables for its own: beside its ``|``, in its dicts."""
    global _known_to
    theirs = sys.modules.get(_LANGCHAIN)
    if theirs is None:
        return
    kind = getattr(theirs, "Runnable", None)  # absent while that module is still loading
    if kind is not None and kind is not _known_to:
        kind.register(Runnable)
        _known_to = kind
