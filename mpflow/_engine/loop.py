"""The run loop: one generator that feeds the scheduler and yields the few effects that a driver performs.

Effects, and what the driver sends back:

- ``(START, attempts)``: begin them; a list of the outcomes that are there already, possibly empty
- ``(WAIT, timeout_s)``: a list of outcomes, empty when the time was up; None waits for ever
- ``(PAUSE, delay_s)``: nothing runs; let that time pass
- ``(CANCEL, attempts, kill)``: drop what has not started; with kill, end what runs
- ``(CLOSE, attempt, diff)``: complete the diff of an attempt that ran elsewhere; its outcome, or None if it will be posted
- ``(SAVER, method, arguments)``: call the saver; what it returns
- ``(CACHE, method, arguments)``: call the cache; what it returns
- ``(TELL, event)``: tell the user's handlers that the run pauses or goes on
- ``(EMIT,)``: chunks wait in ``run.streams.queue``; the driver hands them to the consumer, which so drives the run

The generator returns when the run is over and raises what the run raises.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core.protocol import (
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
    Instruction,
)
from mpflow._core.task import ENDED
from mpflow._engine.caching import put_cached, take_cached
from mpflow._engine.callbacks import CALLBACK
from mpflow._engine.callbacks import drive as drive_callbacks
from mpflow._engine.calls import CALLS, answer, settle, stimulus_of
from mpflow._engine.resume import begin, begin_once, ended_task, give_answers, paused
from mpflow._engine.saving import SAVER
from mpflow._engine.suspicion import carry_on, note_tried, relax
from mpflow._engine.timers import Timers
from mpflow._messages import CLOSED, CLOSED_MANY, DONE, DONE_MANY, EVENT, FAILED, LOST, Attempt, Outcome
from mpflow._scope import DRAIN, TAKEN
from mpflow.errors import GraphBubbleUp, GraphDrained, add_note
from mpflow.observe.trace import tracing

if TYPE_CHECKING:
    from mpflow._core.merge import Merge
    from mpflow._core.task import Task
    from mpflow._engine.persistence import Persistence
    from mpflow._engine.run import Run
    from mpflow._engine.saving import Call
    from mpflow._engine.suspicion import Ruling
    from mpflow.observe.trace import Trace

_CLOSED = (CLOSED, CLOSED_MANY)
START, WAIT, PAUSE, CLOSE, EMIT, TELL = "start", "wait", "pause", "close", "emit", "tell"

Effect = tuple[Any, ...]
Effects = Generator[Effect, Any, Any]


def run_loop(run: Run, input: Any) -> Generator[Effect, Any, None]:
    """Run a graph from its input to its end."""
    scheduler = run.scheduler
    handle = scheduler.handle
    streams = run.streams
    watched = streams.watched
    trace = tracing.get()
    persistence = run.persistence
    tells_ends = watched or run.cache is not None
    timers = None if run.step_timeout_s is None else Timers(run)
    kept = None
    if persistence is None:
        writes, given, _ = begin(run, input)
        out = handle((BEGIN, writes, given))
    else:
        out, kept = yield from _begin_saved(run, persistence, input)
    prepares = run.cache is not None or run.may_be_answered or trace is not None
    while True:
        following: list[Instruction] = []  # from outcomes that are there at once
        for instruction in out:
            kind = instruction[0]
            if kind is DISPATCH:
                attempts = instruction[1]
                if prepares or run.stamps or (persistence is not None and persistence.comes_first):
                    attempts = yield from _prepare(run, attempts, following, trace)
                outcomes = yield START, attempts
                if trace is not None:
                    trace.arrived(run.plan.name, outcomes)
                for outcome in outcomes:
                    if outcome[0] is CLOSED:
                        handle(outcome, following)
                    else:
                        _feed(run, outcome, following)
            elif kind is MERGED:
                if run.result_is_open:
                    run.note_written(instruction[2].written)
                if persistence is not None:
                    for call in _checkpoint(run, instruction[1], instruction[2]):
                        yield SAVER, *call
                if watched and instruction[1] and not run.stream_keys.isdisjoint(instruction[2].written):
                    streams.values_now(run.state)
            elif kind is ENDED_TASK:
                for task in instruction[1:]:
                    if persistence is not None and (not task.cached or task.from_cache):
                        for call in ended_task(run, task):
                            yield SAVER, *call
                    if tells_ends or task.caller is not None:
                        yield from _tell_end(run, task)
            elif kind is MORE:
                handle((GO_ON,), following)
            elif kind is RETRY:
                timers = timers or Timers(run)
                timers.add(instruction[1], instruction[2])
                if persistence is not None:
                    note_tried(run, instruction[1])
            elif kind is OVER or kind is PAUSED or kind is BROKEN:
                if watched or persistence is not None or kind is not OVER:
                    yield from _end(run, instruction)
                else:
                    run.finish()
                return
            else:
                yield from _obey(run, instruction)
        if following:
            out = following
            continue
        if persistence is not None and persistence.unsaved:
            yield SAVER, *persistence.commit()
        if streams.queue:
            yield (EMIT,)
        if scheduler.phase is BETWEEN:
            out = _next_step(run, kept, timers)
            kept = None
        else:
            out = yield from _wait(run, timers, trace)


def _next_step(run: Run, kept: Any, timers: Timers | None) -> list[Instruction]:
    """Start what is due now; `kept` are the writes that are known by task from an earlier run."""
    scheduler, streams, control = run.scheduler, run.streams, run.local.control
    if streams.watched:
        streams.checkpointed(run)
    advance: tuple[Any, ...] = ADVANCE, run.next_facts(scheduler.step, scheduler.stop), kept
    if control is not None:
        advance += _draining(control)
    out = scheduler.handle(advance)
    if streams.watched and not (out and out[-1][0] is PAUSED):
        streams.started(run)
    if timers is not None and run.step_timeout_s is not None:
        timers.begin_step(run.step_timeout_s)
    return out


def _wait(run: Run, timers: Timers | None, trace: Trace | None) -> Effects:
    """Let time pass until something has come or is due. What follows from it."""
    handle = run.scheduler.handle
    if timers is not None and (only := timers.take_only()) is not None:
        task, delay_s = only
        yield PAUSE, delay_s
        return handle((DUE, task))
    outcomes = yield WAIT, None if timers is None else timers.timeout_s()
    if trace is not None:
        trace.arrived(run.plan.name, outcomes)
    out: list[Instruction] = []
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
        if outcome[0] in _CLOSED:
            handle(outcome, out)
        else:
            _feed(run, outcome, out)
    for stimulus in () if timers is None else timers.due():
        handle(stimulus, out)
    return out


def _prepare(run: Run, attempts: Sequence[Attempt], out: list[Instruction], trace: Trace | None) -> Effects:
    """What comes before attempts are started in a run that keeps or tells something. Those that must run."""
    if trace is not None or run.stamps:
        attempts = list(attempts)
    if run.may_be_answered:
        give_answers(run, attempts)
    if run.persistence is not None:
        attempts = yield from _permitted(run, attempts, out)
    if run.cache is not None:
        attempts, hits = yield from take_cached(run, attempts)
        for outcome in hits:
            run.scheduler.handle(outcome, out)
    if run.stamps:
        _stamp(attempts)
    if trace is not None:
        trace.dispatched(attempts)
    if run.persistence is not None and run.persistence.unsaved:  # of siblings that have finished: these may kill us
        yield SAVER, *run.persistence.commit()
    return attempts


def _begin_saved(run: Run, persistence: Persistence, input: Any) -> Effects:
    """Up to the first step: load what is saved, take the input. The instructions, and the writes that are known by task."""
    scheduler = run.scheduler
    saved = yield from persistence.find()
    scheduler.start_at(persistence.load(saved, run.state))
    writes, given, calls = begin(run, input)
    yield from _save(calls)
    persistence.note_beginning(writes or (), given, forks=run.forks)
    out = scheduler.handle((BEGIN, writes, given))
    if writes is None:
        run.note_result()
        if run.streams.watched:
            run.streams.values_now(run.state)
    if run.forks:
        persistence.forget_questions()
        yield from _save(persistence.checkpoint(run.state, "fork", scheduler.step))
        scheduler.step += 1
    if writes is None and run.performer.teller is not None:
        yield from _tell(run.performer.teller.resumed())
    return out, None if persistence.repeats else persistence.kept()


def _tell(event: Any) -> Effects:
    if event is not None:
        yield TELL, event


def _save(calls: Iterable[Call]) -> Effects:
    for call in calls:
        yield SAVER, *call


def _permitted(run: Run, attempts: Sequence[Attempt], out: list[Instruction]) -> Effects:
    """Those that may start, by what the saver knows of attempts before them."""
    if run.persistence.ledger is not None:  # type: ignore[union-attr]
        attempts = yield from _allowed(run, carry_on(run, attempts), out)
    if run.plan.begins_once and not all(attempt.rerun_on_loss for attempt in attempts):
        attempts = yield from _allowed(run, begin_once(run, attempts), out)
    return attempts


def _allowed(run: Run, ruling: Ruling, out: list[Instruction]) -> Effects:
    """Save what must be saved first, and end those attempts that must not start. The others."""
    allowed, given_up, calls = ruling
    yield from _save(calls)
    for outcome in given_up:
        run.scheduler.handle(outcome, out)
    return allowed


def _checkpoint(run: Run, tasks: Sequence[Task], merged: Merge) -> Iterable[Call]:
    """What saves the step of these tasks, or the input."""
    persistence = run.persistence
    assert persistence is not None
    source = "input"
    if tasks:
        source = "loop"
        run.note_step()
        if persistence.ledger is not None:
            relax(run)
    return persistence.checkpoint(run.state, source, run.scheduler.step - 1, merged, tasks)


def _tell_end(run: Run, task: Task) -> Effects:
    """A task has ended, and its result is given to the saver: tell whoever waits for it."""
    if run.cache is not None:
        yield from put_cached(task)
    if task.caller is not None:
        if run.persistence is not None and run.persistence.unsaved:  # the caller builds on it
            yield SAVER, *run.persistence.commit()
        answer(task)
    if run.streams.watched:
        run.streams.ended(run, task)


def _obey(run: Run, instruction: Instruction) -> Effects:
    """What few steps are told."""
    kind = instruction[0]
    if kind is SPAWNED:
        if run.streams.watched:
            run.streams.called(run, instruction[1])
    elif kind is ANSWER:
        settle(instruction[2], instruction[1])
    elif kind is REFUSED:
        instruction[1].cancel()
    elif kind is CANCEL:
        yield instruction


def _end(run: Run, instruction: Instruction) -> Effects:
    """The run is over: save what was put off, and say how it ended."""
    kind = instruction[0]
    streams = run.streams
    if kind is OVER:
        run.finish()
    if run.persistence is not None:
        yield from _save(run.persistence.at_exit(is_over=kind is OVER))
    if kind is PAUSED:
        if streams.watched and not run.scheduler.tasks:  # after a step; before one, its checkpoint has been told of
            streams.checkpointed(run)
        if streams.queue:  # it may raise: writes that finished beside the question need not go together
            yield (EMIT,)
        paused(run, instruction[1])
        if run.performer.teller is not None:
            yield from _tell(run.performer.teller.paused())
    if streams.queue:
        yield (EMIT,)
    if kind is BROKEN:
        raise _told(run, instruction[1])


def _draining(control: Any) -> tuple[GraphDrained, ...]:
    return (GraphDrained(control.drain_reason),) if control.drain_requested else ()


def _feed(run: Run, outcome: Outcome, out: list[Instruction]) -> None:
    """Give an outcome to the scheduler, or an event to the streams."""
    kind = outcome[0]
    if kind is EVENT:
        event, data = outcome[2]
        if event == DRAIN:
            run.local.drainable().request_drain(data)
        elif event == TAKEN:
            data(None)
        elif event == CALLBACK:
            teller = run.performer.teller
            drive_callbacks(run.user_config["callbacks"], data, teller and teller.running(outcome[1]))
        elif event in CALLS:
            run.scheduler.handle(stimulus_of(event, outcome[1], data), out)
        else:
            attempt = outcome[1]
            run.streams.event(event, data, attempt.facts.checkpoint_ns if attempt.is_called else None)
        return
    if kind is LOST:
        outcome[1].task.first_at = outcome[1].first_at or time.time() - outcome[3]
        run.stamps = True
    if kind is FAILED:
        outcome = FAILED, outcome[1], outcome[2], run.dice()
    run.scheduler.handle(outcome, out)
    if kind is LOST and run.persistence is not None and outcome[1].task.state not in ENDED:
        note_tried(run, outcome[1].task)


def _stamp(attempts: Sequence[Attempt]) -> None:
    """Let each attempt know when the first one at its task began (RY-6)."""
    now = time.time()
    for attempt in attempts:
        task = attempt.task
        if task.first_at is None:
            task.first_at = now
        attempt.first_at = task.first_at
        attempt.plain = False


def _told(run: Run, error: BaseException) -> BaseException:
    """The error that ends the run, with a note on the task it came from (ER-1)."""
    if not isinstance(error, GraphBubbleUp):
        # Of tasks that share an error, as all do that no worker could be started for, one is enough.
        task = next((task for task in run.scheduler.tasks if task.error is error), None)
        if task is not None:
            add_note(error, f"During task with name '{task.name}' and id '{run.scheduler.task_id(task)}'")
            if isinstance(error, (StopIteration, StopAsyncIteration)):  # neither can leave a generator, as a run is
                stopped = RuntimeError(f"node '{task.name}' raised {type(error).__name__}")
                stopped.__cause__ = error
                return stopped
    return error
