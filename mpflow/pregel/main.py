"""`Pregel`: a graph given by nodes that are subscribed to channels. What it can do is what every compiled graph can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._exec.place import check_executor, check_pool
from mpflow.pregel.compiled import CompiledGraph
from mpflow.pregel.nodes import NodeBuilder, PregelNode
from mpflow.pregel.running import names_of
from mpflow.types import ensure_valid_checkpointer
from mpflow.warnings import takes_former_names

if TYPE_CHECKING:
    from typing_extensions import Self

    from mpflow._exec.place import Executor
    from mpflow._exec.process import WorkerPool
    from mpflow.channels.base import BaseChannel
    from mpflow.config import RunnableConfig
    from mpflow.types import All, CachePolicy, Checkpointer, RetryPolicy, StreamMode

__all__ = ("NodeBuilder", "Pregel")


class Pregel(CompiledGraph):
    """A graph written as nodes that are subscribed to channels and write to channels (PR-1).

    `nodes` are `NodeBuilder`s, or what they built; `channels` are prototypes, copied for each run. ``stream_channels``
    are what ``stream`` and saved states show, all if None. Raises ValueError for names that nothing in the graph has.
    """

    _nodes: dict[str, PregelNode] | None = None

    @takes_former_names(config_type="context_schema")
    def __init__(
        self,
        *,
        nodes: Mapping[str, PregelNode | NodeBuilder],
        channels: Mapping[str, BaseChannel[Any, Any, Any] | Any] | None,
        auto_validate: bool = True,
        stream_mode: StreamMode = "values",
        stream_eager: bool = False,
        output_channels: str | Sequence[str],
        stream_channels: str | Sequence[str] | None = None,
        interrupt_after_nodes: All | Sequence[str] = (),
        interrupt_before_nodes: All | Sequence[str] = (),
        input_channels: str | Sequence[str],
        step_timeout: float | None = None,
        debug: bool | None = None,
        checkpointer: Checkpointer = None,
        store: Any = None,
        cache: Any = None,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] = (),
        cache_policy: CachePolicy[Any] | None = None,
        context_schema: type[Any] | None = None,
        config: RunnableConfig | None = None,
        trigger_to_nodes: Mapping[str, Sequence[str]] | None = None,
        name: str = "LangGraph",
        executor: Executor | None = None,
        pool: WorkerPool | None = None,
    ) -> None:
        # Graphs built in another way need none of these.
        from mpflow._policies import RetryPolicy
        from mpflow.pregel.planning import plan_of

        # What starts which node follows from the nodes, and chunks are always handed on as they come: the parameters
        # `trigger_to_nodes` and `stream_eager` are taken so that ported graphs need no change.
        retry = (retry_policy,) if isinstance(retry_policy, RetryPolicy) else tuple(retry_policy)
        self._nodes = {key: node if isinstance(node, PregelNode) else node.build() for key, node in nodes.items()}
        plan = plan_of(
            self._nodes,
            channels or {},
            name=name,
            input=input_channels,
            output=output_channels,
            stream=stream_channels,
            retry=retry,
            cache=cache_policy,
        )
        super().__init__(
            plan,
            config=config,
            store=store,
            cache=cache,
            checkpointer=ensure_valid_checkpointer(checkpointer),
            interrupt_before_nodes=interrupt_before_nodes,
            interrupt_after_nodes=interrupt_after_nodes,
            step_timeout=step_timeout,
            options={"executor": check_executor(executor, "Pregel"), "pool": check_pool(pool, "Pregel")},
        )
        self.stream_mode = stream_mode
        self.stream_eager = stream_eager
        self.context_schema = context_schema
        self.debug = bool(debug)
        self.retry_policy = retry
        self.cache_policy = cache_policy
        if auto_validate:
            self.validate()

    @property
    def nodes(self) -> dict[str, PregelNode]:
        """The nodes by name, each of which can be called by itself, without the graph."""
        return super().nodes if self._nodes is None else dict(self._nodes)

    def validate(self) -> Self:
        """Check that the names in the graph name something in it. Raises ValueError."""
        from mpflow.pregel.planning import check, check_timeouts

        check_timeouts(self._nodes or {}, self._options.get("executor"))
        check(self._plan, (*names_of(self.interrupt_before_nodes), *names_of(self.interrupt_after_nodes)))
        return self
