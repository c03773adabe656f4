"""The saved states of a compiled graph: the methods that look at them and change them, each a call into the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._engine.nesting import lasting_namespace, without_ids
from mpflow._names import CHECKPOINT_ID, CHECKPOINT_NS, CONF
from mpflow.config import merge_configs
from mpflow.pregel.detection import graph_within
from mpflow.types import StateUpdate

if TYPE_CHECKING:
    from mpflow._core.plan import Plan
    from mpflow.config import RunnableConfig
    from mpflow.types import StateSnapshot


class StatefulGraph:
    """What a graph with a checkpointer can do besides running."""

    _plan: Plan
    checkpointer: Any
    config: RunnableConfig | None

    def _types(self) -> frozenset[type]:
        raise NotImplementedError

    @property
    def is_only_async(self) -> bool:
        """Whether a node or conditional edge of it, or of a graph within it, can only be awaited."""
        return any(
            node.program.is_async
            or any(branch.is_async for branch in node.branches)
            or (node.subgraph is not None and getattr(node.subgraph, "is_only_async", False))
            for node in self._plan.nodes.values()
        )

    def get_subgraphs(self, *, namespace: str | None = None, recurse: bool = False) -> Iterator[tuple[str, Any]]:
        """The graphs that are nodes of this one, or that a node's function refers to, with their namespaces (SG-5)."""
        for name, node in self._plan.nodes.items():
            if namespace is not None and not (namespace == name or namespace.startswith(f"{name}|")):
                continue
            graph = graph_within(node.program.callables.source)
            if graph is None:
                continue
            if namespace is None or namespace == name:
                yield name, graph
                if namespace is not None:
                    return
            if recurse:
                inner = None if namespace is None else namespace[len(name) + 1 :]
                for below, found in graph.get_subgraphs(namespace=inner, recurse=True):
                    yield f"{name}|{below}", found

    async def aget_subgraphs(
        self, *, namespace: str | None = None, recurse: bool = False
    ) -> AsyncIterator[tuple[str, Any]]:
        """As `get_subgraphs`."""
        for found in self.get_subgraphs(namespace=namespace, recurse=recurse):
            yield found

    # -- looking ------------------------------------------------------------------------------------------------------

    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """The state of a thread: its latest, live, or the one that ``checkpoint_id`` names (SA-1, SA-2).

        Raises ValueError without a checkpointer.
        """
        from mpflow._engine.history import perform, snapshot

        graph, saver, config = self._at(config)
        saved = saver.get_tuple(config)
        return perform(graph._snapshot(snapshot, saver, config, saved, subgraphs), saver)  # type: ignore[no-any-return]

    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """As `get_state`, awaited."""
        from mpflow._engine.history import aperform, snapshot

        graph, saver, config = self._at(config)
        saved = await saver.aget_tuple(config)
        return await aperform(graph._snapshot(snapshot, saver, config, saved, subgraphs), saver)  # type: ignore[no-any-return]

    def get_state_history(
        self,
        config: RunnableConfig,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[StateSnapshot]:
        """The states of a thread, newest first (SA-4)."""
        from mpflow._engine.history import perform, snapshot

        graph, saver, config = self._at(config, exact=True)
        for saved in list(saver.list(config, filter=filter, before=before, limit=limit)):
            yield perform(graph._snapshot(snapshot, saver, saved.config, saved, False, live=False), saver)

    async def aget_state_history(
        self,
        config: RunnableConfig,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[StateSnapshot]:
        """As `get_state_history`, for ``async for``."""
        from mpflow._engine.history import aperform, snapshot

        graph, saver, config = self._at(config, exact=True)
        found = [saved async for saved in saver.alist(config, filter=filter, before=before, limit=limit)]
        for saved in found:
            yield await aperform(graph._snapshot(snapshot, saver, saved.config, saved, False, live=False), saver)

    def _snapshot(
        self, snapshot: Any, saver: Any, config: Any, saved: Any, subgraphs: bool, *, live: bool | None = None
    ) -> Any:
        if live is None:
            live = CHECKPOINT_ID not in config[CONF]
        children = dict(self.get_subgraphs())
        return snapshot(self._plan, saver, config, saved, children, live=live, deep=subgraphs)

    # -- changing -----------------------------------------------------------------------------------------------------

    def update_state(
        self,
        config: RunnableConfig,
        values: dict[str, Any] | Any | None,
        as_node: str | None = None,
        task_id: str | None = None,
    ) -> RunnableConfig:
        """Write values as a node would, into a new checkpoint; its config (SA-5 to SA-7). Raises InvalidUpdateError."""
        return self.bulk_update_state(config, [[StateUpdate(values, as_node, task_id)]])

    async def aupdate_state(
        self,
        config: RunnableConfig,
        values: dict[str, Any] | Any | None,
        as_node: str | None = None,
        task_id: str | None = None,
    ) -> RunnableConfig:
        """As `update_state`, awaited."""
        return await self.abulk_update_state(config, [[StateUpdate(values, as_node, task_id)]])

    def bulk_update_state(self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]) -> RunnableConfig:
        """Apply several updates, one checkpoint for each inner list (SA-8). Raises ValueError if there are none."""
        from mpflow._engine.history import perform, update

        graph, saver, config = self._at(config, to_change=True)
        return perform(update(graph._plan, saver, config, _checked(supersteps)), saver)  # type: ignore[no-any-return]

    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """As `bulk_update_state`, awaited."""
        from mpflow._engine.history import aperform, update

        graph, saver, config = self._at(config, to_change=True)
        return await aperform(update(graph._plan, saver, config, _checked(supersteps)), saver)  # type: ignore[no-any-return]

    # -- where --------------------------------------------------------------------------------------------------------

    def _at(
        self, config: RunnableConfig, *, exact: bool = False, to_change: bool = False
    ) -> tuple[StatefulGraph, Any, Any]:
        """The graph that a config addresses, within this one or itself, the saver, and the complete config.

        With `exact` the config says that it means the root where it names no namespace, as listing needs. A namespace
        that no known subgraph has is read with this graph's channels, but is not `to_change`: that raises ValueError.
        """
        merged: Any = merge_configs(self.config, config)
        configurable = dict(merged.get(CONF) or {})
        saver = self._saver()
        if not saver:
            raise ValueError("No checkpointer set: compile the graph with one to keep states")
        if "thread_id" in configurable:
            configurable["thread_id"] = str(configurable["thread_id"])
        ns = configurable.get(CHECKPOINT_NS, "")
        graph: StatefulGraph = self
        if ns:
            path = without_ids(ns)
            found = next((found for _, found in self.get_subgraphs(namespace=path, recurse=True)), None)
            if found is not None:
                graph = found
                if graph.checkpointer is True:
                    configurable[CHECKPOINT_NS] = lasting_namespace(ns)
            elif to_change:  # this graph's nodes and channels would write a wrong state into it
                raise ValueError(f"Subgraph {path} not found")
        elif exact:
            configurable[CHECKPOINT_NS] = ""
        return graph, saver, {**merged, CONF: configurable}

    def _saver(self) -> Any:
        from mpflow._scope import current

        if self.checkpointer not in (None, False, True):
            saver = self.checkpointer
            return saver.for_types(self._types) if hasattr(saver, "for_types") else saver
        scope = current.get()
        local = None if scope is None else scope.facts.local
        return None if local is None else local.saver


def _checked(supersteps: Sequence[Sequence[StateUpdate]]) -> Sequence[Sequence[StateUpdate]]:
    if not supersteps:
        raise ValueError("No supersteps provided")
    if any(not updates for updates in supersteps):
        raise ValueError("No updates provided")
    return [
        [update if isinstance(update, StateUpdate) else StateUpdate(*update) for update in updates]
        for updates in supersteps
    ]
