"""Lists that grow where they are: whoever kept one sees what it was, and a list that nobody kept is not copied."""

from __future__ import annotations

import operator
import threading
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpflow._core import growing
from mpflow._core.growing import WORTH_ITEMS
from mpflow._core.merge import Writer, merge
from mpflow._core.plan import NodePlan, Plan
from mpflow._core.state import ChannelState
from mpflow.channels import BinaryOperatorAggregate
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.constants import END, START
from mpflow.errors import ReducerError
from mpflow.graph.state import StateGraph
from mpflow.types import Overwrite
from tests.colours import Run

LONG = list(range(WORTH_ITEMS))
KEYS = ("log", "other", "sum")


class Listed(list[Any]):
    """A list of the user's own."""


def counting(old: int, new: int) -> int:
    if new < 0:
        raise ValueError("no")
    return old + new


def make_state(*, reads: Any = KEYS) -> ChannelState:
    channels = {
        "log": BinaryOperatorAggregate(list, operator.add),
        "other": BinaryOperatorAggregate(list, operator.iadd),
        "sum": BinaryOperatorAggregate(int, counting),
    }
    for key, channel in channels.items():
        channel.key = key
    plan = Plan("g", {"n": NodePlan("n", None, [], KEYS)}, channels, input=(), output=(), stream=())
    state = ChannelState(plan)
    merge(state, [Writer([("log", LONG), ("other", LONG)])])
    state.current(reads)
    return state


KEPT: dict[str, Any] = {
    "nothing": lambda state: None,
    "the value": lambda state: state.values["log"],
    "what a node is given": lambda state: state.read(KEYS),
    "an iterator": lambda state: iter(state.values["log"]),
    "a list of it": lambda state: [state.values["log"]],
    "a closure": lambda state: (lambda value: lambda: value)(state.values["log"]),
}
WRITES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("log", "other")), st.lists(st.integers(), max_size=3)),
        st.tuples(st.just("sum"), st.integers(0, 9)),
        st.tuples(st.just("log"), st.builds(Listed, st.lists(st.integers(), max_size=2))),
        st.tuples(st.just("log"), st.builds(Overwrite, st.just(LONG))),
    ),
    max_size=4,
)


def folded(values: dict[str, Any], writes: list[tuple[str, Any]]) -> dict[str, Any]:
    """What the writes come to by the reducers alone."""
    found = dict(values)
    for key, write in writes:
        if isinstance(write, Overwrite):
            found[key] = list(write.value)
        elif not any(isinstance(one, Overwrite) for name, one in writes if name == key):
            found[key] = found.get(key, 0) + write
    return found


@given(st.lists(st.tuples(WRITES, st.sampled_from([*KEPT])), max_size=8))
def test_what_was_kept_never_changes(steps: list[tuple[list[tuple[str, Any]], str]]) -> None:
    state = make_state()
    expected: dict[str, Any] = {"log": LONG, "other": LONG, "sum": 0}
    kept: list[tuple[Any, Any]] = []
    for writes, way in steps:
        value = state.values["log"]
        kept.append((KEPT[way](state), None))
        if kept[-1][0] is not None:
            kept[-1] = kept[-1][0], (value, [*value])
        del value
        if sum(isinstance(write, Overwrite) for _, write in writes) > 1:
            continue
        expected = folded(expected, writes)
        merge(state, [Writer(writes)])
        assert state.read(KEYS) == expected
    for _, then in kept:
        if then is not None:
            assert then[0] == then[1]


@pytest.mark.parametrize("way", [way for way in KEPT if way != "nothing"])
@pytest.mark.parametrize("writes", [[("log", [1])], [("log", [1]), ("log", [2])]], ids=["one write", "several"])
def test_a_list_that_somebody_keeps_is_copied(way: str, writes: list[tuple[str, Any]]) -> None:
    state = make_state()
    kept, before = KEPT[way](state), id(state.values["log"])
    merge(state, [Writer(writes)])
    assert id(state.values["log"]) != before
    assert state.values["log"] == [*LONG, *[item for _, write in writes for item in write]]
    del kept


@pytest.mark.skipif(growing._ONE is None, reason="references are not counted here")
@pytest.mark.parametrize("writes", [[("log", [1])], [("log", [1]), ("log", [2])]], ids=["one write", "several"])
def test_a_list_that_nobody_keeps_stays_where_it_is(writes: list[tuple[str, Any]]) -> None:
    state = make_state()
    before = id(state.values["log"])
    for _ in range(3):
        merge(state, [Writer(writes)])
    assert id(state.values["log"]) == before
    assert state.read(KEYS)["log"] is state.objects["log"].value  # type: ignore[attr-defined]
    assert len(state.values["log"]) == len(LONG) + 3 * len(writes)


