"""From a builder to the scheduler's plan: edges become channels that nodes write and are triggered by."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from mpflow._core.plan import NodePlan, Plan
from mpflow._exec.handling import HandlerProgram
from mpflow._exec.patience import check_timeout
from mpflow._exec.program import NodeProgram
from mpflow._names import BRANCH_TO, DEFAULT_HANDLER, JOIN, ROOT, TASKS
from mpflow.channels.base import BaseChannel
from mpflow.channels.ephemeral_value import EphemeralValue
from mpflow.channels.last_value import LastValueAfterFinish
from mpflow.channels.named_barrier_value import NamedBarrierValue, NamedBarrierValueAfterFinish
from mpflow.channels.topic import Topic
from mpflow.constants import END, START
from mpflow.runnables.base import Callables
from mpflow.types import Send

if TYPE_CHECKING:
    from mpflow.graph.node import NodeDefaults, NodeSpec
    from mpflow.graph.state import StateGraph


def plan_of(graph: StateGraph[Any, Any, Any, Any], name: str, *, strict: bool, executor: Any = None) -> Plan:
    """The plan of a checked builder. Copies what it needs: the builder may change later."""
    channels: dict[str, BaseChannel[Any, Any, Any]] = {key: channel.copy() for key, channel in graph.channels.items()}
    writable = frozenset(graph.channels)
    _add(channels, TASKS, Topic(Send, accumulate=False))
    _add(channels, START, EphemeralValue(graph.input_schema))
    entry = graph.schemas[graph.input_schema]
    nodes = {
        START: NodePlan(
            START,
            NodeProgram(START, Callables(_identity, None, (), START, _identity), entry.channels),
            [START],
            START,
            executor="inline",
            hidden=True,
        )
    }
    defaults = graph.defaults
    if defaults.error_handler is not None and DEFAULT_HANDLER in graph.nodes:
        raise ValueError(f"Auto-generated default error handler node `{DEFAULT_HANDLER}` already exists.")
    for key, spec in graph.nodes.items():
        schema = graph.schemas[spec.input_schema]
        trigger = BRANCH_TO + key
        _add(channels, trigger, LastValueAfterFinish(Any) if spec.defer else EphemeralValue(Any, guard=False))
        timeout = spec.timeout or defaults.timeout
        check_timeout(key, spec.callables, spec.executor or executor, timeout)
        handler = _handler_of(spec, defaults, schema.coerce, writable, executor)
        if handler is not None:
            nodes[handler.name] = handler
        nodes[key] = NodePlan(
            key,
            NodeProgram(
                key,
                spec.callables,
                writable,
                coerce=schema.coerce,
                metadata=spec.metadata,
                memory_bytes=spec.memory_bytes or defaults.memory_bytes,
            ),
            [trigger],
            schema.reads,
            retry=spec.retry or defaults.retry,
            executor=spec.executor,
            max_concurrency=spec.max_concurrency,
            timeout=timeout,
            rerun_on_loss=spec.rerun_on_loss,
            on_error=spec.on_error,
            defer=spec.defer,
            handler=handler,
            cache=spec.cache_policy or defaults.cache_policy,
            subgraph=spec.callables.source if hasattr(spec.callables.source, "get_subgraphs") else None,
        )
    if DEFAULT_HANDLER in nodes:  # in a drawing it comes after all that it stands in for
        nodes[DEFAULT_HANDLER] = nodes.pop(DEFAULT_HANDLER)
    for start, end in sorted(graph.edges):
        if end != END:
            nodes[start].writes.append((BRANCH_TO + end, None))
    for starts, end in sorted(graph.waiting_edges):
        if end == END:
            continue
        barrier = f"{JOIN}{'+'.join(starts)}:{end}"
        kind = NamedBarrierValueAfterFinish if graph.nodes[end].defer else NamedBarrierValue
        _add(channels, barrier, kind(str, set(starts)))
        nodes[end].triggers = tuple(sorted((*nodes[end].triggers, barrier)))
        for start in starts:
            nodes[start].writes.append((barrier, start))
    for source, branches in graph.branches.items():
        for branch in branches.values():
            own = branch.input_schema
            schema = graph.schemas[
                own or (graph.nodes[source].input_schema if source in graph.nodes else graph.state_schema)
            ]
            nodes[source].branches.append(branch.bind(source, schema.reads, schema.coerce, writable))
    entrance = nodes[START]
    if not entrance.branches and not entrance.program.rooted:
        entrance.passes = entrance.program.keys
    output = graph.schemas[graph.output_schema]
    return Plan(
        name,
        nodes,
        channels,
        input=START,
        output=ROOT if output.root else tuple(output.channels),
        stream=ROOT if ROOT in graph.channels else tuple(graph.channels),
        managed=graph.managed,
        strict=strict,
    )


def _handler_of(
    spec: NodeSpec, defaults: NodeDefaults, coerce: Any, writable: Collection[str], executor: Any
) -> NodePlan | None:
    """The node that runs once another has failed for good: its own error handler, or the default one (EH-1, EH-3)."""
    callables = spec.error_handler or defaults.error_handler
    if callables is None:
        return None
    name = callables.name
    check_timeout(name, callables, executor, defaults.timeout)
    program = HandlerProgram(name, callables, writable, coerce=coerce)
    return NodePlan(name, program, (), (), retry=defaults.retry, timeout=defaults.timeout)


def _add(channels: dict[str, BaseChannel[Any, Any, Any]], key: str, channel: BaseChannel[Any, Any, Any]) -> None:
    channel.key = key
    channels[key] = channel


def _identity(value: Any) -> Any:
    return value
