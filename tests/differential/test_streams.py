"""What streams deliver is what LangGraph's deliver, over modes, versions and depths (SM-1 to SM-15, CF-2)."""

import operator
import re
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Annotated, Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage
from langchain_core.tools import tool
from pydantic import BaseModel
from typing_extensions import TypedDict

from tests.colours import Run
from tests.differential.scenarios import check, tried

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    count: int


class Model(BaseModel):
    log: Annotated[list[str], operator.add] = []
    count: int = 0


@dataclass
class Record:
    log: Annotated[list[str], operator.add] = field(default_factory=list)
    count: int = 0


def _saver(lib: Any) -> Any:
    return lib.checkpoint_memory.InMemorySaver()


def _nested(lib: Any, schema: Any = State, **options: Any) -> Any:
    def leaf(state: Any, *, writer) -> Any:  # type: ignore[no-untyped-def]
        writer({"from": "leaf"})
        return {"log": ["leaf"]}

    def each(state: Any) -> Any:
        lib.config.get_stream_writer()(("each", state["n"]))
        return {"log": [f"each {state['n']}"]}

    def last(state: Any, runtime: Any) -> Any:
        runtime.stream_writer("last")
        return {"count": 9}

    child = lib.graph.StateGraph(schema).add_node(leaf).add_edge("__start__", "leaf").compile()
    builder = lib.graph.StateGraph(schema).add_node("child", child).add_node(each).add_node(last, defer=True)
    builder.add_edge("__start__", "child").add_edge("each", "last")
    builder.add_conditional_edges("child", lambda _: [lib.types.Send("each", {"n": n}) for n in (1, 2)], ["each"])
    options.setdefault("checkpointer", _saver(lib))
    return builder.compile(**options)


SIDE_BY_SIDE = re.compile(r"'name': 'each'|\('each'|\{'each'")
VARYING = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|'timestamp': '[^']*'")


def _sorted_within(chunks: list[Any]) -> list[Any]:
    """Chunks with those of tasks that ran side by side in one order."""
    ordered: list[Any] = []
    group: list[Any] = []
    for chunk in [*chunks, "the end"]:
        text = VARYING.sub("", str(chunk))
        if SIDE_BY_SIDE.search(text) and "parent_config" not in text:
            group.append((text, chunk))
        else:
            ordered += [*(item for _, item in sorted(group, key=itemgetter(0))), chunk]
            group = []
    return ordered


MODES = ["values", "updates", "custom", "tasks", "checkpoints", "debug"]


def _streamed(**options: Any) -> Any:
    def scenario(lib: Any, run: Run) -> Any:
        return _sorted_within(run.stream(_nested(lib), {"log": ["in"]}, THREAD, **options))

    return scenario


def _typed(schema: Any) -> Any:
    def scenario(lib: Any, run: Run) -> Any:
        graph = lib.graph.StateGraph(schema).add_node("a", lambda state: {"log": ["a"], "count": state.count + 1})
        graph = graph.add_edge("__start__", "a").compile(checkpointer=_saver(lib))
        output = run.invoke(graph, {"log": ["in"]}, THREAD, version="v2")
        seen = [output.value, output.interrupts]
        for version in ("v1", "v2"):
            seen += [run.stream(graph, {"log": ["in"]}, THREAD, stream_mode=MODES, version=version)]
        return seen

    return scenario


def questions_in_parts(lib: Any, run: Run) -> Any:
    def ask(state: State) -> Any:
        return {"log": [lib.types.interrupt("ask")]}

    child = lib.graph.StateGraph(State).add_node(ask).add_edge("__start__", "ask").compile()
    graph = lib.graph.StateGraph(State).add_node("child", child).add_edge("__start__", "child")
    graph = graph.compile(checkpointer=_saver(lib))
    modes = ["values", "updates", "tasks"]
    seen = [run.stream(graph, {"log": []}, THREAD, stream_mode=modes, subgraphs=True, version="v2")]
    answer = lib.types.Command(resume="yes")
    return [*seen, run.stream(graph, answer, THREAD, stream_mode=modes, subgraphs=True, version="v2")]


def output_keys(lib: Any, run: Run) -> Any:
    graph = _nested(lib)
    return [
        _sorted_within(run.stream(graph, {"log": ["in"]}, THREAD, stream_mode=["values", "updates"], output_keys=keys))
        for keys in (["log"], "count", ["log", "count"])
    ] + [tried(lambda: run.stream(graph, {"log": []}, THREAD, output_keys="nothing"))]


def modes_that_are_none(lib: Any, run: Run) -> Any:
    graph = _nested(lib)
    return run.stream(graph, {"log": ["in"]}, THREAD, stream_mode=[])


def errors_in_streams(lib: Any, run: Run) -> Any:
    def fail(state: State) -> Any:
        raise KeyError("gone")

    graph = lib.graph.StateGraph(State).add_node(fail).add_edge("__start__", "fail").compile(checkpointer=_saver(lib))
    seen: list[Any] = []
    if run.colour == "sync":
        try:
            for chunk in graph.stream({"log": []}, THREAD, stream_mode=MODES):
                seen += [chunk]
        except KeyError as error:
            seen.append(error)
    return seen


def early_ends(lib: Any, run: Run) -> Any:
    if run.colour == "async":
        return None
    graph = _nested(lib)
    chunks = graph.stream({"log": ["in"]}, THREAD, stream_mode="values")
    seen = [next(chunks), next(chunks)]
    chunks.close()
    return [*seen, graph.get_state(THREAD).next]


@tool
def echo(text: str) -> str:
    """Say it again."""
    return text


@tool
def refuse(text: str) -> str:
    """Raise."""
    raise ValueError(text)


