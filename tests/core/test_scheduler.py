"""The scheduler's table: what is possible, what is not, and the limits it keeps."""

from __future__ import annotations

import operator
from types import SimpleNamespace
from typing import Any

import pytest

from mpflow._core.plan import NodePlan, Plan
from mpflow._core.protocol import (
    ADVANCE,
    BEGIN,
    BETWEEN,
    BROKEN,
    CANCEL,
    DISPATCH,
    DUE,
    ENDED_TASK,
    ENDING,
    FINAL,
    MERGED,
    OVER,
    PAUSED,
    RETRY,
    STEPPING,
    STOP,
)
from mpflow._core.scheduler import Scheduler
from mpflow._core.state import ChannelState
from mpflow._core.task import FINISHED, WAITING
from mpflow._messages import CANCELLED, CLOSED, CLOSED_MANY, DONE, FAILED, LOST, Attempt, StepFacts, WorkerDeath
from mpflow._names import TASKS
from mpflow.channels import BinaryOperatorAggregate, EphemeralValue, Topic
from mpflow.constants import START
from mpflow.errors import (
    GraphInterrupt,
    GraphRecursionError,
    InternalError,
    NodeCancelledError,
    OutcomeUnknown,
    PoisonTaskError,
    ReducerError,
)
from mpflow.types import FailureRecord, Interrupt, RetryPolicy, Send
from tests.core.invariants import invariants

RETRIED = RetryPolicy(max_attempts=2, jitter=False, initial_interval=3.0, retry_on=ValueError)
OOM = WorkerDeath(7, signal=9, reason="out of memory")
DEATH = WorkerDeath(7, signal=9)


def append(old: list[Any], new: list[Any]) -> list[Any]:
    return old + new


class Machine:
    """A scheduler whose first step has tasks of the node "w", one for each of `sends`."""

    def __init__(self, sends: int = 1, *, reducer: Any = append, scheduler: dict[str, Any] | None = None, **node: Any):
        channels = {
            TASKS: Topic(Send),
            START: EphemeralValue(list),
            "log": BinaryOperatorAggregate(list, reducer),
        }
        nodes = {START: NodePlan(START, None, [START], START), "w": NodePlan("w", None, [], ("log",), **node)}
        plan = Plan("g", nodes, channels, input=START, output=("log",), stream=("log",))
        self.state = ChannelState(plan)
        self.scheduler = Scheduler(plan, self.state, **{"recursion_limit": 10, **(scheduler or {})})
        self.feed(BEGIN, [(TASKS, Send("w", number)) for number in range(sends)], [])
        self.attempts: list[Attempt] = []
        self.out = self.advance()

    def advance(self) -> list[Any]:
        scheduler = self.scheduler
        return self.feed(ADVANCE, StepFacts({}, scheduler.step, scheduler.stop), None)

    def feed(self, *stimulus: Any) -> list[Any]:
        out = self.scheduler.handle(stimulus)
        assert invariants(self.scheduler) == []
        for instruction in out:
            if instruction[0] is DISPATCH:
                self.attempts += instruction[1]
        return out

    def answer(self, kind: int, payload: Any = None, index: int = 0) -> list[Any]:
        return self.feed(kind, self.attempts.pop(index), payload, 0.0)

    def ends_with(self, out: list[Any], kind: str) -> Any:
        assert out[-1][0] is kind, out
        return out[-1][1] if len(out[-1]) > 1 else None


def test_a_stimulus_that_the_table_does_not_have_tells_the_tasks_story() -> None:
    m = Machine(retry=[RETRIED])
    m.feed(DUE, m.answer(FAILED, ValueError("first"))[0][1])
    with pytest.raises(InternalError, match=r"<Task w") as caught:
        m.answer(DONE, [])
    assert "attempt failed: ValueError" in str(caught.value)
    assert "running" in str(caught.value)


@pytest.mark.parametrize("stimulus", [(BEGIN, [], []), (ADVANCE, None, None)], ids=["begin", "advance"])
def test_the_run_cannot_begin_or_advance_in_the_middle_of_a_step(stimulus: tuple[Any, ...]) -> None:
    m = Machine()
    with pytest.raises(InternalError, match="not possible while the run is in a step, at step 0"):
        m.feed(*stimulus)


