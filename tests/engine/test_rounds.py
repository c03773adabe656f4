"""Loops whose rounds are alike, until one is not: what is saved of each says what it did, whatever the rounds before it were."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.checkpoint.sqlite import SqliteSaver
from mpflow.constants import END, START
from mpflow.graph.state import StateGraph
from mpflow.types import Overwrite
from tests.colours import Run

CONFIG: Any = {"configurable": {"thread_id": "t"}}
ROUNDS = 9
ODD = 5
TEXT = "x" * 10_000


class State(TypedDict, total=False):
    n: int
    log: Annotated[list[Any], operator.add]
    total: Annotated[int, operator.add]
    other: Any


def shortened(value: list[Any], write: list[Any]) -> list[Any]:
    return (value + write)[-3:]


class Kept(TypedDict):
    n: int
    last: Annotated[list[Any], shortened]


USUAL: dict[str, Any] = {"log": ["item"], "total": 2}
ODD_ROUNDS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "none is odd": lambda state: USUAL,
    "another channel": lambda state: {**USUAL, "other": 1},
    "one channel less": lambda state: {"total": 2},
    "nothing": lambda state: {},
    "overwritten": lambda state: {**USUAL, "log": Overwrite(["anew"])},
    "another type": lambda state: {**USUAL, "total": 2.5},
    "large": lambda state: {**USUAL, "other": TEXT},
    "changed in place": lambda state: {**USUAL, "log": state["log"]},
}


def looping(saver: Any, odd: Callable[[Any], dict[str, Any]]) -> Any:
    graph = StateGraph(State)
    graph.add_node("a", lambda state: {"n": state["n"] + 1, **(odd(state) if state["n"] == ODD else USUAL)})
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: "a" if state["n"] < ROUNDS else END, ["a", END])
    return graph.compile(checkpointer=saver)


@pytest.mark.parametrize("odd", ODD_ROUNDS.values(), ids=list(ODD_ROUNDS))
def test_a_round_that_is_unlike_those_before(run: Run, tmp_path: Path, odd: Any) -> None:
    plain = looping(InMemorySaver(), odd)
    said = list(plain.stream({"n": 0, "log": []}, CONFIG, stream_mode="values"))
    path = str(tmp_path / "db")
    with SqliteSaver.from_conn_string(path) as saver:
        run.invoke(looping(saver, odd), {"n": 0, "log": []}, CONFIG)
    with SqliteSaver.from_conn_string(path) as saver:
        found = run.history(looping(saver, odd), CONFIG)
        assert [snapshot.values for snapshot in found if snapshot.metadata["step"] >= 0] == said[::-1]
    assert [snapshot.values for snapshot in run.history(plain, CONFIG)][:-1] == said[::-1]


def test_a_channel_that_does_not_grow_by_what_is_written(run: Run) -> None:
    graph = StateGraph(Kept)
    graph.add_node("a", lambda state: {"n": state["n"] + 1, "last": [state["n"]]})
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: "a" if state["n"] < ROUNDS else END, ["a", END])
    app = graph.compile(checkpointer=InMemorySaver())
    run.invoke(app, {"n": 0}, CONFIG)
    lasts = [snapshot.values.get("last") for snapshot in run.history(app, CONFIG)]
    assert lasts[: ROUNDS - 2] == [[n - 2, n - 1, n] for n in range(ROUNDS - 1, 1, -1)]


def test_the_parts_of_rounds_are_told_with_the_ids_that_their_tasks_had(run: Run) -> None:
    app = looping(InMemorySaver(), lambda state: USUAL)
    tasks = [chunk for chunk in run.stream(app, {"n": 0}, CONFIG, stream_mode="tasks") if "input" in chunk]
    found = [task for snapshot in run.history(app, CONFIG) for task in snapshot.tasks if task.name == "a"]
    assert [task.id for task in found] == [task["id"] for task in reversed(tasks)]
    assert all(task.result["total"] == 2 for task in found)
