"""What may be stored: data, and objects of the classes that the graph leads to; all else is refused when it is first saved."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from pydantic import BaseModel

from mpflow._wire.codec import EncodeError
from mpflow.checkpoint.sqlite import SqliteSaver
from mpflow.constants import END, START
from mpflow.func import entrypoint, task
from mpflow.graph.message import add_messages
from mpflow.graph.state import StateGraph
from mpflow.types import Send, interrupt
from tests.colours import Run

CONFIG: Any = {"configurable": {"thread_id": "t"}}


class Colour(Enum):
    RED = 1


@dataclass
class Leaf:
    colour: Colour


@dataclass
class Branch:
    leaves: list[Leaf]


@dataclass
class Special(Leaf):
    more: int = 1


class Model(BaseModel):
    branch: Branch


class Name(str):
    def initial(self) -> str:
        return self[0]


class Count(int):
    pass


class Labelled(float):
    label = ""


class Stranger:
    def __init__(self) -> None:
        self.value = 1


@dataclass
class Returned:
    value: int


class State(TypedDict, total=False):
    model: Model
    x: Any


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[SqliteSaver]:
    with SqliteSaver.from_conn_string(str(tmp_path / "db")) as saver:
        yield saver


def graph_that_writes(value: Any, saver: Any, **options: Any) -> Any:
    graph = StateGraph(State).add_node("makes", lambda state: {"x": value}).add_edge(START, "makes")
    return graph.add_edge("makes", END).compile(checkpointer=saver, **options)


@pytest.mark.parametrize("value", [Colour.RED, Leaf(Colour.RED), Special(Colour.RED, 2), Branch([Leaf(Colour.RED)])])
def test_classes_below_the_schema_and_their_subclasses_are_kept(run: Run, saver: SqliteSaver, value: Any) -> None:
    run.invoke(graph_that_writes(value, saver), {"x": 0}, CONFIG)
    assert run.get_state(graph_that_writes(value, saver), CONFIG).values == {"x": value}


def test_models_are_kept_by_their_fields(run: Run, saver: SqliteSaver) -> None:
    model = Model(branch=Branch([Leaf(Colour.RED)]))
    run.invoke(graph_that_writes(model, saver), {"x": 0}, CONFIG)
    assert run.get_state(graph_that_writes(0, saver), CONFIG).values == {"x": model}


def test_what_could_not_be_read_back_is_refused_with_node_path_and_the_line_that_helps(
    run: Run, saver: SqliteSaver
) -> None:
    with pytest.raises(EncodeError) as caught:
        run.invoke(graph_that_writes({"deep": [Stranger()]}, saver), {"x": 0}, CONFIG)
    text = str(caught.value)
    assert "node 'makes', channel 'x'" in text and '["deep"][0]' in text and "compile(types=[Stranger])" in text
    assert run.get_state(graph_that_writes(0, saver), CONFIG).values == {"x": 0}


def test_given_types_are_kept(run: Run, saver: SqliteSaver) -> None:
    run.invoke(graph_that_writes(Stranger(), saver, types=[Stranger]), {"x": 0}, CONFIG)
    found = run.get_state(graph_that_writes(0, saver, types=[Stranger]), CONFIG).values["x"]
    assert type(found) is Stranger and found.value == 1


def test_without_the_graph_objects_are_inert_records(run: Run, saver: SqliteSaver) -> None:
    run.invoke(graph_that_writes(Special(Colour.RED), saver), {"x": 0}, CONFIG)
    found, told = SqliteSaver(saver.conn).get_tuple(CONFIG), saver.get_tuple(CONFIG)
    assert found is not None and told is not None
    record = found.checkpoint["channel_values"]["x"]
    assert type(record).__name__ == "Record" and record.name.endswith("Special")
    assert told.checkpoint["channel_values"]["x"] == Special(Colour.RED)  # CP-7: a graph was run on this one


def test_annotations_of_nodes_and_of_graphs_within_count(run: Run, saver: SqliteSaver) -> None:
    class Inner(TypedDict):
        x: Any

    def node(state: Inner) -> dict[str, Returned]:
        return {"x": Returned(1)}

    inner = StateGraph(Inner).add_node("node", node).add_edge(START, "node").compile()
    graph = StateGraph(State).add_node("inner", inner).add_edge(START, "inner").compile(checkpointer=saver)
    assert run.invoke(graph, {"x": 0}, CONFIG) == {"x": Returned(1)}
    assert run.get_state(graph, CONFIG).values == {"x": Returned(1)}


def test_annotations_of_tasks_and_entrypoints_count(saver: SqliteSaver) -> None:
    @task
    def make(number: int) -> Returned:
        return Returned(number)

    @entrypoint(checkpointer=saver)
    def flow(number: int) -> Any:
        return [make(number).result(), interrupt("sure?")]

    flow.invoke(1, CONFIG)
    found = flow.get_state(CONFIG)
    assert [one.result for one in found.tasks if one.name == "make"] in ([], [Returned(1)])
    from mpflow.types import Command

    assert flow.invoke(Command(resume="yes"), CONFIG) == [Returned(1), "yes"]


def test_messages_and_commands_need_no_word(run: Run, saver: SqliteSaver) -> None:
    messages = pytest.importorskip("langchain_core.messages")

    class Chat(TypedDict):
        messages: Annotated[list[Any], add_messages]

    graph = (
        StateGraph(Chat)
        .add_node("says", lambda state: {"messages": [messages.AIMessage("hello", id="2")]})
        .add_conditional_edges(START, lambda state: [Send("says", state)], ["says"])
        .compile(checkpointer=saver)
    )
    for turn in range(3):
        run.invoke(graph, {"messages": [("user", f"hi {turn}")]}, CONFIG)
    found = run.get_state(graph, CONFIG).values["messages"]
    assert [type(one).__name__ for one in found] == ["HumanMessage", "AIMessage", "HumanMessage", "HumanMessage"]
    assert [one.id for one in found] == [one.id for one in run.get_state(graph, CONFIG).values["messages"]]


def test_row_39_reading_imports_and_calls_nothing_that_the_bytes_name(run: Run, saver: SqliteSaver) -> None:
    run.invoke(graph_that_writes(Leaf(Colour.RED), saver), {"x": 0}, CONFIG)
    imported: list[str] = []
    active = True

    def hook(event: str, arguments: Any) -> None:
        if active and event in ("import", "exec", "compile", "os.system", "subprocess.Popen"):
            imported.append(f"{event} {arguments[:1]}")

    saver.get_tuple(CONFIG)
    sys.addaudithook(hook)  # it cannot be removed, only silenced
    saver.get_tuple(CONFIG)
    active = False
    assert imported == []


def test_cp11_a_serializer_learns_the_graphs_classes_too(tmp_path: Path) -> None:
    from mpflow.checkpoint.serde.jsonplus import JsonPlusSerializer

    serde = JsonPlusSerializer()
    builder = StateGraph(State).add_node("node", lambda state: {"model": Model(branch=Branch([Leaf(Colour.RED)]))})
    for _ in range(2):
        with SqliteSaver.from_conn_string(str(tmp_path / "saver.db"), serde=serde) as saver:
            graph = (
                builder.add_edge(START, "node").compile(checkpointer=saver)
                if _ == 0
                else builder.compile(checkpointer=saver)
            )
            found = graph.get_state(CONFIG).values or graph.invoke({}, CONFIG)
            assert found["model"] == Model(branch=Branch([Leaf(Colour.RED)]))
    with pytest.raises(EncodeError, match="Model"):
        serde.dumps_typed(Model(branch=Branch([])))


@pytest.mark.parametrize("value", [Name("x"), Count(2**80), [Count(3), bytearray(b"b")], {Name("k"): Labelled(0.5)}])
def test_cp11_texts_and_numbers_of_a_class_of_their_own_are_kept_bare(run: Run, saver: SqliteSaver, value: Any) -> None:
    graph = StateGraph(State).add_node("a", lambda state: {"x": value}).add_edge(START, "a").compile(saver)
    run.invoke(graph, {}, CONFIG)
    kept = run.get_state(graph, CONFIG).values["x"]
    assert kept == value
    items = [*kept, *kept.values()] if isinstance(kept, dict) else kept if isinstance(kept, list) else [kept]
    assert {type(item) for item in items} <= {str, int, float, bytearray}


def test_a_number_with_attributes_is_refused_like_any_object(run: Run, saver: SqliteSaver) -> None:
    value = Labelled(0.5)
    value.label = "half"
    graph = StateGraph(State).add_node("a", lambda state: {"x": value}).add_edge(START, "a").compile(saver)
    with pytest.raises(EncodeError, match="node 'a', channel 'x'"):
        run.invoke(graph, {}, CONFIG)
