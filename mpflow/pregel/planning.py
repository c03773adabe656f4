"""From nodes that name their channels to the scheduler's plan, and the checks that all these names exist."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mpflow._core.plan import NodePlan, Plan, Reads
from mpflow._exec.handling import HandlerProgram
from mpflow._exec.patience import check_timeout
from mpflow._names import RESERVED, TASKS
from mpflow.channels.base import BaseChannel
from mpflow.channels.topic import Topic
from mpflow.pregel.nodes import PregelNode, WritingProgram, chained
from mpflow.runnables.base import coerce
from mpflow.types import Send


def reads(keys: str | Sequence[str]) -> Reads:
    return keys if isinstance(keys, str) else tuple(keys)


_SENDS: Topic[Send] = Topic(Send, accumulate=False)


def plan_of(
    nodes: Mapping[str, PregelNode],
    channels: Mapping[str, Any],
    *,
    name: str,
    input: str | Sequence[str],
    output: str | Sequence[str],
    stream: str | Sequence[str] | None,
    retry: Sequence[Any] = (),
    cache: Any = None,
) -> Plan:
    """The plan of a `Pregel`. Channels are copied; those that are managed values are told apart."""
    copies: dict[str, BaseChannel[Any, Any, Any]] = {}
    managed: dict[str, Any] = {}
    for key, channel in channels.items():
        if isinstance(channel, BaseChannel):
            copies[key] = channel.copy()
            copies[key].key = key
        else:
            managed[key] = channel
    own = tuple(copies)
    if not isinstance(copies.get(TASKS, _SENDS), Topic):
        raise ValueError(f"Channel '{TASKS}' is reserved and cannot be another kind of channel than that of the sends")
    if TASKS not in copies:
        copies[TASKS] = _SENDS.copy()
        copies[TASKS].key = TASKS
    return Plan(
        name,
        {key: _node(key, node, retry, cache) for key, node in nodes.items()},
        copies,
        input=reads(input),
        output=reads(output),
        stream=own if stream is None else reads(stream),
        managed=managed,
        call_retry=retry,
    )


def _node(name: str, node: PregelNode, retry: Sequence[Any], cache: Any) -> NodePlan:
    return NodePlan(
        name,
        WritingProgram(name, chained(node.steps, name), node.writes, node.tags or None, node.metadata or None),
        tuple(sorted(node.triggers)),
        reads(node.channels),
        retry=node.retry_policy or retry,
        timeout=node.timeout,
        cache=node.cache_policy or cache,
    )


def node_of(node: NodePlan) -> PregelNode:
    """A node of a plan as users look at it."""
    program = node.program
    return PregelNode(
        node.reads,
        node.triggers,
        () if program.callables.source is None else (program.callables.source,),
        getattr(program, "entries", ()),
        name=node.name,
        tags=program.tags,
        metadata=program.metadata,
        retry_policy=node.retry or None,
        cache_policy=node.cache,
        timeout=node.timeout,
        mapper=program.coerce,
        is_error_handler=isinstance(program, HandlerProgram),
        error_handler_node=None if node.handler is None else node.handler.name,
    )


def check_timeouts(nodes: Mapping[str, PregelNode], executor: Any) -> None:
    """Raise ValueError for a timeout on a node that nothing can hold to it (TO-2, D-4)."""
    for name, node in nodes.items():
        for step in node.steps:
            check_timeout(name, coerce(step, name), executor, node.timeout)


def check(plan: Plan, breakpoints: Collection[str]) -> None:
    """Raise ValueError where a name in the graph names nothing in it."""
    known = [*sorted(plan.channels), *plan.managed]
    for name, node in plan.nodes.items():
        if name in RESERVED:
            raise ValueError(f"Node name '{name}' is reserved; name the node otherwise")
        for key in (*node.triggers, *_all(node.reads)):
            if key not in known:
                raise ValueError(f"Node {name} reads channel '{key}' not in known channels: '{known}'")
    inputs = _all(plan.input)
    for key in inputs:
        if key not in plan.channels:
            raise ValueError(f"Input channel '{key}' not in known channels: '{known}'")
    if not any(key in plan.trigger_to_nodes for key in inputs):
        if isinstance(plan.input, str):
            raise ValueError(f"Input channel {plan.input} is not subscribed to by any node")
        raise ValueError(f"None of the input channels {list(inputs)} are subscribed to by any node")
    for key in (*_all(plan.output), *_all(plan.stream)):
        if key not in plan.channels:
            raise ValueError(f"Output channel '{key}' not in known channels: '{known}'")
    for name in breakpoints:
        if name != "*" and name not in plan.nodes:
            raise ValueError(f"Node {name} not in nodes")


def _all(keys: Reads) -> tuple[str, ...]:
    return (keys,) if isinstance(keys, str) else keys
