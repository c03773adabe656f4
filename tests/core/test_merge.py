"""The end of a step: the bare values of the commonest channels, all or nothing, and the views that stay current."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpflow._core.merge import merge
from mpflow._core.plan import EPHEMERAL, LAST, NodePlan, Plan
from mpflow._core.state import ChannelState
from mpflow._core.task import Task
from mpflow._names import MISSING
from mpflow.channels import (
    AnyValue,
    BaseChannel,
    BinaryOperatorAggregate,
    EphemeralValue,
    LastValue,
    LastValueAfterFinish,
    NamedBarrierValue,
    Topic,
    UntrackedValue,
)
from mpflow.errors import EmptyChannelError, InvalidUpdateError, ReducerError

MAKERS: dict[str, Callable[[], BaseChannel[Any, Any, Any]]] = {
    "last": lambda: LastValue(int),
    "guarded": lambda: EphemeralValue(int),
    "passing": lambda: EphemeralValue(int, guard=False),
    "sum": lambda: BinaryOperatorAggregate(int, operator.add),
    "any": lambda: AnyValue(int),
    "untracked": lambda: UntrackedValue(int),
    "topic": lambda: Topic(int),
    "late": lambda: LastValueAfterFinish(int),
    "barrier": lambda: NamedBarrierValue(int, {0, 1}),
}
KEYS = tuple(MAKERS)


def make_plan(**channels: BaseChannel[Any, Any, Any]) -> Plan:
    for key, channel in channels.items():
        channel.key = key
    nodes = {
        "n": NodePlan("n", None, [key for key in channels if key in ("late", "passing", "barrier")], tuple(channels))
    }
    return Plan("g", nodes, channels, input=(), output=(), stream=())


def task(plan: Plan, writes: Sequence[tuple[str, Any]], triggers: Sequence[str] = ()) -> Task:
    found = Task(plan.nodes["n"], ("path",), None, triggers)
    found.writes = writes
    return found


class Objects:
    """The textbook merge: every channel is an object and is told everything."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.channels = {key: channel.from_checkpoint(MISSING) for key, channel in plan.channels.items()}

    def merge(self, tasks: Sequence[Task]) -> tuple[set[str], set[str]]:
        """The channels that changed, and those of them that now have a value."""
        channels = {key: channel.copy() for key, channel in self.channels.items()}
        changed: set[str] = set()
        updated: set[str] = set()
        for key in sorted({trigger for task in tasks for trigger in task.triggers}):
            if channels[key].consume():
                changed.add(key)
        grouped: dict[str, list[Any]] = {}
        for key, value in [write for task in tasks for write in task.writes]:
            grouped.setdefault(key, []).append(value)
        # The order in which channels are told is no part of the contract; which error wins is the first writer's.
        for key, channel in channels.items():
            if channel.update(grouped.get(key, [])):
                changed.add(key)
                if channel.is_available():
                    updated.add(key)
        if updated.isdisjoint(self.plan.trigger_to_nodes):
            for key, channel in channels.items():
                if channel.finish():
                    changed.add(key)
                    if channel.is_available():
                        updated.add(key)
        self.channels = channels
        return changed, updated

    @property
    def values(self) -> dict[str, Any]:
        return {key: channel.get() for key, channel in self.channels.items() if channel.is_available()}


steps = st.lists(
    st.tuples(
        st.lists(st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 1)), max_size=4), max_size=3),
        st.sets(st.sampled_from(["late", "passing", "barrier"])),
    ),
    max_size=6,
)


@given(steps)
def test_bare_values_are_merged_as_the_channel_objects_would(history: list[Any]) -> None:
    plan = make_plan(**{key: make() for key, make in MAKERS.items()})
    assert (plan.kinds["last"], plan.kinds["guarded"], plan.kinds["passing"]) == (LAST, EPHEMERAL, EPHEMERAL)
    state, objects = ChannelState(plan), Objects(plan)
    watched = (("last", "sum", "passing"), KEYS[::-1])
    for diffs, triggers in history:
        held = sorted(triggers & set(state.values))  # nothing is triggered by an empty channel
        tasks = [task(plan, writes, held) for writes in diffs]
        if not tasks:
            continue
        before, versions = dict(state.values), dict(state.versions)
        try:
            changed, updated = objects.merge(tasks)
        except InvalidUpdateError:
            with pytest.raises(InvalidUpdateError):
                merge(state, tasks)
            assert (state.values, state.versions) == (before, versions)
            continue
        merged = merge(state, tasks)
        assert state.values == objects.values
        assert merged.updated == updated
        assert {key for key in state.versions if state.versions[key] != versions.get(key)} == changed
        for keys in watched:
            assert list(state.view(keys).items()) == [(key, state.values[key]) for key in keys if key in state.values]


