"""Graphs that were built with LangGraph, run by us, unchanged (D-12)."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest

import mpflow
from mpflow import WorkerPool
from mpflow.errors import GraphRecursionError
from mpflow.graph import StateGraph as OurStateGraph
from mpflow.interop import bridged
from tests.colours import Run

pytest.importorskip("langgraph")

from langgraph.cache.memory import InMemoryCache
from langgraph.channels import EphemeralValue, Topic, UntrackedValue
from langgraph.channels.base import BaseChannel
from langgraph.channels.last_value import LastValue
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config, get_store, get_stream_writer
from langgraph.errors import NodeError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.managed import IsLastStep, RemainingSteps
from langgraph.pregel import NodeBuilder, Pregel
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy, Command, Overwrite, RetryPolicy, Send, interrupt
from pydantic import BaseModel

CONFIG: Any = {"configurable": {"thread_id": "1", "user": "u"}}


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]
    x: int
    left: RemainingSteps
    last: IsLastStep


@pytest.fixture(scope="module")
def pool() -> Any:
    with WorkerPool(1) as pool:
        yield pool


pytestmark = pytest.mark.warm_pool


@pytest.fixture(params=["thread", "process"])
def place(request: pytest.FixtureRequest, pool: WorkerPool) -> dict[str, Any]:
    """Where the nodes run: what from_langgraph is given."""
    return {"executor": request.param, "pool": pool}


def one_node(node: Any, state: Any = State, **options: Any) -> Any:
    graph = StateGraph(state)
    graph.add_node("node", node, **options)
    graph.add_edge(START, "node")
    return graph


def test_its_own_functions_find_our_task(run: Run, place: dict[str, Any]) -> None:
    def node(state: State, runtime: Runtime) -> Any:
        get_stream_writer()("chunk")
        runtime.stream_writer("more")
        config = get_config()
        get_store().put(("n",), "k", {"a": 1})
        assert runtime.store.search(("n",), filter={"a": 1})[0].key == "k"
        assert runtime.store.list_namespaces(prefix=("n",)) == [("n",)]
        return {"log": [config["configurable"]["user"], config["metadata"]["langgraph_node"], state["left"] > 3]}

    store = InMemoryStore()
    graph = mpflow.from_langgraph(one_node(node).compile(store=store, name="theirs"), **place)
    chunks = run.stream(graph, {"x": 1}, CONFIG, stream_mode=["custom", "updates"])
    told = [("custom", "chunk"), ("custom", "more"), ("updates", {"node": {"log": ["u", "node", True]}})]
    assert chunks == told
    assert store.get(("n",), "k").value == {"a": 1}
    assert graph.name == "theirs"


def test_sends_commands_and_overwrites(run: Run, place: dict[str, Any]) -> None:
    def plan(state: State) -> Any:
        return Command(update={"log": ["plan"]}, goto=[Send("work", {"x": n}) for n in range(3)])

    def work(state: State) -> Any:
        return {"log": [state["x"]]}

    def reset(state: State) -> Any:
        return {"log": Overwrite(state["log"][-2:]), "x": os.getpid()}

    def route(state: State) -> Any:
        return Send("done", {"x": -1}) if len(state["log"]) == 2 else END

    graph = StateGraph(State)
    for node in (plan, work, reset):
        graph.add_node(node)
    graph.add_node("done", work, defer=True)
    graph.add_edge(START, "plan")
    graph.add_edge("work", "reset")
    graph.add_conditional_edges("reset", route)
    ours = mpflow.from_langgraph(graph, **place)
    found = run.invoke(ours, {"log": []}, CONFIG)
    assert found["log"] == [1, 2, -1]
    assert (found["x"] == os.getpid()) is (place["executor"] == "thread")


def test_its_interrupts_pause_our_run_and_its_command_resumes_it(run: Run, place: dict[str, Any]) -> None:
    def ask(state: State) -> Any:
        return {"log": [interrupt("one"), interrupt("two")]}

    outer = StateGraph(State)
    outer.add_node("sub", one_node(ask).compile())
    outer.add_edge(START, "sub")
    graph = mpflow.from_langgraph(outer.compile(checkpointer=InMemorySaver()), **place)
    (first,) = run.invoke(graph, {"x": 1}, CONFIG)["__interrupt__"]
    (second,) = run.invoke(graph, Command(resume=1), CONFIG)["__interrupt__"]
    assert (first.value, second.value, first.id != second.id) == ("one", "two", True)
    assert run.invoke(graph, Command(resume={second.id: 2}), CONFIG) == {"x": 1, "log": [1, 2]}
    assert run.get_state(graph, CONFIG).next == ()


def test_a_command_for_the_parent(run: Run, place: dict[str, Any]) -> None:
    def up(state: State) -> Any:
        return Command(graph=Command.PARENT, update={"log": ["up"]}, goto="end")

    outer = StateGraph(State)
    outer.add_node("sub", one_node(up).compile())
    outer.add_node("end", lambda state: {"log": ["end"]})
    outer.add_edge(START, "sub")
    assert run.invoke(mpflow.from_langgraph(outer, **place), {"log": []})["log"] == ["up", "end"]


class Model(BaseModel):
    x: int
    words: Annotated[list[str], operator.add] = []


@dataclass
class Record:
    x: int
    log: Annotated[list, operator.add]


def test_pydantic_and_dataclass_states(run: Run, place: dict[str, Any]) -> None:
    def model(state: Model) -> Any:
        return {"words": [type(state).__name__, repr(state.x)]}

    assert run.invoke(mpflow.from_langgraph(one_node(model, Model), **place), {"x": "3"})["words"] == ["Model", "3"]
    with pytest.raises(ValueError, match="validation error"):
        run.invoke(mpflow.from_langgraph(one_node(model, Model), **place), {"x": "a"})

    def record(state: Record) -> Any:
        return {"log": [state.x]}

    assert run.invoke(mpflow.from_langgraph(one_node(record, Record), **place), {"x": 1, "log": [0]})["log"] == [0, 1]


class Product(BaseChannel[int, int, int]):
    """A channel of a user's own."""

    def __init__(self, typ: Any, key: str = "") -> None:
        super().__init__(typ, key)
        self.value = 1

    ValueType = UpdateType = property(lambda self: int)

    def from_checkpoint(self, checkpoint: Any) -> Any:
        new = Product(self.typ, self.key)
        if isinstance(checkpoint, int):
            new.value = checkpoint
        return new

    def get(self) -> int:
        return self.value

    def update(self, values: Any) -> bool:
        for value in values:
            self.value *= value
        return bool(values)


