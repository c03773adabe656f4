"""What moves a run on: its beginning, the start of each step and its end. The rows of the scheduler's table for runs.

Functions on a `Scheduler`, which alone calls them, from `handle`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core import outcomes
from mpflow._core.dispatch import dispatch
from mpflow._core.fan import Fan, count, fan_of
from mpflow._core.flow import flow_of
from mpflow._core.merge import NOTHING, Writer, merge
from mpflow._core.protocol import (
    BETWEEN,
    BROKEN,
    ENDED_TASK,
    FINAL,
    MERGED,
    NEW,
    OVER,
    PAUSED,
    STEPPING,
    Instruction,
    Stimulus,
)
from mpflow._core.records import place_records
from mpflow._core.resuming import is_breakpoint, keep
from mpflow._core.steps import due_tasks, entering, sent_tasks, triggered_tasks
from mpflow._core.task import INTERRUPTED, READY, Task
from mpflow._names import INTERRUPT, TASKS
from mpflow._sends import listed
from mpflow.errors import ErrorCode, GraphRecursionError, create_error_message

if TYPE_CHECKING:
    from mpflow._core.flow import Flow
    from mpflow._core.resuming import Kept
    from mpflow._core.scheduler import Scheduler
    from mpflow._messages import StepFacts


def begin(scheduler: Scheduler, stimulus: Stimulus, out: list[Instruction]) -> None:
    """Take the input in."""
    _, writes, given = stimulus
    plan, state = scheduler.plan, scheduler.state
    merged = merge(state, [Writer(given)], ends_step=False) if given else None
    scheduler.phase = BETWEEN
    if writes is None:  # resume: what changed until now is no reason to pause again
        state.seen[INTERRUPT] = dict(state.versions)
        scheduler.started = None
        return
    # What was due before the input came is given up: its triggers count as seen (EX-11).
    dropped: list[Task] = []
    if state.versions or merged is not None:
        before = None if state.counted or merged is None else merged.started
        dropped = due_tasks(plan, state, scheduler.step, scheduler.stop, before, scheduler.warn)
    scheduler.step += 1
    passed = entering(plan, writes) if scheduler.unseen and not dropped else None
    if passed is None:
        merged = merge(state, [*dropped, Writer(writes)], ends_step=bool(dropped))
    else:
        scheduler.step += 1
        try:
            merged = merge(state, [Writer(passed)])
        except Exception as error:
            break_run(scheduler, error, out)
            return
    scheduler.started = merged.started
    out.append((MERGED, (), merged))


def advance(scheduler: Scheduler, stimulus: Stimulus, out: list[Instruction]) -> None:
    """Start the next step, as the run's consumer wishes."""
    start_step(scheduler, stimulus[1], stimulus[2], stimulus[3] if len(stimulus) > 3 else None, out)


def start_step(
    scheduler: Scheduler,
    facts: StepFacts,
    kept: Kept | None,
    instead: BaseException | None,
    out: list[Instruction],
) -> None:
    """Find what is due, and dispatch it. `instead` breaks the run if anything is."""
    state = scheduler.state
    if scheduler.step > scheduler.stop:
        break_run(scheduler, _recursion_error(scheduler.recursion_limit), out)
        return
    tasks: list[Any] = triggered_tasks(scheduler.plan, state, scheduler.step, scheduler.stop, scheduler.started)
    flow = None
    has_sends = TASKS in state.values
    if has_sends:
        flow = _take_sends(scheduler, tasks, may_be_fan=not kept and instead is None)
    if not tasks and flow is None:
        scheduler.phase = FINAL
        out.append((OVER,))
        return
    scheduler.facts = facts
    scheduler.tasks = tasks
    scheduler.open = len(tasks)
    if has_sends:
        scheduler.flow = flow
        scheduler.open = count(tasks) + (flow is not None)
    scheduler.phase = STEPPING
    if kept:
        scheduler.kept = kept
        keep(scheduler, tasks, kept, out)
        tasks = [task for task in scheduler.tasks if task.state is READY]
    if scheduler.pause_before and is_breakpoint(scheduler, scheduler.pause_before):
        scheduler.phase = FINAL
        out.append((PAUSED, ()))
    elif not tasks and flow is None:
        end_step(scheduler, out)
    elif instead is not None:
        scheduler.tasks = []
        break_run(scheduler, instead, out)
    elif (
        scheduler.open == 1
        and tasks
        and tasks[0].node.passes is not None
        and outcomes.passed_on(scheduler, tasks[0], out)
    ):
        end_step(scheduler, out)
    else:
        # Sends are started first, although what triggered nodes write is merged before what they do.
        scheduler.ready += sorted(tasks, key=_is_pulled) if has_sends else tasks
        if flow is None:
            dispatch(scheduler, out)
        else:
            scheduler.settle(out)


