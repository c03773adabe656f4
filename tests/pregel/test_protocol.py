"""What compiled graphs and the ids of checkpoints are to code that is written against them (MOD-10, MOD-13)."""

from __future__ import annotations

from typing import Any, TypedDict

from mpflow.checkpoint.base.id import uuid6
from mpflow.func import entrypoint
from mpflow.graph import START, StateGraph
from mpflow.pregel.protocol import PregelProtocol
from mpflow.runnables import RunnableLambda


class State(TypedDict, total=False):
    x: int


def test_compiled_graphs_and_entrypoints_fit_the_protocol() -> None:
    @entrypoint()
    def flow(x: int) -> int:
        return x

    graph = StateGraph(State).add_node("n", lambda state: {"x": 1}).add_edge(START, "n").compile()
    assert isinstance(graph, PregelProtocol)
    assert isinstance(flow, PregelProtocol)
    assert not isinstance(RunnableLambda(lambda x: x), PregelProtocol)


def test_ids_sort_by_time_and_hold_what_they_are_given() -> None:
    ids = [uuid6(clock_seq=step) for step in range(20)]
    assert sorted(ids, key=str) == ids
    assert {made.version for made in ids} == {6}
    assert [made.clock_seq for made in ids] == list(range(20))
    given: Any = uuid6(node=0x1234)
    assert given.node == 0x1234
