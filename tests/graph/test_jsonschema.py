"""The schemas of a graph as pydantic models and as JSON (DR-4)."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from typing_extensions import NotRequired, TypedDict

from mpflow.graph import START, StateGraph

pydantic = pytest.importorskip("pydantic")


class State(TypedDict):
    log: Annotated[list[str], operator.add]
    total: int


class Answer(TypedDict):
    total: NotRequired[int]


@dataclass
class Context:
    user: str
    tags: list[str] = field(default_factory=list)


def _graph(schema: Any, **options: Any) -> Any:
    graph = StateGraph(schema, **options)
    graph.add_node("only", lambda state: {})
    graph.add_edge(START, "only")
    return graph.compile(name="G")


def test_input_and_output_have_schemas_of_their_own():
    graph = _graph(State, output_schema=Answer)
    assert graph.get_input_jsonschema()["required"] == ["log", "total"]
    assert graph.get_input_jsonschema()["properties"]["log"]["items"] == {"type": "string"}
    assert "required" not in graph.get_output_jsonschema()
    assert graph.get_output_schema().model_validate({"total": 1}).total == 1


def test_the_context_has_a_schema_if_the_graph_says_so():
    assert _graph(State).get_context_jsonschema() is None
    assert _graph(State, context_schema=Context).get_context_jsonschema()["required"] == ["user"]


def test_dataclasses_keep_their_defaults():
    shown = _graph(Context).get_input_jsonschema()
    assert shown["title"] == "GInput"
    assert shown["required"] == ["user"]


def test_a_model_is_its_own_schema():
    model = pydantic.create_model("Model", total=(int, 3))
    graph = _graph(model)
    assert graph.get_input_schema() is model
    assert graph.get_output_jsonschema() == model.model_json_schema()
