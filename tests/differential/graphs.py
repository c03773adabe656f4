"""Random graphs as data, built under either library from one description.

All decisions of a node are taken from what it is given, so that two engines that give the same get the same back.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from hypothesis import strategies as st

START, END, PARENT = "__start__", "__end__", "__parent__"

BUSY = 25
"""A state that weighs more than this sends nobody anywhere, so that graphs within graphs come to an end."""


class Broken(Exception):
    """What a node of a random graph raises."""


@dataclass(frozen=True)
class Node:
    name: str
    kind: str = "plain"  # plain, command, listed, sub, caller, up, ask
    defer: bool = False
    narrow: bool = False
    awaits: bool = False
    salt: int = 0
    writes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    fails: int = 0
    tries: int = 1
    sub: Graph | None = None
    says: bool = False
    handled: bool = False


@dataclass(frozen=True)
class Branch:
    source: str
    salt: int
    options: tuple[tuple[str, ...], ...]
    sends: bool
    mapped: bool


@dataclass(frozen=True)
class Graph:
    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    waiting: tuple[tuple[tuple[str, ...], str], ...] = ()
    branches: tuple[Branch, ...] = ()
    narrow_output: bool = False


# -- descriptions ----------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: Any, depth: int = 2, outer: tuple[str, ...] = (), asks: bool = False) -> Graph:
    names = tuple(f"{'abc'[2 - depth]}{number}" for number in range(draw(st.integers(1, 4 if depth == 2 else 2))))
    some = st.sampled_from([*names, END])
    nodes = tuple(draw(_node(name, names, depth, outer, asks)) for name in names)
    edges = {(START, draw(st.sampled_from(names)))}
    edges |= set(draw(st.lists(st.tuples(st.sampled_from(names), some), max_size=5)))
    if draw(st.booleans()):
        edges.add((START, draw(some)))
    waiting = ()
    if len(names) > 2 and draw(st.booleans()):
        *sources, target = draw(st.permutations(names))[:3]
        waiting = ((tuple(sources), target),)
    branches = []
    for number in range(draw(st.integers(0, 2))):
        options = draw(st.lists(st.lists(some, max_size=2).map(tuple), min_size=1, max_size=3).map(tuple))
        # After a Command a path is shown what it wrote beyond the node's own schema; LangGraph shows that of dicts only.
        sources = [node.name for node in nodes if not (node.narrow and node.kind in ("command", "listed"))]
        source = draw(st.sampled_from([*sources, START]))
        branches.append(Branch(source, number, options, draw(st.booleans()), draw(st.booleans())))
    return Graph(nodes, tuple(sorted(edges)), waiting, tuple(branches), draw(st.booleans()))


@st.composite
def _node(draw: Any, name: str, names: tuple[str, ...], depth: int, outer: tuple[str, ...], asks: bool) -> Node:
    kinds = ["plain", "plain", "command", "listed"]
    if depth:
        kinds += ["sub", "caller"]
    if asks:
        kinds += ["ask", "ask"]
    if outer:
        kinds.append("up")
    kind = draw(st.sampled_from(kinds))
    aims = outer if kind == "up" else names
    tries = draw(st.sampled_from([1, 1, 3]))
    return Node(
        name,
        kind,
        defer=draw(st.sampled_from([False, False, False, True])),
        narrow=draw(st.booleans()) and kind != "sub",
        awaits=draw(st.booleans()) and kind != "sub",
        salt=draw(st.integers(0, 3)),
        writes=draw(
            st.lists(st.sampled_from(["total", "own", "own", "shared", "secret", "unknown"]), max_size=2).map(tuple)
        ),
        targets=draw(st.lists(st.sampled_from([*aims, END]), max_size=2).map(tuple)),
        fails=draw(st.sampled_from([0, 0, 0, 1, 2] if tries > 1 else [0] * 9 + [1])),
        tries=tries,
        sub=draw(graphs(depth - 1, names, asks)) if kind in ("sub", "caller") else None,
        says=draw(st.booleans()) and kind != "sub",
        handled=draw(st.sampled_from([False, False, False, True])) and kind not in ("sub", "up"),
    )


def names_of(graph: Graph, kind: str) -> set[str]:
    """The names of all nodes of a kind, at any depth."""
    below = (names_of(node.sub, kind) for node in graph.nodes if node.sub is not None)
    return {node.name for node in graph.nodes if node.kind == kind}.union(*below)


def calls_again(graph: Graph) -> bool:
    """Whether a function that calls graphs is tried again.

    In a worker nobody knows how many an earlier attempt called, so the numbers in their namespaces are others.
    """
    subs = [node for node in graph.nodes if node.sub is not None]
    return any((node.kind == "caller" and node.fails > 0) or calls_again(node.sub) for node in subs if node.sub)


def is_left_early(graph: Graph) -> bool:
    """Whether a task of a graph within may leave it by a command to the graph around, while others run beside it.

    Which of these end before that, and are told of, is a matter of time.
    """
    return any(
        is_left_early(node.sub) or (len(node.sub.nodes) > 1 and any(inner.kind == "up" for inner in node.sub.nodes))
        for node in graph.nodes
        if node.sub is not None
    )


# -- building --------------------------------------------------------------------------------------------------------


class Library:
    """The names that differ between the two: `Library("langgraph")`, `Library("mpflow")`."""

    def __init__(self, package: str) -> None:
        from importlib import import_module

        self.package = package
        self.StateGraph = import_module(f"{package}.graph").StateGraph
        types = import_module(f"{package}.types")
        self.Send, self.Command, self.RetryPolicy = types.Send, types.Command, types.RetryPolicy
        self.InMemorySaver = import_module(f"{package}.checkpoint.memory").InMemorySaver
        self.interrupt = types.interrupt
        self.RemainingSteps = import_module(f"{package}.managed").RemainingSteps


class Doing:
    """A node's function. A class of a module, so that it travels to processes by reference."""

    def __init__(self, node: Node, lib: Library, sub: Any) -> None:
        self.node = node
        self.lib = lib.package
        self.Command, self.Send, self.interrupt = lib.Command, lib.Send, lib.interrupt
        self.sub = sub

    def __call__(self, state: Any, runtime: Any) -> Any:
        return self.act(state, runtime, None if self.sub is None else self.sub.invoke(given(state)))

    def act(self, state: Any, runtime: Any, below: Any) -> Any:
        node = self.node
        attempt = runtime.execution_info.node_attempt
        if attempt <= node.fails:
            raise Broken(node.name)
        if node.says:
            runtime.stream_writer((node.name, attempt))
        seen = weight(state)
        left = state.get("left", "")
        update: dict[str, Any] = {"log": [f"{node.name}:{seen}:{attempt}:{left}:{sorted(state)}"]}
        if below is not None:
            update["log"] += [f"below {len(below['log'])} {below.get('total')}"]
        for key in node.writes:
            update[f"own_{node.name}" if key == "own" else key] = seen + node.salt
        if node.kind == "ask":
            answer = self.interrupt(f"{node.name} {seen}")
            update["log"] += [f"answered {answer}"]
        if node.kind in ("plain", "caller", "ask"):
            return update
        sends = [self.Send(name, {"log": ["sent"], "total": seen}) for name in node.targets[1:] if name != END]
        goto = [*node.targets[:1], *sends] if (seen + node.salt) % 3 and seen < BUSY else []
        if node.kind == "up":
            return self.Command(graph=PARENT, update={"log": [f"up {seen}"]}, goto=goto)
        command = self.Command(update=update, goto=goto)
        return command if node.kind == "command" else [{"log": ["listed"]}, command]


