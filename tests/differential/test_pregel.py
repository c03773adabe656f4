"""Graphs that are made of channels, and what they share with entrypoints, are LangGraph's (PR-1 to PR-3, RY-1, FN-2)."""

import operator
from typing import Any

import pytest
from pydantic import BaseModel

from tests.colours import Run
from tests.differential.scenarios import check, tried

MODES = ["values", "updates", "tasks", "debug"]


def _reading(lib: Any, *channels: str, only: bool = True) -> Any:
    node = lib.pregel.NodeBuilder()
    return node.subscribe_only(*channels) if only else node.subscribe_to(*channels)


def _graph(lib: Any, nodes: dict[str, Any], channels: dict[str, Any], **options: Any) -> Any:
    last = {name: lib.channels.LastValue(int) for name in ("input", "output")}
    defaults = {"input_channels": "input", "output_channels": "output"}
    return lib.pregel.Pregel(nodes=nodes, channels={**last, **channels}, **{**defaults, **options})


def several_triggers(lib: Any, run: Run) -> Any:
    """PR-2"""
    reads = _reading(lib, "input", "also", only=False).do(lambda read: sum(read.values()))
    node = reads.write_to("output", fixed=5, less=lambda total: -total)
    more = {name: lib.channels.LastValue(int) for name in ("also", "fixed", "less")}
    outputs = ["output", "fixed", "less"]
    graph = _graph(lib, {"add": node}, more, input_channels=["input", "also"], output_channels=outputs)
    return [
        run.stream(graph, {"input": 1, "also": 2}, stream_mode=MODES),
        run.invoke(graph, {"input": 1}),
        graph.get_input_jsonschema(),
    ]


def channels_of_all_kinds(lib: Any, run: Run) -> Any:
    kinds = lib.channels
    nodes = {
        "first": _reading(lib, "input")
        .do(lambda x: [x, x + 1])
        .write_to("sum", "topic", "late", done=lambda _: "first"),
        "next": _reading(lib, "topic").do(len).write_to("output", done=lambda _: "next"),
        "last": _reading(lib, "late").do(lambda x: x).write_to("after"),
        "both": _reading(lib, "done").do(lambda _: ["both"]).write_to("joined"),
    }
    more = {
        "sum": kinds.BinaryOperatorAggregate(list, operator.add),
        "topic": kinds.Topic(int),
        "late": kinds.LastValueAfterFinish(list),
        "after": kinds.EphemeralValue(list),
        "done": kinds.NamedBarrierValue(str, {"first", "next"}),
        "joined": kinds.AnyValue(list),
    }
    graph = _graph(lib, nodes, more, output_channels=["output", "sum", "after", "joined"])
    return run.stream(graph, 1, stream_mode=MODES)


def a_graph_among_the_steps_of_a_node(lib: Any, run: Run) -> Any:
    inner = _graph(lib, {"within": _reading(lib, "input").do(lambda x: x + 1).write_to("output")}, {})
    steps = _reading(lib, "input").do(lambda x: x * 2).do(inner).do(lambda x: x * 10)
    graph = _graph(lib, {"outer": steps.write_to("output")}, {})
    shown = [run.stream(graph, 3, stream_mode="updates", subgraphs=True), graph.get_graph(xray=True).draw_mermaid()]
    return [*shown, [name for name, _ in graph.get_subgraphs()]]


def names_that_are_taken(lib: Any, run: Run) -> Any:
    def of(name: str, channel: Any = None) -> Any:
        more = {} if channel is None else {"__pregel_tasks": channel}
        return _graph(lib, {name: _reading(lib, "input").write_to("output")}, more)

    taken = [tried(lambda: of("__interrupt__")), tried(lambda: of("a", lib.channels.LastValue(int)))]
    return [*taken, tried(lambda: of("a", lib.channels.Topic(lib.types.Send))) is not None]


def tasks_are_tried_again_as_the_graph_says(lib: Any, run: Run) -> Any:
    calls: list[str] = []

    def fail(text: str) -> str:
        calls.append(text)
        if len(calls) < 3:
            raise ConnectionError(text)
        return text

    def own(text: str) -> str:
        calls.append(text)
        raise KeyError(text)

    again = lib.types.RetryPolicy(initial_interval=0.001, max_attempts=2, jitter=False)
    once = lib.types.RetryPolicy(max_attempts=1)
    failing, stubborn = lib.func.task(fail), lib.func.task(retry_policy=once)(own)

    def ask(text: str) -> str:
        return failing(text).result()  # type: ignore[no-any-return]

    async def ask_async(text: str) -> str:
        return await failing(text)  # type: ignore[no-any-return]

    def ask_stubborn(text: str) -> str:
        return stubborn(text).result()  # type: ignore[no-any-return]

    async def ask_stubborn_async(text: str) -> str:
        return await stubborn(text)  # type: ignore[no-any-return]

    is_async = run.colour == "async"
    make = lib.func.entrypoint(retry_policy=again)
    seen: list[Any] = [run.invoke(make(ask_async if is_async else ask), "a"), len(calls)]
    seen += [tried(lambda: run.invoke(make(ask_stubborn_async if is_async else ask_stubborn), "b")), len(calls)]
    return seen


class Question(BaseModel):
    text: str


def a_model_as_input(lib: Any, run: Run) -> Any:
    def reply(question: Question) -> dict[str, int]:
        return {}

    async def reply_async(question: Question) -> dict[str, int]:
        return {}

    graph = lib.func.entrypoint()(reply_async if run.colour == "async" else reply)
    final = lib.func.entrypoint.final
    same = final(value=1, save=2) == final(value=1, save=2), final(value=1, save=2) == final(value=1, save=3)
    return [graph.get_input_jsonschema(), graph.get_output_jsonschema(), same]


def a_saver_that_was_not_made(lib: Any, run: Run) -> Any:
    """GB-13"""
    builder = lib.graph.StateGraph(dict).add_node("a", lambda state: {}).add_edge("__start__", "a")
    return [tried(lambda: builder.compile(checkpointer=lib.checkpoint_memory.InMemorySaver))]


SCENARIOS = [
    several_triggers,
    channels_of_all_kinds,
    a_graph_among_the_steps_of_a_node,
    names_that_are_taken,
    tasks_are_tried_again_as_the_graph_says,
    a_model_as_input,
    a_saver_that_was_not_made,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_graphs_of_channels(scenario: Any) -> None:
    check(scenario)
