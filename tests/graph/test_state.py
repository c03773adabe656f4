"""State: schemas, channels, what a node sees and what comes out (ST-*)."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Annotated, Any, Optional, TypedDict

import pytest
from pydantic import BaseModel, ValidationError

from mpflow.channels import EphemeralValue, LastValue, Topic, UntrackedValue
from mpflow.errors import InvalidUpdateError
from mpflow.graph import START, StateGraph
from mpflow.managed import IsLastStep, RemainingSteps
from mpflow.types import Overwrite, Send
from tests.colours import Run


class Typed(TypedDict, total=False):
    x: int
    log: Annotated[list, operator.add]


@dataclass
class Data:
    x: int = 0
    log: Annotated[list, operator.add] = field(default_factory=list)


class Model(BaseModel):
    x: int = 0
    log: Annotated[list, operator.add] = []
    note: Optional[str] = None  # noqa: UP045


def chain(schema: Any, *actions: Any, **kw: Any) -> Any:
    graph = StateGraph(schema, **kw)
    names = [START]
    for action in actions:
        names.append(f"n{len(names)}")
        graph.add_node(names[-1], action)
        graph.add_edge(names[-2], names[-1])
    return graph.compile()


def star(schema: Any, **actions: Any) -> Any:
    graph = StateGraph(schema)
    for name, action in actions.items():
        graph.add_node(name, action).add_edge(START, name)
    return graph.compile()


@pytest.mark.parametrize("schema", [Typed, Data, Model])
def test_st1_st21_nodes_get_what_the_schema_makes(run: Run, schema: Any) -> None:
    seen: list[Any] = []
    graph = chain(schema, lambda state: seen.append(state) or {"x": 2, "log": ["n"]})
    assert run.invoke(graph, {"x": 1, "log": ["in"]}) == {"x": 2, "log": ["in", "n"]}
    assert type(seen[0]) is (dict if schema is Typed else schema)


def test_st2_channels_are_taken_from_annotations(run: Run) -> None:
    class State(TypedDict, total=False):
        once: Annotated[int, EphemeralValue]
        bag: Annotated[list, Topic(int)]
        temp: Annotated[int, UntrackedValue]
        plain: Annotated[int, "a note"]
        last: IsLastStep
        left: RemainingSteps

    graph = StateGraph(State)
    assert {key: type(channel) for key, channel in graph.channels.items()} == {
        "once": EphemeralValue,
        "bag": Topic,
        "temp": UntrackedValue,
        "plain": LastValue,
    }
    seen: list[Any] = []
    graph.add_node("a", lambda s: seen.append(dict(s)) or {"once": 1, "bag": [1, 2], "temp": 3})
    graph.add_node("b", lambda s: seen.append(dict(s)) or {"bag": 3})
    graph.add_edge(START, "a").add_edge("a", "b")
    assert run.invoke(graph.compile(), {"plain": 0}, {"recursion_limit": 3}) == {"bag": [3], "temp": 3, "plain": 0}
    assert seen == [
        {"plain": 0, "last": False, "left": 2},
        {"plain": 0, "last": True, "left": 1, "once": 1, "bag": [1, 2], "temp": 3},
    ]


@pytest.mark.parametrize(
    ("reducer", "said"),
    [(lambda a: a, "Expected (a, b) -> c. Got (a)"), (lambda a, b, c: a, "Got (a, b, c)"), (max, "no signature found")],
)
def test_st3_a_reducer_takes_two(reducer: Any, said: str) -> None:
    schema: Any = TypedDict("schema", {"x": Annotated[int, reducer]})  # type: ignore[misc]
    with pytest.raises(ValueError) as caught:
        StateGraph(schema)
    assert said in str(caught.value)


def test_a_schema_that_cannot_be_read_says_which_and_why() -> None:
    class Broken(TypedDict):
        x: "Nowhere"  # type: ignore[name-defined]  # noqa: F821, UP037

    with pytest.raises(ValueError, match=r"state schema 'Broken' cannot be read.*Nowhere"):
        StateGraph(Broken)


def test_st4_two_writers_of_one_key_are_both_named(run: Run) -> None:
    graph = star(Typed, left=lambda s: {"x": 1}, right=lambda s: {"x": 1}, other=lambda s: {"log": [1]})
    with pytest.raises(InvalidUpdateError, match="At key 'x': Can receive only one value per step") as caught:
        run.invoke(graph, {"x": 0})
    assert "'left', 'right'" in str(caught.value)
    assert "'other'" not in str(caught.value)
    assert "INVALID_CONCURRENT_GRAPH_UPDATE" in str(caught.value)


def test_st5_a_reducer_without_a_first_value_takes_the_first_write(run: Run) -> None:
    class Needs:
        def __init__(self, needed: int) -> None:
            self.needed = needed

    schema: Any = TypedDict("schema", {"n": Annotated[Needs, lambda a, b: Needs(a.needed + b.needed)]})  # type: ignore[misc]
    graph = star(schema, a=lambda s: {"n": Needs(1)}, b=lambda s: {"n": Needs(2)})
    assert run.invoke(graph, {"n": Needs(4)})["n"].needed == 7


@pytest.mark.parametrize("write", [Overwrite(["new"]), {"__overwrite__": ["new"]}], ids=["class", "dict"])
def test_st6_overwrite_replaces_and_the_steps_other_writes_are_lost(run: Run, write: Any) -> None:
    graph = star(Typed, a=lambda s: {"log": ["a"]}, b=lambda s: {"log": write}, c=lambda s: {"log": ["c"]})
    assert run.invoke(graph, {"log": ["old"]})["log"] == ["new"]


def test_st6_two_overwrites_in_a_step_are_refused(run: Run) -> None:
    graph = star(Typed, a=lambda s: {"log": Overwrite([])}, b=lambda s: {"log": Overwrite([])})
    with pytest.raises(InvalidUpdateError, match="only one Overwrite value"):
        run.invoke(graph, {"log": ["old"]})


def test_st13_managed_values_are_no_part_of_an_input_or_output_schema() -> None:
    class Steps(TypedDict):
        left: RemainingSteps

    with pytest.raises(ValueError, match=r"left.*not permitted in Input/Output schema"):
        StateGraph(Typed, input_schema=Steps)


class Entry(TypedDict):
    x: int


class Exit(TypedDict):
    log: list


class Private(TypedDict, total=False):
    secret: int


def tell(state: Typed) -> dict:
    return {"log": [sorted(state)], "secret": 5}


def read(state: Private) -> dict:
    return {"log": [dict(state)]}


def test_st14_st15_schemas_say_who_sees_what(run: Run) -> None:
    graph = chain(Typed, tell, read, tell, input_schema=Entry, output_schema=Exit)
    given = {"x": 1, "log": ["dropped"], "secret": 9}
    assert run.invoke(graph, given) == {"log": [["log", "x"], {"secret": 5}, ["log", "x"]]}
    assert run.stream(graph, given, stream_mode="values")[0] == {"x": 1, "log": []}
    assert run.stream(graph, given, stream_mode="values")[-1]["secret"] == 5
    assert set(run.stream(graph, given, stream_mode="values", output_keys=["x"])[-1]) == {"x"}


def test_st16_st17_a_key_without_a_value_is_missing_not_none(run: Run) -> None:
    graph = chain(Typed, lambda state: {"log": [sorted(state)]})
    assert run.invoke(graph, {"log": []}) == {"log": [["log"]]}


def test_st18_st19_models_are_validated_as_input_and_never_as_output(run: Run) -> None:
    graph = chain(Model, lambda state: {"log": [state.x, type(state).__name__]}, lambda state: {"x": "bad"})
    assert run.invoke(graph, {"x": "6"}) == {"x": "bad", "log": [6, "Model"]}
    with pytest.raises(ValidationError):
        run.invoke(graph, {"x": "six"})  # ST-22
    wrong = chain(Model, lambda state: {"x": "bad"}, lambda state: None)
    with pytest.raises(ValidationError):
        run.invoke(wrong, {"x": 1})


def test_st19_version_two_returns_the_model(run: Run) -> None:
    graph = chain(Model, lambda state: {"x": state.x + 1})
    output = run.invoke(graph, {"x": "6"}, version="v2")
    assert (type(output.value), output.value.x, output.interrupts) == (Model, 7, ())


@pytest.mark.parametrize("made", [Model(log=["m"]), Data(log=["m"])], ids=["model", "dataclass"])
def test_st20_an_instance_writes_its_fields_defaults_too(run: Run, made: Any) -> None:
    graph = chain(type(made), lambda state: made)
    given = {"x": 5, "log": []} | ({"note": "kept"} if isinstance(made, Model) else {})
    result = run.invoke(graph, given)
    assert (result["x"], result["log"]) == (0, ["m"])
    assert result.get("note") in (None, "kept")
    if isinstance(made, Model):
        assert result["note"] == "kept"  # None by default and not set: not written
        assert run.invoke(graph, Model(x=3))["x"] == 0


def test_gb19_a_root_state_is_a_bare_value(run: Run) -> None:
    graph = star(Annotated[list, operator.add], b=lambda s: [len(s)], a=lambda s: ["a"])
    assert run.invoke(graph, ["in"]) == ["in", "a", 1]
    assert run.stream(graph, ["in"], stream_mode="values") == [["in"], ["in", "a", 1]]
    assert {name: chunk[name] for chunk in run.stream(graph, ["in"]) for name in chunk} == {"a": ["a"], "b": [1]}
    assert run.invoke(chain(int, lambda s: s + 1, lambda s: s * 2), 3) == 8


def test_sn2_a_send_is_neither_merged_nor_coerced(run: Run) -> None:
    seen: list[Any] = []
    graph = StateGraph(Model).add_node("w", lambda arg: seen.append(arg))
    graph.add_conditional_edges(START, lambda state: [Send("w", {"x": "raw"}), Send("w", 3)])
    run.invoke(graph.compile(), {"x": 1})
    assert sorted(map(repr, seen)) == ["3", "{'x': 'raw'}"]
