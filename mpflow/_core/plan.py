"""What a compiled graph is to the scheduler: nodes, their triggers and limits, and the channels between them.

A plan never changes once a run has begun; many runs share one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from mpflow._names import MISSING, PULL
from mpflow.channels.base import BaseChannel
from mpflow.channels.ephemeral_value import EphemeralValue
from mpflow.channels.last_value import LastValue

if TYPE_CHECKING:
    from mpflow.types import CachePolicy, RetryPolicy, TimeoutPolicy

Reads = tuple[str, ...] | str

# How a channel's value is kept: bare, where its kind only ever replaces it, or by the channel object.
LAST, EPHEMERAL, OBJECT = 0, 1, 2


_KINDS: dict[type, int] = {LastValue: LAST, EphemeralValue: EPHEMERAL}


class NodePlan:
    """One node: what triggers it, what it reads, and the rules for running it.

    ``reads`` is a tuple of channels (the input is a dict of those that have a value) or one channel (the input is its
    bare value). ``plain`` says that its attempts need no limit and no rule of their own. ``path`` is that of its task when a trigger starts it. ``executor`` is what the user asked for, or None for the graph's default. ``writes`` are the node's
    unconditional edges, appended to every diff. ``timeout`` is in plain seconds. ``handler`` is the node that runs in this
    one's place once it has failed for good. ``meter`` measures its calls; it is the engine's, and no part of the plan.
    ``passes`` are the keys that its input may have for the node to do nothing but write it, as it is; None for a node
    that does something.
    """

    __slots__ = (
        "branches",
        "cache",
        "defer",
        "executor",
        "handler",
        "hidden",
        "max_concurrency",
        "meter",
        "name",
        "on_error",
        "passes",
        "path",
        "plain",
        "program",
        "reads",
        "rerun_on_loss",
        "retry",
        "subgraph",
        "timeout",
        "timeout_s",
        "triggers",
        "writes",
    )

    def __init__(
        self,
        name: str,
        program: Any,
        triggers: Sequence[str],
        reads: Reads,
        *,
        writes: Sequence[tuple[str, Any]] = (),
        branches: Sequence[Any] = (),
        retry: Sequence[RetryPolicy] = (),
        executor: Any = None,
        max_concurrency: int | None = None,
        timeout_s: float | None = None,
        timeout: TimeoutPolicy | None = None,
        rerun_on_loss: bool = True,
        on_error: Any = None,
        hidden: bool = False,
        defer: bool = False,
        subgraph: Any = None,
        handler: NodePlan | None = None,
        cache: CachePolicy[Any] | None = None,
    ) -> None:
        self.name = name
        self.path = (PULL, name)
        self.program = program
        self.triggers = tuple(triggers)
        self.reads = reads
        self.writes = list(writes)
        self.branches = list(branches)
        self.retry = tuple(retry)
        self.executor = executor
        self.max_concurrency = max_concurrency
        self.timeout = timeout
        self.timeout_s: Any = timeout_s if timeout is None else timeout.run_timeout
        self.rerun_on_loss = rerun_on_loss
        self.on_error = on_error
        self.hidden = hidden
        self.defer = defer
        self.subgraph = subgraph
        self.handler = handler
        self.cache = cache
        self.meter: Any = None
        self.passes: frozenset[str] | None = None
        self.plain = max_concurrency is None and self.timeout_s is None and rerun_on_loss

    def passed(self, input: Any) -> list[tuple[str, Any]] | None:
        """What the node writes, if that is but its input as it is; else None."""
        if self.passes is None or type(input) is not dict or not self.passes.issuperset(input):
            return None
        return [*input.items(), *self.writes]

    def timed(self, timeout: TimeoutPolicy) -> NodePlan:
        """This node with another timeout."""
        twin = copy(self)
        twin.timeout = timeout
        twin.timeout_s = timeout.run_timeout
        twin.plain = False
        return twin


class Known(dict[Any, Any]):
    """What was found out about a plan, by what it depends on. Another process finds out for itself."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return Known, ()


