"""`from_langgraph`: a graph that was built with LangGraph's `StateGraph`, compiled by us.

It reads the builder and never runs it. Channels, policies and subgraphs become ours; nodes and paths stay what they are,
behind a bridge.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mpflow._exec.calling import TaskCallable
from mpflow._names import MISSING
from mpflow.channels.any_value import AnyValue
from mpflow.channels.base import BaseChannel
from mpflow.channels.binop import BinaryOperatorAggregate
from mpflow.channels.delta import DeltaChannel
from mpflow.channels.ephemeral_value import EphemeralValue
from mpflow.channels.last_value import LastValue
from mpflow.channels.topic import Topic
from mpflow.channels.untracked_value import UntrackedValue
from mpflow.checkpoint.langgraph import LangGraphSaver
from mpflow.errors import EmptyChannelError
from mpflow.graph.branch import BranchSpec
from mpflow.graph.compiled import CompiledStateGraph
from mpflow.graph.state import StateGraph
from mpflow.interop.bridge import bridged_callables, ours
from mpflow.interop.functional import function_of, kept_by, translated
from mpflow.interop.policies import caching, retries, timeout_policy
from mpflow.interop.storing import LentStore
from mpflow.interop.taking import TakesTheirs
from mpflow.managed.is_last_step import IsLastStepManager, RemainingStepsManager
from mpflow.pregel.compiled import CompiledGraph
from mpflow.runnables.base import Callables

if TYPE_CHECKING:
    from mpflow._exec.place import Executor
    from mpflow._exec.process import WorkerPool

try:
    from langgraph import channels as their_channels
    from langgraph._internal._runnable import RunnableCallable
    from langgraph._internal._typing import MISSING as THEIR_MISSING
    from langgraph.checkpoint.base import BaseCheckpointSaver as TheirSaver
    from langgraph.errors import EmptyChannelError as TheirEmptyChannelError
    from langgraph.graph import StateGraph as TheirStateGraph
    from langgraph.managed import is_last_step as their_managed
    from langgraph.store.base import BaseStore as TheirStore
except ImportError as missing:
    raise ImportError('from_langgraph needs LangGraph: pip install "langgraph>=1.0"') from missing

_NOT_GIVEN: Any = object()


def from_langgraph(
    graph: Any,
    *,
    executor: Executor | None = None,
    pool: WorkerPool | None = None,
    checkpointer: Any = _NOT_GIVEN,
    store: Any = _NOT_GIVEN,
    cache: Any = _NOT_GIVEN,
    **options: Any,
) -> CompiledGraph:
    """A graph of LangGraph's as one of ours: its nodes, unchanged, on our executors and worker processes.

    `graph` is a `StateGraph` of LangGraph, what its ``compile`` returned, or what its `entrypoint` made. Checkpointer,
    store, cache, breakpoints, name and config are taken over where none are given here. `executor`, `pool` and `options` are
    those of our ``compile``, or of our `entrypoint`. Subgraphs that are nodes become ours too. In nodes LangGraph's tasks are
    ours, and `interrupt`, `Command`, `Send`, `get_config`, `get_store` and `get_stream_writer` work as they are; errors of the
    engine are those of `mpflow.errors`.

    Raises TypeError for what is no such graph. Graphs that a function calls by itself run on LangGraph within its task.
    """
    builder = graph if isinstance(graph, TheirStateGraph) else getattr(graph, "builder", None)
    function = None if builder is not None else function_of(graph)
    if function is None and not isinstance(builder, TheirStateGraph):
        raise TypeError(
            "from_langgraph takes a StateGraph of LangGraph, what its compile() returned, or what its entrypoint made, got "
            f"{type(graph).__name__}"
        )
    if "langgraph.func" in sys.modules:
        TaskCallable.exists = True  # LangGraph's tasks, which its nodes may call
    given = {"checkpointer": checkpointer, "store": store, "cache": cache}
    options.update({name: value for name, value in given.items() if value is not _NOT_GIVEN})
    if graph is not builder:
        options = {**(_options_of(graph) if function is None else kept_by(graph)), **options}
    if isinstance(options.get("checkpointer"), TheirSaver):
        options["checkpointer"] = LangGraphSaver(options["checkpointer"])
    if isinstance(options.get("store"), TheirStore):
        options["store"] = LentStore(options["store"])
    options.update(executor=executor, pool=pool)
    if function is not None:
        return translated(graph, function, options)
    compiled = object.__new__(TranslatedGraph)
    compiled.__dict__.update(_translated(builder).compile(**options).__dict__)
    if graph is not builder:
        compiled.step_timeout = graph.step_timeout
        compiled.stream_mode = graph.stream_mode
        compiled.config = graph.config
    return compiled


class TranslatedGraph(TakesTheirs, CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph that takes LangGraph's `Command` and the like as input."""


