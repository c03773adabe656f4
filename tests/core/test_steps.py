"""What is due in a step, and in which order (EX-1, EX-2)."""

from __future__ import annotations

from typing import Any

import pytest

from mpflow._core.plan import NodePlan, Plan
from mpflow._core.retry import interval_s, matches
from mpflow._core.state import ChannelState
from mpflow._core.steps import due_tasks
from mpflow._names import TASKS
from mpflow.channels import EphemeralValue, LastValue, Topic
from mpflow.managed import RemainingSteps
from mpflow.types import RetryPolicy, Send, TimeoutPolicy


def make_state(**values: Any) -> ChannelState:
    names = ("t1", "t2")
    channels: dict[str, Any] = {name: EphemeralValue(int) for name in names}
    channels |= {"x": LastValue(int), "lone": LastValue(int), TASKS: Topic(Send)}
    nodes = {
        "zed": NodePlan("zed", None, ["t1"], ("x",)),
        "a": NodePlan("a", None, ["t1", "t2"], ("x", "left")),
        "bare": NodePlan("bare", None, ["t2"], "lone"),
    }
    plan = Plan("g", nodes, channels, input=(), output=(), stream=(), managed={"left": RemainingSteps.__metadata__[0]})
    state = ChannelState(plan)
    for number, (key, value) in enumerate(values.items(), 1):
        if key == "sends":
            state.objects[TASKS] = channels[TASKS].from_checkpoint(value)
            state.refresh(TASKS)
        else:
            state.put(key, value)
            state.versions[key] = number
    return state


def due(state: ChannelState, updated: set[str] | None, warn: Any = lambda text: None) -> list[Any]:
    started = None if updated is None else state.plan.started_by(updated)
    return due_tasks(state.plan, state, 3, 10, started, warn)


def test_ex2_nodes_come_by_name_and_sends_as_they_were_queued() -> None:
    state = make_state(x=0, t1=1, t2=1, sends=[Send("zed", 1), Send("a", 2), Send("zed", 3)])
    assert [(task.name, task.path[1], task.input) for task in due(state, {"t1", "t2"})] == [
        ("a", "a", {"x": 0, "left": 7}),
        ("zed", "zed", {"x": 0}),
        ("zed", 0, 1),
        ("a", 1, 2),
        ("zed", 2, 3),
    ]


def test_ex5_a_resumed_node_runs_once_for_all_its_triggers_and_not_for_those_it_has_seen() -> None:
    state = make_state(t1=1, t2=1, lone=4)
    state.seen["a"] = {"t1": 0, "t2": 2}
    state.seen["zed"] = {"t1": 1}
    state.seen["bare"] = {"t2": 2}
    assert [(task.name, task.triggers) for task in due(state, None)] == [("a", ("t1", "t2"))]


def test_ex5_what_the_last_step_changed_starts_each_of_its_nodes_once() -> None:
    state = make_state(x=0, t1=1, t2=1, lone=4)
    assert [(task.name, task.triggers) for task in due(state, {"t1", "x"})] == [("a", ("t1", "t2")), ("zed", ("t1",))]


def test_a_node_that_reads_one_empty_channel_is_not_due() -> None:
    assert [task.name for task in due(make_state(t2=1), {"t2"})] == ["a"]


def test_rt4_sends_to_nowhere_are_told_and_left_out() -> None:
    said: list[str] = []
    assert due(make_state(sends=[Send("nope", 1), "no packet"]), set(), said.append) == []
    assert said == [
        "Ignoring unknown node name nope in pending sends",
        "Ignoring invalid packet type str in pending sends",
    ]


def test_sn6_a_sends_timeout_goes_before_its_nodes() -> None:
    state = make_state(sends=[Send("zed", 1, timeout=2.5), Send("zed", 1)])
    state.plan.nodes["zed"].timeout_s = 9.0
    assert [task.timeout_s for task in due(state, set())] == [2.5, 9.0]
    assert TimeoutPolicy.coerce(2.5) == state.values[TASKS][0].timeout


class Odd(Exception):
    pass


POLICIES = [
    RetryPolicy(
        retry_on=KeyError, max_attempts=4, initial_interval=1, backoff_factor=10, max_interval=50, jitter=False
    ),
    RetryPolicy(retry_on=(KeyError, Odd), max_attempts=2, initial_interval=3, jitter=True),
]


@pytest.mark.parametrize(
    ("error", "failures", "expected"),
    [
        (KeyError(), 1, 1),
        (KeyError(), 2, 10),
        (KeyError(), 3, 50),
        (KeyError(), 4, None),
        (Odd(), 1, 3.25),
        (Odd(), 2, None),
        (TypeError(), 1, None),
    ],
)
def test_ry2_ry4_the_first_policy_that_matches_governs(error: Exception, failures: int, expected: float | None) -> None:
    assert interval_s(POLICIES, error, failures, 0.25) == expected


@pytest.mark.parametrize(
    ("retry_on", "expected"),
    [
        (KeyError, True),
        ([TypeError, LookupError], True),
        (TypeError, False),
        (lambda e: bool(e.args), True),
        ((), False),
    ],
)
def test_ry3_retry_on_is_a_class_several_or_a_predicate(retry_on: Any, expected: bool) -> None:
    assert matches(retry_on, KeyError("x")) is expected


def test_ry3_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="retry_on must be"):
        matches(3, KeyError())
