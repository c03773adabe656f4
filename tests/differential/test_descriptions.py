"""What a compiled graph says of itself is what LangGraph's says (DR-1, DR-4, PR-1, FN-2)."""

import operator
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any
from warnings import catch_warnings, simplefilter

import pytest
from typing_extensions import TypedDict

THEIRS, OURS = "langgraph", "mpflow"


@dataclass
class Context:
    user: str
    limit: int = 3


class State(TypedDict):
    number: int
    log: Annotated[list[str], operator.add]


class Output(TypedDict):
    log: list[str]


def _channels(library: str) -> Any:
    return import_module(f"{library}.channels")


def _chain(library: str, **given: Any) -> Any:
    pregel, kinds = import_module(f"{library}.pregel"), _channels(library)
    first = pregel.NodeBuilder().subscribe_only("input").do(lambda x: x + 1).write_to("between", "total")
    second = pregel.NodeBuilder().subscribe_to("between").read_from("total").do(lambda x: str(x)).write_to("output")
    options: dict[str, Any] = {
        "nodes": {"first": first, "second": second.meta("tag", key=1)},
        "channels": {
            "input": kinds.LastValue(int),
            "between": kinds.EphemeralValue(int),
            "total": kinds.BinaryOperatorAggregate(int, operator.add),
            "output": kinds.Topic(str),
        },
        "input_channels": "input",
        "output_channels": "output",
        "stream_channels": ["output", "total"],
    }
    return pregel.Pregel(**{**options, **given})


def _loop(library: str) -> Any:
    pregel, kinds = import_module(f"{library}.pregel"), _channels(library)
    node = pregel.NodeBuilder().subscribe_only("input").do(lambda x: x).write_to("input", output=7)
    return pregel.Pregel(
        nodes={"only": node},
        channels={"input": kinds.LastValue(int), "output": kinds.LastValue(int)},
        input_channels="input",
        output_channels="output",
        stream_channels="output",
    )


def _entrypoint(library: str) -> Any:
    @import_module(f"{library}.func").entrypoint(context_schema=Context)
    def work(given: dict[str, int]) -> list[str]:
        return [str(given)]

    return work


def _saving(library: str) -> Any:
    func = import_module(f"{library}.func")

    def work(given: int) -> Any:
        return func.entrypoint.final(value=str(given), save=given)

    work.__annotations__["return"] = func.entrypoint.final[str, int]
    return func.entrypoint()(work)


def _stategraph(library: str) -> Any:
    builder = import_module(f"{library}.graph").StateGraph(State, Context, output_schema=Output)
    builder.add_node("first", lambda state: {"number": 1}, metadata={"key": 1})
    builder.add_node("second", lambda state: {"log": ["two"]})
    builder.add_edge("__start__", "first").add_edge(["first"], "second")
    return builder.compile(name="named", interrupt_before=["second"])


GRAPHS = {
    "chain": _chain,
    "chain of dicts": lambda library: _chain(library, input_channels=["input"], output_channels=["output", "total"]),
    "loop": _loop,
    "entrypoint": _entrypoint,
    "saving entrypoint": _saving,
    "state": _stategraph,
}


def _described(graph: Any) -> dict[str, Any]:
    with catch_warnings():
        simplefilter("ignore")
        return {
            "types": (graph.InputType, graph.OutputType),
            "names": (graph.name, graph.get_name(), graph.get_name("Suffix"), graph.get_name("Suffix", name="low")),
            "config": (graph.config, graph.config_specs, graph.context_schema),
            "channels": {key: type(channel).__name__ for key, channel in graph.channels.items() if "tasks" not in key},
            "wiring": (graph.input_channels, graph.output_channels, graph.stream_channels_asis),
            "shown": (graph.stream_channels_list, graph.stream_mode, graph.stream_eager),
            "triggers": {key: sorted(names) for key, names in graph.trigger_to_nodes.items()},
            "limits": (graph.step_timeout, graph.checkpointer, graph.store, graph.cache, tuple(graph.retry_policy)),
            "breakpoints": (list(graph.interrupt_before_nodes), list(graph.interrupt_after_nodes)),
            "nodes": {name: _node(node) for name, node in graph.nodes.items() if name != "__start__"},
            "schemas": (graph.get_input_jsonschema(), graph.get_output_jsonschema(), graph.get_context_jsonschema()),
            "models": graph.input_schema.model_json_schema(),
            "config schemas": (
                graph.get_config_jsonschema(),
                graph.config_schema(include=["configurable", "tags", "run_name"]).model_json_schema(),
            ),
            "copy": (graph.copy().name, graph.copy({"name": "other"}).name, graph.copy({"debug": True}).debug),
        }


def _node(node: Any) -> tuple[Any, ...]:
    said = (node.channels, node.triggers, node.cache_policy, node.timeout, node.subgraphs, node.is_error_handler)
    return *said, *(given or None for given in (node.tags, node.metadata, node.retry_policy))


@pytest.mark.parametrize("build", GRAPHS.values(), ids=GRAPHS)
def test_descriptions_are_the_same(build: Any) -> None:
    expected, described = _described(build(THEIRS)), _described(build(OURS))
    for what, said in expected.items():
        assert described[what] == said, what


@pytest.mark.parametrize("build", [_loop, _entrypoint, _stategraph])
def test_drawings_of_graphs_without_a_builder_are_the_same(build: Any) -> None:
    theirs, ours = build(THEIRS).get_graph(), build(OURS).get_graph()
    assert ours.draw_mermaid() == theirs.draw_mermaid()
    assert ours.to_json()["edges"] == theirs.to_json()["edges"]


@pytest.mark.parametrize("library", [THEIRS, OURS])
def test_a_node_can_be_called_without_its_graph(library: str) -> None:
    assert _chain(library).nodes["first"].invoke(3) == 4
    assert _stategraph(library).nodes["second"].invoke({"log": []}) == {"log": ["two"]}
    assert _stategraph(library).nodes["second"].copy({"metadata": {"key": 2}}).metadata == {"key": 2}
    assert _stategraph(library).builder.nodes["second"].runnable.invoke({}) == {"log": ["two"]}
    assert _entrypoint(library).nodes["work"].invoke({"a": 1}) == ["{'a': 1}"]
