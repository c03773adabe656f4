"""What ends more than a task: exits and interrupts that a node raises itself, wherever it runs (FAULTS row 6)."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest

from mpflow._exec.process import WorkerPool
from mpflow.graph import START, StateGraph
from tests.colours import Run

pytestmark = pytest.mark.warm_pool


class State(TypedDict):
    log: Annotated[list[Any], operator.add]


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as pool:
        yield pool


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt("by hand")])
@pytest.mark.parametrize("place", ["inline", "thread", "process"])
def test_an_exit_in_a_node_is_raised_by_the_run_and_ends_nothing_else(
    run: Run, pool: WorkerPool, place: str, error: BaseException
) -> None:
    """As LangGraph has it for its threads; here a worker lives on as well."""

    def leave(state: State) -> None:
        if isinstance(error, SystemExit):
            sys.exit(3)
        raise error

    def stay(state: State) -> State:
        return {"log": ["stayed"]}

    graph = StateGraph(State).add_node(leave, executor=place).add_node(stay, executor=place)
    graph.add_edge(START, "leave").add_edge(START, "stay")
    with pytest.raises(type(error)) as raised:
        run.invoke(graph.compile(pool=pool), {"log": []})
    assert raised.value.args == error.args
    alone = StateGraph(State).add_node(stay, executor=place).add_edge(START, "stay").compile(pool=pool)
    before = pool.stats()["started"]
    assert run.invoke(alone, {"log": []})["log"] == ["stayed"]
    assert pool.stats()["started"] <= max(before, 1) and pool.stats()["deaths"] == 0