def test_its_channels(run: Run) -> None:
    class Channels(TypedDict, total=False):
        last: Annotated[int, LastValue]
        topic: Annotated[list, Topic(int, accumulate=True)]
        short: Annotated[int, EphemeralValue]
        loose: Annotated[int, UntrackedValue]
        product: Annotated[int, Product]

    def one(state: Any) -> Any:
        return {"topic": [1, 2], "short": 5, "loose": 6, "product": 3}

    def two(state: Any) -> Any:
        return {"topic": 3, "last": state["short"], "product": 4}

    graph = StateGraph(Channels)
    graph.add_sequence([one, two])
    graph.add_edge(START, "one")
    theirs, ours = graph.compile(), mpflow.from_langgraph(graph)
    expected = theirs.invoke({"product": 2})
    assert run.invoke(ours, {"product": 2}) == expected
    assert (expected["product"], expected["last"]) == (24, 5)
    saved = mpflow.from_langgraph(graph.compile(checkpointer=InMemorySaver()))
    run.invoke(saved, {"product": 2}, CONFIG)
    assert run.invoke(saved, {"product": 1}, CONFIG)["product"] == 24 * 12


def test_policies_and_error_handlers(run: Run) -> None:
    calls: list[str] = []

    def flaky(state: State) -> Any:
        calls.append("flaky")
        if len(calls) < 3:
            raise OSError("no")
        raise KeyError("broken")

    def handler(state: State, error: NodeError) -> Any:
        return Command(update={"log": [f"{error.node}: {type(error.error).__name__}"]}, goto=END)

    policy = RetryPolicy(initial_interval=0, jitter=False, retry_on=OSError)
    graph = one_node(flaky, retry_policy=policy, error_handler=handler)
    assert run.invoke(mpflow.from_langgraph(graph), {"x": 1})["log"] == ["node: KeyError"]
    assert len(calls) == 3
    calls.clear()

    def counted(state: State) -> Any:
        calls.append("counted")
        return {"log": [state["x"]]}

    cached = mpflow.from_langgraph(one_node(counted, cache_policy=CachePolicy()).compile(cache=InMemoryCache()))
    assert [run.invoke(cached, {"x": 1})["log"] for _ in range(2)] == [[1], [1]]
    assert calls == ["counted"]


def test_defaults_for_all_nodes(run: Run) -> None:
    graph = one_node(lambda state: 1 / 0)
    graph.set_node_defaults(error_handler=lambda state, error: {"log": [error.node]})
    assert run.invoke(mpflow.from_langgraph(graph), {"x": 1})["log"] == ["node"]