@pytest.mark.parametrize("kind", [CLOSED, FAILED, LOST, CANCELLED])
def test_an_outcome_of_an_attempt_that_is_over_changes_nothing(kind: int) -> None:
    m = Machine(2)
    first = m.attempts[0]
    m.answer(CLOSED, [("log", ["kept"])])
    assert m.feed(kind, first, [("log", ["twice"])], 0.0) == []
    m.answer(CLOSED, [])
    assert m.state.values["log"] == ["kept"]


def test_a_combined_outcome_that_comes_twice_ends_one_step() -> None:
    m = Machine(2)
    both = list(m.attempts)
    diffs = [[("log", ["a"])], [("log", ["b"])]]
    assert m.feed(CLOSED_MANY, both, [list(diff) for diff in diffs])
    assert m.feed(CLOSED_MANY, both, [list(diff) for diff in diffs]) == []
    assert m.state.values["log"] == ["a", "b"]


def test_a_due_that_comes_twice_starts_one_attempt() -> None:
    m = Machine(retry=[RETRIED])
    task = m.answer(FAILED, ValueError())[0][1]
    assert len(m.feed(DUE, task)) == 1
    assert m.feed(DUE, task) == []


def test_ry4_a_retry_waits_for_its_interval_and_counts_the_attempt() -> None:
    m = Machine(retry=[RETRIED])
    ((kind, task, delay_s),) = m.answer(FAILED, ValueError())
    assert (kind, task.state, delay_s) == (RETRY, WAITING, 3.0)
    m.feed(DUE, task)
    assert m.attempts[0].number == 2
    error = ValueError("again")
    assert m.ends_with(m.answer(FAILED, error), BROKEN) is error


def test_ry5_a_later_attempts_diff_replaces_all_of_the_one_before() -> None:
    m = Machine(retry=[RETRIED])
    task = m.answer(FAILED, ValueError())[0][1]
    m.feed(DUE, task)
    m.answer(CLOSED, [("log", ["second"])])
    assert m.state.values["log"] == ["second"]


@pytest.mark.parametrize("deaths", [[DEATH, DEATH, DEATH], [OOM, OOM]], ids=["killed", "out of memory"])
def test_a_task_whose_worker_dies_is_tried_alone_and_then_quarantined(deaths: list[WorkerDeath]) -> None:
    m = Machine()
    for death in deaths[:-1]:
        m.answer(LOST, death)
        assert m.attempts[0].alone
    error = m.ends_with(m.answer(LOST, deaths[-1]), BROKEN)
    assert isinstance(error, PoisonTaskError)
    assert (error.node, list(error.deaths)) == ("w", deaths)


def test_deaths_and_failures_are_counted_apart() -> None:
    m = Machine(retry=[RETRIED])
    m.answer(LOST, DEATH)
    m.answer(LOST, DEATH)
    task = m.answer(FAILED, ValueError())[0][1]
    m.feed(DUE, task)
    assert m.attempts[0].number == 4
    m.answer(CLOSED, [("log", ["done"])])
    assert m.state.values["log"] == ["done"]


def test_a_task_that_must_not_rerun_fails_at_its_first_death() -> None:
    m = Machine(rerun_on_loss=False)
    assert isinstance(m.ends_with(m.answer(LOST, DEATH), BROKEN), OutcomeUnknown)


def test_er1_the_first_failure_in_time_is_the_runs() -> None:
    m = Machine(3)
    first = KeyError("first")
    out = m.answer(FAILED, first, 2)
    assert [kind for kind, *_ in out] == ["ended", CANCEL]
    m.answer(FAILED, KeyError("later"), 0)
    assert m.ends_with(m.answer(CLOSED, [], 0), BROKEN) is first
    assert (m.scheduler.phase, m.state.values["log"]) == (FINAL, [])


def test_er2_tasks_that_wait_for_a_place_or_a_retry_are_dropped_at_a_failure() -> None:
    m = Machine(4, scheduler={"max_concurrency": 2}, retry=[RETRIED])
    m.answer(FAILED, ValueError())
    error = KeyError()
    m.answer(FAILED, error)
    assert (m.scheduler.phase, len(m.attempts)) == (ENDING, 1)
    assert m.ends_with(m.answer(CLOSED, []), BROKEN) is error