def _take_sends(scheduler: Scheduler, tasks: list[Any], *, may_be_fan: bool) -> Flow | None:
    """Add what the queued sends start; the flow of those that are still to be made."""
    plan = scheduler.plan
    sends: Sequence[Any] = scheduler.state.values[TASKS]
    if may_be_fan and scheduler.keeps_columns is not None:
        fan = fan_of(plan, sends, scheduler.keeps_columns)
        if fan is not None:
            tasks.append(fan)
            scheduler.fans.add(fan)
            return None
    if scheduler.pause_before or scheduler.pause_after:  # each task may be a breakpoint
        sends = listed(sends)
    tasks += sent_tasks(plan, sends, scheduler.warn)
    return flow_of(plan, sends, tasks)


def end_step(scheduler: Scheduler, out: list[Instruction]) -> None:
    """All tasks have ended: merge what they wrote, and say how the run goes on."""
    if scheduler.error is not None or scheduler.drained is not None:
        break_run(scheduler, scheduler.error or scheduler.drained, out)  # type: ignore[arg-type]  # one of them is there
        return
    tasks: Sequence[Any] = scheduler.tasks
    if scheduler.interrupted:
        scheduler.phase = FINAL
        asking = [task for task in tasks if task.state == INTERRUPTED]
        # What a called task asked is asked by its caller too, unless that one would not hear of it.
        out.append((PAUSED, [task for task in asking if task.caller is None] or asking))
        return
    state = scheduler.state
    try:
        if scheduler.flow is not None or scheduler.recorded or scheduler.fans:
            tasks, folded, grouped = _gathered(scheduler, scheduler.flow, out)
            merged = merge(state, tasks, folded, grouped)
        else:
            merged = merge(state, tasks)
    except Exception as error:
        break_run(scheduler, error, out)
        return
    if merged.unknown:
        _warn_of(scheduler, merged.unknown)
    scheduler.started = merged.started
    scheduler.step += 1
    scheduler.phase = BETWEEN
    out.append((MERGED, tasks, merged))
    if scheduler.pause_after and is_breakpoint(scheduler, scheduler.pause_after):
        scheduler.phase = FINAL
        out.append((PAUSED, ()))
    scheduler.tasks = []
    if scheduler.unseen:
        if not merged.started and scheduler.step <= scheduler.stop and TASKS not in state.values:
            scheduler.phase = FINAL
            out.append((OVER,))
        elif scheduler.goes_on and (facts := scheduler.facts.following(scheduler.step)) is not None:  # type: ignore[union-attr]
            start_step(scheduler, facts, None, None, out)


def _gathered(
    scheduler: Scheduler, flow: Flow | None, out: list[Instruction]
) -> tuple[Sequence[Any], Mapping[str, Any], Mapping[str, list[Any]] | None]:
    """The tasks of a step that was no plain one, the channels that took what they wrote, and what they wrote by channel."""
    tasks: Sequence[Any] = scheduler.tasks
    folded: Mapping[str, Any] = NOTHING
    if flow is not None:
        flow.fold(scheduler, out, all=True)
        tasks, folded = flow.finish(tasks)
        scheduler.flow = None
    elif scheduler.recorded:
        out.extend((ENDED_TASK, task) for task in place_records(tasks, scheduler.state))
    scheduler.recorded = False
    grouped = tasks[0].grouped() if len(tasks) == 1 and type(tasks[0]) is Fan else None
    scheduler.fans.clear()
    return tasks, folded, grouped


def _warn_of(scheduler: Scheduler, unknown: Sequence[str]) -> None:
    for channel in unknown:
        names = dict.fromkeys(task.name for task in scheduler.tasks for name, _ in task.writes if name == channel)
        authors = f"node {', '.join(map(repr, names))} " if names else ""
        scheduler.warn(f"{authors}wrote to unknown channel {channel}, ignoring it.")


def break_run(scheduler: Scheduler, error: BaseException, out: list[Instruction]) -> None:
    """Nothing of the run goes on."""
    if scheduler.flow is not None:
        scheduler.flow.close()
    scheduler.phase = FINAL
    scheduler.error = error
    out.append((BROKEN, error))


def stop(scheduler: Scheduler, stimulus: Stimulus, out: list[Instruction]) -> None:
    """Give the run up."""
    error, kill = stimulus[1], stimulus[2]
    if scheduler.error is None:
        scheduler.error = error
    if scheduler.phase is BETWEEN or scheduler.phase is NEW:
        break_run(scheduler, error, out)
        return
    outcomes.give_up(scheduler, out, kill=kill)
    if scheduler.open == 0:
        end_step(scheduler, out)


def go_on(scheduler: Scheduler, stimulus: Stimulus, out: list[Instruction]) -> None:
    """Dispatch what is still ready."""
    scheduler.settle(out)


def over(scheduler: Scheduler, stimulus: Stimulus, out: list[Instruction]) -> None:
    """What was to be dispatched has been dropped since."""


def _is_pulled(task: Task) -> bool:
    return task.pulled


def _recursion_error(limit: int) -> GraphRecursionError:
    return GraphRecursionError(
        create_error_message(
            message=f"Recursion limit of {limit} reached without hitting a stop condition. A graph that is meant to take "
            "more steps needs a higher limit: config={'recursion_limit': N}.",
            error_code=ErrorCode.GRAPH_RECURSION_LIMIT,
        )
    )