def test_views_are_kept_in_the_order_of_their_keys() -> None:
    plan = make_plan(a=LastValue(int), b=LastValue(int), c=EphemeralValue(int))
    state = ChannelState(plan)
    for writes in ([("b", 1)], [("a", 1), ("c", 2)], [("b", 2)]):
        merge(state, [task(plan, writes)])
        state.view(("a", "b", "c"))
    assert list(state.view(("a", "b", "c")).items()) == [("a", 1), ("b", 2)]
    fresh = state.read(("a", "b"))
    fresh["a"] = 9
    assert state.read(("a", "b")) == {"a": 1, "b": 2}


@pytest.mark.parametrize("bad", ["reducer", "empty", "update"])
def test_a_merge_that_fails_leaves_everything_as_it_was(bad: str) -> None:
    def reduce(old: list[int], new: list[int]) -> list[int]:
        if new == [0]:
            raise EmptyChannelError if bad == "empty" else ZeroDivisionError
        return old + new

    plan = make_plan(
        first=BinaryOperatorAggregate(list, operator.add),
        barrier=NamedBarrierValue(int, {0, 1}),
        topic=Topic(int),
        second=BinaryOperatorAggregate(list, reduce),
        last=LastValue(int),
    )
    state = ChannelState(plan)
    merge(
        state,
        [task(plan, [("first", [1]), ("topic", 1), ("barrier", 0), ("barrier", 1), ("last", 1), ("second", [1])])],
    )
    before = dict(state.values), dict(state.versions), state.counter, dict(state.resetting), state.passing
    writes = [("first", [2]), ("topic", 2), ("last", 2)]
    writes += [("last", 3)] if bad == "update" else [("second", [0])]
    expected = {"reducer": ReducerError, "empty": EmptyChannelError, "update": InvalidUpdateError}[bad]
    with pytest.raises(expected):
        merge(state, [task(plan, writes, ["barrier"])])
    assert (dict(state.values), dict(state.versions), state.counter, dict(state.resetting), state.passing) == before
    merge(state, [task(plan, [("first", [3])])])
    assert state.values["first"] == [1, 3]


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["last", "sum", "passing"]), st.integers(0, 1)), max_size=4), max_size=6
    )
)
def test_reducers_among_bare_values_are_merged_as_the_channel_objects_would(history: list[Any]) -> None:
    plan = make_plan(**{key: MAKERS[key]() for key in ("last", "sum", "passing")})
    state, objects = ChannelState(plan), Objects(plan)
    for writes in history:
        if len({key for key, _ in writes}) == len(writes):
            tasks = [task(plan, writes)]
            _, updated = objects.merge(tasks)
            assert merge(state, tasks).updated == updated
            assert (state.values, state.view(("sum", "last"))) == (
                objects.values,
                {key: state.values[key] for key in ("sum", "last") if key in state.values},
            )


def test_reducers_that_take_one_write_each_take_all_or_none() -> None:
    def refuse(old: list[int], new: list[int]) -> list[int]:
        raise ZeroDivisionError

    plan = make_plan(
        sum=BinaryOperatorAggregate(int, operator.add), no=BinaryOperatorAggregate(list, refuse), last=LastValue(int)
    )
    state = ChannelState(plan)
    merge(state, [task(plan, [("sum", 1), ("last", 1)])])
    before = dict(state.values), dict(state.versions), state.counter
    with pytest.raises(ReducerError, match="'no'"):
        merge(state, [task(plan, [("sum", 2), ("last", 2), ("no", [3])])])
    assert (dict(state.values), dict(state.versions), state.counter) == before
    merge(state, [task(plan, [("sum", 3)])])
    assert state.values["sum"] == 4


def test_st4_two_writes_to_one_key_name_the_key_and_both_writers() -> None:
    plan = make_plan(last=LastValue(int))
    tasks = [task(plan, [("last", 1)]), task(plan, [("last", 1)])]
    with pytest.raises(
        InvalidUpdateError, match=r"(?s)^At key 'last': Can receive only one value per step.*by: 'n', 'n'\.$"
    ):
        merge(ChannelState(plan), tasks)


def test_rt1_a_branch_reads_its_own_nodes_writes_reduced_and_no_others() -> None:
    plan = make_plan(last=LastValue(int), sum=BinaryOperatorAggregate(int, operator.add), passing=EphemeralValue(int))
    state = ChannelState(plan)
    merge(state, [task(plan, [("last", 1), ("sum", 5)])])
    read = state.read_with(
        ("last", "sum", "passing"), [("sum", 1), ("sum", 2), ("last", 7), ("passing", 3), ("other", 0)]
    )
    assert read == {"last": 7, "sum": 8, "passing": 3}
    assert state.values == {"last": 1, "sum": 5}
    assert state.read_with("sum", [("sum", 1)]) == 6
