"""Building a graph: names, edges, what is checked when, and what a node may be and return (GB-*)."""

from __future__ import annotations

import functools
import logging
import operator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import pytest

from mpflow.errors import InvalidUpdateError, StrictGraphError
from mpflow.graph import END, START, StateGraph
from mpflow.types import Command, Send
from tests.colours import Run


class State(TypedDict, total=False):
    x: int
    log: Annotated[list, operator.add]


def noop(state: State) -> None:
    return None


def nodes(*names: str, action: Any = noop) -> StateGraph:
    graph = StateGraph(State)
    for name in names:
        graph.add_node(name, action)
    return graph


def single(action: Any, schema: Any = State, **node: Any) -> Any:
    return StateGraph(schema).add_node("n", action, **node).add_edge(START, "n").add_edge("n", END).compile()


class Callable_:
    def __call__(self, state: State) -> dict:
        return {"log": ["called"]}

    def method(self, state: State) -> dict:
        return {"log": ["method"]}


def with_everything(state: State, config=None, *, writer, store, previous, runtime: Any) -> dict:  # type: ignore[no-untyped-def]
    return {"log": [callable(writer), store, previous, runtime.execution_info.node_attempt]}


# -- nodes and names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "name"),
    [(noop, "noop"), (Callable_(), "Callable_"), (functools.partial(noop), "partial"), (single(noop), "LangGraph")],
)
def test_gb2_a_node_is_named_after_what_it_is(action: Any, name: str) -> None:
    assert list(StateGraph(State).add_node(action).nodes) == [name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a", "Node `a` already present."),
        (START, "reserved"),
        (END, "reserved"),
        ("b:c", "':' is a reserved character"),
        ("b|c", "'|' is a reserved character"),
    ],
)
def test_gb3_names_that_are_taken_reserved_or_malformed(name: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        nodes("a").add_node(name, noop)
    assert said in str(caught.value)


def test_gb4_a_node_may_be_named_as_a_key_is(run: Run) -> None:
    graph = nodes("x", action=lambda state: {"x": 2}).add_edge(START, "x").compile()
    assert run.invoke(graph, {"x": 1}) == {"x": 2, "log": []}


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda g: g.add_edge(END, "a"), "END cannot be a start node"),
        (lambda g: g.add_edge("a", START), "START cannot be an end node"),
        (lambda g: g.add_edge(["a", "later"], "b"), "Need to add_node `later` first"),
        (lambda g: g.add_edge(["a"], "later"), "Need to add_node `later` first"),
        (lambda g: g.add_conditional_edges("a", noop).add_conditional_edges("a", noop), "`noop` already exists"),
        (lambda g: g.add_sequence([]), "at least one node"),
        (lambda g: g.add_sequence([noop, noop]), "must be unique"),
        (lambda g: g.add_node("c", noop, executor="gpu"), "executor='gpu' is no place to run"),
        (lambda g: g.add_node("c", noop, max_concurrency=0), "at least 1"),
        (lambda g: g.add_node("c", noop, memory=0), "node 'c': memory takes bytes or a size such as '500MB'"),
        (lambda g: g.add_node("c", noop, memory="many"), "got 'many'"),
        (lambda g: g.add_node("c", noop, memory="5 pounds"), "got '5 pounds'"),
        (lambda g: g.set_node_defaults(memory=-1), "the node defaults: memory takes"),
        (lambda g: g.add_node("c", noop, on_error="hide"), "'raise' or 'record'"),
        (lambda g: g.add_node("c", noop, executor="thread", timeout=1), "Node timeouts are only supported"),
        (lambda g: g.add_node("c", noop, timeout=0), "greater than 0"),
    ],
)
def test_gb7_gb8_gb9_what_is_refused_as_it_is_added(build: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        build(nodes("a", "b"))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("build", "error", "said"),
    [
        (lambda g: g, ValueError, "Graph must have an entrypoint"),
        (lambda g: g.add_edge(START, "nope"), ValueError, "unknown node `nope`"),
        (lambda g: g.add_edge(START, "a").add_edge("nope", "a"), ValueError, "unknown node 'nope'"),
        (lambda g: g.add_conditional_edges(START, noop, {1: "nope"}), ValueError, "unknown target 'nope'"),
        (lambda g: g.add_conditional_edges("nope", noop).add_edge(START, "a"), ValueError, "unknown node 'nope'"),
        (lambda g: g.add_edge(START, "a").compile("no saver"), TypeError, "Invalid checkpointer provided"),
        (lambda g: g.add_edge(START, "a").compile(executor=3), ValueError, "no place to run"),
        (lambda g: g.add_edge(START, "a").compile(pool=3), ValueError, "expected a WorkerPool for pool=, got int"),
        (lambda g: g.add_edge(START, "a").compile(fail_fast="slow"), ValueError, "None or 'kill'"),
        (lambda g: g.add_edge(START, "a").compile(on_error="hide"), ValueError, "'raise' or 'record'"),
    ],
)
def test_gb13_what_compile_refuses(build: Any, error: Any, said: str) -> None:
    with pytest.raises(error) as caught:
        build(nodes("a")).compile()
    assert said in str(caught.value)


