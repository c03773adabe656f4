"""`CompiledGraph`: a plan with what it was compiled with, and copies of it with other settings. Its runs are in running.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from mpflow._exec.place import check_executor, check_pool
from mpflow.config import merge_configs
from mpflow.pregel.batching import BatchedGraph
from mpflow.pregel.offered import OfferedGraph
from mpflow.pregel.running import RunningGraph

if TYPE_CHECKING:
    from typing_extensions import Self

    from mpflow._core.plan import Plan
    from mpflow._exec.place import Executor
    from mpflow._exec.process import WorkerPool
    from mpflow.config import RunnableConfig
    from mpflow.observe.explain import Explanation
    from mpflow.types import All, CachePolicy, RetryPolicy


_CHANGEABLE = (
    "name",
    "config",
    "checkpointer",
    "store",
    "cache",
    "context_schema",
    "debug",
    "interrupt_after_nodes",
    "interrupt_before_nodes",
    "step_timeout",
    "stream_mode",
)
"""What a copy of a graph may have otherwise: nothing of this is part of the plan, but for the name."""


class CompiledGraph(BatchedGraph, RunningGraph, OfferedGraph):
    """What every compiled graph is, wherever its plan comes from.

    Reusable and thread-safe: runs share nothing but the pool, store and cache (AS-6).

    ``step_timeout`` is the number of seconds that one superstep may take; None for no limit (EX-15).
    """

    stream_eager = False
    retry_policy: Sequence[RetryPolicy] = ()
    cache_policy: CachePolicy[Any] | None = None

    def __init__(
        self,
        plan: Plan,
        *,
        config: RunnableConfig | None = None,
        store: Any = None,
        cache: Any = None,
        checkpointer: Any = None,
        interrupt_before_nodes: All | Sequence[str] | None = None,
        interrupt_after_nodes: All | Sequence[str] | None = None,
        step_timeout: float | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._plan = plan
        self.config = config
        self.store = store
        self.cache = cache
        self.checkpointer = checkpointer
        self.interrupt_before_nodes = interrupt_before_nodes or []
        self.interrupt_after_nodes = interrupt_after_nodes or []
        self.step_timeout = step_timeout
        self._options = dict(options or {})
        self._kept_types: frozenset[type] | None = None
        self._kept_messages = False

    def _types(self) -> frozenset[type]:
        """The classes that checkpoints may hold; found at the first run that saves."""
        from mpflow.pregel.kept import knows_messages, types_of

        messages = knows_messages(self)
        if self._kept_types is None or messages != self._kept_messages:  # a node may have brought them since
            self._kept_types, self._kept_messages = types_of(self), messages
        return self._kept_types

    @property
    def name(self) -> str:
        return self._plan.name

    @name.setter
    def name(self, name: str) -> None:
        # Runs under way, and copies of this graph, keep the plan that they have.
        self._plan = copy(self._plan)
        self._plan.name = name

    def copy(self, update: Mapping[str, Any] | None = None) -> Self:
        """A graph like this one, with the attributes in `update` in place of its own. Raises ValueError.

        What it is made of, its nodes and channels, stays: build another graph to change that.
        """
        twin = self._copy()
        for name, value in (update or {}).items():
            if name not in _CHANGEABLE:
                raise ValueError(
                    f"copy() of graph '{self.name}' cannot change {name!r}; it can change {', '.join(_CHANGEABLE)}"
                )
            setattr(twin, name, value)
        return twin

    def explain(self) -> Explanation:
        """Where each node runs and why, in one sentence with the numbers measured in all runs of this graph so far.

        Before the first run: which nodes may move to workers, and what holds the others. Print it for a table.
        """
        from mpflow._engine.explaining import explain

        return explain(self._plan, self._options.get("executor"), self._options.get("pool"))

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> Self:
        """A copy of this graph with `config` merged into its own (CF-1)."""
        return self.copy({"config": merge_configs(self.config, config, kwargs)})

    def with_executor(
        self,
        executor: Executor | None,
        *,
        pool: WorkerPool | None = None,
        override: bool = False,
        except_for: Collection[str] = (),
    ) -> Self:
        """A copy of this graph whose nodes run at `executor`, those excepted that name a place themselves.

        With `override` these too, but not what runs inline or at an executor of the user's own; the nodes `except_for`
        then run in threads. `pool` takes the place of the graph's pool, if given. Raises ValueError for what is no
        place to run.
        """
        placed = self._copy()
        placed._options = {**self._options, "executor": check_executor(executor, "with_executor")}
        if pool is not None:
            placed._options["pool"] = check_pool(pool, "with_executor")
        if override:
            placed._plan = self._plan.placed(executor, except_for)
        return placed

    def clear_cache(self, nodes: Sequence[str] | None = None) -> None:
        """Forget the cached writes of these nodes, or of all (CA-4). Raises ValueError for a graph without a cache."""
        self._cache().clear(self._cached(nodes))

    async def aclear_cache(self, nodes: Sequence[str] | None = None) -> None:
        """As `clear_cache`, awaited."""
        await self._cache().aclear(self._cached(nodes))

    def _cache(self) -> Any:
        if self.cache is None:
            raise ValueError("No cache is set for this graph. Cannot clear cache. Give it one: compile(cache=...)")
        return self.cache

    def _cached(self, nodes: Sequence[str] | None) -> list[Any]:
        from mpflow._engine.caching import namespaces

        return namespaces([node for name, node in self._plan.nodes.items() if nodes is None or name in nodes])

    def _copy(self) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__getstate__())
        return twin
