"""Drawn graphs as images and as characters, by the packages of the extra ``draw``, which are loaded here alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow.pregel.picture import Edge

_INSTALL = 'which is not installed: pip install "mpflow-engine[draw]"'
BOX_HEIGHT = 3


def png_of(text: str, background: str | None) -> bytes:
    """A Mermaid text as a PNG. Raises ImportError without mermaidx."""
    try:
        import mermaidx
    except ImportError as missing:
        raise ImportError(f"drawing a PNG needs mermaidx, {_INSTALL}") from missing
    diagram = mermaidx.render(text)
    image: bytes = diagram.png() if background is None else diagram.png(background=background)
    return image


class _Box:
    """A node to the layout: its size, and the place it is given (the middle of its upper edge)."""

    def __init__(self, label: str) -> None:
        self.w = len(label) + 2
        self.h = BOX_HEIGHT
        self.xy: Any = (0, 0)


class _Line:
    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []

    def setpath(self, points: list[tuple[float, float]]) -> None:
        self.points = points


def ascii_of(nodes: Mapping[str, str], edges: Iterable[Edge]) -> str:
    """Nodes as boxes, edges as rows of stars, or of dots where they are conditional. Raises ImportError."""
    try:
        from grandalf.graphs import Edge as Arc
        from grandalf.graphs import Graph as Layered
        from grandalf.graphs import Vertex
        from grandalf.layouts import SugiyamaLayout
        from grandalf.routing import route_with_lines
    except ImportError as missing:
        raise ImportError(f"drawing in characters needs grandalf, {_INSTALL}") from missing
    vertices = {id: Vertex(f" {name} ") for id, name in nodes.items()}
    arcs = [
        Arc(vertices[edge.source], vertices[edge.target], data=edge.conditional)
        for edge in edges
        if edge.source != edge.target  # grandalf finds no way from a box to itself
    ]
    layered = Layered(vertices.values(), arcs)
    for vertex in vertices.values():
        vertex.view = _Box(vertex.data)
    for arc in arcs:
        arc.view = _Line()
    whole = layered.C[0]
    layout = SugiyamaLayout(whole)
    layout.init_all(roots=[vertex for vertex in whole.sV if not vertex.e_in()], optimize=True)
    layout.xspace = min(vertex.view.w for vertex in vertices.values())
    layout.yspace = BOX_HEIGHT
    layout.route_edge = route_with_lines
    layout.draw()
    return _painted(
        [(vertex.data, vertex.view) for vertex in layout.g.sV],
        [(arc.view.points, "." if arc.data else "*") for arc in layout.g.sE],
    )


def _painted(boxes: list[tuple[str, _Box]], lines: list[tuple[list[tuple[float, float]], str]]) -> str:
    places = [point for points, _ in lines for point in points]
    for _, box in boxes:
        x, y = box.xy
        places += [(x - box.w / 2.0, y), (x + box.w / 2.0, y + box.h)]
    left, top = min(x for x, _ in places), min(y for _, y in places)
    right, bottom = max(x for x, _ in places), max(y for _, y in places)
    canvas = _Canvas(math.ceil(math.ceil(right) - math.floor(left)) + 1, round(bottom - top))
    for points, mark in lines:
        for (x0, y0), (x1, y1) in pairwise(points):
            canvas.line(round(x0 - left), round(y0 - top), round(x1 - left), round(y1 - top), mark)
    for label, box in boxes:  # over the lines
        canvas.box(round(box.xy[0] - box.w / 2.0 - left), round(box.xy[1] - top), label, box)
    return canvas.text()


class _Canvas:
    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.rows = [[" "] * columns for _ in range(rows)]

    def put(self, x: int, y: int, mark: str) -> None:
        self.rows[y][x] = mark

    def line(self, x0: int, y0: int, x1: int, y1: int, mark: str) -> None:
        if x0 > x1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        wide, high = x1 - x0, y1 - y0
        if wide == 0 and high == 0:
            self.put(x0, y0, mark)
        elif abs(wide) >= abs(high):
            for x in range(x0, x1 + 1):
                self.put(x, y0 + round((x - x0) * high / wide), mark)
        elif y0 < y1:
            for y in range(y0, y1 + 1):
                self.put(x0 + round((y - y0) * wide / high), y, mark)
        else:
            for y in range(y1, y0 + 1):
                self.put(x1 + round((y - y1) * wide / high), y, mark)

    def box(self, x: int, y: int, label: str, box: _Box) -> None:
        edge = "+" + "-" * (box.w - 2) + "+"
        middle = "|" + label + "|"
        for row, text in enumerate((edge, middle, edge)):
            for column, mark in enumerate(text):
                self.put(x + column, y + row, mark)

    def text(self) -> str:
        return "\n".join("".join(row) for row in self.rows)
