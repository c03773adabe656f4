"""What streams deliver: modes, their shapes and their order (SM-1 to SM-14), in both colours."""

from __future__ import annotations

import operator
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.config import get_stream_writer
from mpflow.graph import START, StateGraph
from mpflow.types import Command, GraphOutput, interrupt
from tests.colours import Run

CONFIG: Any = {"configurable": {"thread_id": "1", "who": "me"}, "metadata": {"m": 1}, "tags": ["t"]}


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def _line(*nodes: tuple[str, Any], schema: Any = State, saved: bool = True, **options: Any) -> Any:
    graph = StateGraph(schema)
    before = START
    for name, action in nodes:
        graph.add_node(name, action, metadata={"of": name} if name == "a" else None)
        graph.add_edge(before, name)
        before = name
    return graph.compile(checkpointer=InMemorySaver() if saved else None, **options)


def _says(text: str) -> Any:
    return lambda state: {"log": [text]}


def test_checkpoints_tell_where_each_state_lies_and_what_is_due(run: Run):
    """SM-8"""
    told = run.stream(_line(("a", _says("a"))), {"log": ["in"]}, CONFIG, stream_mode="checkpoints")
    assert [part["next"] for part in told] == [["__start__"], ["a"], []]
    assert [part["values"] for part in told] == [{"log": []}, {"log": ["in"]}, {"log": ["in", "a"]}]
    assert [part["metadata"]["step"] for part in told] == [-1, 0, 1]
    assert [part["parent_config"] for part in told] == [None, told[0]["config"], told[1]["config"]]
    assert told[1]["config"]["configurable"].items() >= {"thread_id": "1", "who": "me", "checkpoint_ns": ""}.items()
    (task,) = told[1]["tasks"]
    assert (task["name"], task["interrupts"], task["state"]) == ("a", (), None)


def test_tasks_carry_the_users_metadata_and_tags_and_none_of_the_engines(run: Run):
    """SM-7"""
    start, end = run.stream(_line(("a", _says("a"))), {"log": []}, CONFIG, stream_mode="tasks")
    assert start == {
        "id": end["id"],
        "name": "a",
        "input": {"log": []},
        "triggers": ("branch:to:a",),
        "metadata": {"m": 1, "of": "a", "tags": ["t"]},
    }
    assert end == {"id": start["id"], "name": "a", "error": None, "result": {"log": ["a"]}, "interrupts": []}


def test_debug_wraps_checkpoints_and_tasks_with_their_step(run: Run):
    """SM-9, SM-10"""
    told = run.stream(_line(("a", _says("a"))), {"log": []}, CONFIG, stream_mode=["debug", "updates", "values"])
    kinds = [(mode, part["type"], part["step"]) if mode == "debug" else (mode,) for mode, part in told]
    assert kinds == [
        ("debug", "checkpoint", -1),
        ("values",),
        ("debug", "checkpoint", 0),
        ("debug", "task", 1),
        ("updates",),
        ("debug", "task_result", 1),
        ("values",),
        ("debug", "checkpoint", 1),
    ]


def test_without_a_checkpointer_there_are_no_checkpoints_to_tell_of(run: Run):
    """SM-8"""
    assert run.stream(_line(("a", _says("a")), saved=False), {"log": []}, stream_mode="checkpoints") == []


def test_a_pause_shows_in_the_checkpoint_that_a_resumed_run_starts_from(run: Run):
    """SM-8, IN-4"""
    graph = _line(("a", lambda state: {"log": [interrupt("well?")]}))
    _, asked = run.stream(graph, {"log": []}, CONFIG, stream_mode="tasks")
    (question,) = asked["interrupts"]
    assert question["value"] == "well?"
    told = run.stream(graph, Command(resume="yes"), CONFIG, stream_mode="checkpoints")
    assert told[0]["tasks"][0]["interrupts"] == (question,)
    assert told[-1]["values"] == {"log": ["yes"]}


@pytest.mark.parametrize("when, due", [("interrupt_before", ["b"]), ("interrupt_after", ["b"])])
def test_a_breakpoint_ends_with_the_checkpoint_of_what_is_left(run: Run, when: str, due: list[str]):
    """SM-10, IN-10"""
    graph = _line(("a", _says("a")), ("b", _says("b")))
    breakpoint = {when: ["a"] if when == "interrupt_after" else ["b"]}
    told = run.stream(graph, {"log": []}, CONFIG, stream_mode=["checkpoints", "tasks"], **breakpoint)
    assert [part["name"] for mode, part in told if mode == "tasks"] == ["a", "a"]
    assert told[-1][0] == "checkpoints"
    assert told[-1][1]["next"] == due


def test_nested_graphs_tell_under_their_namespace_in_every_mode(run: Run):
    """SM-2, SM-8"""
    graph = _line(("outer", _line(("inner", _says("x")), saved=False)))
    told = run.stream(graph, {"log": []}, CONFIG, stream_mode=["checkpoints", "tasks", "values"], subgraphs=True)
    below = [(mode, part) for ns, mode, part in told if ns]
    assert {ns[0].partition(":")[0] for ns, _, _ in told if ns} == {"outer"}
    assert [mode for mode, _ in below] == [
        "checkpoints", "values", "checkpoints", "tasks", "tasks", "values", "checkpoints"
    ]  # fmt: skip
    where = below[0][1]["config"]["configurable"]
    assert set(where["checkpoint_map"]) == {"", where["checkpoint_ns"]}


