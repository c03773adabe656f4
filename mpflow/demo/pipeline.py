"""The example: a batch pipeline that analyses a tree of Python files, one task for each, and reports on the whole.

``find_files`` fans out one ``analyse`` for each file, ``compare`` finds near-duplicates, ``report`` sums up. Where the
analyses run is one argument; what comes out is the same wherever that is.
"""

from __future__ import annotations

import operator
from typing import Annotated, Any, Literal, TypedDict

from mpflow.demo.analysis import Analysis, analyse
from mpflow.demo.files import python_files
from mpflow.demo.report import Report, summarise
from mpflow.demo.similarity import closest_pairs
from mpflow.graph import END, START, StateGraph
from mpflow.types import Send


class State(TypedDict):
    root: str
    limit: int
    files: list[str]
    analyses: Annotated[list[Analysis], operator.add]
    pairs: list[tuple[float, str, str]]
    report: Report


def find_files(state: State) -> dict[str, Any]:
    return {"files": python_files(state["root"], state["limit"])}


def one_task_each(state: State) -> list[Send] | str:
    return [Send("analyse", {"root": state["root"], "path": path}) for path in state["files"]] or "compare"


def compare(state: State) -> dict[str, Any]:
    signatures = {a["path"]: a["signature"] for a in state["analyses"] if a["signature"]}
    return {"pairs": closest_pairs(signatures)}


def report(state: State) -> dict[str, Any]:
    return {"report": summarise(state["analyses"], state["pairs"])}


def build(executor: Literal["auto", "process", "thread", "inline"] = "auto") -> Any:
    """The compiled graph; `executor` says where its analyses run."""
    graph: StateGraph[State, None, State, State] = StateGraph(State)
    graph.add_node("find_files", find_files)
    graph.add_node("analyse", analyse, executor=executor)
    graph.add_node("compare", compare)
    graph.add_node("report", report)
    graph.add_edge(START, "find_files")
    graph.add_conditional_edges("find_files", one_task_each, ["analyse", "compare"])
    graph.add_edge("analyse", "compare")
    graph.add_edge("compare", "report")
    graph.add_edge("report", END)
    return graph.compile()
