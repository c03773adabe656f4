"""Where a run begins and where it pauses: input, commands and answers on one side, questions and breakpoints on the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core.merge import merge
from mpflow._core.task import FAILED, FINISHED, INTERRUPTED, Task
from mpflow._engine.changed import check_graph
from mpflow._engine.suspicion import WITH_ITS_PROCESS, resumes
from mpflow._exec.program import routes_to
from mpflow._messages import LOST
from mpflow._names import (
    CHECKPOINT_ID,
    CONF,
    ERROR,
    ERROR_SOURCE_NODE,
    INTERRUPT,
    NO_WRITES,
    NULL_TASK_ID,
    RESUME,
    ROOT,
    SCHEDULED,
    STRICT_RESUME,
)
from mpflow._scope import Answers
from mpflow.channels.delta import with_message_ids
from mpflow.errors import (
    EmptyInputError,
    GraphBubbleUp,
    GraphInterrupt,
    InvalidUpdateError,
    OutcomeUnknown,
    UnknownInterruptError,
)
from mpflow.schema import updates_of
from mpflow.types import Command

if TYPE_CHECKING:
    from mpflow._core.plan import Plan
    from mpflow._engine.persistence import Persistence
    from mpflow._engine.run import Run
    from mpflow._engine.saving import Call
    from mpflow._engine.suspicion import Ruling
    from mpflow._messages import Attempt, Outcome

Writes = list[tuple[str, Any]]


def begin(run: Run, input: Any) -> tuple[Writes | None, Writes, Iterable[Call]]:
    """What the run starts with: its input as writes (None to resume), writes that belong to no task, and what to save.

    Raises EmptyInputError when there is neither input nor anything to resume (EX-10), RuntimeError for answers that
    cannot be given.
    """
    persistence = run.persistence
    calls: list[Call] = []
    resuming = bool(run.state.versions) and run.wants_resume(input)
    if persistence is not None:
        answers = (isinstance(input, Command) and input.resume is not None) or bool(run.is_answered_above)
        run.forks = persistence.begins_branch(resumes=resuming, answers=answers)
        if resuming:  # new input goes to graphs within as they are, wherever it branches off
            run.note_replay()
    given: Writes = []
    if isinstance(input, Command):
        writes = command_writes(run, input)
        if persistence is not None and writes:
            if run.forks or CHECKPOINT_ID not in persistence.where:
                persistence.carry(writes)  # the checkpoint that a branch leaves may have other children
            else:
                calls += persistence.task_ended(NULL_TASK_ID, "", writes)
        given = [write for write in writes if write[0] != RESUME]
        if not writes and not isinstance(input.resume, dict) and not input.goto:
            raise EmptyInputError(f"graph '{run.plan.name}' received an empty Command: it needs resume, update or goto")
    if persistence is not None:
        given = persistence.pending.null_writes()
    run.note_resuming(resuming)
    if resuming:
        if persistence is not None:
            run.may_be_answered = bool(run.answers_by_id or persistence.pending or run.null_answer())
            check_graph(
                run.plan,
                persistence.saved_values,
                () if persistence.repeats else persistence.pending,
                str(persistence.where["thread_id"]),
                persistence.checkpoint_id,
            )
            calls += resumes(run)
        return None, given, calls
    return input_writes_of(run.plan, input), given, calls


def command_writes(run: Run, command: Command[Any]) -> Writes:
    """A command that was given as input, as writes that belong to no task (CM-6)."""
    if command.graph == Command.PARENT:
        raise InvalidUpdateError("There is no parent graph: a Command given as input is for the graph itself")
    writes = routes_to(command.goto, "__input__")
    if command.resume is not None:
        writes += _answer(run, command.resume)
    update = command.update
    if update is not None and not (isinstance(update, (dict, list, tuple)) and not update):
        writes += _updates(run, update)
    return writes


def _answer(run: Run, resume: Any) -> Writes:
    """Note answers that name their questions; the one that does not, as a write."""
    persistence = run.persistence
    if persistence is None:
        raise RuntimeError("Cannot use Command(resume=...) without checkpointer")
    strict = run.parent is None and not persistence.superseded and run.user_config[CONF].get(STRICT_RESUME)
    if isinstance(resume, dict) and all(map(_is_question_id, resume)):
        if strict:
            _check_known(resume, persistence.pending.open_questions())
        run.answers_by_id = dict(resume)
        return []
    pending = persistence.pending.open_questions()
    if len(pending) < 2:
        return [(RESUME, resume)]
    text = (
        "When there are multiple pending interrupts, you must specify the interrupt id when resuming: "
        "Command(resume={interrupt.id: answer, ...})"
    )
    if strict:
        raise UnknownInterruptError(text, reason="ambiguous", pending_ids=sorted(pending))
    raise RuntimeError(text)


def _check_known(resume: dict[str, Any], pending: set[str]) -> None:
    """A strict resume answers questions that are waiting, and at least one of them (IN-12)."""
    if not resume:
        raise UnknownInterruptError(
            "Command(resume={}) names no interrupt", reason="empty_map", pending_ids=sorted(pending)
        )
    unknown = sorted(resume.keys() - pending)
    if unknown:
        raise UnknownInterruptError(
            f"Command(resume=...) answers the interrupt {unknown[0]}, which is not pending: it was answered, or never "
            "asked",
            reason="not_pending",
            interrupt_ids=unknown,
            pending_ids=sorted(pending),
        )


def _updates(run: Run, update: Any) -> Writes:
    kinds = run.plan.kinds
    if ROOT in kinds:
        return [(ROOT, update)]
    if isinstance(update, dict):
        return [(key, value) for key, value in update.items() if key in kinds]
    if isinstance(update, (list, tuple)) and all(isinstance(item, tuple) and len(item) == 2 for item in update):
        return [(key, value) for key, value in update if key in kinds]
    writes = updates_of(update, kinds)
    if writes is None:
        raise InvalidUpdateError(f"Expected dict, got {update!r} as the update of a Command")
    return writes


def _is_question_id(key: Any) -> bool:
    return isinstance(key, str) and len(key) == 32 and all(digit in "0123456789abcdef" for digit in key)


def input_writes_of(plan: Plan, input: Any) -> Writes:
    """A run's input as writes to its input channels. Raises EmptyInputError when there is none."""
    if input is not None:
        if isinstance(plan.input, str):
            return [(plan.input, input)]
        if not isinstance(input, dict):
            raise TypeError(
                f"graph '{plan.name}' has the input channels {', '.join(plan.input)}: expected a dict of their values, "
                f"got {type(input).__name__}"
            )
        writes = [(key, value) for key, value in input.items() if key in plan.input]
        if writes:
            return writes
    expected = plan.input if isinstance(plan.input, str) else ", ".join(plan.input)
    raise EmptyInputError(f"Received no input for {expected}: graph '{plan.name}' got {input!r}")


