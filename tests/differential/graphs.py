"""Random graphs as data, built under either library from one description.

All decisions of a node are taken from what it is given, so that two engines that give the same get the same back.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from hypothesis import strategies as st

from tests.differential.choices import Choices, described

if TYPE_CHECKING:
    from mpflow.errors import NodeError  # both libraries know it by this name

START, END, PARENT = "__start__", "__end__", "__parent__"

BUSY = 7
"""A state that weighs more than this sends nobody anywhere, so that graphs within graphs come to an end."""


SIZE_BYTES = 300
"""As many decisions as nearly all descriptions ask for."""

WRITTEN = ["own", "own", "own", "total", "total", "secret", "unknown", "shared"]


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
    builtin: bool = False
    """Whether the log's reducer is `operator.add`, whose signature is dear to read, or a function."""


# -- descriptions ----------------------------------------------------------------------------------------------------


def graphs(depth: int = 2, asks: bool = False) -> st.SearchStrategy[Graph]:
    """One in four may hold graphs within graphs up to the depth, the others up to one less.

    With `asks` two in three have nodes that ask, and no error handlers: LangGraph runs a handler that had finished once
    more, with the text of the error in its place, when a task beside it had asked.
    """

    def make(choices: Choices) -> Graph:
        levels = depth - (not choices.once_in(4))
        return graph_of(choices, levels, asks=asks and not choices.once_in(3))

    return described(make, SIZE_BYTES)


def graph_of(choices: Choices, depth: int, outer: tuple[str, ...] = (), *, asks: bool = False) -> Graph:
    prefix = "abc"[2 - depth]
    names = tuple(f"{prefix}{number}" for number in range(1 + choices.below(2 if outer else 4)))
    some = [END, *names]
    nodes = tuple(_node_of(choices, name, names, depth, outer, asks) for name in names)
    edges = {(START, choices.one_of(names))}
    edges |= {_edge_of(choices, names) for _ in range(choices.below(5))}
    if choices.once_in(2):
        edges.add((START, choices.one_of(some)))
    waiting = ()
    if len(names) > 2 and choices.once_in(2):
        *sources, target = choices.permuted(names)[:3]
        waiting = ((tuple(sources), target),)
    branches = []
    for number in range(choices.below(3)):
        options = tuple(choices.some(some, 2) for _ in range(1 + choices.below(3)))
        # After a Command a path is shown what it wrote beyond the node's own schema; LangGraph shows that of dicts only.
        sources = [node.name for node in nodes if not (node.narrow and node.kind in ("command", "listed"))]
        source = choices.one_of([START, *sources])
        branches.append(Branch(source, number, options, choices.once_in(2), choices.once_in(2)))
    return Graph(
        nodes,
        tuple(sorted(edges)),
        waiting,
        tuple(branches),
        narrow_output=choices.once_in(4),
        builtin=choices.once_in(4),
    )


def _edge_of(choices: Choices, names: tuple[str, ...]) -> tuple[str, str]:
    """Most lead onwards: of those that lead back nobody finds out but by the limit of recursion."""
    source = choices.below(len(names))
    is_back = choices.once_in(8)
    return names[source], choices.one_of([END, *(names if is_back else names[source + 1 :])])


def _node_of(
    choices: Choices, name: str, names: tuple[str, ...], depth: int, outer: tuple[str, ...], asks: bool
) -> Node:
    kinds = ["plain", "plain", "command", "listed"]
    if depth > 0:
        kinds += ["sub", "caller"]
    if asks:
        kinds += ["ask", "ask"]
    if outer:
        kinds.append("up")
    kind = choices.one_of(kinds)
    aims = outer if kind == "up" else names
    tries = choices.one_of([1, 1, 3])
    return Node(
        name,
        kind,
        defer=choices.once_in(4),
        narrow=choices.once_in(2) and kind != "sub",
        awaits=choices.once_in(2) and kind != "sub",
        salt=choices.below(4),
        writes=choices.some(WRITTEN, 2),
        targets=choices.some([END, *aims], 2),
        fails=choices.one_of([0, 0, 0, 1, 2] if tries > 1 else [0] * 15 + [1]),
        tries=tries,
        sub=graph_of(choices, depth - 1, names, asks=asks) if kind in ("sub", "caller") else None,
        says=choices.once_in(2) and kind != "sub",
        handled=choices.once_in(4) and kind not in ("sub", "up") and not asks,
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

    Which of these end before that, and are told of, is a matter of time; a node that is sent to runs beside itself.
    """
    return any(
        is_left_early(node.sub) or (_is_crowded(node.sub) and any(inner.kind == "up" for inner in node.sub.nodes))
        for node in graph.nodes
        if node.sub is not None
    )


def _is_crowded(graph: Graph) -> bool:
    return len(graph.nodes) > 1 or any(branch.sends for branch in graph.branches)


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

    def __call__(self, state: Any, error: NodeError) -> Any:
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


def joined(left: list[Any], right: list[Any]) -> list[Any]:
    return left + right


def summed(left: int, right: int) -> int:
    return left + right


def weight(state: Any) -> int:
    return len(state.get("log", [])) + state.get("total", 0)


def given(state: Any) -> dict[str, Any]:
    return {"log": state.get("log", [])[-2:], "total": state.get("total", 0)}


def build(graph: Graph, lib: Library, *, awaits: bool = False, **options: Any) -> Any:
    """Compile a description; with `awaits`, the nodes that may are coroutine functions."""
    keys: dict[str, Any] = {
        "log": Annotated[list, operator.add if graph.builtin else joined],
        "total": Annotated[int, operator.add if graph.builtin else summed],
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
