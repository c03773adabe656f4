"""Sends that are made while they run come to what sends made beforehand come to, in bounded memory."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from mpflow._core import flow
from mpflow._core.plan import NodePlan, Plan
from mpflow._core.protocol import ADVANCE, BEGIN, BROKEN, DISPATCH, GO_ON, MERGED, MORE
from mpflow._core.scheduler import Scheduler
from mpflow._core.state import ChannelState
from mpflow._messages import CLOSED, Attempt, StepFacts
from mpflow._names import TASKS
from mpflow._sends import SendIterator
from mpflow.channels import BinaryOperatorAggregate, EphemeralValue, LastValue, Topic
from mpflow.constants import END, START
from mpflow.errors import InvalidUpdateError, ReducerError
from mpflow.types import FailureRecord, Overwrite, Send
from tests.core.simulation import Trace, make_world, play


@pytest.fixture(params=[(2, 3, 6), (512, 4096, 8192)], ids=["narrow", "wide"])
def widths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(("CHUNK", "AHEAD", "WINDOW"), request.param, strict=True):
        monkeypatch.setattr(flow, name, value)


def shown(trace: Trace) -> Trace:
    """A trace without what packets look like, and without the names of writers, of whom some are forgotten."""
    return replace(trace, updates=[], end=trace.end.partition(" Written in this step")[0])


@pytest.mark.parametrize("seeds", [range(100), range(100, 200)], ids=str)
def test_random_runs_come_to_the_same(seeds: range, widths: None) -> None:
    for seed in seeds:
        dice = Random(seed)
        world = make_world(dice)
        eager = play(world)
        lazy = play(replace(world, lazy=True), dice)
        assert shown(lazy) == shown(eager), f"seed {seed}"


@pytest.mark.slow
def test_many_random_runs_come_to_the_same(widths: None) -> None:
    for seed in range(300, 6_000):
        dice = Random(seed)
        world = make_world(dice, fatal=0.05 if seed % 2 else 0.0)
        eager = play(world)
        lazy = play(replace(world, lazy=True), dice, stop=seed % 3 == 0)
        if lazy.end == "over":
            assert shown(lazy) == shown(eager), f"seed {seed}"
        assert lazy.steps == eager.steps[: len(lazy.steps)], f"seed {seed}"


class Step:
    """One step of sends to "work", whose tasks are ended by hand."""

    def __init__(self, sends: Iterator[Any], **options: Any) -> None:
        channels: dict[str, Any] = {
            TASKS: Topic(Send),
            "total": BinaryOperatorAggregate(int, operator.add),
            "found": BinaryOperatorAggregate(list, operator.add),
            "last": LastValue(int),
            "next": EphemeralValue(Any, guard=False),
        }
        for key, channel in channels.items():
            channel.key = key
        nodes = {"work": NodePlan("work", None, (), ())}
        plan = Plan("g", nodes, channels, input=START, output=("total",), stream=("total",))
        self.state = ChannelState(plan)
        self.scheduler = Scheduler(plan, self.state, recursion_limit=10, **options)
        self.running: list[Attempt] = []
        self.error: BaseException | None = None
        self.is_merged = False
        self.feed((BEGIN, [(TASKS, SendIterator(sends)), ("total", 0), ("found", [])], ()))
        self.feed((ADVANCE, StepFacts({}, 0, 10), None))

    def feed(self, stimulus: tuple[Any, ...]) -> None:
        for instruction in self.scheduler.handle(stimulus):
            if instruction[0] is DISPATCH:
                self.running += instruction[1]
            elif instruction[0] is MORE:
                self.feed((GO_ON,))
            elif instruction[0] is BROKEN:
                self.error = instruction[1]
            elif instruction[0] is MERGED and instruction[1]:
                self.is_merged = True

    def end(self, attempt: Attempt, *writes: tuple[str, Any]) -> None:
        self.running.remove(attempt)
        self.feed((CLOSED, attempt, [("total", attempt.input), *writes, ("next", None)], 0.0))

    def end_all(self) -> None:
        while self.running:
            self.end(self.running[-1])


def sends(count: int, taken: list[int] | None = None) -> Iterator[Send]:
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield Send("work", number)


def test_tasks_are_taken_as_there_is_room_and_let_go_of(widths: None) -> None:
    taken: list[int] = []
    step = Step(sends(15_000, taken))
    assert len(step.running) == len(taken) <= flow.AHEAD
    most = 0
    while step.running:
        step.end(step.running[0])
        most = max(most, len(step.scheduler.tasks))
    assert most <= flow.WINDOW
    assert step.is_merged
    assert step.state.values["total"] == sum(range(15_000))


def test_a_slow_task_holds_back_those_too_far_ahead(widths: None) -> None:
    step = Step(sends(15_000))
    first = step.running[0]
    while len(step.running) > 1:
        step.end(step.running[1])
    assert len(step.scheduler.tasks) <= flow.WINDOW
    assert not step.is_merged
    step.end(first)
    step.end_all()
    assert step.state.values["total"] == sum(range(15_000))


def test_nothing_is_seen_before_the_step_ends_or_if_it_fails(widths: None) -> None:
    step = Step(sends(20_000))
    for _ in range(10_000):
        step.end(step.running[0])
    assert step.state.values["total"] == 0
    step.feed((CLOSED, step.running.pop(0), [("total", "no number")], 0.0))
    step.end_all()
    assert isinstance(step.error, ReducerError)
    assert step.state.values["total"] == 0


def test_what_the_iterator_raises_fails_the_step(widths: None) -> None:
    def break_off() -> Iterator[Send]:
        yield from sends(1_000)
        raise LookupError("no more")

    step = Step(break_off())
    step.end_all()
    assert isinstance(step.error, LookupError)


@pytest.mark.parametrize("packet", ["work", Send("nowhere", 1), Send(END, 1)], ids=repr)
def test_what_is_no_send_to_a_node_is_refused(packet: Any) -> None:
    step = Step(iter([Send("work", 1), packet]))
    step.end_all()
    assert isinstance(step.error, InvalidUpdateError)


def test_no_sends_end_the_step(widths: None) -> None:
    step = Step(iter(()))
    assert step.is_merged


def test_limits_hold(widths: None) -> None:
    step = Step(sends(100), max_concurrency=3)
    while step.running:
        assert len(step.running) <= 3
        step.end(step.running[0])
    assert step.state.values["total"] == sum(range(100))


def test_one_overwrite_replaces_all_and_a_second_one_is_refused(widths: None) -> None:
    for replacing in ([2_000], [100, 2_000]):
        step = Step(sends(5_000))
        while step.running:
            attempt = step.running[0]
            step.end(attempt, *([("found", Overwrite([7]))] if attempt.input in replacing else [("found", [1])]))
        if len(replacing) == 1:
            assert step.state.values["found"] == [7]
        else:
            assert isinstance(step.error, InvalidUpdateError)


def test_two_writers_of_a_key_without_a_reducer_are_refused(widths: None) -> None:
    step = Step(sends(5_000))
    while step.running:
        attempt = step.running[0]
        step.end(attempt, *([("last", attempt.input)] if attempt.input in (7, 4_000) else []))
    assert isinstance(step.error, InvalidUpdateError)


def test_failures_are_records_in_their_place(widths: None) -> None:
    from mpflow._messages import FAILED

    step = Step(sends(3_000), on_error="record")
    while step.running:
        attempt = step.running[0]
        if attempt.input == 1_000:
            step.running.remove(attempt)
            step.feed((FAILED, attempt, ValueError("a thousand"), 0.0))
        else:
            step.end(attempt, ("found", [attempt.input]))
    found = step.state.values["found"]
    assert isinstance(found[1_000], FailureRecord)
    assert found[:1_000] + found[1_001:] == [number for number in range(3_000) if number != 1_000]


@pytest.mark.parametrize(
    "seeds", [range(30), pytest.param(range(30, 2_000), marks=[pytest.mark.slow, pytest.mark.timeout(1800)])], ids=str
)
def test_sends_that_are_made_while_they_run_may_be_columns(seeds: range, widths: None) -> None:
    for seed in seeds:
        dice = Random(seed)
        world = make_world(dice, fatal=0.002 if seed % 3 == 1 else 0.0)
        name = dice.choice([name for name in world.plan.nodes if name != START])
        world = replace(world, limit=None, sent_to=name)
        eager = play(world)
        lazy = play(replace(world, lazy=True, columns=True), dice, stop=seed % 3 == 2)
        if lazy.end == "over" or seed % 3 == 0:
            assert (lazy.values, shown(lazy).end) == (eager.values, shown(eager).end), f"seed {seed}"
