"""A drawn graph in Mermaid's language, letter by letter as langchain-core writes it (DR-2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow.pregel.picture import Edge, Node

_SCALARS = (str, int, float, bool)
_MARKDOWN = ("*", "_", "`")
_ENTITIES = str.maketrans(
    {
        "#": "#35;",
        "[": "#91;",
        "]": "#93;",
        "(": "#40;",
        ")": "#41;",
        "{": "#123;",
        "}": "#125;",
        '"': "#quot;",
        "<": "#60;",
        ">": "#62;",
        "|": "#124;",
    }
)


@dataclass
class NodeStyles:
    """Mermaid's styles for nodes, the first one and the last one."""

    default: str = "fill:#f2f0ff,line-height:1.2"
    first: str = "fill-opacity:0"
    last: str = "fill:#bfb6fc"


def text_of(
    nodes: Iterable[Node],
    edges: Iterable[Edge],
    *,
    first: str | None,
    last: str | None,
    with_styles: bool,
    curve: str,
    styles: Any | None,
    wrap_words: int,
    frontmatter: Mapping[str, Any] | None,
) -> str:
    """The whole text. Raises ValueError if two subgraphs have one name, which Mermaid would draw as one."""
    lines = _Lines(first, last, with_styles, wrap_words)
    if with_styles:
        lines.out += ["---", *_yaml(_with_curve(frontmatter or {}, curve)), "---"]
    lines.out.append("graph TD;")
    for node in nodes:
        prefix, _, _ = node.id.rpartition(":")
        lines.nodes.setdefault(prefix, []).append(node)
    for edge in edges:
        lines.edges.setdefault(_common(edge), []).append(edge)
    lines.draw()
    if with_styles:
        lines.out += [f"\tclassDef {name} {style}" for name, style in asdict(styles or NodeStyles()).items()]
    return "\n".join(lines.out) + "\n"


def _common(edge: Edge) -> str:
    pairs = zip(edge.source.split(":"), edge.target.split(":"), strict=False)
    return ":".join(source for source, target in pairs if source == target)


class _Lines:
    """The lines of one drawing; nodes and edges by the subgraph that they lie in."""

    def __init__(self, first: str | None, last: str | None, with_styles: bool, wrap_words: int) -> None:
        self.first = first
        self.last = last
        self.with_styles = with_styles
        self.wrap_words = wrap_words
        self.nodes: dict[str, list[Node]] = {}
        self.edges: dict[str, list[Edge]] = {}
        self.out: list[str] = []
        self.drawn: set[str] = set()

    def draw(self) -> None:
        self._boxes("")
        self._arrows("")
        self._below("")
        for prefix in self.edges:
            if prefix and ":" not in prefix:
                self._subgraph(prefix)
                self.drawn.add(prefix)
        for prefix in self.nodes if self.with_styles else ():  # those that no edge lies in
            if prefix and ":" not in prefix and prefix not in self.drawn:
                self.out.append(f"\tsubgraph {prefix}")
                self._boxes(prefix)
                self.out.append("\tend")
                self.drawn.add(prefix)

    def _subgraph(self, prefix: str) -> None:
        edges = self.edges[prefix]
        if len(edges) == 1 and edges[0].source == edges[0].target:  # a node that leads to itself is no subgraph
            self._arrows(prefix)
            self._below(prefix)
            return
        name = prefix.rpartition(":")[2]
        if name in self.drawn:
            raise ValueError(
                f"Found duplicate subgraph '{name}': two nodes of that name hold graphs, and Mermaid would draw them as "
                "one. Give one of them another name"
            )
        self.drawn.add(name)
        self.out.append(f"\tsubgraph {name}")
        self._boxes(prefix)
        self._arrows(prefix)
        self._below(prefix)
        self.out.append("\tend")

    def _below(self, prefix: str) -> None:
        for nested in self.edges:
            if nested.startswith(f"{prefix}:") and ":" not in nested[len(prefix) + 1 :]:
                self._subgraph(nested)

    def _boxes(self, prefix: str) -> None:
        if self.with_styles:
            self.out += [self._box(node) for node in self.nodes.get(prefix, ())]

    def _box(self, node: Node) -> str:
        label = node.name.rpartition(":")[2]
        if label.startswith(_MARKDOWN) and label.endswith(_MARKDOWN):
            label = f"<p>{label}</p>"
        details = [f"{key} = {shown}" for key, value in (node.metadata or {}).items() if (shown := _shown(value))]
        if details:
            small = "\n".join(line.translate(_ENTITIES) for line in details)
            label = f"{label}<hr/><small><em>{small}</em></small>"
        if node.id == self.last:
            shape = f"([{label}]):::last"
        elif node.id == self.first:
            shape = f"([{label}]):::first"
        else:
            shape = f"({label})"
        return f"\t{_safe(node.id)}{shape}"

    def _arrows(self, prefix: str) -> None:
        self.out += [self._arrow(edge) for edge in self.edges.get(prefix, ())]

    def _arrow(self, edge: Edge) -> str:
        if edge.data is None:
            arrow = "-.->" if edge.conditional else "-->"
        else:
            label = str(edge.data)
            words = label.split()
            if len(words) > self.wrap_words:
                rows = range(0, len(words), self.wrap_words)
                label = "&nbsp<br>&nbsp".join(" ".join(words[row : row + self.wrap_words]) for row in rows)
            arrow = f"-. &nbsp;{label}&nbsp; .->" if edge.conditional else f"-- &nbsp;{label}&nbsp; -->"
        return f"\t{_safe(edge.source)} {arrow} {_safe(edge.target)};"


def _shown(value: Any) -> str | None:
    if isinstance(value, _SCALARS):
        return str(value)
    if isinstance(value, (list, tuple, set)) and all(isinstance(item, _SCALARS) for item in value):
        items = [str(item) for item in value]
        return ", ".join(sorted(items) if isinstance(value, set) else items)
    return None


def _safe(id: str) -> str:
    """An id of letters that Mermaid takes: others become a backslash and their code."""
    return re.sub(r"[^a-zA-Z0-9_-]", lambda match: f"\\{ord(match.group()):x}", id)


def _with_curve(frontmatter: Mapping[str, Any], curve: str) -> dict[str, Any]:
    config = frontmatter.get("config", {})
    return {**frontmatter, "config": {**config, "flowchart": {**config.get("flowchart", {}), "curve": curve}}}


_PLAIN = re.compile(r"[A-Za-z][\w./+-]*( [\w./+-]+)*\Z")
_WORDS = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))


def _yaml(value: Mapping[str, Any], indent: str = "") -> list[str]:
    """A nested dict of scalars in YAML's block form, with its keys sorted."""
    lines = []
    for key, item in sorted(value.items()):
        if isinstance(item, Mapping) and item:
            lines += [f"{indent}{key}:", *_yaml(item, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {_scalar(item)}")
    return lines


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        if _PLAIN.match(value) and value.lower() not in _WORDS:
            return value
        return "'" + value.replace("'", "''") + "'"
    return str(value) if isinstance(value, (int, float)) else "{}"
