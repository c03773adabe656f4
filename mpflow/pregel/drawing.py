"""From a compiled graph to its drawing: which node may lead to which, found by letting edges run without nodes (DR-3).

What a graph declares is followed from its start: edges, the ends of conditional edges, the destinations of commands.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mpflow._core.merge import merge
from mpflow._core.plan import Plan
from mpflow._core.state import ChannelState
from mpflow._core.steps import due_tasks
from mpflow._names import BRANCH_TO
from mpflow.channels.ephemeral_value import EphemeralValue
from mpflow.constants import END, START
from mpflow.pregel.picture import Graph

_ROUNDS = 250
"""Loops of plain edges never end; nothing new is found in them by then."""


class _Way(NamedTuple):
    """A write that leads on: the channel, whether it is one of several, and what it is called."""

    channel: str
    conditional: bool = False
    label: str | None = None


class _Edge(NamedTuple):
    source: str
    target: str
    conditional: bool
    label: str | None


def draw(
    plan: Plan,
    declared: Mapping[str, Collection[tuple[str, str | None]]],
    before: Any,
    after: Any,
    inner: Mapping[str, Graph],
) -> Graph:
    """The drawing of a plan.

    `declared` says for each node where it may lead besides its edges, with labels; `before` and `after` are the
    breakpoints; `inner` are drawings to put in the place of nodes.
    """
    edges, alone = _discover(plan, declared)
    graph = Graph()
    entries = [] if START in plan.nodes else sorted({edge for edge in edges if edge.source == START})
    edges = edges.difference(entries)
    for name, node in plan.nodes.items():
        metadata = dict(node.program.metadata or {})
        if node.defer:
            metadata["defer"] = True
        pauses = [word for word, names in (("before", before), ("after", after)) if name in (names or ())]
        if pauses:
            metadata["__interrupt"] = ",".join(pauses)
        graph.add_node(node.program.callables.source, name, metadata=metadata or None)
    if entries:  # a graph of channels begins where its input goes
        graph.add_node(None, START)
        for edge in entries:
            _join(graph, START, edge.target)
    for edge in sorted(edges, key=lambda edge: (edge[:3], edge.label is not None, edge.label or "")):
        _join(graph, edge.source, edge.target, edge.label if edge.label != edge.target else None, edge.conditional)
    last = {edge.target for edge in edges}.difference((END,), (edge.source for edge in edges))
    for name in sorted(last):
        _join(graph, name, END)
    if not last and alone is not None and all(edge.target != END for edge in edges):
        _join(graph, alone, END, conditional=True)
    for name, drawn in inner.items():
        if name in graph.nodes and len(drawn.nodes) > 1 and drawn.first_node() and drawn.last_node():
            drawn.trim_first_node()
            drawn.trim_last_node()
            graph.put_in_place_of(name, drawn)
    return graph


def _join(graph: Graph, source: str, target: str, label: str | None = None, conditional: bool = False) -> None:
    if any(edge.source == source and edge.target == target for edge in graph.edges):
        return
    if target == END and END not in graph.nodes:
        graph.add_node(None, END)
    if source in graph.nodes and target in graph.nodes:
        graph.add_edge(graph.nodes[source], graph.nodes[target], label, conditional)


def _discover(plan: Plan, declared: Mapping[str, Collection[tuple[str, str | None]]]) -> tuple[set[_Edge], str | None]:
    """The edges that the graph can take, and the only node of its last step, if there was one."""
    edges: set[_Edge] = set()
    ways: dict[str, set[_Way]] = {}
    said: set[str] = set()
    last: dict[str, set[_Way]] = {}
    inputs: tuple[str, ...] = (START,)
    begins = START in plan.nodes
    if not begins:
        plan = _touching(plan)
        inputs = (plan.input,) if isinstance(plan.input, str) else plan.input
        ways[START] = {_Way(channel) for channel in inputs}
        last[START] = set(ways[START])
    state = ChannelState(plan)
    for node in plan.nodes.values():
        if isinstance(node.reads, str):  # a bare value is what it waits for, and nothing here runs to give it one
            state.values.setdefault(node.reads, None)
    started = merge(state, [_ran("", [(channel, {}) for channel in inputs])], ends_step=False).started
    for step in range(-1, _ROUNDS):
        tasks = due_tasks(plan, state, step, _ROUNDS, started, _ignore)
        if step >= 0 or not begins:
            _note(edges, ways, last, tasks)
        if not tasks:
            break
        last = {}
        ran = []
        for task in tasks:
            writes = list(task.node.writes)
            writes += [(channel, None) for channel, *_ in getattr(task.node.program, "entries", ())]
            ends = declared.get(task.name, ())
            # Where a plain edge and a declared end lead to one node, the node's first visit shows the end.
            hidden = {BRANCH_TO + target for target, _ in ends} if task.name not in said else ()
            mine = {_Way(channel) for channel, _ in writes if channel not in hidden}
            for target, label in ends:
                if target == END:
                    edges.add(_Edge(task.name, END, True, label))
                    continue
                way = _Way(BRANCH_TO + target, True, label)
                mine.add(way)
                if task.name not in said:  # once is enough, and lets loops of them end
                    writes.append((way.channel, None))
            said.add(task.name)
            last[task.name] = mine
            ran.append(_ran(task.name, writes, task.triggers))
        ways.update({name: set(mine) for name, mine in last.items()})
        started = merge(state, ran).started
    return edges, next(iter(last)) if len(last) == 1 else None


def _touching(plan: Plan) -> Plan:
    """The plan with channels that take any value, since none is at hand here, and give it up after a step."""
    channels: dict[str, Any] = {key: EphemeralValue(Any, guard=False) for key in plan.channels}
    return Plan(plan.name, plan.nodes, channels, input=plan.input, output=plan.output, stream=plan.stream)


def _note(edges: set[_Edge], ways: dict[str, set[_Way]], last: Mapping[str, set[_Way]], tasks: Any) -> None:
    """Who has led to the tasks that are due now."""
    leading: dict[str, set[tuple[str, _Way]]] = defaultdict(set)
    for source, mine in ways.items():
        for way in mine:
            leading[way.channel].add((source, way))
    for task in tasks:
        found = False
        for trigger in task.triggers:
            for source, way in leading.get(trigger, ()):
                edges.add(_Edge(source, task.name, way.conditional, way.label))
                if way in last.get(source, ()):
                    found = True
                else:
                    ways[source].discard(way)
        if not found:  # something waited for the step before to be over, whoever ran in it
            edges.update(_Edge(source, task.name, True, None) for source in last)


class _Ran:
    """A node that is taken to have run, as a merge sees it."""

    def __init__(self, name: str, writes: list[tuple[str, Any]], triggers: Sequence[str] = ()) -> None:
        self.name = name
        self.pulled = bool(name)
        self.triggers = triggers
        self.writes = writes


def _ran(name: str, writes: list[tuple[str, Any]], triggers: Sequence[str] = ()) -> Any:
    return _Ran(name, writes, triggers)


def declared_by(builder: Any) -> dict[str, list[tuple[str, str | None]]]:
    """Where the nodes of a builder say that they may lead: ends of conditional edges, and destinations of commands."""
    found: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
    for name, node in builder.nodes.items():
        found[name] += _destinations(node.destinations)
    for source, branches in builder.branches.items():
        for branch in branches.values():
            found[source] += [(target, str(label)) for label, target in (branch.ends or {}).items()]
    return dict(found)


def _destinations(given: Any) -> Iterator[tuple[str, str | None]]:
    if isinstance(given, Mapping):
        yield from given.items()
    else:
        for name in given or ():
            yield name, None


def _ignore(text: str) -> None:
    return None
