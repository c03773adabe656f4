"""What graphs look like: their nodes and edges, and the forms these are given out in (DR-1 to DR-3)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, TypedDict

import pytest

from mpflow.graph import END, START, StateGraph
from mpflow.types import Command

ROOT = Path(__file__).parents[2]


class State(TypedDict):
    x: int


def _nothing(state: State) -> dict[str, Any]:
    return {}


def _graph(**options: Any) -> Any:
    def decide(state: State) -> Command[Literal["last", "__end__"]]:
        return Command(goto="last")

    graph = StateGraph(State)
    graph.add_node("first", _nothing, metadata={"owner": "me"})
    graph.add_node("decide", decide)
    graph.add_node("last", _nothing)
    graph.add_edge(START, "first")
    graph.add_conditional_edges("first", _nothing, {"go on": "decide", "stop": END})
    return graph.compile(**options)


def test_mermaid_text_follows_what_the_graph_declares():
    """DR-2, DR-3"""
    assert _graph(interrupt_before=["last"]).get_graph().draw_mermaid() == (
        "---\nconfig:\n  flowchart:\n    curve: linear\n---\ngraph TD;\n"
        "\t__start__([<p>__start__</p>]):::first\n"
        "\tfirst(first<hr/><small><em>owner = me</em></small>)\n"
        "\tdecide(decide)\n"
        "\tlast(last<hr/><small><em>__interrupt = before</em></small>)\n"
        "\t__end__([<p>__end__</p>]):::last\n"
        "\t__start__ --> first;\n"
        "\tdecide -.-> __end__;\n"
        "\tdecide -.-> last;\n"
        "\tfirst -. &nbsp;stop&nbsp; .-> __end__;\n"
        "\tfirst -. &nbsp;go on&nbsp; .-> decide;\n"
        "\tlast --> __end__;\n"
        "\tclassDef default fill:#f2f0ff,line-height:1.2\n"
        "\tclassDef first fill-opacity:0\n"
        "\tclassDef last fill:#bfb6fc\n"
    )


def test_graphs_within_are_drawn_as_deep_as_asked():
    """DR-1"""
    outer = StateGraph(State)
    outer.add_node("inner", _graph())
    outer.add_edge(START, "inner")
    graph = outer.compile()
    assert list(graph.get_graph().nodes) == ["__start__", "inner", "__end__"]
    assert "inner:decide" in graph.get_graph(xray=1).nodes
    assert "\tsubgraph inner\n" in graph.get_graph(xray=True).draw_mermaid()


def test_frontmatter_is_kept_beside_the_curve():
    """DR-1"""
    text = (
        _graph()
        .get_graph()
        .draw_mermaid(
            curve_style="basis", frontmatter_config={"config": {"theme": "dark", "themeVariables": {"line": "#fff"}}}
        )
    )
    assert text.startswith(
        "---\nconfig:\n  flowchart:\n    curve: basis\n  theme: dark\n  themeVariables:\n    line: '#fff'\n---\n"
    )


def test_json_has_nodes_and_labelled_edges():
    """DR-1"""
    shown = _graph().get_graph().to_json()
    assert {"source": "first", "target": "decide", "data": "go on", "conditional": True} in shown["edges"]
    assert [node["id"] for node in shown["nodes"]] == ["__start__", "first", "decide", "last", "__end__"]


def test_characters_show_every_node(capsys: pytest.CaptureFixture[str]):
    """DR-1"""
    pytest.importorskip("grandalf")
    _graph().get_graph().print_ascii()
    shown = capsys.readouterr().out
    assert all(f"| {name} |" in shown for name in ("first", "decide", "last"))


_IMAGE = """
from mpflow.graph import START, StateGraph
graph = StateGraph(dict)
graph.add_node("only", lambda state: state)
graph.add_edge(START, "only")
image = graph.compile().get_graph().draw_mermaid_png(output_file_path="graph.png")
assert image.startswith(b"\\x89PNG")
"""


def test_an_image_is_rendered_here_and_written_where_asked(tmp_path: Path):
    """DR-1"""
    if importlib.util.find_spec("mermaidx") is None:
        pytest.skip("mermaidx is not installed")
    # The renderer's threads end with their process.
    subprocess.run([sys.executable, "-c", _IMAGE], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True)
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("package, form", [("mermaidx", "draw_mermaid_png"), ("grandalf.graphs", "draw_ascii")])
def test_without_its_package_a_form_says_what_to_install(monkeypatch: pytest.MonkeyPatch, package: str, form: str):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install \"mpflow-engine\[draw\]\""):
        getattr(_graph().get_graph(), form)()
