"""Graphs of the kinds that LangGraph's own benchmarks measure, by the same names; the graphs are written here. CPU time."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from bench.graphs import library
from bench.race import Against, Race, cpu_time

pytestmark = cpu_time


class Topics(TypedDict):
    subjects: list[str]
    jokes: Annotated[list[str], operator.add]


class Topic(TypedDict):
    subject: str
    jokes: Annotated[list[str], operator.add]


def fanout_to_subgraph(name: str, width: int) -> Callable[[], Any]:
    """A Send for each subject to a graph of three nodes, the last of which goes back once."""
    lib = library(name)
    inner = lib.StateGraph(Topic)
    inner.add_node("edit", lambda state: {"subject": state["subject"] + "!"})
    inner.add_node("generate", lambda state: {"jokes": [f"a joke about {state['subject']}"]})
    inner.add_node("bump", lambda state: {"jokes": [state["jokes"][0] + " a"]})
    inner.add_edge(lib.START, "edit")
    inner.add_edge("edit", "generate")
    inner.add_edge("generate", "bump")
    inner.add_conditional_edges("bump", lambda state: lib.END if len(state["jokes"]) > 2 else "bump", ["bump", lib.END])
    graph = lib.StateGraph(Topics)
    graph.add_node("joke", inner.compile())
    graph.add_conditional_edges(
        lib.START, lambda state: [lib.Send("joke", {"subject": subject}) for subject in state["subjects"]], ["joke"]
    )
    graph.add_edge("joke", lib.END)
    app = graph.compile()
    given = {"subjects": [f"subject {index}" for index in range(width)]}
    return lambda: app.invoke(given)


@dataclass
class Wide:
    messages: Annotated[list[str], operator.add] = field(default_factory=list)
    trigger: str = ""
    name: Any = None
    city: Any = None
    facts: Any = None
    rows: Any = None


class WideDict(TypedDict, total=False):
    messages: Annotated[list[str], operator.add]
    trigger: str
    name: Any
    city: Any
    facts: Any
    rows: Any


GIVEN = {
    "messages": ["one"],
    "trigger": "start",
    "name": {f"key {index}": [index] * 10 for index in range(20)},
    "city": ["city"] * 100,
    "facts": [{f"key {index}": "a word" for index in range(20)} for _ in range(30)],
    "rows": [[index] * 20 for index in range(50)],
}


def wide_state(name: str, schema: type, turns: int) -> Callable[[], Any]:
    """A loop of five nodes side by side over six channels with large values."""
    lib = library(name)

    def read(state: Any) -> Any:
        return state if isinstance(state, dict) else vars(state)

    graph = lib.StateGraph(schema)
    graph.add_node("one", lambda state: {"messages": ["something"]})
    for sibling in "two", "three", "four":
        graph.add_node(sibling, lambda state: {"messages": [read(state)["trigger"]]})
        graph.add_edge("one", sibling)
    graph.add_node("last", lambda state: {"trigger": str(len(read(state)["messages"]))})
    graph.add_edge(["two", "three", "four"], "last")
    graph.add_edge(lib.START, "one")
    graph.add_conditional_edges(
        "last", lambda state: "one" if len(read(state)["messages"]) < turns * 4 else lib.END, ["one", lib.END]
    )
    app = graph.compile()
    return lambda: app.invoke(GIVEN, {"recursion_limit": turns * 4 + 10})


class Empty(TypedDict, total=False):
    x: int


def sequential(name: str, length: int) -> Callable[[], Any]:
    """Nodes one after the other that change nothing."""
    lib = library(name)
    graph = lib.StateGraph(Empty)
    graph.add_sequence([(f"node {index}", lambda state: {}) for index in range(length)])
    graph.add_edge(lib.START, "node 0")
    graph.add_edge(f"node {length - 1}", lib.END)
    app = graph.compile()
    return lambda: app.invoke({"x": 1}, {"recursion_limit": length + 10})


def against(make: Callable[[str], Callable[[], Any]]) -> Against:
    return Against("LangGraph", lambda: make("langgraph"), wanted=1, rounds=3)


def race_of(race: Race, what: str, make: Callable[[str], Callable[[], Any]]) -> None:
    race(what, make("mpflow"), against(make))


def test_fanout_to_subgraph(race: Race) -> None:
    race_of(race, "fanout_to_subgraph, 100 subjects", lambda name: fanout_to_subgraph(name, 100))


def test_wide_state(race: Race) -> None:
    race_of(race, "wide_state, 15 rounds", lambda name: wide_state(name, Wide, 15))


def test_wide_dict(race: Race) -> None:
    race_of(race, "wide_dict, 15 rounds", lambda name: wide_state(name, WideDict, 15))


def test_sequential(race: Race) -> None:
    race_of(race, "sequential, 200 nodes", lambda name: sequential(name, 200))