@pytest.mark.parametrize("schema", [None, "State", 5, {"x": int}, ["x"]])
def test_a_state_schema_must_be_a_type(schema: Any) -> None:
    with pytest.raises(ValueError, match="which is no type"):
        StateGraph(schema)


def test_gb5_a_command_annotation_is_checked_as_an_edge_is() -> None:
    def go(state: State) -> Command[Literal["nope"]]:
        return Command(goto="nope")

    with pytest.raises(ValueError, match="unknown node `nope`"):
        nodes("a").add_node(go).add_edge(START, "go").compile()


def test_gb8_a_literal_annotation_serves_as_the_map(run: Run) -> None:
    def path(state: State) -> Literal["a", "b"]:
        return "b"

    graph = nodes("a", "b", action=lambda state: {"log": ["ran"]}).add_conditional_edges(START, path)
    assert graph.branches[START]["path"].ends == {"a": "a", "b": "b"}
    assert run.invoke(graph.compile(), {}) == {"log": ["ran"]}


@pytest.mark.parametrize("path_map", [{True: "a", False: "b"}, None], ids=["mapped", "free"])
def test_gb8_a_path_is_a_function_a_coroutine_function_or_a_runnable(run: Run, path_map: Any) -> None:
    async def path(state: State) -> Any:
        return state["x"] > 1 if path_map else ["a", "b"][state["x"] <= 1]

    def same(state: State) -> Any:
        return state["x"] > 1 if path_map else ["a", "b"][state["x"] <= 1]

    graph = nodes("a", "b").add_conditional_edges(START, path if run.colour == "async" else same, path_map).compile()
    assert [list(chunk) for chunk in run.stream(graph, {"x": 1})] == [["b"]]
    assert [list(chunk) for chunk in run.stream(graph, {"x": 2})] == [["a"]]


def test_gb9_gb10_sequences_and_points(run: Run) -> None:
    graph = StateGraph(State).add_sequence([("a", lambda s: {"log": ["a"]}), ("b", lambda s: {"log": ["b"]})])
    graph.set_entry_point("a").set_finish_point("b")
    assert run.invoke(graph.compile(), {})["log"] == ["a", "b"]
    other = nodes("a").set_conditional_entry_point(lambda state: "a")
    assert run.stream(other.compile(), {}) == [{"a": None}]


def test_gb15_a_compiled_graph_does_not_change_with_its_builder(run: Run, caplog: Any) -> None:
    builder = nodes("a").add_edge(START, "a")
    graph = builder.compile(name="mine")
    builder.add_node("b", lambda state: {"log": ["b"]}).add_edge("a", "b")
    assert "already been compiled" in caplog.text
    assert run.stream(graph, {}) == [{"a": None}]
    assert (graph.name, graph.get_name(), builder.compile().name) == ("mine", "mine", "LangGraph")


# -- what is only suspicious (D-10) ------------------------------------------------------------------------------------

SUSPICIOUS = {
    "unreachable node": lambda: nodes("a", "b").add_edge(START, "a").add_edge("a", END).add_edge("b", END),
    "dead end": lambda: nodes("a").add_edge(START, "a"),
    "unknown key": lambda: nodes("a", action=lambda s: {"nope": 1}).add_edge(START, "a").add_edge("a", END),
    "unknown name": lambda: nodes("a", action=lambda s: Command(goto="nope")).add_edge(START, "a").add_edge("a", END),
}


