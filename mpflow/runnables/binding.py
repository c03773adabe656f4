"""Runnables around another: with arguments and a config of their own, tried again, replaced, or called for each item."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core.plan import NodePlan, Plan
from mpflow._exec.branching import ItemProgram, ScatterProgram
from mpflow._exec.place import check_executor
from mpflow._names import TASKS
from mpflow.channels.ephemeral_value import EphemeralValue
from mpflow.channels.topic import Topic
from mpflow.config import merge_configs
from mpflow.runnables.composite import Composite, callables_of, plan_of
from mpflow.runnables.function import for_child
from mpflow.runnables.runnable import Runnable, coerce_to_runnable
from mpflow.types import Send

if TYPE_CHECKING:
    from mpflow._exec.place import Executor
    from mpflow._exec.process import WorkerPool
    from mpflow.config import RunnableConfig


class RunnableBinding(Runnable[Any, Any]):
    """A Runnable with arguments, and a config that is merged under that of each call."""

    def __init__(self, bound: Any, *, kwargs: Mapping[str, Any] | None = None, config: Any = None) -> None:
        self.bound = coerce_to_runnable(bound)
        self.kwargs = dict(kwargs or {})
        self.config: Any = config or {}

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        return str(self.bound.get_name(suffix, name=name or self.config.get("run_name")))

    def bind(self, **kwargs: Any) -> RunnableBinding:
        return RunnableBinding(self.bound, kwargs={**self.kwargs, **kwargs}, config=self.config)

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> RunnableBinding:
        return RunnableBinding(self.bound, kwargs=self.kwargs, config=merge_configs(self.config, config, kwargs))

    def _config(self, config: Any) -> Any:
        return merge_configs(self.config, config) if self.config else config

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self.bound.invoke(input, self._config(config), **{**self.kwargs, **kwargs})

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return await self.bound.ainvoke(input, self._config(config), **{**self.kwargs, **kwargs})

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        yield from self.bound.stream(input, self._config(config), **{**self.kwargs, **kwargs})

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        async for chunk in self.bound.astream(input, self._config(config), **{**self.kwargs, **kwargs}):
            yield chunk

    def transform(self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        yield from self.bound.transform(input, self._config(config), **{**self.kwargs, **kwargs})

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async for chunk in self.bound.atransform(input, self._config(config), **{**self.kwargs, **kwargs}):
            yield chunk

    def __repr__(self) -> str:
        return f"RunnableBinding({self.bound!r}, kwargs={self.kwargs}, config={self.config})"


class RunnableRetry(Composite):
    """A Runnable that is tried again when it fails: a node of one, with a `RetryPolicy`."""

    def __init__(
        self,
        bound: Any,
        retry_on: tuple[type[BaseException], ...],
        attempts: int,
        wait: Mapping[str, float],
    ) -> None:
        if attempts < 1:
            raise ValueError(f"with_retry: stop_after_attempt takes a count of at least 1, got {attempts!r}")
        from mpflow.types import RetryPolicy  # policies are loaded by those who set one

        self.bound = coerce_to_runnable(bound)
        self.policy = RetryPolicy(
            initial_interval=wait.get("initial", 1.0),
            backoff_factor=wait.get("exp_base", 2.0),
            max_interval=wait.get("max", 128.0),
            max_attempts=attempts,
            jitter=bool(wait.get("jitter", 1.0)),
            retry_on=retry_on,  # type: ignore[arg-type]
        )
        super().__init__(None, None)

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        return str(self.bound.get_name(suffix, name=name))

    def _make_plan(self, way: str) -> Plan:
        return plan_of(self.get_name(), {"output": self.bound}, way, lambda key: "auto", retry=(self.policy,))

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self._performed(input, config)["output"]

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return (await self._aperformed(input, config))["output"]


class RunnableEach(Composite):
    """A Runnable for each item of a list, side by side: a list of outputs in the order of the items."""

    def __init__(self, bound: Any, *, executor: Executor | None = None, pool: WorkerPool | None = None) -> None:
        self.bound = coerce_to_runnable(bound)
        super().__init__(check_executor(executor, "map"), pool)

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        return super().get_name(suffix, name=name or f"RunnableEach<{self.bound.get_name()}>")

    def _make_plan(self, way: str) -> Plan:
        scatter = ScatterProgram("scatter", "each")
        each = ItemProgram("each", callables_of(self.bound, way), "outputs")
        nodes = {
            "scatter": NodePlan("scatter", scatter, ("items",), "items", executor="inline", hidden=True),
            "each": NodePlan("each", each, (), ()),
        }
        channels: dict[str, Any] = {
            "items": EphemeralValue(Any),
            TASKS: Topic(Send, accumulate=False),
            "outputs": Topic(Any, accumulate=True),
        }
        for key, channel in channels.items():
            channel.key = key
        return Plan(self.get_name(), nodes, channels, input="items", output="outputs", stream="outputs")

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> list[Any]:
        """Call the Runnable on each item. Blocks until the last is done; the first failure is raised."""
        items = list(input)
        return [output for (output,) in self._performed(items, config)] if items else []

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> list[Any]:
        items = list(input)
        return [output for (output,) in await self._aperformed(items, config)] if items else []


class RunnableWithFallbacks(Runnable[Any, Any]):
    """A Runnable, or the first of several others that does not fail, in their order."""

    def __init__(
        self,
        runnable: Any,
        fallbacks: Sequence[Any],
        exceptions_to_handle: tuple[type[BaseException], ...] = (Exception,),
        exception_key: str | None = None,
    ) -> None:
        self.runnable = coerce_to_runnable(runnable)
        self.fallbacks = [coerce_to_runnable(fallback) for fallback in fallbacks]
        self.exceptions_to_handle = exceptions_to_handle
        self.exception_key = exception_key

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        return str(self.runnable.get_name(suffix, name=name))

    def _handled(self, input: Any, error: BaseException) -> Any:
        """The input of the next in turn. Raises ValueError where the error has nowhere to go."""
        if self.exception_key is None:
            return input
        if not isinstance(input, dict):
            raise ValueError(
                f"with_fallbacks(exception_key=...) needs dicts as inputs, got {type(input).__name__}"
            ) from error
        return {**input, self.exception_key: error}

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = for_child(config)
        first: BaseException | None = None
        for runnable in (self.runnable, *self.fallbacks):
            try:
                return runnable.invoke(input, config, **kwargs)
            except self.exceptions_to_handle as error:
                first = first or error
                input = self._handled(input, error)
        assert first is not None
        raise first

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = for_child(config)
        first: BaseException | None = None
        for runnable in (self.runnable, *self.fallbacks):
            try:
                return await runnable.ainvoke(input, config, **kwargs)
            except self.exceptions_to_handle as error:
                first = first or error
                input = self._handled(input, error)
        assert first is not None
        raise first
