"""Parameters that LangGraph has renamed are taken under their former names, with a warning of the kind that it gives."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.func import entrypoint, task
from mpflow.graph import START, StateGraph
from mpflow.pregel import NodeBuilder, Pregel
from mpflow.types import RetryPolicy
from mpflow.warnings import LangGraphDeprecatedSinceV05, LangGraphDeprecatedSinceV10
from tests.colours import Run

AT_ONCE = RetryPolicy(initial_interval=0.0, jitter=False, max_attempts=3, retry_on=KeyError)


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    x: int


class Part(TypedDict, total=False):
    x: int


class Context(TypedDict):
    user: str


def stumbling(times: int) -> Any:
    left = [times]

    def node(state: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise KeyError("again")
        return {"log": sorted(state) if isinstance(state, dict) else [state]}

    return node


def test_schemas_of_a_graph() -> None:
    """GB-1"""
    with pytest.warns(LangGraphDeprecatedSinceV10, match="context_schema"):
        assert StateGraph(State, config_schema=Context).context_schema is Context
    with pytest.warns(LangGraphDeprecatedSinceV05, match="_schema") as warned:
        builder = StateGraph(State, input=Part, output=Part)
    assert (builder.input_schema, builder.output_schema) == (Part, Part)
    assert [warning.filename for warning in warned] == [__file__] * 2


def test_policies_and_schemas_of_nodes(run: Run) -> None:
    """GB-2"""
    with pytest.warns(LangGraphDeprecatedSinceV05):
        builder = StateGraph(State).add_node("n", stumbling(2), retry=AT_ONCE, input=Part)
    assert run.invoke(builder.add_edge(START, "n").compile(), {"x": 1, "log": []})["log"] == ["x"]


def test_policies_of_tasks_and_entrypoints(run: Run) -> None:
    """FN-1, FN-2"""
    with pytest.warns(LangGraphDeprecatedSinceV05):
        work = task(retry=AT_ONCE)(stumbling(2))
    fails = stumbling(1)
    with pytest.warns(LangGraphDeprecatedSinceV05):

        @entrypoint(retry=AT_ONCE)
        def flow(x: int) -> Any:
            fails(x)
            return work(x).result()["log"]

    assert run.invoke(flow, 7) == [7]


def test_the_context_of_a_pregel() -> None:
    """PR-1"""
    node = NodeBuilder().subscribe_only("in").do(lambda x: x).write_to("out")
    with pytest.warns(LangGraphDeprecatedSinceV10):
        graph = Pregel(
            nodes={"n": node},
            channels=None,
            input_channels="in",
            output_channels="out",
            config_type=Context,
            auto_validate=False,
        )
    assert graph.context_schema is Context


@pytest.mark.parametrize(("during", "saved"), [(True, 3), (False, 1)])
def test_whether_checkpoints_are_saved_on_the_way(run: Run, during: bool, saved: int) -> None:
    """CP-5"""
    graph = (
        StateGraph(State)
        .add_node("n", lambda state: {"x": 1})
        .add_edge(START, "n")
        .compile(checkpointer=InMemorySaver())
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.warns(LangGraphDeprecatedSinceV10):
        run.invoke(graph, {"x": 0}, config, checkpoint_during=during)
    assert len(run.history(graph, config)) == saved
    with pytest.warns(LangGraphDeprecatedSinceV10):
        assert run.stream(graph, {"x": 0}, config, checkpoint_during=during) == [{"n": {"x": 1}}]
    with pytest.raises(ValueError, match="durability"):
        run.invoke(graph, {"x": 0}, config, checkpoint_during=during, durability="sync")


def test_what_never_was_a_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match="retries"):
        StateGraph(State).add_node("n", stumbling(0), retries=AT_ONCE)  # type: ignore[call-arg]
