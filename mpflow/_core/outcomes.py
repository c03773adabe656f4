"""What becomes of a task: the rows of the scheduler's table for tasks, and how a task's end is counted.

Functions on a `Scheduler`, which alone calls them, from `handle`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpflow._columns import Attempts, Span
from mpflow._core.calls import give_up_call, returned
from mpflow._core.protocol import CANCEL, ENDED_TASK, ENDING, RETRY, STEPPING, Instruction, Stimulus
from mpflow._core.records import record_of
from mpflow._core.retry import interval_s, is_poison
from mpflow._core.steps import handling_task
from mpflow._core.task import CANCELLED, FAILED, FINISHED, INTERRUPTED, READY, RUNNING, WAITING, Task
from mpflow.errors import (
    GraphBubbleUp,
    GraphDrained,
    GraphInterrupt,
    NodeCancelledError,
    OutcomeUnknown,
    PoisonTaskError,
    is_invalid_resume,
)

if TYPE_CHECKING:
    from mpflow._core.scheduler import Scheduler


def closed(scheduler: Scheduler, task: Task, stimulus: Stimulus, out: list[Instruction]) -> None:
    """The attempt has a diff."""
    task.writes = stimulus[2]
    # Nobody asks for the input of a task that has finished, and what holds a list keeps it from growing where it is.
    stimulus[1].input = task.input = None
    if task.plain and task.node.plain:
        task.attempt = None
        task.state = FINISHED
        scheduler.running -= 1
        scheduler.open -= 1
        if scheduler.tells_ends:
            out.append((ENDED_TASK, task))
    else:
        finish(scheduler, task, FINISHED, out)


def passed_on(scheduler: Scheduler, task: Task, out: list[Instruction]) -> bool:
    """Whether a step's only task writes nothing but its input, and so is over without an attempt."""
    passed = None if scheduler.open > 1 else task.node.passed(task.input)
    if passed is None:
        return False
    task.writes = passed
    task.state = FINISHED
    scheduler.open = 0
    if scheduler.tells_ends:
        out.append((ENDED_TASK, task))
    return True


def closed_many(scheduler: Scheduler, attempts: Attempts, diffs: Sequence[Any], out: list[Instruction]) -> bool:
    """As one `CLOSED` each, with what they have in common done once. Stale ones change nothing; whether others did."""
    fans = scheduler.fans
    if type(attempts) is Span:
        fan = attempts.column
        if fan in fans:
            if fan.accept(attempts, diffs):
                scheduler.running -= len(attempts)
                scheduler.open -= len(attempts)
                return True
            if not fan.left:
                return False
            scheduler.spread(fan)
        elif not fan.is_spread:
            return False  # of a step that is over
    elif fans:
        scheduler.spread_for(attempts)
    ended: list[Task] = []
    changed = False
    for attempt, writes in zip(attempts, diffs, strict=True):
        task: Task = attempt.task
        if task.attempt is not attempt:
            continue  # a stale one; those of a fan that is over have none
        changed = True
        task.writes = writes
        attempt.input = task.input = None
        if task.plain and task.node.plain:
            task.state = FINISHED
            task.attempt = None
            ended.append(task)
        else:
            finish(scheduler, task, FINISHED, out)
    scheduler.running -= len(ended)
    scheduler.open -= len(ended)
    if ended and scheduler.tells_ends:
        out.append((ENDED_TASK, *ended))
    return changed


def failed(scheduler: Scheduler, task: Task, stimulus: Stimulus, out: list[Instruction]) -> None:
    """The attempt raised: a question, a wish, or a failure that may be retried."""
    error: BaseException = stimulus[2]
    if isinstance(error, GraphBubbleUp):
        if isinstance(error, GraphInterrupt):
            task.error = error
            scheduler.interrupted = True
            finish(scheduler, task, INTERRUPTED, out)
        elif isinstance(error, GraphDrained):  # a graph within it stopped at a step's end; siblings finish
            scheduler.drained = error
            finish(scheduler, task, CANCELLED, out)
        else:
            fail(scheduler, task, error, out)
        return
    task.failures += 1
    policies = task.node.retry or (scheduler.plan.call_retry if task.caller is not None else ())
    wait_s = None
    if policies and scheduler.phase is STEPPING and isinstance(error, Exception):
        wait_s = interval_s(policies, error, task.failures, stimulus[3])
    task.tell(f"attempt failed: {type(error).__name__}")
    if wait_s is None:
        fail(scheduler, task, error, out)
    else:
        leave(scheduler, task)
        task.state = WAITING
        out.append((RETRY, task, wait_s))


