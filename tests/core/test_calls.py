"""Called tasks in the scheduler: their place in the step, their limits, and whom they answer to (FN-1, FN-4)."""

from __future__ import annotations

from typing import Any

import pytest

from mpflow._core.calls import CalledTask, path_of_call
from mpflow._core.plan import NodePlan, Plan
from mpflow._core.protocol import (
    ADVANCE,
    ANSWER,
    BEGIN,
    BROKEN,
    CANCEL,
    DISPATCH,
    DROP,
    ENDED_TASK,
    MERGED,
    OVER,
    PAUSED,
    REFUSED,
    SPAWN,
    SPAWNED,
    STOP,
)
from mpflow._core.scheduler import Scheduler
from mpflow._core.state import ChannelState
from mpflow._messages import CANCELLED, CLOSED, FAILED, Attempt, StepFacts
from mpflow._names import RETURN
from mpflow.channels import EphemeralValue, LastValue
from mpflow.errors import GraphInterrupt
from tests.core.invariants import invariants

TASK = NodePlan("called", None, ("__pregel_push",), ())


class Drive:
    """A scheduler whose tasks end when the test says so; what it is told is checked after every stimulus."""

    def __init__(self, **options: Any) -> None:
        nodes = {name: NodePlan(name, None, ("in",), "in") for name in ("a", "b")}
        plan = Plan(
            "g", nodes, {"in": EphemeralValue(int), "out": LastValue(int)}, input="in", output="out", stream="out"
        )
        self.scheduler = Scheduler(plan, ChannelState(plan), recursion_limit=10, **options)
        self.running: dict[str, Any] = {}
        self.said: list[Any] = []
        self(BEGIN, [("in", 1)], ())

    def __call__(self, *stimulus: Any) -> list[Any]:
        out = self.scheduler.handle(stimulus)
        assert invariants(self.scheduler) == []
        for instruction in out:
            if instruction[0] is DISPATCH:
                for attempt in instruction[1]:
                    number = f"{attempt.path[2]}" if len(attempt.path) == 4 else ""
                    self.running[attempt.task.name + number] = attempt
        self.said += out
        return [instruction[0] for instruction in out]

    def advance(self, kept: Any = None) -> list[Any]:
        facts = StepFacts({}, self.scheduler.step, 10)
        facts.checkpoint_id = "saved"
        return self(ADVANCE, facts, kept)

    def call(self, caller: str, number: int) -> list[Any]:
        return self(SPAWN, self.running[caller], TASK, ((), {}), number, f"{caller}.{number}")

    def end(self, name: str, *writes: Any) -> list[Any]:
        return self(CLOSED, self.running.pop(name), list(writes), 0.0)

    def fail(self, name: str, error: BaseException) -> list[Any]:
        return self(FAILED, self.running.pop(name), error, 0.5)


def test_a_called_task_belongs_to_the_step_and_its_result_to_the_caller() -> None:
    drive = Drive()
    drive.advance()
    drive.call("a", 0)
    task = drive.running["called0"].task
    assert (task.path, task.waiters) == (("__pregel_push", ("__pregel_pull", "a"), 0, True), ["a.0"])
    drive.end("b")
    assert drive.end("a", ("out", 1)) == [ENDED_TASK]  # the step waits for what was called (FN-8)
    assert MERGED in drive.end("called0", (RETURN, 5))
    assert drive.scheduler.state.values["out"] == 1


def test_who_waits_leaves_its_place_to_what_it_called() -> None:
    drive = Drive(max_concurrency=1)
    drive.advance()
    assert list(drive.running) == ["a"]
    drive.call("a", 0)
    drive.call("a", 1)
    assert list(drive.running) == ["a", "b"]  # first come, first served
    drive.end("b")
    assert list(drive.running) == ["a", "called0"]
    drive.end("called0", (RETURN, 1))
    assert list(drive.running) == ["a", "called1"]
    drive.end("called1", (RETURN, 2))
    assert (drive.scheduler.running, drive.scheduler.lent) == (1, 0)  # the caller has its place again
    assert MERGED in drive.end("a")


def test_a_failure_goes_to_the_caller_and_not_to_the_run() -> None:
    drive = Drive()
    drive.advance()
    drive.call("a", 0)
    assert drive.fail("called0", ValueError()) == [ENDED_TASK]
    assert drive.scheduler.error is None
    drive.end("b")
    assert MERGED in drive.end("a")