class Awaiting(Doing):
    async def __call__(self, state: Any, runtime: Any) -> Any:
        return self.act(state, runtime, None if self.sub is None else await self.sub.ainvoke(given(state)))


class Handling:
    """An error handler."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, state: Any, error: Any) -> Any:
        return {"log": [f"handled {self.name} {error.node} {type(error.error).__name__}"]}


class Routing:
    """A path function."""

    def __init__(self, branch: Branch, lib: Library) -> None:
        self.branch = branch
        self.Send = lib.Send
        self.__name__ = f"path{branch.salt}"

    def __call__(self, state: Any) -> Any:
        branch = self.branch
        seen = weight(state)
        names = branch.options[(seen + branch.salt) % len(branch.options)]
        if seen > BUSY or state.get("left", 9) < 2:
            return []
        if branch.sends:
            return [self.Send(name, {"log": ["routed"], "total": seen}) for name in names if name != END]
        return [f"to {name}" for name in names] if branch.mapped else list(names)


def weight(state: Any) -> int:
    return len(state.get("log", [])) + state.get("total", 0)


def given(state: Any) -> dict[str, Any]:
    return {"log": state.get("log", [])[-2:], "total": state.get("total", 0)}


def build(graph: Graph, lib: Library, *, awaits: bool = False, **options: Any) -> Any:
    """Compile a description; with `awaits`, the nodes that may are coroutine functions."""
    keys: dict[str, Any] = {
        "log": Annotated[list, operator.add],
        "total": Annotated[int, operator.add],
        "shared": int,
        "left": lib.RemainingSteps,
        **{f"own_{node.name}": int for node in graph.nodes},
    }
    narrow: Any = TypedDict("Narrow", {"log": list, "secret": int})  # type: ignore[operator,misc]
    state: Any = TypedDict("State", keys)  # type: ignore[operator,misc]
    visible = {key: hint for key, hint in keys.items() if key != "left"}
    entry: Any = TypedDict("Entry", visible)  # type: ignore[operator,misc]
    output: Any = TypedDict("Output", {"log": list, "total": int})  # type: ignore[operator,misc]
    builder = lib.StateGraph(state, input_schema=entry, output_schema=output if graph.narrow_output else entry)
    for node in graph.nodes:
        sub = None if node.sub is None else build(node.sub, lib, awaits=awaits)
        doing = Awaiting if awaits and (node.awaits or sub is not None) else Doing
        action = sub if node.kind == "sub" else doing(node, lib, sub)
        policy = lib.RetryPolicy(max_attempts=node.tries, initial_interval=0.0, jitter=False, retry_on=Broken)
        builder.add_node(
            node.name,
            action,
            defer=node.defer,
            input_schema=narrow if node.narrow else None,
            retry_policy=policy if node.tries > 1 else None,
            error_handler=Handling(node.name) if node.handled else None,
        )
    for start, end in graph.edges:
        builder.add_edge(start, end)
    for starts, end in graph.waiting:
        builder.add_edge(list(starts), end)
    for branch in graph.branches:
        names = {name for option in branch.options for name in option}
        mapped = branch.mapped and not branch.sends
        path_map = {f"to {name}": name for name in sorted(names)} if mapped else None
        builder.add_conditional_edges(branch.source, Routing(branch, lib), path_map)
    return builder.compile(**options)