def test_parts_of_version_2_have_one_shape_whatever_is_asked(run: Run):
    """SM-12"""
    graph = _line(("a", lambda state: {"log": [interrupt("well?")]}))
    parts = run.stream(graph, {"log": []}, CONFIG, stream_mode=["values", "updates"], version="v2")
    assert [part["type"] for part in parts] == ["values", "updates", "values"]
    assert all(part["ns"] == () for part in parts)
    assert parts[0] == {"type": "values", "ns": (), "data": {"log": []}, "interrupts": ()}
    assert parts[2]["data"] == {"log": []}
    assert [item.value for item in parts[2]["interrupts"]] == ["well?"]


@dataclass
class Record:
    log: Annotated[list[str], operator.add]


def test_parts_of_version_2_hold_instances_of_the_schema(run: Run):
    """SM-12"""
    graph = _line(("a", _says("a")), ("sub", _line(("b", _says("b")), schema=Record, saved=False)), schema=Record)
    parts = run.stream(graph, {"log": []}, CONFIG, stream_mode=["values", "debug"], version="v2", subgraphs=True)
    values = [part["data"] for part in parts if part["type"] == "values"]
    assert values[:2] == [Record([]), Record(["a"])]
    assert all(isinstance(value, Record) for value in values)
    saved = [part["data"]["payload"] for part in parts if part["type"] == "debug" and "next" in part["data"]["payload"]]
    assert [type(part["values"]) for part in saved if part["next"] != ["__start__"]] == [Record] * 5
    output = run.invoke(graph, {"log": []}, {"configurable": {"thread_id": "2"}}, version="v2")
    assert output == GraphOutput(Record(["a", "a", "b"]))


def test_print_mode_prints_and_yields_nothing_more(run: Run, capsys: pytest.CaptureFixture[str]):
    """SM-14"""
    graph = _line(("a", _says("a")), saved=False)
    assert run.stream(graph, {"log": []}, stream_mode="updates", print_mode="values") == [{"a": {"log": ["a"]}}]
    assert [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()] == [
        "{'log': []}",
        "{'log': ['a']}",
    ]
    assert run.invoke(graph, {"log": []}, debug=True) == {"log": ["a"]}
    assert "[updates]" in capsys.readouterr().out


def test_durability_without_a_checkpointer_warns(run: Run):
    """CP-5"""
    with pytest.warns(UserWarning, match="no effect when no checkpointer"):
        run.invoke(_line(("a", _says("a")), saved=False), {"log": []}, durability="sync")


def test_unknown_modes_are_refused(run: Run):
    """SM-14"""
    with pytest.raises(ValueError, match="stream_mode='value' is none of"):
        run.stream(_line(("a", _says("a")), saved=False), {"log": []}, stream_mode="value")


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_what_graphs_within_write_is_streamed_with_the_subgraphs_and_not_without(run: Run, executor: str):
    """SM-5, SM-2"""

    def inner(state: State) -> dict[str, Any]:
        get_stream_writer()("inner")
        return {}

    def calls(state: State) -> dict[str, Any]:
        get_stream_writer()("outer")
        _line(("inner", inner), saved=False).invoke({"log": []})
        return {}

    graph = _line(("outer", calls), ("child", _line(("inner", inner), saved=False)), saved=False, executor=executor)
    assert run.stream(graph, {"log": []}, stream_mode="custom") == ["outer"]
    chunks = run.stream(graph, {"log": []}, stream_mode="custom", subgraphs=True)
    assert [(len(ns), chunk) for ns, chunk in chunks] == [(0, "outer"), (1, "inner"), (1, "inner")]


def test_a_custom_chunk_arrives_while_its_node_still_runs():
    """SM-11"""
    taken = threading.Event()

    def node(state: State) -> dict[str, Any]:
        get_stream_writer()("first")
        assert taken.wait(30)
        return {}

    chunks = _line(("a", node), saved=False).stream({"log": []}, stream_mode="custom")
    assert next(chunks) == "first"
    taken.set()
    assert list(chunks) == []


def test_a_custom_chunk_arrives_while_its_node_still_runs_in_a_process(tmp_path: Path):
    """SM-11, D-5"""
    gate = str(tmp_path / "gate")
    os.mkfifo(gate)

    def node(state: State) -> dict[str, Any]:
        get_stream_writer()("first")
        with open(gate) as opened:  # blocks until the other end is opened
            return {"log": [opened.read()]}

    graph = _line(("a", node), saved=False, executor="process")
    chunks = graph.stream({"log": []}, stream_mode=["custom", "updates"])
    assert next(chunks) == ("custom", "first")
    with open(gate, "w") as opened:
        opened.write("go")
    assert list(chunks) == [("updates", {"a": {"log": ["go"]}})]
