"""What a path looks at: only what its code shows plainly is left out of its question, and it answers the same."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypedDict

import pytest

from mpflow.constants import END, START
from mpflow.graph.looking import keys_looked_at
from mpflow.graph.state import StateGraph
from tests.colours import Run


async def waiting(state: Any) -> str:
    return "a" if state["n"] < 3 else END


def with_other_variables(state: Any, config: Any = None) -> str:
    other = state["n"]
    for at in range(other):
        if other == at or state["m"]:
            return "a"
    return END


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        (lambda state: "a" if state["n"] < 3 else END, {"n"}),
        (lambda state: state["n"] + state["m"] > state["n"], {"n", "m"}),
        (lambda state: "a", set()),
        (lambda state: state["log"][-1], {"log"}),
        (lambda state: state["log"].append(1), {"log"}),
        (waiting, {"n"}),
        (with_other_variables, {"n", "m"}),
    ],
)
def test_keys_that_a_path_subscripts_by_are_found(path: Callable[..., Any], keys: set[str]) -> None:
    assert keys_looked_at(path) == keys


def stored(state: Any) -> str:
    state["n"] = 1
    return "a"


def bound(state: Any) -> str:
    state = dict(state)
    return str(state["n"])


def closed_over(state: Any) -> Any:
    return (lambda: state["log"])()


def in_a_comprehension(state: Any) -> Any:
    return [key for key in ("log",) if state[key]]


def by_a_variable(state: Any) -> Any:
    key = "log"
    return state[key]


def by_locals(state: Any) -> Any:
    return state["n"] and locals()["state"]["log"]


def kept(state: Any) -> Any:
    other = state
    return other["log"]


def deleted(state: Any) -> Any:
    del state
    return "a"


def with_a_second(state: Any, other: Any = None) -> Any:
    return other == state


class Asked:
    def __call__(self, state: Any) -> str:
        return "a"

    def method(self, state: Any) -> str:
        return "a"


@pytest.mark.parametrize(
    "path",
    [
        stored,
        bound,
        closed_over,
        in_a_comprehension,
        by_a_variable,
        by_locals,
        kept,
        deleted,
        with_a_second,
        lambda state: state.get("n"),
        lambda state: len(state),
        lambda state: "a" if state else END,
        lambda state: state["n":],
        lambda state: state[0],
        lambda state: {**state},
        lambda *states: states[0]["n"],
        lambda: "a",
        partial(stored),
        Asked(),
        Asked().method,
        None,
    ],
)
def test_of_a_path_that_may_do_more_nothing_is_known(path: Any) -> None:
    assert keys_looked_at(path) is None


class State(TypedDict):
    log: Annotated[list[int], operator.add]
    n: int


def by_number(state: State) -> str:
    return "a" if state["n"] < 4 else END


def by_log(state: State) -> str:
    return "a" if len(state["log"]) < 4 else END


def by_all(state: State) -> str:
    return "a" if next(iter(state.values())) != [0, 1, 2, 3] else END


@pytest.mark.parametrize("route", [by_number, by_log, by_all])
def test_rt1_a_path_sees_its_nodes_writes_in_what_it_looks_at(run: Run, route: Any) -> None:
    graph = StateGraph(State).add_node("a", lambda state: {"log": [state["n"]], "n": state["n"] + 1})
    graph.add_edge(START, "a").add_conditional_edges("a", route, ["a", END])
    assert run.invoke(graph.compile(), {"log": [], "n": 0}) == {"log": [0, 1, 2, 3], "n": 4}


def test_what_cannot_be_joined_is_found_when_the_path_is_asked(run: Run) -> None:
    asked: list[int] = []

    def route(state: State) -> str:
        asked.append(state["n"])
        return END

    graph = StateGraph(State).add_node("a", lambda state: {"log": (1,)}).add_edge(START, "a")
    graph.add_conditional_edges("a", route, [END])
    with pytest.raises(TypeError):
        run.invoke(graph.compile(), {"log": [0], "n": 0})
    assert not asked