@pytest.mark.parametrize("times", [1, 2], ids=["one write", "several"])
def test_a_reducer_that_fails_beside_it_leaves_the_list_as_it_was(times: int) -> None:
    state = make_state()
    with pytest.raises(ReducerError):
        merge(state, [Writer([("log", [1]), ("sum", -1)] * times)])
    assert state.read(KEYS) == {"log": LONG, "other": LONG, "sum": 0}


def test_lists_that_cannot_all_grow_are_what_they_were() -> None:
    channels = [BinaryOperatorAggregate(list, operator.add) for _ in range(2)]
    for channel in channels:
        channel.value = [*LONG]
    with pytest.raises(TypeError):
        growing.grow([(channels[0], ([1],)), (channels[1], ([2], None))])
    assert [channel.value for channel in channels] == [LONG, LONG]


def test_a_list_may_be_written_to_itself() -> None:
    state = make_state()
    merge(state, [Writer([("log", state.values["log"])])])
    merge(state, [Writer([("log", [state.values["log"]])])])
    assert state.values["log"] == [*LONG, *LONG, [*LONG, *LONG]]


class State(TypedDict):
    log: Annotated[list[int], operator.add]
    n: int


ROUNDS = 6


def looping(kept: list[Any], route: Any, saver: Any = None, executor: Any = None) -> Any:
    """A loop whose node keeps what it is given, every other time."""

    def node(state: State) -> dict[str, Any]:
        if state["n"] % 2:
            kept.append((state["log"], [*state["log"]]))
        return {"log": [state["n"]], "n": state["n"] + 1}

    graph = StateGraph(State).add_node("a", node, executor=executor).add_edge(START, "a")
    graph.add_conditional_edges("a", route, ["a", END])
    return graph.compile(checkpointer=saver)


def goes_on(state: State) -> str:
    return "a" if state["n"] < ROUNDS else END


@pytest.mark.parametrize("executor", ["inline", "thread"])
@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_what_a_node_kept_stays_as_it_was(run: Run, executor: str, durability: str) -> None:
    kept: list[Any] = []
    config = {"configurable": {"thread_id": "t"}}
    saver = InMemorySaver()
    result = run.invoke(looping(kept, goes_on, saver, executor), {"log": LONG, "n": 0}, config, durability=durability)
    assert result["log"] == [*LONG, *range(ROUNDS)]
    assert len(kept) == ROUNDS // 2 and all(value == then for value, then in kept)
    states = run.history(looping([], goes_on, saver), config)
    assert all(state.values["log"] == [*LONG, *range(state.values["n"])] for state in states if "n" in state.values)
    assert states[0].values == result


def test_what_a_stream_told_stays_as_it_was(run: Run) -> None:
    chunks = run.stream(looping([], goes_on), {"log": LONG, "n": 0}, stream_mode="values")
    assert [chunk["log"] for chunk in chunks] == [[*LONG, *range(n)] for n in range(ROUNDS + 1)]


def test_what_a_branch_changes_is_its_own(run: Run) -> None:
    def route(state: State) -> str:
        state["log"].clear()
        return goes_on(state)

    assert run.invoke(looping([], route), {"log": LONG, "n": 0})["log"] == [*LONG, *range(ROUNDS)]


def test_what_a_node_changes_in_place_is_in_the_state(run: Run) -> None:
    def node(state: State) -> dict[str, Any]:
        state["log"].append(-1)
        return {"log": [1]}

    graph = StateGraph(State).add_node("a", node).add_node("b", node).add_edge(START, "a").add_edge("a", "b").compile()
    assert run.invoke(graph, {"log": LONG, "n": 0})["log"] == [*LONG, -1, 1, -1, 1]


def test_a_thread_that_outlives_its_step_sees_its_input_as_it_was() -> None:
    went_on, seen = threading.Event(), []

    def node(state: State) -> dict[str, Any]:
        if state["n"] == 0:
            thread = threading.Thread(target=lambda log: (went_on.wait(9), seen.append(log)), args=(state["log"],))
            thread.start()
            threads.append(thread)
        return {"log": [state["n"]], "n": state["n"] + 1}

    threads: list[threading.Thread] = []
    graph = StateGraph(State).add_node("a", node).add_edge(START, "a")
    graph.add_conditional_edges("a", goes_on, ["a", END])
    graph.compile().invoke({"log": LONG, "n": 0})
    went_on.set()
    threads[0].join()
    assert seen == [LONG]