def _options_of(graph: Any) -> dict[str, Any]:
    return {
        "checkpointer": graph.checkpointer,
        "store": graph.store,
        "cache": graph.cache,
        "interrupt_before": graph.interrupt_before_nodes or None,
        "interrupt_after": graph.interrupt_after_nodes or None,
        "debug": bool(graph.debug),
        "name": graph.name,
    }


def _translated(builder: Any) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(
        builder.state_schema,
        builder.context_schema,
        input_schema=builder.input_schema,
        output_schema=builder.output_schema,
    )
    for name, spec in builder.nodes.items():
        if not spec.is_error_handler:
            _add_node(graph, name, spec, builder)
    for start, end in builder.edges:
        graph.add_edge(start, end)
    for starts, end in builder.waiting_edges:
        graph.add_edge(list(starts), end)
    for source, branches in builder.branches.items():
        for name, spec in branches.items():
            graph.branches.setdefault(source, {})[name] = _branch(spec, name)
            if spec.input_schema is not None:
                graph._add_schema(spec.input_schema)
    _use_their_channels(graph, builder)
    defaults = builder._node_defaults
    graph.set_node_defaults(
        retry_policy=retries(defaults.retry_policy),
        cache_policy=caching(defaults.cache_policy),
        timeout=timeout_policy(defaults.timeout),
    )
    if defaults.error_handler is not None:
        graph.set_node_defaults(error_handler=_action(defaults.error_handler))
        handler = graph.defaults.error_handler
        assert handler is not None
        graph.defaults.error_handler = bridged_callables(handler)
    return graph


def _add_node(graph: StateGraph[Any, Any, Any, Any], name: str, spec: Any, builder: Any) -> None:
    handler = None if spec.error_handler_node is None else builder.nodes[spec.error_handler_node].runnable
    ends = spec.ends or None
    graph.add_node(
        name,
        _action(spec.runnable),
        defer=spec.defer,
        metadata=spec.metadata,
        input_schema=spec.input_schema,
        retry_policy=retries(spec.retry_policy),
        cache_policy=caching(spec.cache_policy),
        timeout=timeout_policy(spec.timeout),
        error_handler=None if handler is None else _action(handler),
        destinations=dict(ends) if isinstance(ends, dict) else ends,
    )
    added = graph.nodes[name]
    if isinstance(spec.runnable, RunnableCallable):
        added.callables = _with_both(added.callables, spec.runnable)
    if not hasattr(added.callables.source, "get_subgraphs"):
        added.callables = bridged_callables(added.callables)
    if added.error_handler is not None:
        added.error_handler = bridged_callables(added.error_handler)


def _action(runnable: Any) -> Any:
    """What a node is made of: its function, without the wrapping that LangGraph gave it, or our graph for one of theirs."""
    if isinstance(getattr(runnable, "builder", None), TheirStateGraph) or function_of(runnable) is not None:
        return from_langgraph(runnable)
    if isinstance(runnable, RunnableCallable):
        function: Any = runnable.func if runnable.func is not None else runnable.afunc
        return partial(function, **runnable.kwargs) if runnable.kwargs else function
    return runnable


def _with_both(callables: Callables, runnable: Any) -> Callables:
    """The callables of a node that has a sync and an async form."""
    if runnable.func is None or runnable.afunc is None or callables.func is None:
        return callables
    function: Any = runnable.afunc
    afunc = partial(function, **runnable.kwargs) if runnable.kwargs else function
    return Callables(callables.func, afunc, callables.inject, callables.name, callables.source)


