"""Checks of a whole graph: what makes it malformed (GB-13), and what is only suspicious (D-10)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from mpflow.constants import END, START
from mpflow.errors import StrictGraphError

if TYPE_CHECKING:
    from mpflow.graph.branch import BranchSpec
    from mpflow.graph.node import NodeSpec

LOUD = "mpflow"
QUIET = "mpflow.lint"
"""A node without an outgoing edge is common and usually meant, so that warning shows only where logging is set up."""

Nodes = Mapping[str, "NodeSpec"]
Edges = Collection[tuple[str, str]]
WaitingEdges = Collection[tuple[tuple[str, ...], str]]
Branches = Mapping[str, Mapping[str, "BranchSpec"]]


def check_edges(
    nodes: Nodes, edges: Edges, waiting: WaitingEdges, branches: Branches, interrupt: Sequence[str] | None
) -> None:
    """Raise ValueError unless one edge leaves START and all edges join nodes that exist."""
    pairs = [*edges, *((start, end) for starts, end in waiting for start in starts)]
    sources = {start for start, _ in pairs} | set(branches)
    for source in sorted(sources):
        if source not in nodes and source != START:
            raise ValueError(f"Found edge starting at unknown node '{source}'; add_node it, or mend the edge")
    if START not in sources:
        raise ValueError("Graph must have an entrypoint: add at least one edge from START to another node")
    targets = {end for _, end in pairs}
    for source, mine in branches.items():
        for name, branch in mine.items():
            for end in (branch.ends or {}).values():
                if end not in nodes and end != END:
                    raise ValueError(f"At '{source}' node, '{name}' branch found unknown target '{end}'")
    for target in sorted(targets):
        if target not in nodes and target != END:
            raise ValueError(f"Found edge ending at unknown node `{target}`; add_node it, or mend the edge")
    for name, node in nodes.items():
        for destination in node.destinations or ():
            if destination not in nodes and destination not in (END, "__parent__"):
                raise ValueError(f"Found edge ending at unknown node `{destination}`, a destination of node '{name}'")
    for name in interrupt or ():
        if name not in nodes:
            raise ValueError(f"Interrupt node `{name}` not found")


def lint(nodes: Nodes, edges: Edges, waiting: WaitingEdges, branches: Branches, *, strict: bool) -> None:
    """Warn once about each node that nothing leads to or that leads nowhere; with `strict`, raise StrictGraphError.

    Where a Command or a path without a map may go is not known before it goes: a graph that has one is not judged.
    """
    leads_to: dict[str, set[str]] = {}
    for start, end in edges:
        leads_to.setdefault(start, set()).add(end)
    for starts, end in waiting:
        for start in starts:
            leads_to.setdefault(start, set()).add(end)
    free = False
    for source, mine in branches.items():
        for branch in mine.values():
            if branch.ends is None:
                free = True
                leads_to.setdefault(source, set()).add(END)
            else:
                leads_to.setdefault(source, set()).update(branch.ends.values())
    for name, node in nodes.items():
        if node.destinations:
            leads_to.setdefault(name, set()).update(node.destinations)
    reached: set[str] = set()
    waiting_room = [START]
    while waiting_room:
        for target in leads_to.get(waiting_room.pop(), ()):
            if target in nodes and target not in reached:
                reached.add(target)
                waiting_room.append(target)
    for name in nodes:
        if name not in reached and not free:
            _note(LOUD, "unreachable node", name, "no edge leads to it from START", strict)
        if name in reached and not leads_to.get(name):
            _note(QUIET, "dead end", name, "no edge leaves it: add_edge to another node or to END", strict)


def _note(logger: str, kind: str, name: str, detail: str, strict: bool) -> None:
    if strict:
        raise StrictGraphError(kind, f"node '{name}'", detail)
    import logging  # most graphs are sound and need none

    log = logging.getLogger(logger)
    if logger == QUIET and not log.handlers:
        log.addHandler(logging.NullHandler())
    log.warning("%s: node '%s': %s", kind, name, detail)
