"""A graph as it is drawn: nodes, edges, and the forms they are given out in (DR-1).

Plain data that knows nothing of compiled graphs; it stands in for langchain-core's class of the same name, which the
base install does not have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mpflow.pregel import mermaid

if TYPE_CHECKING:
    from mpflow.pregel.mermaid import NodeStyles


class Node(NamedTuple):
    """One box. ``data`` is what runs, None for START and END of graphs that have no such node."""

    id: str
    name: str
    data: Any = None
    metadata: dict[str, Any] | None = None


class Edge(NamedTuple):
    """One arrow. ``data`` is its label, ``conditional`` whether it is one of several ways."""

    source: str
    target: str
    data: str | None = None
    conditional: bool = False


@dataclass
class Graph:
    """The drawing of a graph: change its ``nodes`` and ``edges`` as you like before it is given out."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.nodes)

    def add_node(self, data: Any, id: str, *, metadata: dict[str, Any] | None = None) -> Node:
        """Add a node and return it. Raises ValueError if there is one of that id."""
        if id in self.nodes:
            raise ValueError(f"Node with id {id} already exists")
        node = self.nodes[id] = Node(id, id, data, metadata)
        return node

    def add_edge(self, source: Node, target: Node, data: str | None = None, conditional: bool = False) -> Edge:
        """Add an edge and return it. Raises ValueError if one of its nodes is not there."""
        for end in (source, target):
            if end.id not in self.nodes:
                raise ValueError(f"node '{end.id}' is not in the graph: add it before its edges")
        edge = Edge(source.id, target.id, data, conditional)
        self.edges.append(edge)
        return edge

    def remove_node(self, node: Node) -> None:
        """Remove a node and the edges from and to it."""
        del self.nodes[node.id]
        self.edges = [edge for edge in self.edges if node.id not in (edge.source, edge.target)]

    def first_node(self) -> Node | None:
        """The node that no edge leads to, if there is exactly one."""
        return self._only({edge.target for edge in self.edges})

    def last_node(self) -> Node | None:
        """The node that no edge leaves, if there is exactly one."""
        return self._only({edge.source for edge in self.edges})

    def _only(self, taken: Collection[str]) -> Node | None:
        free = [node for node in self.nodes.values() if node.id not in taken]
        return free[0] if len(free) == 1 else None

    def trim_first_node(self) -> None:
        """Remove the first node if another one is first without it."""
        first = self.first_node()
        if first is not None and len({edge for edge in self.edges if edge.source == first.id}) == 1:
            rest = [edge for edge in self.edges if edge.source != first.id]
            if self._only({first.id, *(edge.target for edge in rest)}):
                self.remove_node(first)

    def trim_last_node(self) -> None:
        """Remove the last node if another one is last without it."""
        last = self.last_node()
        if last is not None and len({edge for edge in self.edges if edge.target == last.id}) == 1:
            rest = [edge for edge in self.edges if edge.target != last.id]
            if self._only({last.id, *(edge.source for edge in rest)}):
                self.remove_node(last)

    def put_in_place_of(self, name: str, inner: Graph) -> None:
        """Draw `inner` instead of the node `name`, with its nodes' ids below that name."""
        first, last = inner.first_node(), inner.last_node()
        assert first is not None and last is not None
        del self.nodes[name]
        for id, node in inner.nodes.items():
            self.nodes[f"{name}:{id}"] = node._replace(id=f"{name}:{id}")
        self.edges += [
            edge._replace(source=f"{name}:{edge.source}", target=f"{name}:{edge.target}") for edge in inner.edges
        ]
        for place, edge in enumerate(self.edges):
            source = f"{name}:{last.id}" if edge.source == name else edge.source
            target = f"{name}:{first.id}" if edge.target == name else edge.target
            self.edges[place] = edge._replace(source=source, target=target)

    # -- forms --------------------------------------------------------------------------------------------------------

    def to_json(self, *, with_schemas: bool = False) -> dict[str, list[dict[str, Any]]]:
        """The graph as data that JSON can hold, but for what metadata holds."""
        edges = []
        for edge in self.edges:
            shown: dict[str, Any] = {"source": edge.source, "target": edge.target}
            if edge.data is not None:
                shown["data"] = edge.data
            if edge.conditional:
                shown["conditional"] = True
            edges.append(shown)
        return {"nodes": [_node_json(node) for node in self.nodes.values()], "edges": edges}

    def draw_mermaid(
        self,
        *,
        with_styles: bool = True,
        curve_style: Any = "linear",
        node_colors: NodeStyles | Any | None = None,
        wrap_label_n_words: int = 9,
        frontmatter_config: Mapping[str, Any] | None = None,
    ) -> str:
        """The graph in Mermaid's language. `wrap_label_n_words` is where long labels of edges are broken."""
        first, last = self.first_node(), self.last_node()
        return mermaid.text_of(
            self.nodes.values(),
            self.edges,
            first=None if first is None else first.id,
            last=None if last is None else last.id,
            with_styles=with_styles,
            curve=getattr(curve_style, "value", curve_style),
            styles=node_colors,
            wrap_words=wrap_label_n_words,
            frontmatter=frontmatter_config,
        )

    def draw_mermaid_png(
        self,
        *,
        curve_style: Any = "linear",
        node_colors: NodeStyles | Any | None = None,
        wrap_label_n_words: int = 9,
        output_file_path: str | None = None,
        background_color: str | None = "white",
        padding: int = 10,
        frontmatter_config: Mapping[str, Any] | None = None,
        **online: Any,
    ) -> bytes:
        """The graph as a PNG, rendered here; nothing is sent anywhere. Needs the extra ``draw``.

        Options of LangGraph that are about its rendering service are taken and not used.
        """
        from mpflow.pregel.rendering import png_of

        text = self.draw_mermaid(
            curve_style=curve_style,
            node_colors=node_colors,
            wrap_label_n_words=wrap_label_n_words,
            frontmatter_config=frontmatter_config,
        )
        image = png_of(text, background_color)
        if output_file_path is not None:
            with open(output_file_path, "wb") as file:
                file.write(image)
        return image

    def draw_ascii(self) -> str:
        """The graph in characters. Needs the extra ``draw``."""
        from mpflow.pregel.rendering import ascii_of

        return ascii_of({node.id: node.name for node in self.nodes.values()}, self.edges)

    def print_ascii(self) -> None:
        """Print `draw_ascii`."""
        import sys

        sys.stdout.write(self.draw_ascii() + "\n")


def _node_json(node: Node) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": node.id}
    if node.data is not None:
        shown["type"] = "runnable"
        shown["data"] = {"id": _path_of(node.data), "name": node.id}
    if node.metadata is not None:
        shown["metadata"] = node.metadata
    return shown


def _path_of(data: Any) -> list[str]:
    """What kind of thing runs, as tools know it: LangGraph's name for a function, else that of its class."""
    cls = type(data)
    if not callable(getattr(data, "invoke", None)):
        return ["langgraph", "_internal", "_runnable", "RunnableCallable"]
    if cls.__name__ == "CompiledStateGraph":
        return ["langgraph", "graph", "state", cls.__name__]
    return [*cls.__module__.split("."), cls.__name__]
