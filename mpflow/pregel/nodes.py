"""`NodeBuilder`: nodes that say themselves which channels start them, which they read and which they write (PR-2, PR-3).

It collects and checks; what a built node is to the scheduler is made in planning.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._exec.program import Diff, NodeProgram
from mpflow.pregel.bound import runnable_of, with_own
from mpflow.pregel.detection import Combined, graph_within
from mpflow.runnables.base import Callables, coerce
from mpflow.runnables.runnable import coerce_to_runnable

if TYPE_CHECKING:
    from datetime import timedelta

    from typing_extensions import Self

    from mpflow.config import RunnableConfig
    from mpflow.types import CachePolicy, RetryPolicy, TimeoutPolicy

# How an entry of `write_to` makes what it writes.
OUTPUT, CONSTANT, MAPPED = 0, 1, 2

Write = tuple[str, int, Any]


class PregelNode:
    """A built node: ``channels`` is what it reads, one channel or several; ``writes`` what it does with its output.

    It can be called by itself, which runs its function and nothing else: no retries, no writes.
    """

    __slots__ = (
        "cache_policy",
        "channels",
        "error_handler_node",
        "is_error_handler",
        "mapper",
        "metadata",
        "name",
        "retry_policy",
        "steps",
        "tags",
        "timeout",
        "triggers",
        "writes",
    )

    def __init__(
        self,
        channels: str | Sequence[str],
        triggers: Sequence[str],
        steps: Sequence[Any],
        writes: Sequence[Write],
        *,
        name: str = "node",
        tags: Sequence[str] | None = None,
        metadata: dict[str, Any] | None = None,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
        cache_policy: CachePolicy[Any] | None = None,
        timeout: float | timedelta | TimeoutPolicy | None = None,
        mapper: Callable[[Any], Any] | None = None,
        is_error_handler: bool = False,
        error_handler_node: str | None = None,
    ) -> None:
        from mpflow.types import RetryPolicy, TimeoutPolicy  # policies are loaded by those who set one

        self.channels = channels if isinstance(channels, str) else list(channels)
        self.triggers = list(triggers)
        self.steps = tuple(steps)
        self.writes = tuple(writes)
        self.name = name
        self.tags = tags
        self.metadata = metadata
        self.retry_policy: Sequence[RetryPolicy] | None = (
            (retry_policy,) if isinstance(retry_policy, RetryPolicy) else retry_policy
        )
        self.cache_policy = cache_policy
        self.timeout = TimeoutPolicy.coerce(timeout)
        self.mapper = mapper
        self.is_error_handler = is_error_handler
        self.error_handler_node = error_handler_node

    def copy(self, update: Mapping[str, Any]) -> PregelNode:
        """A node like this one, with the attributes in `update` in place of its own. Raises TypeError for others."""
        own: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return PregelNode(**{**own, **update})

    @property
    def bound(self) -> Any:
        """What the node runs, as something with ``invoke``."""
        return runnable_of(chained(self.steps, self.name))

    @property
    def subgraphs(self) -> list[Any]:
        """The graph that the node is, or that its function refers to, if there is one (SG-5)."""
        found = (graph_within(chained((step,), self.name).source) for step in self.steps)
        return [graph for graph in found if graph is not None][:1]

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """What the node's function returns for `input`."""
        return self.bound.invoke(input, with_own(config, self.tags, self.metadata), **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As `invoke`, awaited."""
        return await self.bound.ainvoke(input, with_own(config, self.tags, self.metadata), **kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """What the node's function yields, if it is something that streams; else its result."""
        yield from self.bound.stream(input, with_own(config, self.tags, self.metadata), **kwargs)

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        """As `stream`, for ``async for``."""
        async for chunk in self.bound.astream(input, with_own(config, self.tags, self.metadata), **kwargs):
            yield chunk


class NodeBuilder:
    """Describes one node of a `Pregel`, one call after the other; `build` or the graph itself ends it.

    A node runs when a channel that it is subscribed to has changed. Its input is the bare value of the one channel of
    `subscribe_only`, else a dict of those it reads that have a value.
    """

    __slots__ = (
        "_cache",
        "_metadata",
        "_only",
        "_reads",
        "_retry",
        "_steps",
        "_tags",
        "_timeout",
        "_triggers",
        "_writes",
    )

    def __init__(self) -> None:
        self._only: str | None = None
        self._reads: dict[str, None] = {}
        self._triggers: dict[str, None] = {}
        self._steps: list[Any] = []
        self._writes: list[Write] = []
        self._tags: list[str] = []
        self._metadata: dict[str, Any] = {}
        self._retry: list[RetryPolicy] = []
        self._cache: CachePolicy[Any] | None = None
        self._timeout: Any = None

    def subscribe_only(self, channel: str) -> Self:
        """Run when `channel` changes, on its bare value. Raises ValueError beside other subscriptions."""
        if self._only is not None or self._reads or self._triggers:
            raise ValueError("Cannot subscribe to single channels when other channels are already subscribed to")
        self._only = channel
        self._triggers[channel] = None
        return self

    def subscribe_to(self, *channels: str, read: bool = True) -> Self:
        """Run when one of `channels` changes, and read them unless told otherwise. Raises ValueError."""
        if self._only is not None:
            raise ValueError("Cannot subscribe to channels when subscribed to a single channel")
        self._triggers.update(dict.fromkeys(channels))
        if read:
            self._reads.update(dict.fromkeys(channels))
        return self

    def read_from(self, *channels: str) -> Self:
        """Read further channels, whose changes start nothing. Raises ValueError beside `subscribe_only`."""
        if self._only is not None:
            raise ValueError("Cannot read additional channels when subscribed to single channels")
        self._reads.update(dict.fromkeys(channels))
        return self

    def do(self, node: Callable[..., Any] | Any) -> Self:
        """Call `node` on the input; a further call takes the output of the one before. Raises TypeError."""
        if isinstance(node, Mapping):  # of branches that run side by side
            node = coerce_to_runnable(node)
        coerce(node)
        self._steps.append(node)
        return self

    def write_to(self, *channels: str, **kwargs: Any) -> Self:
        """Write the output to `channels`; to a keyword's channel its value, or what its value makes of the output."""
        self._writes.extend((channel, OUTPUT, None) for channel in channels)
        self._writes.extend((key, MAPPED if callable(value) else CONSTANT, value) for key, value in kwargs.items())
        return self

    def meta(self, *tags: str, **metadata: Any) -> Self:
        """Add tags and metadata, which the node sees in its config."""
        self._tags.extend(tags)
        self._metadata.update(metadata)
        return self

    def add_retry_policies(self, *policies: RetryPolicy) -> Self:
        """Try the node again when it fails; the first policy that matches an error governs."""
        self._retry.extend(policies)
        return self

    def add_cache_policy(self, policy: CachePolicy[Any]) -> Self:
        """Keep the node's results by its input."""
        self._cache = policy
        return self

    def set_timeout(self, timeout: float | timedelta | TimeoutPolicy | None) -> Self:
        """End an attempt of the node that takes longer."""
        self._timeout = timeout
        return self

    def build(self) -> PregelNode:
        """The node as it is described so far."""
        return PregelNode(
            tuple(self._reads) if self._only is None else self._only,
            tuple(self._triggers),
            self._steps,
            self._writes,
            tags=self._tags,
            metadata=self._metadata,
            retry_policy=self._retry,
            cache_policy=self._cache,
            timeout=self._timeout,
        )


class WritingProgram(NodeProgram):
    """A program whose diff is made of its node's writes, whatever the type of its output."""

    __slots__ = ("entries",)

    def __init__(
        self,
        name: str,
        callables: Callables,
        entries: Sequence[Write],
        tags: Sequence[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name, callables, [entry[0] for entry in entries], tags=tags, metadata=metadata)
        self.entries = tuple(entries)

    def __reduce__(self) -> tuple[Any, ...]:
        return WritingProgram, (self.name, self.callables, self.entries, self.tags, self.metadata)

    def diff(self, result: Any) -> Diff:
        return [
            (channel, result if kind == OUTPUT else value if kind == CONSTANT else value(result))
            for channel, kind, value in self.entries
        ]


class Chain(Combined):
    """Callables one after the other, as one: each takes the output of the one before and is given what it asks for."""

    def __init__(self, steps: Sequence[Callables]) -> None:
        self.steps = tuple(steps)
        self.sources = [step.source for step in steps]

    def __call__(self, value: Any, **given: Any) -> Any:
        for step in self.steps:
            assert step.func is not None
            value = step.func(value, **{name: given[name] for name in step.inject})
        return value

    async def awaited(self, value: Any, **given: Any) -> Any:
        """As a call, for steps of which one at least can only be awaited."""
        for step in self.steps:
            kwargs = {name: given[name] for name in step.inject}
            if step.afunc is not None:
                value = await step.afunc(value, **kwargs)
            else:
                assert step.func is not None
                value = step.func(value, **kwargs)
        return value


def chained(steps: Sequence[Any], name: str) -> Callables:
    """The steps of a node as one callable; without any, what hands its input through."""
    found = [coerce(step, name) for step in steps]
    if not found:
        return Callables(_same, None, (), name, _same)
    if len(found) == 1:
        return found[0]
    chain = Chain(found)
    inject = tuple({wanted: None for step in found for wanted in step.inject})
    awaits = any(step.afunc is not None for step in found)
    blocks = all(step.func is not None for step in found)
    return Callables(chain if blocks else None, chain.awaited if awaits else None, inject, name, chain)


def _same(value: Any) -> Any:
    return value