def test_a_caller_that_is_tried_again_finds_its_calls_by_number() -> None:
    drive = Drive()
    drive.advance()
    a = drive.scheduler.tasks[0]
    from mpflow.types import RetryPolicy

    a.node.retry = (RetryPolicy(initial_interval=0.0, jitter=False, retry_on=Exception),)
    for number in range(3):
        drive.call("a", number)
    drive.end("called0", (RETURN, 1))
    drive.fail("called1", ValueError())
    drive.fail("a", ConnectionError())
    drive(12, a)  # the interval has passed
    assert drive.call("a", 0) == [ANSWER]
    assert drive.call("a", 1) != [ANSWER]  # it failed, and runs again
    assert drive.call("a", 2) == []  # it runs still, and has two waiters now
    assert drive.running["called2"].task.waiters == ["a.2", "a.2"]
    assert len(drive.scheduler.tasks) == 5


def test_an_attempt_that_starts_over_hears_of_the_failure_again() -> None:
    """FAULTS row 7: its worker died of what it had called, which is not to be called anew for that."""
    drive = Drive()
    drive.advance()
    drive.call("a", 0)
    drive.fail("called0", ValueError())
    assert drive.call("a", 0) == [ANSWER]
    assert drive.said[-1][1].state == "failed" and "called0" not in drive.running


def test_a_resumed_caller_finds_what_was_kept() -> None:
    first = Drive()
    first.advance()
    first.call("a", 0)
    known = first.scheduler.task_id(first.running["called0"].task)
    drive = Drive()
    drive.advance({known: [(RETURN, 7)]})
    assert drive.call("a", 0)[-1] is ANSWER
    assert drive.said[-1][1].writes == [(RETURN, 7)]


@pytest.mark.parametrize("how", ["stale", "ending", "over"])
def test_calls_that_come_too_late_are_refused(how: str) -> None:
    drive = Drive()
    drive.advance()
    attempt = drive.running["a"]
    if how == "stale":
        drive.end("a")
    elif how == "ending":
        drive(STOP, ValueError(), False)
    else:
        drive.end("a")
        drive.end("b")
    assert drive(SPAWN, attempt, TASK, ((), {}), 0, "w") == [REFUSED]
    assert drive(DROP, attempt, "w") == []


def test_giving_the_run_up_answers_those_whose_calls_never_start() -> None:
    drive = Drive(max_concurrency=1)
    drive.advance()
    drive.call("a", 0)  # b goes first
    assert ENDED_TASK in drive(STOP, ValueError("stop"), False)
    assert drive.said[-1][0] is CANCEL
    drive(CANCELLED, drive.running.pop("b"), None, 0.0)
    assert BROKEN in drive.fail("a", RuntimeError())


def test_what_a_called_task_asks_is_asked_by_its_caller() -> None:
    drive = Drive()
    drive.advance()
    drive.call("a", 0)
    question = GraphInterrupt(())
    drive.fail("called0", question)
    drive.end("b")
    assert drive.fail("a", question)[-1] is PAUSED
    assert [task.name for task in drive.said[-1][1]] == ["a"]


def test_a_dropped_call_is_cancelled() -> None:
    drive = Drive()
    drive.advance()
    drive.call("a", 0)
    assert drive(DROP, drive.running["a"], "a.0") == [CANCEL]
    drive(CANCELLED, drive.running.pop("called0"), None, 0.0)
    drive.end("b")
    assert MERGED in drive.end("a")


def test_a_called_task_that_its_caller_has_begun_is_not_dispatched() -> None:
    drive = Drive(tells_ends=False)
    drive.advance()
    caller = drive.running["a"]
    own = CalledTask(TASK, path_of_call(caller.task, 0), ((), {}), caller.task, caller.facts)
    begun = Attempt(own, 1, None, own.input, caller.facts, own.path, own.triggers)
    assert drive(SPAWN, caller, TASK, ((), {}), 0, "a.0", begun) == [SPAWNED]
    assert drive(CLOSED, begun, [(RETURN, 7)], 0.0) == [ENDED_TASK]
    assert drive.call("a", 0) == [ANSWER]  # the same call, of a caller that is tried again
    assert drive(CLOSED, begun, [(RETURN, 8)], 0.0) == []
    drive.end("a")
    assert drive.end("b", ("out", 1)) == [MERGED, OVER]


def test_a_called_task_that_its_caller_began_too_late_changes_nothing() -> None:
    drive = Drive(tells_ends=False)
    drive.advance()
    caller = drive.running["a"]
    own = CalledTask(TASK, path_of_call(caller.task, 0), ((), {}), caller.task, caller.facts)
    begun = Attempt(own, 1, None, own.input, caller.facts, own.path, own.triggers)
    drive(STOP, ValueError("enough"), False)
    assert drive(SPAWN, caller, TASK, ((), {}), 0, "a.0", begun) == [REFUSED]
    assert drive(CLOSED, begun, [(RETURN, 7)], 0.0) == []
