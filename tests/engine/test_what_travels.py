"""What goes along to a node in a worker: context variables, the trace, and the ears of models and tools (D-11)."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import UUID

import pytest

import mpflow
from mpflow._exec.process import WorkerPool
from mpflow.errors import VariableNotPicklableError
from mpflow.graph import START, StateGraph
from mpflow.graph.message import MessagesState
from tests.colours import Run

pytestmark = pytest.mark.warm_pool

USER: ContextVar[Any] = ContextVar("USER", default="nobody")
OTHER_NAME: ContextVar[Any] = ContextVar("named otherwise", default="nobody")
HELD = {"declared": ContextVar[Any]("declared", default="nobody")}
mpflow.carry("tests.declared", HELD["declared"])


class State(TypedDict):
    log: Annotated[list[Any], operator.add]


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool


def one_node(pool: WorkerPool, node: Any) -> Any:
    return StateGraph(State).add_node("node", node, executor="process").add_edge(START, "node").compile(pool=pool)


def setting(var: ContextVar[Any], value: Any) -> Any:
    class Set:
        def __enter__(self) -> None:
            self.token = var.set(value)

        def __exit__(self, *_: Any) -> None:
            var.reset(self.token)

    return Set()


def ask(state: State) -> Any:
    found = [USER.get(), OTHER_NAME.get(), HELD["declared"].get()]
    USER.set("painted")
    return {"log": found}


def test_variables_that_a_module_holds_travel_with_their_values(run: Run, pool: WorkerPool) -> None:
    graph = one_node(pool, ask)
    assert run.invoke(graph, {"log": []})["log"] == ["nobody"] * 3
    with setting(USER, {"id": 7}), setting(OTHER_NAME, (1, 2)), setting(HELD["declared"], "me"):
        assert run.invoke(graph, {"log": []})["log"] == [{"id": 7}, (1, 2), "me"]
        assert run.invoke(graph, {"log": []})["log"][0] == {"id": 7}, "what a task set is its own"
    assert run.invoke(graph, {"log": []})["log"] == ["nobody"] * 3


def test_a_value_that_cannot_travel_stays_behind_quietly(run: Run, pool: WorkerPool) -> None:
    with setting(USER, threading.Lock()), setting(OTHER_NAME, 1):
        assert run.invoke(one_node(pool, ask), {"log": []})["log"] == ["nobody", 1, "nobody"]


def test_a_declared_value_that_cannot_travel_is_an_error(run: Run, pool: WorkerPool) -> None:
    with setting(HELD["declared"], threading.Lock()):
        with pytest.raises(VariableNotPicklableError, match=r"'tests\.declared'.*lock"):
            run.invoke(one_node(pool, ask), {"log": []})


def test_a_variable_of_a_closure_travels_with_its_function(run: Run, pool: WorkerPool) -> None:
    local: ContextVar[Any] = ContextVar("local", default="by default")
    graph = one_node(pool, lambda state: {"log": [local.get()]})
    assert run.invoke(graph, {"log": []})["log"] == ["by default"]
    with setting(local, "set"):
        assert run.invoke(graph, {"log": []})["log"] == ["set"]


def test_a_name_means_one_variable() -> None:
    with pytest.raises(ValueError, match=r"tests\.declared"):
        mpflow.carry("tests.declared", USER)
    with pytest.raises(TypeError, match="ContextVar"):
        mpflow.carry("x", 3)  # type: ignore[arg-type]


def test_variables_of_a_script_travel() -> None:
    script = """
        from contextvars import ContextVar
        import mpflow
        from typing import TypedDict
        plain = ContextVar("plain", default=0)
        named = ContextVar("named")
        mpflow.carry("the named one", named)
        class State(TypedDict):
            x: list
        def node(state):
            return {"x": [plain.get(), named.get("unset")]}
        graph = mpflow.StateGraph(State).add_node("node", node, executor="process").add_edge("__start__", "node").compile()
        print(graph.invoke({"x": []})["x"])
        plain.set(5); named.set([6])
        print(graph.invoke({"x": []})["x"])
    """
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.stdout == "[0, 'unset']\n[5, [6]]\n", done.stderr


def test_the_trace_goes_on_in_the_worker(run: Run, pool: WorkerPool) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")

    def node(state: State) -> Any:
        from opentelemetry.trace import get_current_span

        context = get_current_span().get_span_context()
        return {"log": [(context.trace_id, context.span_id, context.is_remote)]}

    graph = one_node(pool, node)
    tracer = sdk.TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("outer") as span:
        [(trace_id, span_id, is_remote)] = run.invoke(graph, {"log": []})["log"]
    assert (trace_id, span_id, is_remote) == (span.get_span_context().trace_id, span.get_span_context().span_id, True)
    assert run.invoke(graph, {"log": []})["log"] == [(0, 0, False)]
    assert trace is not None


# -- models and tools --------------------------------------------------------------------------------------------------


def asks(state: Any) -> Any:
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    model = GenericFakeChatModel(messages=iter([AIMessage("one two")]))
    return {"messages": model.invoke(state["messages"])}


def model_graph(pool: WorkerPool, executor: str = "process") -> Any:
    graph = StateGraph(MessagesState).add_node("asks", asks, executor=executor).add_edge(START, "asks")
    return graph.compile(pool=pool)


def test_tokens_of_a_model_in_a_worker_are_streamed(run: Run, pool: WorkerPool) -> None:
    """SM-6"""
    messages = pytest.importorskip("langchain_core.messages")
    told = {}
    for executor in ("thread", "process"):
        given = {"messages": [messages.HumanMessage("hi", id="in")]}
        chunks = run.stream(model_graph(pool, executor), given, {"tags": ["mine"]}, stream_mode="messages")
        drop = ("langgraph_checkpoint_ns", "checkpoint_ns")
        told[executor] = [
            (piece.content, type(piece).__name__, {key: value for key, value in about.items() if key not in drop})
            for piece, about in chunks
        ]
    assert [text for text, *_ in told["process"]] == ["one", " ", "two"]
    assert told["process"] == told["thread"]


def test_tokens_of_a_graph_within_a_node_in_a_worker_are_streamed(run: Run, pool: WorkerPool) -> None:
    messages = pytest.importorskip("langchain_core.messages")
    inner = StateGraph(MessagesState).add_node("asks", asks).add_edge(START, "asks").compile()
    graph = StateGraph(MessagesState).add_node("inner", inner, executor="process").add_edge(START, "inner")
    given = {"messages": [messages.HumanMessage("hi", id="in")]}
    chunks = run.stream(graph.compile(pool=pool), given, stream_mode="messages", subgraphs=True)
    assert [(ns[0].split(":")[0], piece.content) for ns, (piece, _) in chunks] == [
        ("inner", text) for text in ("one", " ", "two")
    ]


def test_callbacks_hear_of_models_in_a_worker_and_stay_here(run: Run, pool: WorkerPool) -> None:
    messages = pytest.importorskip("langchain_core.messages")
    from langchain_core.callbacks import BaseCallbackHandler

    class Ear(BaseCallbackHandler):
        def __init__(self) -> None:
            self.lock = threading.Lock()  # it cannot travel
            self.heard: list[Any] = []

        def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **_: Any) -> None:
            self.heard.append(("start", messages[0][0].content, run_id, os.getpid()))

        def on_llm_end(self, response: Any, *, run_id: UUID, **_: Any) -> None:
            self.heard.append(("end", response.generations[0][0].text, run_id, os.getpid()))

    ear = Ear()
    given = {"messages": [messages.HumanMessage("hi", id="in")]}
    run.invoke(model_graph(pool), given, {"callbacks": [ear]})
    (_, asked, first, pid), (_, told, last, _) = ear.heard
    assert (asked, told, first, pid) == ("hi", "one two", last, os.getpid())
