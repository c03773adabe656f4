"""A graph that runs: each method makes a `Run` and hands it to a driver. `Pregel` is one given by nodes and channels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Literal, cast

from mpflow._engine.run import Run
from mpflow._exec.place import check_executor
from mpflow.config import merge_configs
from mpflow.pregel import batching
from mpflow.pregel.described import DescribedGraph
from mpflow.runnables.batching import ain_order, in_order
from mpflow.runnables.runnable import Runnable
from mpflow.types import ensure_valid_checkpointer

if TYPE_CHECKING:
    from typing_extensions import Self

    from mpflow._core.plan import Plan
    from mpflow._exec.place import Executor
    from mpflow._exec.process import WorkerPool
    from mpflow.channels.base import BaseChannel
    from mpflow.config import RunnableConfig
    from mpflow.observe.explain import Explanation
    from mpflow.pregel.nodes import NodeBuilder, PregelNode
    from mpflow.runtime import RunControl
    from mpflow.types import All, CachePolicy, Checkpointer, Durability, RetryPolicy, StreamMode

    Parallel = Literal["auto", "items", "nodes"]


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


class CompiledGraph(DescribedGraph, Runnable[Any, Any]):
    """What every compiled graph is, wherever its plan comes from.

    Reusable and thread-safe: runs share nothing but the pool, store and cache (AS-6).

    ``step_timeout`` is the number of seconds that one superstep may take; None for no limit (EX-15).
    """

    stream_mode: Any = "values"
    stream_eager = False
    debug: bool = False
    retry_policy: Sequence[RetryPolicy] = ()
    cache_policy: CachePolicy[Any] | None = None
    _typed_state: Any = None
    _typed_output: Any = None

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
            placed._options["pool"] = pool
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
        twin.__dict__.update(self.__dict__)
        return twin

    # -- one run ------------------------------------------------------------------------------------------------------

    def _run(
        self,
        config: Any,
        *,
        context: Any = None,
        stream_mode: Any = None,
        print_mode: StreamMode | Sequence[StreamMode] = (),
        output_keys: str | Sequence[str] | None = None,
        subgraphs: bool = False,
        version: str = "v1",
        control: Any = None,
        debug: bool | None = None,
        durability: Durability | None = None,
        interrupt_before: All | Sequence[str] | None = None,
        interrupt_after: All | Sequence[str] | None = None,
    ) -> Run:
        if debug or (debug is None and self.debug):
            print_mode = ("updates", "values")
        return Run(
            self._plan,
            config,
            defaults=self.config,
            context=self._context(context),
            stream_mode=stream_mode,
            print_mode=print_mode,
            output=self._output(output_keys),
            subgraphs=subgraphs,
            version=version,
            options=self._options,
            step_timeout_s=self.step_timeout,
            store=self.store,
            cache=self.cache,
            control=control,
            checkpointer=self.checkpointer,
            types_of=self._types,
            durability=durability,
            pause_before=_names(interrupt_before or self.interrupt_before_nodes),
            pause_after=_names(interrupt_after or self.interrupt_after_nodes),
            owner=self,
        )

    def _output(self, keys: str | Sequence[str] | None) -> Any:
        if keys is None or keys is self._plan.output:
            return keys
        for key in (keys,) if isinstance(keys, str) else keys:
            if key not in self._plan.channels:
                raise ValueError(f"output_keys: graph '{self.name}' has no channel {key!r}")
        return keys if isinstance(keys, str) else tuple(keys)

    def invoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        stream_mode: StreamMode | Sequence[StreamMode] = "values",
        print_mode: StreamMode | Sequence[StreamMode] = (),
        output_keys: str | Sequence[str] | None = None,
        interrupt_before: All | Sequence[str] | None = None,
        interrupt_after: All | Sequence[str] | None = None,
        durability: Durability | None = None,
        control: RunControl | None = None,
        version: Literal["v1", "v2"] = "v1",
        **kwargs: Any,
    ) -> Any:
        """Run the graph on `input` and return its output; with another `stream_mode`, the list of its chunks.

        Blocks until the run is over. Raises what a node raised, unwrapped, and the errors of `mpflow.errors`.
        """
        if output_keys is None:
            output_keys = self._plan.output
        options: dict[str, Any] = {
            "context": context,
            "print_mode": print_mode,
            "output_keys": output_keys,
            "interrupt_before": interrupt_before,
            "interrupt_after": interrupt_after,
            "durability": durability,
            "control": control,
            "version": version,
            **kwargs,
        }
        if stream_mode != "values":
            return list(self.stream(input, config, stream_mode=stream_mode, **options))
        from mpflow._engine.drive import drive

        run = self._run(config, **options)
        for _ in _told(run, drive(run, input), input):
            pass
        return self._result(run, version)

    async def ainvoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        stream_mode: StreamMode | Sequence[StreamMode] = "values",
        print_mode: StreamMode | Sequence[StreamMode] = (),
        output_keys: str | Sequence[str] | None = None,
        interrupt_before: All | Sequence[str] | None = None,
        interrupt_after: All | Sequence[str] | None = None,
        durability: Durability | None = None,
        control: RunControl | None = None,
        version: Literal["v1", "v2"] = "v1",
        **kwargs: Any,
    ) -> Any:
        """As `invoke`, awaited."""
        if output_keys is None:
            output_keys = self._plan.output
        options: dict[str, Any] = {
            "context": context,
            "print_mode": print_mode,
            "output_keys": output_keys,
            "interrupt_before": interrupt_before,
            "interrupt_after": interrupt_after,
            "durability": durability,
            "control": control,
            "version": version,
            **kwargs,
        }
        if stream_mode != "values":
            return [chunk async for chunk in self.astream(input, config, stream_mode=stream_mode, **options)]
        from mpflow._engine.adrive import adrive

        run = self._run(config, **options)
        async for _ in _atold(run, adrive(run, input), input):
            pass
        return self._result(run, version)

    def _result(self, run: Run, version: str) -> Any:
        if version == "v1":
            return run.result
        from mpflow._names import INTERRUPT
        from mpflow.types import GraphOutput

        value = run.result
        interrupts: tuple[Any, ...] = ()
        if isinstance(value, dict) and INTERRUPT in value:
            value = dict(value)
            interrupts = tuple(value.pop(INTERRUPT))
        make = self._typed_output
        if make is not None and isinstance(value, dict):
            value = make(value)
        return GraphOutput(value=value, interrupts=interrupts)

    def stream(  # type: ignore[override]
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        stream_mode: StreamMode | Sequence[StreamMode] | None = None,
        print_mode: StreamMode | Sequence[StreamMode] = (),
        output_keys: str | Sequence[str] | None = None,
        interrupt_before: All | Sequence[str] | None = None,
        interrupt_after: All | Sequence[str] | None = None,
        durability: Durability | None = None,
        control: RunControl | None = None,
        subgraphs: bool = False,
        debug: bool | None = None,
        version: Literal["v1", "v2"] = "v1",
    ) -> Iterator[Any]:
        """Run the graph, yielding what happens as it happens, in the shapes of `stream_mode`.

        The consumer drives the run: the next superstep starts when more is asked for. Closing the iterator early
        cancels what runs.
        """
        from mpflow._engine.drive import drive

        run = self._run(
            config,
            stream_mode=self._mode(config, stream_mode),
            subgraphs=subgraphs,
            debug=debug,
            context=context,
            print_mode=print_mode,
            output_keys=output_keys,
            interrupt_before=interrupt_before,
            interrupt_after=interrupt_after,
            durability=durability,
            control=control,
            version=version,
        )
        yield from _told(run, drive(run, input), input)

    async def astream(  # type: ignore[override]
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        stream_mode: StreamMode | Sequence[StreamMode] | None = None,
        print_mode: StreamMode | Sequence[StreamMode] = (),
        output_keys: str | Sequence[str] | None = None,
        interrupt_before: All | Sequence[str] | None = None,
        interrupt_after: All | Sequence[str] | None = None,
        durability: Durability | None = None,
        control: RunControl | None = None,
        subgraphs: bool = False,
        debug: bool | None = None,
        version: Literal["v1", "v2"] = "v1",
    ) -> AsyncIterator[Any]:
        """As `stream`, for ``async for``."""
        from contextlib import aclosing

        from mpflow._engine.adrive import adrive

        run = self._run(
            config,
            stream_mode=self._mode(config, stream_mode),
            subgraphs=subgraphs,
            debug=debug,
            context=context,
            print_mode=print_mode,
            output_keys=output_keys,
            interrupt_before=interrupt_before,
            interrupt_after=interrupt_after,
            durability=durability,
            control=control,
            version=version,
        )
        async with aclosing(cast("Any", _atold(run, adrive(run, input), input))) as chunks:
            async for chunk in chunks:
                yield chunk

    def _mode(self, config: Any, asked: Any) -> Any:
        """The modes asked for; inside a node a nested graph defaults to whole values."""
        from mpflow._engine.nesting import scope_around

        if asked is not None:
            return asked
        return "values" if scope_around(config, self.config) is not None else self.stream_mode

    # -- many runs ----------------------------------------------------------------------------------------------------

    def batch(
        self,
        inputs: Iterable[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        parallel: Parallel = "auto",
        **kwargs: Any,
    ) -> list[Any]:
        """Run the graph on every input and return the outputs in the order of the inputs (AS-3).

        ``max_concurrency`` in the config bounds how many runs are under way. The first failure is raised when the runs
        that had started are over; with `return_exceptions` failures are results; under ``on_error="record"`` they are
        `FailureRecord`s.

        ``parallel="auto"`` runs the first inputs here and measures them; the rest go whole to workers if that is sooner
        and nothing could tell. ``parallel="nodes"`` drives every run here and places its nodes one by one. ``parallel="items"`` runs each input
        as a whole within one worker process, where its nodes run in place: the best way for very many short runs. The
        graph must be able to travel (NodeNotPicklableError); its checkpointer, store and cache stay here and are asked.

        ``thread_id_prefix="job/"`` gives each input a thread of its own, ``job/0`` and so on: a batch that was cut short
        goes on when it is given the same inputs again. What has finished is not run again but gives its stored output.
        """
        return in_order(
            batching.batch_as_completed(
                self, inputs, config, return_exceptions=return_exceptions, parallel=parallel, **kwargs
            )
        )

    async def abatch(
        self,
        inputs: Iterable[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        parallel: Parallel = "auto",
        **kwargs: Any,
    ) -> list[Any]:
        """As `batch`, awaited."""
        return await ain_order(
            batching.abatch_as_completed(
                self, inputs, config, return_exceptions=return_exceptions, parallel=parallel, **kwargs
            )
        )

    def batch_as_completed(
        self,
        inputs: Iterable[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        parallel: Parallel = "auto",
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """As `batch`, yielding ``(index, output)`` as runs finish. Inputs are taken as there is room for them."""
        return batching.batch_as_completed(
            self, inputs, config, return_exceptions=return_exceptions, parallel=parallel, **kwargs
        )

    def abatch_as_completed(
        self,
        inputs: Iterable[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        parallel: Parallel = "auto",
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Any]]:
        """As `batch_as_completed`, for ``async for``."""
        return batching.abatch_as_completed(
            self, inputs, config, return_exceptions=return_exceptions, parallel=parallel, **kwargs
        )


class Pregel(CompiledGraph):
    """A graph written as nodes that are subscribed to channels and write to channels (PR-1).

    `nodes` are `NodeBuilder`s, or what they built; `channels` are prototypes, copied for each run. ``stream_channels``
    are what ``stream`` and saved states show, all if None. Raises ValueError for names that nothing in the graph has.
    """

    _nodes: dict[str, PregelNode] | None = None

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
        from mpflow.pregel.nodes import PregelNode
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
            options={"executor": check_executor(executor, "Pregel"), "pool": pool},
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
        check(self._plan, (*_names(self.interrupt_before_nodes), *_names(self.interrupt_after_nodes)))
        return self


def _told(run: Run, chunks: Iterator[Any], input: Any) -> Iterator[Any]:
    """The chunks of a run, of which its callbacks are told, if it has any."""
    teller = run.performer.teller
    return chunks if teller is None else teller.told(chunks, input)


def _atold(run: Run, chunks: AsyncIterator[Any], input: Any) -> AsyncIterator[Any]:
    teller = run.performer.teller
    return chunks if teller is None else teller.atold(chunks, input)


def _names(asked: All | Sequence[str] | None) -> frozenset[str]:
    """The names of breakpoints: given as a sequence, or "*" for all."""
    if not asked:
        return frozenset()
    return frozenset((asked,) if isinstance(asked, str) else asked)