@pytest.mark.parametrize("kill", [False, True])
def test_d7_the_siblings_of_a_failure_are_cancelled_as_the_run_asked(kill: bool) -> None:
    m = Machine(2, scheduler={"kill_on_failure": kill})
    assert m.answer(FAILED, KeyError())[-1] == (CANCEL, m.attempts, kill)


def test_er4_an_error_beats_an_interrupt_and_an_interrupt_waits_for_its_siblings() -> None:
    m = Machine(2)
    m.answer(FAILED, GraphInterrupt([Interrupt("?")]))
    assert m.scheduler.phase is STEPPING
    assert m.ends_with(m.answer(CLOSED, [("log", ["x"])]), PAUSED)[0].name == "w"
    m = Machine(2)
    m.answer(FAILED, GraphInterrupt([Interrupt("?")]))
    error = KeyError()
    assert m.ends_with(m.answer(FAILED, error), BROKEN) is error


def test_er8_what_steers_a_run_is_never_retried() -> None:
    m = Machine(retry=[RetryPolicy(max_attempts=9, retry_on=Exception)])
    assert m.ends_with(m.answer(FAILED, GraphInterrupt([Interrupt("?")])), PAUSED)


def test_an_attempt_that_is_cancelled_by_nobody_fails_its_task() -> None:
    m = Machine()
    assert isinstance(m.ends_with(m.answer(CANCELLED), BROKEN), NodeCancelledError)


@pytest.mark.parametrize("when", ["new", "between", "stepping", "ending"])
def test_a_run_can_be_stopped_in_any_phase(when: str) -> None:
    m = Machine()
    scheduler = m.scheduler
    stop = TimeoutError()
    if when == "new":
        scheduler = Scheduler(scheduler.plan, m.state, recursion_limit=3)
        assert scheduler.handle((STOP, stop, True)) == [(BROKEN, stop)]
        return
    if when == "between":
        m.answer(CLOSED, [])
        assert m.feed(STOP, stop, True) == [(BROKEN, stop)]
        return
    first = m.ends_with(m.feed(STOP, stop, True), CANCEL) == m.attempts
    assert first
    if when == "ending":
        m.feed(STOP, KeyError("too late to be told"), False)
    assert m.ends_with(m.answer(CANCELLED), BROKEN) is stop


def test_ex9_the_limit_counts_steps_and_strikes_after_the_last() -> None:
    m = Machine(scheduler={"recursion_limit": 1})
    m.answer(CLOSED, [(TASKS, Send("w", 1))])
    m.advance()
    m.answer(CLOSED, [(TASKS, Send("w", 1)), ("log", ["kept"])])
    assert isinstance(m.ends_with(m.advance(), BROKEN), GraphRecursionError)
    assert m.state.values["log"] == ["kept"]


def test_ex8_a_run_with_nothing_due_is_over() -> None:
    m = Machine()
    m.answer(CLOSED, [])
    assert m.advance() == [(OVER,)]
    with pytest.raises(InternalError, match="while the run is final"):
        m.advance()


@pytest.mark.parametrize(("run", "node"), [(2, None), (None, 2), (3, 2)])
def test_as2_no_more_run_at_once_than_the_run_and_the_node_allow(run: int | None, node: int | None) -> None:
    m = Machine(7, scheduler={"max_concurrency": run}, max_concurrency=node)
    served = []
    while m.attempts:
        assert len(m.attempts) <= 2
        served.append(m.attempts[-1].input)
        m.answer(CLOSED, [("log", [served[-1]])], -1)
    assert sorted(served) == list(range(7))
    assert m.state.values["log"] == list(range(7))  # in the order of the sends, whatever ended first


def test_fault26_a_reducer_that_raises_leaves_the_old_state_whole() -> None:
    def broken(old: list[Any], new: list[Any]) -> list[Any]:
        if new == ["bad"]:
            raise ZeroDivisionError("no")
        return old + new

    m = Machine(2, reducer=broken)
    m.answer(CLOSED, [("log", ["good"])])
    error = m.ends_with(m.answer(CLOSED, [("log", ["bad"])]), BROKEN)
    assert isinstance(error, ReducerError)
    assert (error.channel, type(error.__cause__)) == ("log", ZeroDivisionError)
    assert m.state.values["log"] == []