def _chatting(lib: Any) -> Any:
    class Chat(TypedDict):
        messages: Annotated[list[AnyMessage], lib.graph_message.add_messages]

    def chat(state: Any) -> Any:
        model = GenericFakeChatModel(messages=iter([AIMessage("one two", id="fixed")]))
        echo.invoke({"text": "done"})
        muted = GenericFakeChatModel(messages=iter(["muted"]))
        muted.invoke("x", {"tags": ["nostream"]})
        bound = GenericFakeChatModel(messages=iter(["bound"])).with_config(tags=["own"], metadata={"of": "model"})
        bound.invoke("x")
        tried(lambda: refuse.invoke({"text": "no"}))
        return {"messages": [model.invoke("hi", {"tags": ["mine"]})]}

    def say(state: Any) -> Any:
        return {"messages": [AIMessage("said", id="said")]}

    child = lib.graph.StateGraph(Chat).add_node(chat, metadata={"of": "node"}).add_edge("__start__", "chat").compile()
    builder = lib.graph.StateGraph(Chat).add_node("child", child).add_node(say)
    return builder.add_edge("__start__", "child").add_edge("child", "say").compile()


def _told(part: Any) -> Any:
    """A chunk of what models and tools tell, with the metadata that the engine adds to it."""
    if isinstance(part, dict):
        return {key: _told(value) for key, value in part.items()}
    if isinstance(part, (tuple, list)):
        return tuple(map(_told, part))
    if isinstance(part, BaseMessage):
        return type(part).__name__, part.content, part.id
    return part


def _metadata(part: Any) -> Any:
    if isinstance(part, dict):
        kept = {key: value for key, value in part.items() if not key.startswith("ls_") and key != "revision_id"}
        return {key: _metadata(value) for key, value in kept.items()}
    return tuple(map(_metadata, part)) if isinstance(part, (tuple, list)) else part


def _heard(**options: Any) -> Any:
    def scenario(lib: Any, run: Run) -> Any:
        config: Any = {"metadata": {"of": "run", "mine": 1}, "tags": ["run"]}
        chunks = run.stream(_chatting(lib), {"messages": [("user", "hi")]}, config, **options)
        return [_metadata(_told(chunk)) for chunk in chunks]

    return scenario


def custom_chunks_of_tasks(lib: Any, run: Run) -> Any:
    """Those of a task have the namespace of who called it, its update that of the graph."""

    @lib.func.task
    def inner(value: int) -> int:
        lib.config.get_stream_writer()(("inner", value))
        return value

    @lib.func.task
    def outer(value: int) -> int:
        lib.config.get_stream_writer()(("outer", value))
        return inner(value).result()  # type: ignore[no-any-return]

    def node(state: State) -> Any:
        lib.config.get_stream_writer()("node")
        return {"log": [outer(1).result()]}

    @lib.func.entrypoint()
    def main(value: int) -> int:
        return outer(value).result()  # type: ignore[no-any-return]

    child = lib.graph.StateGraph(State).add_node(node).add_edge("__start__", "node").compile()
    builder = lib.graph.StateGraph(State).add_node(node).add_node("child", child)
    graph = builder.add_edge("__start__", "node").add_edge("node", "child").compile()
    modes = ["custom", "updates"]
    seen = []
    for app, given in ((graph, {"log": []}), (main, 1)):
        seen += [run.stream(app, given, stream_mode=modes), run.stream(app, given, stream_mode=modes, subgraphs=True)]
        seen += [run.stream(app, given, stream_mode=modes, subgraphs=True, version="v2")]
    without_ids = re.compile(r":[0-9a-f-]{36}")
    return [without_ids.sub("", repr(chunk)) for chunks in seen for chunk in chunks]


def ids_without_a_saver(lib: Any, run: Run) -> Any:
    """EX-14, SM-7, IN-3, CF-6: each run has others, and within one they name the same task wherever they show"""
    told: list[Any] = []

    def tells(state: State, runtime: Any) -> Any:
        info, configurable = runtime.execution_info, lib.config.get_config()["configurable"]
        told.append((info.task_id, info.checkpoint_id, configurable["checkpoint_map"][""]))

    builder = lib.graph.StateGraph(State).add_node(tells)
    builder.add_node("asks", lambda state: lib.types.interrupt("sure?")).add_edge("__start__", "tells")
    graph = builder.add_edge("tells", "asks").compile()
    seen: list[Any] = []
    for _ in range(2):
        told.clear()
        chunks = run.stream(graph, {"log": []}, stream_mode=["tasks", "updates"])
        tasks = [chunk["id"] for mode, chunk in chunks if mode == "tasks"]
        seen.append([*tasks, *told[0], chunks[-2][1]["__interrupt__"][0].id, told[0][1][19:23]])
    return [seen, not set(seen[0][:-1]) & set(seen[1][:-1])]


SCENARIOS = [
    ids_without_a_saver,
    custom_chunks_of_tasks,
    questions_in_parts,
    output_keys,
    modes_that_are_none,
    errors_in_streams,
    early_ends,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_streams(scenario: Any) -> None:
    check(scenario)


@pytest.mark.parametrize("mode", [*MODES, MODES, ["values"]], ids=str)
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("subgraphs", [False, True])
def test_modes(mode: Any, version: str, subgraphs: bool) -> None:
    check(_streamed(stream_mode=mode, version=version, subgraphs=subgraphs))


@pytest.mark.parametrize("schema", [Model, Record])
def test_states_with_a_class(schema: Any) -> None:
    check(_typed(schema))


@pytest.mark.parametrize("mode", ["messages", "tools", ["messages", "tools", "updates"]], ids=str)
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("subgraphs", [False, True])
def test_models_and_tools(mode: Any, version: str, subgraphs: bool) -> None:
    check(_heard(stream_mode=mode, version=version, subgraphs=subgraphs))