@pytest.mark.parametrize("kind", SUSPICIOUS)
def test_d10_suspicions_are_told_once_and_are_errors_if_strict(run: Run, kind: str, caplog: Any) -> None:
    caplog.set_level(logging.WARNING)
    graph = SUSPICIOUS[kind]().compile()
    run.invoke(graph, {})
    assert len(caplog.records) == 1, caplog.text
    with pytest.raises(StrictGraphError, match=r"strict=True") as caught:
        run.invoke(SUSPICIOUS[kind]().compile(strict=True), {})
    assert caught.value.kind == kind
    assert {"dead end": "'a'", "unreachable node": "'b'"}.get(kind, "nope") in str(caught.value)


@pytest.mark.parametrize(
    ("route", "name"),
    [
        (lambda state: "nope", "node 'a' wrote to unknown channel branch:to:nope, ignoring it."),
        (lambda state: Send("nope", {}), "unknown node name nope"),
    ],
)
def test_rt4_an_unknown_target_is_told_and_ignored(run: Run, route: Any, name: str, caplog: Any) -> None:
    graph = nodes("a").add_edge(START, "a").add_conditional_edges("a", route).compile()
    assert run.invoke(graph, {"x": 1}) == {"x": 1, "log": []}
    assert name in caplog.text


# -- what a node takes and returns -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "log"),
    [
        (Callable_(), ["called"]),
        (Callable_().method, ["method"]),
        (functools.partial(with_everything), [True, None, None, 1]),
        (with_everything, [True, None, None, 1]),
        (lambda state, config: {"log": [config["metadata"]["langgraph_node"]]}, ["n"]),
    ],
    ids=["object", "method", "partial", "injected", "config"],
)
def test_gb16_what_a_node_is_and_is_given_by_name(run: Run, action: Any, log: list[Any]) -> None:
    assert run.invoke(single(action), {})["log"] == log


@dataclass
class Update:
    log: list
    x: int | None = None


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, None),
        ({"nope": 2}, None),
        ({"x": 1, "nope": 2}, {"x": 1, "log": []}),
        (Update(["u"]), {"log": ["u"], "x": None}),
        (Command(update={"x": 3}), {"x": 3, "log": []}),
        (Command(update=[("log", ["p"]), ("log", ["q"])]), {"log": ["p", "q"]}),
        (Command(update=Update(["c"], 4)), {"x": 4, "log": ["c"]}),
        ([Command(update={"log": [1]}), {"log": [2]}, Command(update={"log": [3]})], {"log": [1, 2, 3]}),
    ],
)
def test_gb17_gb18_cm2_cm3_what_a_node_may_return(run: Run, result: Any, expected: Any) -> None:
    assert run.invoke(single(lambda state: result), {}) == expected


@pytest.mark.parametrize("result", [3, "text", ["not", "commands"], (1, 2), {1, 2}, Update, int])
def test_gb17_what_is_no_update_is_refused_by_name(run: Run, result: Any) -> None:
    with pytest.raises(InvalidUpdateError, match="Expected dict, got") as caught:
        run.invoke(single(lambda state: result), {})
    assert "node 'n'" in str(caught.value)
    assert "INVALID_GRAPH_NODE_RETURN_VALUE" in str(caught.value)


@pytest.mark.parametrize(
    ("memory", "size_bytes"),
    [(600_000_000, 600_000_000), ("500MB", 500_000_000), ("1.5 GiB", 3 << 29), ("64kib", 1 << 16), (" 12 ", 12)],
)
def test_what_a_node_takes_is_said_in_bytes_or_as_text(memory: Any, size_bytes: int) -> None:
    graph = nodes("a").add_node("b", noop, memory=memory).set_node_defaults(memory="1KB")
    plan = graph.add_edge(START, "a").add_edge(START, "b").compile()._plan
    assert [plan.nodes[name].program.memory_bytes for name in "ab"] == [1000, size_bytes]


@pytest.mark.parametrize("bad", [3, None, "plain text"])
def test_a_node_must_be_callable(bad: Any) -> None:
    with pytest.raises((TypeError, RuntimeError), match=r"Expected a Runnable|needs what to run"):
        StateGraph(State).add_node("n", bad)


def test_er9_an_async_node_needs_an_async_run() -> None:
    async def later(state: State) -> dict:
        return {}

    with pytest.raises(TypeError, match='No synchronous function provided to "n"'):
        single(later).invoke({})
