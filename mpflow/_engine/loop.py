"""The run loop: one generator that feeds the scheduler and yields the few effects that a driver performs.

Effects, and what the driver sends back:

- ``(START, attempts)``: begin them; a list of the outcomes that are there already, possibly empty
- ``(WAIT, timeout_s)``: a list of outcomes, empty when the time was up; None waits for ever
- ``(CANCEL, attempts, kill)``: drop what has not started; with kill, end what runs
- ``(CLOSE, attempt, diff)``: complete the diff of an attempt that ran elsewhere; its outcome, or None if it will be posted
- ``(SAVER, method, arguments)``: call the saver; what it returns
- ``(CACHE, method, arguments)``: call the cache; what it returns
- ``(EMIT,)``: chunks wait in ``run.streams.queue``; the driver hands them to the consumer, which so drives the run

The generator returns when the run is over and raises what the run raises.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

from mpflow._core.scheduler import (
    ADVANCE,
    ANSWER,
    BEGIN,
    BETWEEN,
    BROKEN,
    CANCEL,
    DISPATCH,
    DUE,
    ENDED_TASK,
    GO_ON,
    MERGED,
    MORE,
    OVER,
    PAUSED,
    REFUSED,
    RETRY,
    SPAWNED,
    STOP,
)
from mpflow._engine.caching import put_cached, take_cached
from mpflow._engine.callbacks import CALLBACK
from mpflow._engine.callbacks import drive as drive_callbacks
from mpflow._engine.calls import CALLS, answer, settle
from mpflow._engine.persistence import SAVER
from mpflow._engine.resume import begin, ended_task, give_answers, paused
from mpflow._messages import CLOSED, CLOSED_MANY, DONE, DONE_MANY, EVENT, FAILED, LOST, Outcome
from mpflow._scope import DRAIN
from mpflow.errors import GraphBubbleUp, GraphDrained, add_note
from mpflow.observe.trace import tracing

if TYPE_CHECKING:
    from mpflow._core.merge import Merge
    from mpflow._core.task import Task
    from mpflow._engine.run import Run
    from mpflow._messages import Attempt

_CLOSED = (CLOSED, CLOSED_MANY)
START, WAIT, CLOSE, EMIT = "start", "wait", "close", "emit"

Effect = tuple[Any, ...]


def run_loop(run: Run, input: Any) -> Generator[Effect, Any, None]:
    """Run a graph from its input to its end."""
    scheduler = run.scheduler
    handle = scheduler.handle
    streams = run.streams
    watched = streams.watched
    timers: list[tuple[float, int, Task]] = []
    order = count()
    deadline: float | None = None
    caching = run.cache is not None
    trace = tracing.get()
    persistence = run.persistence
    if persistence is not None:
        saved = yield from persistence.find()
        scheduler.start_at(persistence.load(saved, run.state))
    writes, given, calls = begin(run, input)
    for call in calls:
        yield SAVER, *call
    out = handle((BEGIN, writes, given))
    if writes is None:
        run.note_result()
        if watched:
            streams.values_now(run.state)
    if persistence is not None and run.forks:
        persistence.forget_questions()
        for call in persistence.checkpoint(run.state, "fork", scheduler.step, None):
            yield SAVER, *call
        scheduler.step += 1
    kept = persistence.kept() if persistence is not None and not persistence.repeats else None
    while True:
        position = 0
        while position < len(out):  # outcomes that are there at once append what they lead to
            instruction = out[position]
            position += 1
            kind = instruction[0]
            if kind is DISPATCH:
                if persistence is not None:
                    give_answers(run, instruction[1])
                attempts = instruction[1]
                if run.stamps:
                    _stamp(attempts)
                if caching:
                    attempts, hits = yield from take_cached(run, attempts)
                    for outcome in hits:
                        out += handle(outcome)
                    if not attempts:
                        continue
                if trace is not None:
                    trace.dispatched(attempts)
                outcomes = yield START, attempts
                if trace is not None:
                    trace.arrived(run.plan.name, outcomes)
                for outcome in outcomes:
                    out += handle(outcome) if outcome[0] is CLOSED else _feed(run, outcome)
            elif kind is ENDED_TASK:
                for task in instruction[1:]:
                    if persistence is not None and (not task.cached or task.from_cache):
                        for call in ended_task(run, task):
                            yield SAVER, *call
                    if caching:
                        yield from put_cached(task)
                    if task.caller is not None:
                        answer(task)
                    if watched:
                        streams.ended(run, task)
            elif kind is MERGED:
                _merged(run, instruction[2], watched and bool(instruction[1]))
                if persistence is not None:
                    source = "loop" if instruction[1] else "input"
                    for call in persistence.checkpoint(run.state, source, scheduler.step - 1, instruction[2].updated):
                        yield SAVER, *call
            elif kind is SPAWNED:
                if watched:
                    streams.called(run, instruction[1])
            elif kind is ANSWER:
                settle(instruction[2], instruction[1])
            elif kind is REFUSED:
                instruction[1].cancel()
            elif kind is RETRY:
                heappush(timers, (run.clock() + instruction[2], next(order), instruction[1]))
            elif kind is MORE:
                out += handle((GO_ON,))
            elif kind is CANCEL:
                yield instruction
            elif kind is OVER:
                run.finish()
                if persistence is not None:
                    for call in persistence.at_exit():
                        yield SAVER, *call
                if streams.queue:
                    yield (EMIT,)
                return
            elif kind is PAUSED:
                if persistence is not None:
                    for call in persistence.at_exit():
                        yield SAVER, *call
                if watched and not scheduler.tasks:  # after a step; before one, its checkpoint has been told of
                    streams.checkpointed(run)
                paused(run, instruction[1])
                if streams.queue:
                    yield (EMIT,)
                return
            elif kind is BROKEN:
                if persistence is not None:
                    for call in persistence.at_exit():
                        yield SAVER, *call
                if streams.queue:
                    yield (EMIT,)
                raise _told(run, instruction[1])
        if streams.queue:
            yield (EMIT,)
        if scheduler.phase is BETWEEN:
            if watched:
                streams.checkpointed(run)
            control = run.local.control
            if control is None or not control.drain_requested:
                out = handle((ADVANCE, run.next_facts(), kept))
            else:
                out = handle((ADVANCE, run.next_facts(), kept, GraphDrained(control.drain_reason)))
            kept = None
            if watched and not (out and out[-1][0] is PAUSED):
                streams.started(run)
            if run.step_timeout_s is not None:
                deadline = run.clock() + run.step_timeout_s
            continue
        if scheduler.open == 0:
            out = []
            continue
        outcomes = yield WAIT, _timeout_s(run, timers, deadline)
        if trace is not None:
            trace.arrived(run.plan.name, outcomes)
        out = []
        for outcome in outcomes:
            if outcome[0] is DONE_MANY:
                outcome, singly = run.performer.close_all_returned(outcome)
                outcomes += singly  # grows while we go on with it
            elif outcome[0] is DONE:
                attempt = outcome[1]
                if attempt.task.node.branches:
                    outcome = yield CLOSE, attempt, outcome[2]
                    if outcome is None:
                        continue
                else:
                    outcome = run.performer.close_returned(attempt, outcome[2])
            out += handle(outcome) if outcome[0] in _CLOSED else _feed(run, outcome)
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
        if event == DRAIN:
            run.local.drainable().request_drain(data)
        elif event == CALLBACK:
            drive_callbacks(run.user_config["callbacks"], data)
        elif event in CALLS:
            return run.scheduler.handle((CALLS[event], outcome[1], *data))
        else:
            run.streams.event(event, data)
        return []
    if kind is LOST:
        outcome[1].task.first_at = outcome[1].first_at or time.time() - outcome[3]
        run.stamps = True
    if kind is FAILED:
        return run.scheduler.handle((FAILED, outcome[1], outcome[2], run.dice()))
    return run.scheduler.handle(outcome)


def _stamp(attempts: Sequence[Attempt]) -> None:
    """Let each attempt know when the first one at its task began (RY-6)."""
    now = time.time()
    for attempt in attempts:
        task = attempt.task
        if task.first_at is None:
            task.first_at = now
        attempt.first_at = task.first_at


def _merged(run: Run, merged: Merge, watched: bool) -> None:
    """After a step: note the run's result, and stream the values, if the step wrote any of their keys (SM-3)."""
    written = merged.written
    if not run.output_keys.isdisjoint(written):
        run.note_result()
    streams = run.streams
    if watched and streams.wants("values") and not run.stream_keys.isdisjoint(written):
        streams.values_now(run.state)


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