@pytest.mark.parametrize("order", [(0, 0, 0), (2, 1, 0), (1, 1, 0)])
def test_records_take_the_place_of_their_results_in_any_order_of_ends(order: tuple[int, ...]) -> None:
    m = Machine(3, scheduler={"on_error": "record"})
    for index in order:
        attempt = m.attempts[index]
        if attempt.input == 1:
            m.answer(FAILED, KeyError("one"), index)
        else:
            m.answer(CLOSED, [("log", [attempt.input])], index)
    zero, record, two = m.state.values["log"]
    assert (zero, two) == (0, 2)
    assert isinstance(record, FailureRecord)
    assert (record.node, record.input, record.attempts, type(record.error)) == ("w", 1, 1, KeyError)


def test_a_record_without_a_list_to_go_to_is_raised() -> None:
    m = Machine(scheduler={"on_error": "record"})
    m.state.plan.channels["other"] = BinaryOperatorAggregate(list, append)
    error = KeyError()
    assert m.ends_with(m.answer(FAILED, error), BROKEN) is error
    assert all(task.state == FINISHED for task in m.scheduler.tasks)


# -- error handlers ---------------------------------------------------------------------------------------------------

HANDLER = NodePlan("h", None, [], ("log",))


@pytest.mark.parametrize("order", [(0, 0, 0), (1, 0, 0), (0, 1, 0)])
def test_a_handlers_writes_are_merged_in_the_place_of_the_failed_task(order: tuple[int, ...]) -> None:
    """EH-1: whichever ends first."""
    m = Machine(2, handler=HANDLER)
    failing = m.attempts[0]
    for index in order:
        attempt = m.attempts[index]
        if attempt is failing:
            m.answer(FAILED, ValueError("broken"), index)
        else:
            m.answer(CLOSED, [("log", [attempt.task.name])], index)
    assert m.state.values["log"] == ["h", "w"]


def test_no_handler_starts_once_the_run_is_given_up() -> None:
    """EH-4: the failure is marked as one to be handled, so that a resumed run goes on with the handler."""
    m = Machine(2, handler=HANDLER)
    m.feed(STOP, TimeoutError(), False)
    failed = m.attempts[0].task
    m.answer(FAILED, ValueError("broken"))
    assert isinstance(m.ends_with(m.answer(CANCELLED), BROKEN), TimeoutError)
    assert failed.handled and not m.attempts


@pytest.mark.parametrize(("given", "is_known"), [({"x": 1}, True), ({"x": 1, "y": 2}, False), ([1], False)])
def test_a_step_that_only_passes_its_input_on_needs_no_attempt(given: Any, is_known: bool) -> None:
    entrance = NodePlan(START, None, [START], START)
    entrance.passes = frozenset({"x"})
    channels = {START: EphemeralValue(object), "x": EphemeralValue(int)}
    plan = Plan("g", {START: entrance}, channels, input=START, output="x", stream="x")
    state = ChannelState(plan)
    scheduler = Scheduler(plan, state, recursion_limit=10)
    scheduler.handle((BEGIN, [(START, given)], ()))
    out = scheduler.handle((ADVANCE, StepFacts({}, 0, 10), None))
    assert [instruction[0] for instruction in out] == ([ENDED_TASK, MERGED] if is_known else [DISPATCH])
    assert state.values.get("x") == (1 if is_known else None)


def entered(given: Any, *, limit: int = 10, **options: Any) -> tuple[Scheduler, list[Any]]:
    """A scheduler whose plan takes `given` in and counts to it in one node; what the run begins with."""
    entrance = NodePlan(START, None, [START], START, writes=[("to:w", None)])
    entrance.passes = frozenset({"x"})
    channels = {
        START: EphemeralValue(object),
        "to:w": EphemeralValue(object),
        "x": BinaryOperatorAggregate(int, operator.add),
    }
    nodes = {START: entrance, "w": NodePlan("w", None, ["to:w"], "x")}
    plan = Plan("g", nodes, channels, input=START, output="x", stream="x")
    scheduler = Scheduler(plan, ChannelState(plan), recursion_limit=limit, **options)
    return scheduler, scheduler.handle((BEGIN, [(START, given)], ()))


def kinds(out: list[Any]) -> list[str]:
    return [instruction[0] for instruction in out]