def lost(scheduler: Scheduler, task: Task, stimulus: Stimulus, out: list[Instruction]) -> None:
    """The worker died that ran the attempt."""
    death = stimulus[2]
    deaths = task.deaths = (*task.deaths, death)
    task.tell(f"lost: {death.reason}")
    if not task.node.rerun_on_loss:
        fail(scheduler, task, OutcomeUnknown(task.name, scheduler.task_id(task), death), out)
    elif is_poison(deaths):
        fail(scheduler, task, PoisonTaskError(task.name, scheduler.task_id(task), deaths), out)
    elif scheduler.phase is ENDING:
        finish(scheduler, task, CANCELLED, out)
    else:
        leave(scheduler, task)
        task.state = READY
        scheduler.ready.append(task)


def cancelled(scheduler: Scheduler, task: Task, stimulus: Stimulus, out: list[Instruction]) -> None:
    if scheduler.phase is ENDING:
        finish(scheduler, task, CANCELLED, out)
    else:  # nobody gave the run up: a step without this task's diff would be a wrong one
        fail(scheduler, task, stimulus[2] or NodeCancelledError(task.name), out)


def due(scheduler: Scheduler, task: Task, stimulus: Stimulus, out: list[Instruction]) -> None:
    """The interval before a retry has passed."""
    task.state = READY
    scheduler.ready.append(task)


def leave(scheduler: Scheduler, task: Task) -> None:
    """The task's attempt is over: free its place among the running ones."""
    task.attempt = None
    node = task.node
    if task.weight:
        scheduler.running -= 1
    else:
        task.weight = 1
        scheduler.lent -= 1
    if node.max_concurrency is not None:
        scheduler.node_load[node.name] -= 1
        parked = scheduler.parked.get(node.name)
        if parked:
            scheduler.ready.append(parked.popleft())


def finish(scheduler: Scheduler, task: Task, state: str, out: list[Instruction]) -> None:
    """The task is over."""
    leave(scheduler, task)
    task.state = state
    scheduler.open -= 1
    if task.caller is not None:
        returned(scheduler, task)
        out.append((ENDED_TASK, task))
    elif scheduler.tells_ends:
        out.append((ENDED_TASK, task))


def fail(scheduler: Scheduler, task: Task, error: BaseException, out: list[Instruction]) -> None:
    """The task has failed for good. Its caller, its handler, a record or the run's end takes it from here."""
    task.error = error
    if task.caller is not None and isinstance(error, Exception):
        finish(scheduler, task, FAILED, out)
        return
    if task.node.handler is not None and isinstance(error, Exception) and not isinstance(error, GraphBubbleUp):
        task.handled = True
        finish(scheduler, task, FAILED, out)
        if scheduler.phase is STEPPING:
            if task.node.handler.name in scheduler.pause_before or "*" in scheduler.pause_before:
                scheduler.interrupted = True
            else:
                scheduler.open += 1
                scheduler.ready.append(add_handling(scheduler, task))
        return
    if (record := record_of(task, error, scheduler.on_error, scheduler.task_id)) is not None:
        task.record = record
        scheduler.recorded = True
        leave(scheduler, task)
        task.state = FINISHED
        scheduler.open -= 1
        return
    finish(scheduler, task, FAILED, out)
    if scheduler.error is None:
        scheduler.error = error
        if not is_invalid_resume(error):  # else the others were answered as well, and may finish
            give_up(scheduler, out, kill=scheduler.kill_on_failure)


def add_handling(scheduler: Scheduler, task: Task) -> Task:
    """Add the task of a failed one's error handler to the step, at its place in path order. The caller counts it."""
    assert task.error is not None
    handling = handling_task(task, task.error)
    scheduler.tasks.insert(scheduler.tasks.index(task) + 1, handling)
    return handling


def give_up(scheduler: Scheduler, out: list[Instruction], *, kill: bool) -> None:
    """Drop what has not started and cancel what runs; the step ends when the last place has answered."""
    scheduler.phase = ENDING
    scheduler.spread_all()
    flow = scheduler.flow
    if flow is not None and flow.is_open:
        flow.close()
        scheduler.open -= 1
    running = []
    for task in scheduler.tasks:
        if task.state == RUNNING:
            running.append(task.attempt)
        elif task.state == READY or task.state == WAITING:
            task.state = CANCELLED
            scheduler.open -= 1
            if task.caller is not None:
                give_up_call(task, out)
    scheduler.ready.clear()
    scheduler.parked.clear()
    if running:
        out.append((CANCEL, running, kill))
