"""User callbacks are told of runs, nodes, tasks and models as LangGraph tells them (CF-1, D-11)."""

import operator
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.runnables import RunnableLambda
from typing_extensions import TypedDict

from tests.colours import Run
from tests.differential.scenarios import check, tried

RUN_ID = UUID(int=7)


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


class Heard(BaseCallbackHandler):
    """Notes what it is told; runs are known by the order in which they are first heard of."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.runs: dict[UUID, int] = {}

    def _number(self, run_id: UUID | None) -> int | None:
        return None if run_id is None else self.runs.setdefault(run_id, len(self.runs))

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: Any, **given: Any) -> None:
        metadata = {key: value for key, value in (given["metadata"] or {}).items() if "ns" not in key[-3:]}
        kept = {key: value for key, value in metadata.items() if key == "ls_integration" or not key.startswith("ls_")}
        where = self._number(run_id), self._number(given.get("parent_run_id"))
        name = None if given.get("name") == "RunnableCallable" else given.get("name")  # a class of LangGraph's
        self.said.append(("start", name, *where, given["tags"], kept, inputs))

    def on_chain_end(self, outputs: Any, *, run_id: Any, parent_run_id: Any = None, **given: Any) -> None:
        self.said.append(("end", self._number(run_id), self._number(parent_run_id), outputs))

    def on_chain_error(self, error: Any, *, run_id: Any, parent_run_id: Any = None, **given: Any) -> None:
        self.said.append(("error", self._number(run_id), self._number(parent_run_id), type(error).__name__))

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, **given: Any) -> None:
        self.said.append(("model", self._number(given.get("parent_run_id")), given["tags"]))


class Awaited(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.said: list[Any] = []

    async def on_chain_start(self, serialized: Any, inputs: Any, **given: Any) -> None:
        self.said.append(("start", given.get("name")))

    async def on_chain_end(self, outputs: Any, **given: Any) -> None:
        self.said.append(("end", outputs))


def _chain(lib: Any, *nodes: Any, **options: Any) -> Any:
    builder = lib.graph.StateGraph(State)
    previous = "__start__"
    for node in nodes:
        builder.add_node(node, metadata={"of": node.__name__}).add_edge(previous, node.__name__)
        previous = node.__name__
    return builder.compile(**options)


def first(state: State) -> Any:
    return {"log": ["first"]}


def chat(state: State) -> Any:
    GenericFakeChatModel(messages=iter(["hi"])).invoke("x", {"tags": ["model"]})
    return {"log": ["chat"]}


def fail(state: State) -> Any:
    raise KeyError("gone")


def _config(heard: Any) -> Any:
    return {"callbacks": [heard], "tags": ["t"], "metadata": {"mine": 1}, "run_name": "named", "run_id": RUN_ID}


def runs_and_nodes(lib: Any, run: Run) -> Any:
    heard = Heard()
    run.invoke(_chain(lib, first, chat, name="graph"), {"log": []}, _config(heard))
    return [heard.said, heard.runs.get(RUN_ID)]


def failures(lib: Any, run: Run) -> Any:
    heard = Heard()
    tried(lambda: run.invoke(_chain(lib, first, fail), {"log": []}, _config(heard)))
    return heard.said


def questions(lib: Any, run: Run) -> Any:
    def ask(state: State) -> Any:
        return {"log": [lib.types.interrupt("?")]}

    heard = Heard()
    config = {**_config(heard), "configurable": {"thread_id": "1"}}
    graph = _chain(lib, ask, checkpointer=lib.checkpoint_memory.InMemorySaver())
    run.invoke(graph, {"log": []}, config)
    del config["run_id"]
    run.invoke(graph, lib.types.Command(resume="a"), config)
    return [(kind, *rest) for kind, *rest in heard.said if kind != "start" or rest[0] != "named"]


def callbacks_of_a_graphs_own(lib: Any, run: Run) -> Any:
    own, given = Heard(), Heard()
    graph = _chain(lib, first).with_config(callbacks=[own], tags=["own"])
    run.invoke(graph, {"log": []}, {"callbacks": [given]})
    return [own.said, given.said]


def streams(lib: Any, run: Run) -> Any:
    heard = Heard()
    chunks = run.stream(
        _chain(lib, first, chat), {"log": []}, {"callbacks": [heard]}, stream_mode=["values", "updates"]
    )
    return [chunks, heard.said]


def streams_that_are_closed(lib: Any, run: Run) -> Any:
    heard = Heard()
    if run.colour == "sync":
        chunks = _chain(lib, first, chat).stream({"log": []}, {"callbacks": [heard]})
        next(chunks)
        chunks.close()
    return heard.said


def handlers_that_are_awaited(lib: Any, run: Run) -> Any:
    heard = Awaited()
    if run.colour == "async":
        run.invoke(_chain(lib, first), {"log": []}, {"callbacks": [heard]})
    return heard.said


def pauses_and_resumptions(lib: Any, run: Run) -> Any:
    """MOD-13, IN-1, IN-10"""
    events: list[Any] = []

    class Handler(lib.callbacks.GraphCallbackHandler):  # type: ignore[misc,name-defined]
        def on_interrupt(self, event: Any) -> None:
            asked = [question.value for question in event.interrupts]
            events.append((type(event).__name__, event.status, bool(event.checkpoint_id), event.checkpoint_ns, asked))

        def on_resume(self, event: Any) -> None:
            events.append((type(event).__name__, event.status, type(event.run_id).__name__, event.checkpoint_ns))

    def ask(state: Any) -> Any:
        events.append("asks")
        return {"log": [lib.types.interrupt("?")]}

    child = lib.graph.StateGraph(State).add_node(ask).add_edge("__start__", "ask").compile()
    builder = lib.graph.StateGraph(State).add_node("child", child).add_node("last", first)
    builder.add_edge("__start__", "child").add_edge("child", "last")
    graph = builder.compile(checkpointer=lib.checkpoint_memory.InMemorySaver(), interrupt_before=["last"])
    config: Any = {"configurable": {"thread_id": "1"}, "callbacks": [Handler()]}
    for given in ({"log": []}, lib.types.Command(resume="yes"), None):
        run.invoke(graph, given, config)
    run.invoke(graph, {"log": []}, {**config, "configurable": {"thread_id": "2"}}, interrupt_after="*")
    manager = lib.callbacks.get_sync_graph_callback_manager_for_config(config)
    manager.on_resume(lib.callbacks.GraphResumeEvent(None, "pending", "id", ()))
    none = lib.callbacks.get_async_graph_callback_manager_for_config({"callbacks": [object()]})
    return [event for event in events if "Resume" not in event[0] or not event[3]], none.handlers


def conditional_edges(lib: Any, run: Run) -> Any:
    """RT-1, RT-6: they lie within the task whose node they leave, whatever they are made of."""

    def plain(state: State) -> str:
        return "first"

    def chats(state: State) -> Any:
        chat(state)
        return ["first"]

    def fails(state: State) -> str:
        raise KeyError("gone")

    async def awaits(state: State) -> str:
        return "first"

    class Bare:
        def __call__(self, state: State) -> str:
            return "first"

    paths = [plain, lambda state: "first", partial(plain), Bare(), RunnableLambda(plain), chats, fails]
    seen = []
    for path in [*paths, awaits] if run.colour == "async" else paths:
        heard = Heard()
        builder = lib.graph.StateGraph(State).add_node(first).add_node(chat)
        builder.add_conditional_edges("__start__", plain, {"first": "chat"})
        builder.add_conditional_edges("chat", path, ["first"])
        if path is plain:
            builder.add_conditional_edges("chat", lambda state: [], ["first"])
        tried(lambda: run.invoke(builder.compile(), {"log": []}, _config(heard)))  # noqa: B023 - called at once
        seen.append(heard.said)
    return seen


def tasks_are_told_of_by_their_arguments(lib: Any, run: Run) -> Any:
    """FN-1"""
    heard = Heard()

    def called(first: int, *others: int, by: int = 2, **named: int) -> int:
        return first

    async def acalled(first: int, *others: int, by: int = 2, **named: int) -> int:
        return first

    if run.colour == "sync":
        task = lib.func.task(called)
        work = lib.func.entrypoint()(lambda n: [task(n).result(), task(n, 3, 4, by=5, x=6).result()])
    else:
        atask = lib.func.task(acalled)

        @lib.func.entrypoint()
        async def work(n: int) -> Any:
            return [await atask(n), await atask(n, 3, 4, by=5, x=6)]

    run.invoke(work, 1, {"callbacks": [heard]})
    return [said[-1] for said in heard.said if said[0] == "start"]


SCENARIOS = [
    runs_and_nodes,
    conditional_edges,
    tasks_are_told_of_by_their_arguments,
    failures,
    questions,
    callbacks_of_a_graphs_own,
    streams,
    streams_that_are_closed,
    handlers_that_are_awaited,
    pauses_and_resumptions,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_callbacks(scenario: Any) -> None:
    check(scenario)


@pytest.mark.parametrize("library", ["langgraph", "mpflow"])
def test_graphs_and_tasks_within_lie_within_who_called_them(library: str) -> None:
    from tests.differential.scenarios import Library

    lib = Library(library)
    heard = Heard()
    inner = _chain(lib, first, name="inner")

    @lib.func.task
    def called(n: int) -> int:
        return len(inner.invoke({"log": []})["log"]) + n

    @lib.func.entrypoint()
    def work(n: int) -> int:
        return called(n).result()

    assert work.invoke(1, {"callbacks": [heard]}) == 2
    within = {said[1]: said[3] for said in heard.said if said[0] == "start"}
    numbers = {said[1]: said[2] for said in heard.said if said[0] == "start"}
    assert within["called"] == numbers["work"]
    assert within["inner"] == numbers["called"]
    assert within["first"] == numbers["inner"]