def _branch(spec: Any, name: str) -> BranchSpec:
    branch = BranchSpec(_action(spec.path), spec.ends, name)
    callables = branch.callables
    if isinstance(spec.path, RunnableCallable):
        callables = _with_both(callables, spec.path)
    branch.callables = bridged_callables(callables, _answers)
    branch.ends = spec.ends
    branch.input_schema = spec.input_schema
    return branch


def _answers(result: Any) -> Any:
    """Where a path says to go, with our sends."""
    return [ours(answer) for answer in result] if isinstance(result, (list, tuple)) else ours(result)


# -- policies ----------------------------------------------------------------------------------------------------------


# -- channels ----------------------------------------------------------------------------------------------------------


def _use_their_channels(graph: StateGraph[Any, Any, Any, Any], builder: Any) -> None:
    """What their annotations mean is what they read in them: put that in the place of what we did."""
    for key, channel in builder.channels.items():
        graph.channels[key] = channel_of(channel, key)
    graph.managed = {key: _manager_of(manager) for key, manager in builder.managed.items()}
    for key in graph.managed:
        graph.channels.pop(key, None)
    for schema in graph.schemas.values():
        for key in [key for key in schema.channels if key in graph.managed]:
            del schema.channels[key]
            schema.managed[key] = graph.managed[key]
        schema.channels.update({key: graph.channels[key] for key in schema.channels})


def _manager_of(manager: Any) -> Any:
    if manager is their_managed.IsLastStepManager:
        return IsLastStepManager
    if manager is their_managed.RemainingStepsManager:
        return RemainingStepsManager
    raise TypeError(f"from_langgraph knows IsLastStep and RemainingSteps, not the managed value {manager!r}")


_OURS: dict[type, Callable[[Any], BaseChannel[Any, Any, Any]]] = {
    their_channels.LastValue: lambda one: LastValue(one.typ),
    their_channels.BinaryOperatorAggregate: lambda one: BinaryOperatorAggregate(one.typ, one.operator),
    their_channels.EphemeralValue: lambda one: EphemeralValue(one.typ, guard=one.guard),
    their_channels.UntrackedValue: lambda one: UntrackedValue(one.typ, guard=one.guard),
    their_channels.AnyValue: lambda one: AnyValue(one.typ),
    their_channels.Topic: lambda one: Topic(one.typ, accumulate=one.accumulate),
    their_channels.DeltaChannel: lambda one: DeltaChannel(
        one.reducer, one.typ, snapshot_frequency=one.snapshot_frequency
    ),
}


def channel_of(channel: Any, key: str) -> BaseChannel[Any, Any, Any]:
    """Our channel for one of theirs; one of a class of the user's own stays itself, in ours."""
    make = _OURS.get(type(channel), LentChannel)
    ours = make(channel)
    ours.key = key
    return ours


class LentChannel(BaseChannel[Any, Any, Any]):
    """A channel of a class that was written for LangGraph."""

    __slots__ = ("theirs",)

    def __init__(self, theirs: Any) -> None:
        super().__init__(theirs.typ)
        self.theirs = theirs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LentChannel) and bool(self.theirs == other.theirs)

    @property
    def ValueType(self) -> Any:
        return self.theirs.ValueType

    @property
    def UpdateType(self) -> Any:
        return self.theirs.UpdateType

    def copy(self) -> LentChannel:
        return self._lent(self.theirs.copy())

    def checkpoint(self) -> Any:
        value = self.theirs.checkpoint()
        return MISSING if value is THEIR_MISSING else value

    def from_checkpoint(self, checkpoint: Any) -> LentChannel:
        return self._lent(self.theirs.from_checkpoint(THEIR_MISSING if checkpoint is MISSING else checkpoint))

    def _lent(self, theirs: Any) -> LentChannel:
        lent = LentChannel(theirs)
        lent.key = self.key
        return lent

    def get(self) -> Any:
        try:
            return self.theirs.get()
        except TheirEmptyChannelError:
            raise EmptyChannelError from None

    def is_available(self) -> bool:
        return bool(self.theirs.is_available())

    def update(self, values: Any) -> bool:
        return bool(self.theirs.update(values))

    def consume(self) -> bool:
        return bool(self.theirs.consume())

    def finish(self) -> bool:
        return bool(self.theirs.finish())


__all__ = ("from_langgraph",)
