"""Graphs of nodes that are subscribed to channels and write to channels (PR-1 to PR-3), in both colours."""

import operator
from typing import Any, TypedDict

import pytest

from mpflow.channels import BinaryOperatorAggregate, EphemeralValue, LastValue, Topic
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.graph import START, StateGraph
from mpflow.pregel import NodeBuilder, Pregel
from mpflow.runnables import RunnableLambda, RunnableParallel
from mpflow.types import TimeoutPolicy
from tests.colours import Run


async def _awaited(x: Any) -> Any:
    return x


def one(node: NodeBuilder, **changed: Any) -> Pregel:
    given: dict[str, Any] = {
        "nodes": {"one": node},
        "channels": {"input": EphemeralValue(int), "output": LastValue(int)},
        "input_channels": "input",
        "output_channels": "output",
    }
    return Pregel(**{**given, **changed})


def test_a_chain_of_channels_is_one_step_a_node(run: Run) -> None:
    graph = Pregel(
        nodes={
            "first": NodeBuilder().subscribe_only("input").do(lambda x: x + 1).write_to("between"),
            "second": NodeBuilder().subscribe_only("between").do(lambda x: x * 10).write_to("output"),
        },
        channels={"input": EphemeralValue(int), "between": EphemeralValue(int), "output": LastValue(int)},
        input_channels="input",
        output_channels="output",
    )
    assert run.invoke(graph, 1) == 20
    assert run.stream(graph, 1, stream_mode="updates") == [{"first": {"between": 2}}, {"second": {"output": 20}}]
    assert run.stream(graph, 1) == [{"between": 2}, {"output": 20}]


def test_several_input_and_output_channels_are_dicts(run: Run) -> None:
    node = NodeBuilder().subscribe_to("a").read_from("b").do(lambda read: read["a"] + read.get("b", 0))
    graph = Pregel(
        nodes={"add": node.write_to("sum", twice=lambda found: 2 * found)},
        channels={"a": EphemeralValue(int), "b": EphemeralValue(int), "sum": LastValue(int), "twice": LastValue(int)},
        input_channels=["a", "b"],
        output_channels=["sum", "twice"],
    )
    assert run.invoke(graph, {"a": 1, "b": 2}) == {"sum": 3, "twice": 6}
    assert run.invoke(graph, {"a": 1}) == {"sum": 1, "twice": 2}
    with pytest.raises(TypeError, match="expected a dict"):
        run.invoke(graph, 1)


def test_write_forms(run: Run) -> None:
    node = NodeBuilder().subscribe_only("input").do(lambda x: x + 1)
    channels = {key: LastValue(object) for key in ("out", "constant", "made")} | {"input": EphemeralValue(int)}
    graph = one(
        node.write_to("out", constant=None, made=str), channels=channels, output_channels=["out", "constant", "made"]
    )
    assert run.invoke(graph, 1) == {"out": 2, "constant": None, "made": "2"}


def test_steps_of_a_node_follow_one_another_and_are_given_what_they_ask_for(run: Run) -> None:
    def tagged(value, config):  # type: ignore[no-untyped-def]
        return value, config["tags"], config["metadata"]["own"]

    node = NodeBuilder().subscribe_only("input").do(lambda x: x + 1).do(tagged).meta("t", own=1).write_to("output")
    assert run.invoke(one(node), 1) == (2, ["t"], 1)
    assert run.invoke(one(NodeBuilder().subscribe_only("input").write_to("output")), 7) == 7


def test_a_cycle_ends_when_nothing_is_written(run: Run) -> None:
    node = NodeBuilder().subscribe_only("value").do(lambda x: x * 2 if x < 10 else None)

    class Keeping(LastValue[Any]):
        def update(self, values: Any) -> bool:
            return super().update([value for value in values if value is not None])

    graph = one(
        node.write_to("value"), channels={"value": Keeping(int)}, input_channels="value", output_channels="value"
    )
    assert run.invoke(graph, 1) == 16


