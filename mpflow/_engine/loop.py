"""The run loop: one generator that feeds the scheduler and yields the few effects that a driver performs.

Effects, and what the driver sends back:

- ``(START, attempts)``: begin them; a list of the outcomes that are there already, possibly empty
- ``(WAIT, timeout_s)``: a list of outcomes, empty when the time was up; None waits for ever
- ``(CANCEL, attempts, kill)``: drop what has not started; with kill, end what runs
- ``(CLOSE, attempt, diff)``: complete the diff of an attempt that ran elsewhere; its outcome, or None if it will be posted
- ``(EMIT,)``: chunks wait in ``run.streams.queue``; the driver hands them to the consumer, which so drives the run

The generator returns when the run is over and raises what the run raises.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from mpflow._core.scheduler import (
    ADVANCE,
    BEGIN,
    BETWEEN,
    BROKEN,
    CANCEL,
    DISPATCH,
    DUE,
    ENDED_TASK,
    MERGED,
    OVER,
    PAUSED,
    RETRY,
    STOP,
)
from mpflow._messages import CLOSED, DONE, EVENT, FAILED, Outcome
from mpflow._names import INTERRUPT
from mpflow.errors import EmptyInputError, GraphBubbleUp, add_note

if TYPE_CHECKING:
    from mpflow._core.merge import Merge
    from mpflow._core.task import Task
    from mpflow._engine.run import Run

START, WAIT, CLOSE, EMIT = "start", "wait", "close", "emit"

Effect = tuple[Any, ...]


def run_loop(run: Run, input: Any) -> Generator[Effect, Any, None]:
    """Run a graph from its input to its end."""
    scheduler = run.scheduler
    handle = scheduler.handle
    streams = run.streams
    watched = bool(streams.modes or streams.passed)
    timers: list[tuple[float, int, Task]] = []
    deadline: float | None = None
    out = handle((BEGIN, input_writes(run, input)))
    while True:
        position = 0
        while position < len(out):  # outcomes that are there at once append what they lead to
            instruction = out[position]
            position += 1
            kind = instruction[0]
            if kind is DISPATCH:
                for outcome in (yield START, instruction[1]):
                    out += handle(outcome) if outcome[0] is CLOSED else _feed(run, outcome)
            elif kind is ENDED_TASK:
                if watched:
                    streams.ended(instruction[1], run.task_id)
            elif kind is MERGED:
                _merged(run, instruction[2], watched)
            elif kind is RETRY:
                heappush(timers, (run.clock() + instruction[2], len(timers), instruction[1]))
            elif kind is CANCEL:
                yield instruction
            elif kind is OVER:
                run.finish()
                if streams.queue:
                    yield (EMIT,)
                return
            elif kind is PAUSED:
                _paused(run, instruction[1])
                if streams.queue:
                    yield (EMIT,)
                return
            elif kind is BROKEN:
                if streams.queue:
                    yield (EMIT,)
                raise _told(run, instruction[1])
        if streams.queue:
            yield (EMIT,)
        if scheduler.phase is BETWEEN:
            out = handle((ADVANCE, run.next_facts()))
            if watched:
                streams.started(scheduler.tasks, run.task_id)
            if run.step_timeout_s is not None:
                deadline = run.clock() + run.step_timeout_s
            continue
        if scheduler.open == 0:
            out = []
            continue
        outcomes = yield WAIT, _timeout_s(run, timers, deadline)
        out = []
        for outcome in outcomes:
            if outcome[0] is DONE:
                attempt = outcome[1]
                if attempt.task.node.branches:
                    outcome = yield CLOSE, attempt, outcome[2]
                    if outcome is None:
                        continue
                else:
                    outcome = run.performer.close_returned(attempt, outcome[2])
            out += handle(outcome) if outcome[0] is CLOSED else _feed(run, outcome)
        if timers or deadline is not None:
            now = run.clock()
            while timers and timers[0][0] <= now:
                out += handle((DUE, heappop(timers)[2]))
            if deadline is not None and now >= deadline and scheduler.open:
                deadline = None
                out += handle((STOP, _step_timeout(run), True))


def _feed(run: Run, outcome: Outcome) -> list[Any]:
    """Give an outcome to the scheduler, or an event to the streams."""
    kind = outcome[0]
    if kind is EVENT:
        event, data = outcome[2]
        run.streams.event(event, data)
        return []
    if kind is FAILED:
        return run.scheduler.handle((FAILED, outcome[1], outcome[2], run.dice()))
    return run.scheduler.handle(outcome)


def _merged(run: Run, merged: Merge, watched: bool) -> None:
    """After a step: note the run's result, and stream the values, if the step wrote any of their keys (SM-3)."""
    written = merged.written
    if not run.output_keys.isdisjoint(written):
        run.note_result()
    streams = run.streams
    if watched and streams.wants("values") and not run.stream_keys.isdisjoint(written):
        streams.put("values", run.state.read(streams.output))


def _paused(run: Run, tasks: Sequence[Task]) -> None:
    interrupts = [item for task in tasks if task.error is not None for item in task.error.args[0]]
    result = run.state.read(run.output)
    if isinstance(result, dict):
        run.result = {**result, INTERRUPT: interrupts}
    if run.streams.wants("values"):
        values = run.state.read(run.streams.output)
        if isinstance(values, dict):
            run.streams.put("values", {**values, INTERRUPT: tuple(interrupts)})


def input_writes(run: Run, input: Any) -> list[tuple[str, Any]]:
    """The run's input as writes. Raises EmptyInputError when there is none (EX-10)."""
    plan = run.plan
    if input is not None:
        if isinstance(plan.input, str):
            return [(plan.input, input)]
        if isinstance(input, dict):
            writes = [(key, value) for key, value in input.items() if key in plan.input]
            if writes:
                return writes
    expected = plan.input if isinstance(plan.input, str) else ", ".join(plan.input)
    raise EmptyInputError(f"graph '{plan.name}' received no input for {expected}: got {input!r}")


def _told(run: Run, error: BaseException) -> BaseException:
    """The error that ends the run, with a note on the task it came from (ER-1)."""
    if not isinstance(error, GraphBubbleUp):
        for task in run.scheduler.tasks:
            if task.error is error:
                add_note(error, f"During task with name '{task.name}' and id '{run.task_id(task)}'")
    return error


def _timeout_s(run: Run, timers: list[tuple[float, int, Task]], deadline: float | None) -> float | None:
    times = [timers[0][0]] if timers else []
    if deadline is not None:
        times.append(deadline)
    return max(0.0, min(times) - run.clock()) if times else None


def _step_timeout(run: Run) -> TimeoutError:
    late = ", ".join(f"'{task.name}'" for task in run.scheduler.tasks if task.attempt is not None)
    return TimeoutError(
        f"step {run.scheduler.step} of graph '{run.plan.name}' took longer than its step_timeout of "
        f"{run.step_timeout_s} s; still running: {late}"
    )
