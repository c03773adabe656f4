"""Error handlers stand in for nodes that failed for good, within the same step (EH-1 to EH-4, GB-11)."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.errors import NodeError
from mpflow.graph import START, StateGraph
from mpflow.types import Command, RetryPolicy, Send, interrupt

THREAD = {"configurable": {"thread_id": "1"}}


class State(TypedDict):
    x: Annotated[list[str], operator.add]


@dataclass
class Typed:
    x: Annotated[list[str], operator.add]


def fail(state: State) -> State:
    raise ValueError("broken")


def other(state: State) -> State:
    return {"x": ["other"]}


def handler(state: State, error: NodeError) -> State:
    return {"x": [f"{error.node} {error.error}"]}


def graph_of(action: Any = fail, **options: Any) -> StateGraph[Any]:
    return StateGraph(State).add_node("a", action, **options).add_edge(START, "a")


def test_a_handlers_diff_replaces_that_of_the_failed_node(run: Any) -> None:
    """EH-1: siblings finish, the run goes on, and the diff is merged where the failed task's would be."""
    graph = graph_of(error_handler=handler).add_node("b", other).add_edge(START, "b").compile()
    assert run.invoke(graph, {"x": []}) == {"x": ["a broken", "other"]}


def test_the_handler_routes_and_the_nodes_own_edges_do_not_fire(run: Any) -> None:
    """EH-2"""

    def rescue(state: State, error: NodeError) -> Command[Any]:
        return Command(update={"x": ["rescued"]}, goto="c")

    builder = graph_of(error_handler=rescue).add_node("b", other).add_edge("a", "b")
    builder.add_node("c", lambda state: {"x": ["c"]})
    assert run.invoke(builder.compile(), {"x": []}) == {"x": ["rescued", "c"]}


def test_what_streams_show(run: Any) -> None:
    """EH-2: the failed node an error, the handler its diff under a name of its own."""
    chunks = run.stream(graph_of(error_handler=handler).compile(), {"x": []}, stream_mode=["updates", "tasks"])
    assert ("updates", {"__error_handler__a": {"x": ["a broken"]}}) in chunks
    ends = [chunk for mode, chunk in chunks if mode == "tasks" and "result" in chunk]
    assert [(end["name"], repr(end["error"]), end["result"]) for end in ends] == [
        ("a", "ValueError('broken')", {}),
        ("__error_handler__a", "None", {"x": ["a broken"]}),
    ]


def test_each_failed_send_is_handled_with_its_own_input(run: Any) -> None:
    def failing(arg: str) -> State:
        raise ValueError(arg)

    def rescue(arg: str, error: NodeError) -> State:
        return {"x": [f"{arg} {error.error}"]}

    builder = StateGraph(State).add_node("a", failing, error_handler=rescue)
    builder.add_conditional_edges(START, lambda state: [Send("a", name) for name in "pqr"], ["a"])
    assert run.invoke(builder.compile(), {"x": []}) == {"x": ["p p", "q q", "r r"]}


def test_a_handler_sees_the_input_in_the_nodes_own_form(run: Any) -> None:
    def failing(state: Typed) -> State:
        raise ValueError

    def rescue(state: Any, error: NodeError) -> State:
        return {"x": [type(state).__name__]}

    assert run.invoke(graph_of(failing, error_handler=rescue).compile(), {"x": []}) == {"x": ["Typed"]}


def test_a_handler_comes_after_the_last_retry(run: Any) -> None:
    attempts: list[int] = []

    def failing(state: State) -> State:
        attempts.append(1)
        raise ConnectionError

    policy = RetryPolicy(initial_interval=0.0, jitter=False)
    run.invoke(graph_of(failing, retry_policy=policy, error_handler=handler).compile(), {"x": []})
    assert len(attempts) == 3


def test_a_failing_handler_fails_the_run(run: Any) -> None:
    """EH-3: it has no handler itself, not even the default one."""

    def rescue(state: State, error: NodeError) -> State:
        raise KeyError("worse")

    builder = graph_of(error_handler=rescue).set_node_defaults(error_handler=handler)
    with pytest.raises(KeyError, match="worse") as caught:
        run.invoke(builder.compile(), {"x": []})
    assert "__error_handler__a" in caught.value.__notes__[0]


def test_an_error_elsewhere_still_fails_the_run(run: Any) -> None:
    def failing(state: State) -> State:
        raise KeyError("other")

    builder = graph_of(error_handler=handler).add_node("b", failing).add_edge(START, "b")
    with pytest.raises(KeyError, match="other"):
        run.invoke(builder.compile(), {"x": []})


def test_questions_are_no_failures(run: Any) -> None:
    """ER-8, EH-3"""

    def asking(state: State) -> State:
        return {"x": [interrupt("?")]}

    graph = graph_of(asking, error_handler=handler).compile(checkpointer=InMemorySaver())
    run.invoke(graph, {"x": []}, THREAD)
    assert run.invoke(graph, Command(resume="yes"), THREAD) == {"x": ["yes"]}