def give_answers(run: Run, attempts: Sequence[Attempt]) -> None:
    """Let each task know what it was answered before, and what it may still take."""
    persistence = run.persistence
    null = run.null_answer()
    for attempt in attempts:
        task = attempt.task
        by_id = run.answers_by_id
        if task.answers is None:
            given = (
                persistence.pending.answers(run.task_id(task))
                if persistence is not None and persistence.pending
                else []
            )
        else:  # an attempt before this one may have taken answers that no saver has yet
            given = task.answers.given
            by_id = {} if task.answers.took_by_id else by_id
        attempt.plain = False
        attempt.answers = task.answers = Answers(given, null, by_id)


def begin_once(run: Run, attempts: Sequence[Attempt]) -> Ruling:
    """For tasks that must not run twice: note durably that they begin, and give up those that did before."""
    persistence = run.persistence
    assert persistence is not None
    allowed: list[Attempt] = []
    given_up: list[Outcome] = []
    calls: list[Call] = []
    for attempt in attempts:
        if attempt.rerun_on_loss:
            allowed.append(attempt)
            continue
        task_id = run.task_id(attempt.task)
        if task_id in persistence.begun and not persistence.repeats:
            given_up.append((LOST, attempt, WITH_ITS_PROCESS, 0.0))
        else:
            allowed.append(attempt)
            calls += persistence.task_begins(task_id, run.path_text(attempt.task), attempt.number)
    return allowed, given_up, calls