def test_channels_that_collect(run: Run) -> None:
    channels = {
        "input": EphemeralValue(int),
        "log": Topic(int, accumulate=True),
        "now": Topic(int),
        "sum": BinaryOperatorAggregate(int, operator.add),
    }
    nodes = {
        name: NodeBuilder().subscribe_only("input").do(lambda x, by=by: x * by).write_to("log", "now", "sum")
        for name, by in (("a", 1), ("b", 10))
    }
    nodes["after"] = NodeBuilder().subscribe_to("now").read_from("sum").do(lambda read: read["sum"]).write_to("log")
    graph = Pregel(
        nodes=nodes,
        channels=channels,
        input_channels="input",
        output_channels=["log", "sum"],
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "1"}}
    assert run.invoke(graph, 2, config) == {"log": [2, 20, 22], "sum": 22}
    assert run.invoke(graph, 1, config) == {"log": [2, 20, 22, 1, 10, 33], "sum": 33}


def test_two_writes_to_one_value_are_refused(run: Run) -> None:
    node = NodeBuilder().subscribe_only("input").write_to("output", output=3)
    with pytest.raises(Exception, match="At key 'output'"):
        run.invoke(one(node), 1)


@pytest.mark.parametrize(
    ("node", "changed", "text"),
    [
        (NodeBuilder().subscribe_only("nix"), {}, "reads channel 'nix'"),
        (NodeBuilder().subscribe_to("input").read_from("nix"), {}, "reads channel 'nix'"),
        (NodeBuilder().subscribe_only("output"), {}, "Input channel input is not subscribed"),
        (NodeBuilder().subscribe_only("input"), {"output_channels": "nix"}, "Output channel 'nix'"),
        (NodeBuilder().subscribe_only("input"), {"interrupt_after_nodes": ["nix"]}, "Node nix not in nodes"),
    ],
)
def test_names_that_name_nothing_are_refused(node: NodeBuilder, changed: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        one(node, **changed)
    one(node, auto_validate=False, **changed)


def test_one_channel_alone_stands_beside_no_other() -> None:
    with pytest.raises(ValueError, match="Cannot subscribe to single channels"):
        NodeBuilder().subscribe_to("a").subscribe_only("b")
    with pytest.raises(ValueError, match="Cannot subscribe to channels"):
        NodeBuilder().subscribe_only("a").subscribe_to("b")
    with pytest.raises(ValueError, match="Cannot read additional channels"):
        NodeBuilder().subscribe_only("a").read_from("b")


def test_a_node_can_run_in_a_process_of_its_own(run: Run) -> None:
    import os

    node = NodeBuilder().subscribe_only("input").do(lambda x: (os.getpid(), x)).write_to("output")
    pid, value = run.invoke(one(node, executor="process"), 4)
    assert (pid != os.getpid(), value) == (True, 4)


def test_every_compiled_graph_is_one() -> None:
    class State(TypedDict):
        x: int

    graph = StateGraph(State).add_node("n", lambda state: {"x": 1}).add_edge(START, "n").compile()
    assert isinstance(graph, Pregel)
    inner = one(NodeBuilder().subscribe_only("input").do(lambda x: x + 1).write_to("output"))
    assert one(NodeBuilder().subscribe_only("input").do(inner).write_to("output")).invoke(1) == 2


@pytest.mark.parametrize(
    "action",
    [
        RunnableLambda(lambda x: x),
        RunnableLambda(lambda x: x).with_config(tags=["wrapped"]),
        RunnableParallel(a=RunnableLambda(_awaited), b=RunnableLambda(lambda x: x)),
        RunnableLambda(_awaited) | (lambda x: x),
    ],
)
def test_an_idle_timeout_needs_all_of_a_node_to_be_async(action: Any) -> None:
    """TO-2"""
    node = (
        NodeBuilder().subscribe_only("input").do(action).set_timeout(TimeoutPolicy(idle_timeout=1)).write_to("output")
    )
    with pytest.raises(ValueError, match="only supported for async nodes"):
        one(node)
    awaited = NodeBuilder().subscribe_only("input").do(RunnableLambda(_awaited)).write_to("output")
    one(awaited.set_timeout(TimeoutPolicy(idle_timeout=1)))