def test_a_handler_may_ask(run: Any) -> None:
    """EH-4: its question is answered without the node running again."""
    runs: list[str] = []

    def failing(state: State) -> State:
        runs.append("a")
        raise ValueError("broken")

    def rescue(state: State, error: NodeError) -> State:
        return {"x": [interrupt(str(error.error))]}

    graph = graph_of(failing, error_handler=rescue).compile(checkpointer=InMemorySaver())
    (question,) = run.invoke(graph, {"x": []}, THREAD)["__interrupt__"]
    assert question.value == "broken"
    assert run.invoke(graph, Command(resume="mended"), THREAD) == {"x": ["mended"]}
    assert runs == ["a"]


def test_resuming_runs_the_handler_and_not_the_node(run: Any) -> None:
    """EH-4: the run ended after the failure and before the handler could."""
    runs: list[str] = []
    down = True

    def failing(state: State) -> State:
        runs.append("a")
        raise ValueError("broken")

    def rescue(state: State, error: NodeError) -> State:
        runs.append("rescue")
        if down:
            raise ConnectionError
        return handler(state, error)

    graph = graph_of(failing, error_handler=rescue).compile(checkpointer=InMemorySaver())
    with pytest.raises(ConnectionError):
        run.invoke(graph, {"x": []}, THREAD)
    assert [task.name for task in run.get_state(graph, THREAD).tasks] == ["a"]
    down = False
    assert run.invoke(graph, None, THREAD) == {"x": ["a broken"]}
    assert runs == ["a", "rescue", "rescue"]


@pytest.mark.warm_pool
def test_handlers_run_on_processes_too(run: Any) -> None:
    graph = graph_of(error_handler=handler).compile(executor="process")
    assert run.invoke(graph, {"x": []}) == {"x": ["a broken"]}


# -- defaults ---------------------------------------------------------------------------------------------------------


def test_a_default_handler_serves_the_nodes_that_have_none(run: Any) -> None:
    """EH-3, GB-11"""
    builder = graph_of().set_node_defaults(error_handler=handler)

    def own(state: State, error: NodeError) -> State:
        return {"x": ["own"]}

    builder.add_node("c", fail, error_handler=own).add_edge(START, "c")
    chunks = run.stream(builder.compile(), {"x": []}, stream_mode="updates")
    assert sorted(chunks, key=repr) == [
        {"__default_error_handler__": {"x": ["a broken"]}},
        {"__error_handler__c": {"x": ["own"]}},
    ]


def test_defaults_reach_nodes_added_before_and_after_and_calls_add_up(run: Any) -> None:
    """GB-11"""
    attempts: list[str] = []

    def failing(state: State) -> State:
        attempts.append("a")
        raise ConnectionError("down")

    def rescue(state: State, error: NodeError) -> State:
        attempts.append("h")
        if len(attempts) < 4:
            raise ConnectionError("down")
        return {"x": ["h"]}

    builder = StateGraph(State).set_node_defaults(
        retry_policy=RetryPolicy(initial_interval=0.0, jitter=False, max_attempts=2)
    )
    builder.set_node_defaults(error_handler=rescue).add_node("a", failing).add_edge(START, "a")
    assert run.invoke(builder.compile(), {"x": []}) == {"x": ["h"]}
    assert attempts == ["a", "a", "h", "h"]


def test_names_of_handlers_are_taken() -> None:
    """EH-3"""
    with pytest.raises(ValueError, match="__default_error_handler__"):
        graph_of().add_node("__default_error_handler__", other).set_node_defaults(error_handler=handler).compile()
    with pytest.raises(ValueError, match="__error_handler__a"):
        graph_of(error_handler=handler).add_node("__error_handler__a", other)
    with pytest.raises(ValueError, match="__error_handler__b"):
        graph_of().add_node("__error_handler__b", other).add_node("b", fail, error_handler=handler)


def test_what_cannot_be_called_is_no_handler() -> None:
    with pytest.raises(TypeError, match="unsupported type"):
        graph_of(error_handler=5)
    with pytest.raises(TypeError, match="unsupported type"):
        graph_of().set_node_defaults(error_handler=5)  # type: ignore[arg-type]


def test_a_handler_may_be_a_breakpoint(run: Any) -> None:
    """EH-4, IN-10: the run pauses between the failure and its handler, which then gets the stored error."""
    runs: list[str] = []

    def failing(state: State) -> State:
        runs.append("a")
        raise ValueError("broken")

    builder = graph_of(failing, error_handler=handler).add_node("b", other).add_edge(START, "b")
    graph = builder.compile(checkpointer=InMemorySaver(), interrupt_before=["__error_handler__a"])
    assert run.invoke(graph, {"x": []}, THREAD) == {"x": ["other"]}
    assert run.get_state(graph, THREAD).next == ("a",)
    assert run.invoke(graph, None, THREAD) == {"x": ["a broken", "other"]}
    assert runs == ["a"]