def ended_task(run: Run, task: Task) -> Iterable[Call]:
    """What is saved of a task at its end: its diff, its error, or its questions with the answers so far."""
    persistence = run.persistence
    assert persistence is not None
    if run.has_null_answer and (task.state != FINISHED or len(run.scheduler.tasks) > 1) and run.has_spent_answer():
        return [*persistence.answer_spent(), *_saved_of(run, persistence, task)]
    return _saved_of(run, persistence, task)


def _saved_of(run: Run, persistence: Persistence, task: Task) -> Iterable[Call]:
    answers = task.answers
    if (
        task.state == FINISHED
        and not (answers is not None and answers.given)
        and not persistence.deltas.any
        and persistence.defers(task, run.task_id)
    ):
        return ()
    task_id = run.task_id(task)
    path = run.path_text(task)
    answered: Writes = [(RESUME, list(answers.given))] if answers is not None and answers.given else []
    if not task.node.rerun_on_loss and not isinstance(task.error, OutcomeUnknown) and task.state != FINISHED:
        answered.append((SCHEDULED, 0))  # how it ended is known: it may begin again
    if task.state == FINISHED:
        if persistence.deltas.any:  # what is merged has the ids of what is saved
            task.writes = [
                (name, with_message_ids(value) if name in persistence.deltas else value) for name, value in task.writes
            ]
        writes = task.writes or [(NO_WRITES, None)]
        return persistence.task_ended(task_id, path, [*answered, *writes] if answered else writes, task.name)
    if task.state == INTERRUPTED:
        assert isinstance(task.error, GraphInterrupt)
        questions = tuple(task.error.args[0])
        if not questions:  # a graph within it came to a breakpoint
            return ()
        return persistence.task_ended(task_id, path, [(INTERRUPT, questions), *answered], task.name)
    if task.state == FAILED and isinstance(task.error, Exception) and not isinstance(task.error, GraphBubbleUp):
        marks = [(ERROR_SOURCE_NODE, task.name)] if task.handled else []
        return persistence.task_ended(task_id, path, [*answered, (ERROR, task.error), *marks], task.name)
    return ()


def paused(run: Run, tasks: Sequence[Task]) -> None:
    """The end of a run that stopped with questions or at a breakpoint: its values with what finished, and the questions.

    Raises GraphInterrupt where a graph around this one must pause with it.
    """
    questions = tuple(item for task in tasks if task.error is not None for item in task.error.args[0])
    if run.parent is not None or run.is_part:
        raise GraphInterrupt(questions)
    streams = run.streams
    finished = [task for task in run.scheduler.tasks if task.state == FINISHED]
    if finished and any(task.writes for task in finished):
        merged = merge(run.state, run.scheduler.tasks)
        if not run.output_keys.isdisjoint(merged.written):
            run.note_result()
        if not run.stream_keys.isdisjoint(merged.written):
            streams.values_now(run.state)
    if not questions and streams.wants("updates"):
        streams.put("updates", {INTERRUPT: ()})
    if questions and run.result is None and run.result_is_open:  # nothing was written, but a question shows the state
        run.note_result()
    run.finish()
    if questions:
        result = run.result
        run.result = (
            {**result, INTERRUPT: list(questions)} if isinstance(result, dict) else {INTERRUPT: list(questions)}
        )