def test_breakpoints_waiting_edges_and_async_nodes(run: Run) -> None:
    async def later(state: State) -> Any:
        return {"log": ["later"]}

    graph = StateGraph(State)
    graph.add_node("a", lambda state: {"log": ["a"]})
    graph.add_node("b", lambda state: {"log": ["b"]})
    graph.add_node("c", later if run.colour == "async" else lambda state: {"log": ["later"]})
    graph.add_edge(START, "a")
    graph.add_edge(START, "b")
    graph.add_edge(["a", "b"], "c")
    ours = mpflow.from_langgraph(graph.compile(checkpointer=InMemorySaver(), interrupt_before=["c"]))
    assert run.invoke(ours, {"log": []}, CONFIG)["log"] == ["a", "b"]
    assert run.invoke(ours, None, CONFIG)["log"] == ["a", "b", "later"]


def test_errors_of_the_engine_are_ours(run: Run) -> None:
    graph = one_node(lambda state: {"log": ["again"]})
    graph.add_edge("node", "node")
    with pytest.raises(GraphRecursionError):
        run.invoke(mpflow.from_langgraph(graph), {"log": []}, {"recursion_limit": 4})


def test_options_given_here_take_the_place_of_those_it_was_compiled_with(run: Run) -> None:
    theirs = one_node(lambda state: {"x": 2}).compile(checkpointer=InMemorySaver())
    assert run.invoke(mpflow.from_langgraph(theirs, checkpointer=None), {"x": 1}) == {"log": [], "x": 2}


def test_messages_and_tools_of_its_prebuilt_package(run: Run, place: dict[str, Any]) -> None:
    prebuilt = pytest.importorskip("langgraph.prebuilt")
    from langchain_core.messages import AIMessage, HumanMessage
    from langchain_core.tools import tool

    @tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    def model(state: MessagesState) -> Any:
        if isinstance(state["messages"][-1], HumanMessage):
            call = {"name": "add", "args": {"a": 2, "b": 3}, "id": "1"}
            return {"messages": [AIMessage("", tool_calls=[call])]}
        return {"messages": [AIMessage(f"it is {state['messages'][-1].content}")]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", model)
    graph.add_node("tools", prebuilt.ToolNode([add]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", prebuilt.tools_condition)
    graph.add_edge("tools", "model")
    found = run.invoke(mpflow.from_langgraph(graph, **place), {"messages": [HumanMessage("2 + 3?")]})
    assert found["messages"][-1].content == "it is 5"


def test_what_is_no_graph_of_its_is_refused() -> None:
    node = NodeBuilder().subscribe_only("in").do(lambda x: x).write_to("out")
    made = Pregel(
        nodes={"a": node},
        channels={"in": LastValue(int), "out": LastValue(int)},
        input_channels="in",
        output_channels="out",
    )
    for thing in (made, OurStateGraph(State), 3):
        with pytest.raises(TypeError, match="from_langgraph takes a StateGraph of LangGraph"):
            mpflow.from_langgraph(thing)


# -- its parts in graphs of ours ---------------------------------------------------------------------------------------


def test_a_compiled_graph_of_its_is_a_node_of_ours(run: Run) -> None:
    theirs = one_node(lambda state: {"x": state["x"] + 1}).compile()
    graph = OurStateGraph(State)
    graph.add_node("theirs", theirs)
    graph.add_node("after", lambda state: {"x": state["x"] * 10})
    graph.add_edge(START, "theirs")
    graph.add_edge("theirs", "after")
    assert run.invoke(graph.compile(), {"x": 1})["x"] == 20


def test_a_bridged_node_of_ours_may_use_its_functions(run: Run, place: dict[str, Any]) -> None:
    @bridged
    def ask(state: Any) -> Any:
        from langgraph.types import Command, interrupt

        get_stream_writer()("asking")
        return Command(update={"log": [interrupt("what?")]}, goto="end")

    graph = OurStateGraph(State)
    graph.add_node("ask", ask)
    graph.add_node("end", lambda state: {"log": ["end"]})
    graph.add_edge(START, "ask")
    app = graph.compile(checkpointer=mpflow_saver(), **place)
    assert run.stream(app, {"x": 1}, CONFIG, stream_mode="custom") == ["asking"]
    assert run.invoke(app, mpflow.Command(resume="this"), CONFIG)["log"] == ["this", "end"]


def mpflow_saver() -> Any:
    from mpflow.checkpoint.memory import InMemorySaver as OurSaver

    return OurSaver()