@pytest.mark.parametrize(("given", "step"), [({"x": 1}, 1), ({"x": 1, "y": 2}, 0)])
def test_the_input_passes_the_first_step_at_once_where_nobody_is_told_of_it(given: Any, step: int) -> None:
    scheduler, out = entered(given, tells_ends=False)
    assert (kinds(out), scheduler.step) == ([MERGED], step)
    assert [a.task.name for _, *rest in scheduler.handle((ADVANCE, StepFacts({}, 0, 10), None)) for a in rest[0]] == [
        "w" if step else START
    ]
    assert START not in scheduler.state.values or not step


@pytest.mark.parametrize("options", [{"tells_ends": True}, {"tells_ends": False, "pause_before": {"w"}}])
def test_whoever_is_told_of_steps_is_told_of_the_first(options: dict[str, Any]) -> None:
    scheduler, _ = entered({"x": 1}, **options)
    assert scheduler.step == 0
    assert MERGED in kinds(scheduler.handle((ADVANCE, StepFacts({}, 0, 10), None)))


def test_an_input_that_a_reducer_refuses_breaks_the_run() -> None:
    scheduler, out = entered({"x": "no number"}, tells_ends=False)
    assert kinds(out) == [BROKEN] and isinstance(out[0][1], ReducerError)
    assert scheduler.phase is FINAL


@pytest.mark.parametrize("limit", [1, 2])
def test_the_run_is_over_with_a_step_that_starts_nothing_but_not_beyond_its_limit(limit: int) -> None:
    scheduler, _ = entered({"x": 1}, limit=limit, tells_ends=False)
    ((_, (attempt,)),) = scheduler.handle((ADVANCE, StepFacts({}, 1, limit), None))
    out = scheduler.handle((CLOSED, attempt, [("x", 1)], 0.0))
    if limit == 1:  # the step after the last is asked for, and refused
        assert kinds(out) == [MERGED]
        out = scheduler.handle((ADVANCE, StepFacts({}, 2, limit), None))
        assert kinds(out) == [BROKEN] and isinstance(out[0][1], GraphRecursionError)
    else:
        assert kinds(out) == [MERGED, OVER]
    assert scheduler.phase is FINAL and scheduler.state.values["x"] == 2


def circle(limit: int, **options: Any) -> Scheduler:
    """A scheduler whose plan counts in one node that starts itself, for as long as it may."""
    node = NodePlan("w", None, ["to:w"], "x", writes=[("to:w", None)])
    channels = {"to:w": EphemeralValue(object), "x": BinaryOperatorAggregate(int, operator.add)}
    plan = Plan("g", {"w": node}, channels, input="x", output="x", stream="x")
    scheduler = Scheduler(plan, ChannelState(plan), recursion_limit=limit, **options)
    scheduler.handle((BEGIN, [("x", 1), ("to:w", None)], ()))
    return scheduler


def test_a_run_whose_steps_nobody_sees_goes_on_by_itself_up_to_its_limit() -> None:
    scheduler = circle(3, tells_ends=False, goes_on=True)
    out = scheduler.handle((ADVANCE, StepFacts({}, 0, 2), None))
    steps = []
    while out[-1][0] is DISPATCH:
        (attempt,) = out[-1][1]
        steps.append((attempt.facts.step, attempt.input))
        out = scheduler.handle((CLOSED, attempt, [("x", 1), ("to:w", None)], 0.0))
    assert steps == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert kinds(out) == [MERGED, BROKEN] and isinstance(out[1][1], GraphRecursionError)
    assert invariants(scheduler) == []


@pytest.mark.parametrize("is_told", [True, False], ids=["told of steps", "asked to drain"])
def test_a_run_does_not_go_on_by_itself_past_who_is_to_see_a_step(is_told: bool) -> None:
    scheduler = circle(9, tells_ends=is_told, goes_on=True)
    local = SimpleNamespace(control=None)
    ((_, (attempt,)),) = scheduler.handle((ADVANCE, StepFacts({}, 0, 8, local), None))
    if not is_told:
        local.control = object()
    out = scheduler.handle((CLOSED, attempt, [("x", 1), ("to:w", None)], 0.0))
    assert out[-1][0] is MERGED and scheduler.phase is BETWEEN