class Plan:
    """A whole graph. ``channels`` are prototypes: each run copies them empty.

    ``starts`` has for each trigger the nodes that it starts, by name. ``bare`` are the channels that are kept as bare values,
    ``passing`` those of them whose value lasts for one step; ``fleeting`` all that may lose theirs in a step that does not
    write it. ``simple`` says that no channel does anything but take writes:
    none notes that a task was triggered by it, and none gives something out when the run is about to end. ``merges`` and
    ``routes`` are looked up once for all runs: what writes to the same channels come to (see `merge`), and, for the engine,
    where the nodes run.
    """

    __slots__ = (
        "__weakref__",
        "bare",
        "begins_once",
        "call_retry",
        "channels",
        "consuming",
        "finishing",
        "fleeting",
        "input",
        "kinds",
        "leaves",
        "managed",
        "merges",
        "name",
        "nodes",
        "output",
        "output_keys",
        "passing",
        "retries",
        "routes",
        "simple",
        "starting",
        "starts",
        "stream",
        "stream_keys",
        "strict",
        "trigger_to_nodes",
    )

    def __init__(
        self,
        name: str,
        nodes: Mapping[str, NodePlan],
        channels: Mapping[str, BaseChannel[Any, Any, Any]],
        *,
        input: Reads,
        output: Reads,
        stream: Reads,
        managed: Mapping[str, Any] | None = None,
        strict: bool = False,
        call_retry: Sequence[RetryPolicy] = (),
    ) -> None:
        self.name = name
        self.call_retry = tuple(call_retry)
        """How called tasks are tried again that do not say so themselves."""
        self.nodes = dict(nodes)
        self.channels = dict(channels)
        self.managed = dict(managed or {})
        self.input = input
        self.output = output
        self.stream = stream
        self.output_keys = keys_of(output)
        self.stream_keys = keys_of(stream)
        self.strict = strict
        self.merges = Known()
        self.routes = Known()
        self.trigger_to_nodes = triggers_of(self.nodes.values())
        self.kinds = {key: _KINDS.get(type(channel), OBJECT) for key, channel in self.channels.items()}
        self.starts = self._starts()
        self.passing = frozenset(key for key, kind in self.kinds.items() if kind == EPHEMERAL)
        self.bare = frozenset(key for key, kind in self.kinds.items() if kind != OBJECT)
        self.consuming = {
            key for key, channel in self.channels.items() if type(channel).consume is not BaseChannel.consume
        }
        self.leaves = any(node.executor == "process" for node in self.nodes.values())
        """Some of its nodes run in other processes, which are told of a channel by its version."""
        self.retries = bool(self.call_retry) or any(node.retry for node in self.nodes.values())
        self.begins_once = any(not node.rerun_on_loss for node in self.nodes.values())
        """Some of its nodes must not run twice."""
        self.finishing = [key for key, channel in self.channels.items() if channel.finishes]
        self.fleeting = frozenset(
            key
            for key, kind in self.kinds.items()
            if kind == EPHEMERAL or (kind == OBJECT and self.channels[key].resets)
        )
        self.simple = not self.consuming and not self.finishing
        self.starting = [
            key
            for key, channel in self.channels.items()
            if self.kinds[key] == OBJECT and channel.from_checkpoint(MISSING).is_available()
        ]

    def placed(self, executor: Any, stay: Collection[str] = ()) -> Plan:
        """This plan with every node at `executor`, but for those that run inline or at an executor of the user's own.

        The nodes named by `stay` go to threads. What was measured of this plan's nodes is not known of theirs.
        """
        nodes = {name: copy(node) for name, node in self.nodes.items()}
        for node in nodes.values():
            node.meter = None
            if node.name in stay:
                node.executor = "thread"
            elif node.executor in (None, "auto", "process", "thread"):
                node.executor = executor
            if node.handler is not None:
                node.handler = nodes[node.handler.name]
        twin = copy(self)
        twin.nodes = nodes
        twin.starts = twin._starts()
        twin.merges = Known()
        twin.routes = Known()
        return twin

    def started_by(self, channels: Iterable[str]) -> Sequence[NodePlan]:
        """The nodes that a new value in one of these channels starts, by name."""
        starts = self.starts
        found = [starts[channel] for channel in channels if channel in starts]
        if len(found) > 1:
            return sorted({node for nodes in found for node in nodes}, key=_name)
        return found[0] if found else ()

    def _starts(self) -> dict[str, tuple[NodePlan, ...]]:
        return {
            trigger: tuple(self.nodes[name] for name in sorted(names))
            for trigger, names in self.trigger_to_nodes.items()
        }


def _name(node: NodePlan) -> str:
    return node.name


def keys_of(reads: Reads) -> frozenset[str]:
    """The channels that are read."""
    return frozenset((reads,) if isinstance(reads, str) else reads)


def triggers_of(nodes: Iterable[NodePlan]) -> dict[str, tuple[str, ...]]:
    """For each trigger channel the nodes that it starts."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        for trigger in node.triggers:
            found.setdefault(trigger, []).append(node.name)
    return {trigger: tuple(names) for trigger, names in found.items()}
