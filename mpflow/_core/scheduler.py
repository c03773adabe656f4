"""The state machine of one run. ``handle(stimulus) -> instructions`` is its only mutator.

A run goes from superstep to superstep. `ADVANCE` starts one: the scheduler finds the tasks that are due and answers
with what to dispatch. Each outcome of an attempt is a stimulus; the last one of a step merges all diffs in path order.
What is due next is found at the next `ADVANCE`, which the consumer of the run drives. Time, dice and ids come with the
stimulus. Outcomes are recognised by the attempt they belong to: stale and repeated ones change nothing.

Task states and stimuli are the rows of `TRANSITIONS`; what is not in it is our own bug and raises with the task's story.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mpflow._core.calls import drop, give_up, ignore, refuse, returned, spawn
from mpflow._core.merge import merge
from mpflow._core.records import place_records, record_of
from mpflow._core.retry import interval_s, is_poison
from mpflow._core.steps import due_tasks, handling_task
from mpflow._core.task import (
    CANCELLED as TASK_CANCELLED,
)
from mpflow._core.task import (
    FAILED as TASK_FAILED,
)
from mpflow._core.task import (
    FINISHED,
    INTERRUPTED,
    READY,
    RUNNING,
    WAITING,
    Task,
)
from mpflow._messages import CANCELLED, CLOSED, CLOSED_MANY, FAILED, LOST, Attempt, StepFacts
from mpflow._names import ERROR, INTERRUPT
from mpflow.errors import (
    ErrorCode,
    GraphBubbleUp,
    GraphDrained,
    GraphInterrupt,
    GraphRecursionError,
    InternalError,
    NodeCancelledError,
    OutcomeUnknown,
    PoisonTaskError,
    create_error_message,
)

if TYPE_CHECKING:
    from mpflow._core.plan import Plan
    from mpflow._core.state import ChannelState

# Stimuli besides the outcomes of attempts (`CLOSED`, `CLOSED_MANY`, `FAILED`, `LOST`, `CANCELLED`; first the kind, then the
# attempt).
BEGIN = 10  # (BEGIN, input, given): the input as writes, None to resume; and writes that belong to no task
ADVANCE = 11  # (ADVANCE, facts, kept[, error]): start the next superstep; of its tasks, those in `kept` have finished
# before; with `error`, break the run with it instead, if there is anything left to run
DUE = 12  # (DUE, task): a retry interval has passed
STOP = 13  # (STOP, error, kill): give the run up, with this error
SPAWN = 14  # (SPAWN, attempt, node, input, number, waiter): a running task calls another one
DROP = 15  # (DROP, attempt, waiter): nobody waits for the result of a call any more

GO_ON = 19  # (GO_ON,): dispatch what is still ready

SLICE = 512
"""How many attempts are handed out at once: the first of a wide step run while the rest are made. Then ever more."""

# Instructions.
DISPATCH = "dispatch"  # (DISPATCH, attempts)
MORE = "more"  # (MORE,): there is more to dispatch; answer with GO_ON
CANCEL = "cancel"  # (CANCEL, attempts, kill): drop what has not started; with kill, end what runs
RETRY = "retry"  # (RETRY, task, delay_s): answer with DUE after the delay
ENDED_TASK = "ended"  # (ENDED_TASK, *tasks): tasks reached their last state
MERGED = "merged"  # (MERGED, tasks, merge): the step is over and its writes are in the state
OVER = "over"  # (OVER,): nothing is due; the run has its result
PAUSED = "paused"  # (PAUSED, tasks): the step ended with questions, or the run came to a breakpoint
BROKEN = "broken"  # (BROKEN, error): the run has failed; nothing runs any more
SPAWNED = "spawned"  # (SPAWNED, task): a called task joined the step
ANSWER = "answer"  # (ANSWER, task, waiter): tell the waiter what became of the task
REFUSED = "refused"  # (REFUSED, waiter): a call came too late

Stimulus = tuple[Any, ...]
Instruction = tuple[Any, ...]

# Phases of the run.
NEW, BETWEEN, STEPPING, ENDING, FINAL = "new", "between steps", "in a step", "ending", "final"


class Scheduler:
    """One run of a plan. Not thread-safe: its one driver feeds it."""

    def __init__(
        self,
        plan: Plan,
        state: ChannelState,
        *,
        step: int = -1,
        recursion_limit: int,
        max_concurrency: int | None = None,
        kill_on_failure: bool = False,
        on_error: str | None = None,
        warn: Callable[[str], None] = lambda text: None,
        pause_before: Collection[str] = (),
        pause_after: Collection[str] = (),
    ) -> None:
        self.plan = plan
        self.state = state
        self.step = step
        self.recursion_limit = recursion_limit
        self.stop = step + recursion_limit + 1
        self.phase = NEW
        self.max_concurrency = max_concurrency
        self.kill_on_failure = kill_on_failure
        self.on_error = on_error
        self.warn = warn
        self.pause_before = pause_before
        self.pause_after = pause_after
        self.facts: StepFacts | None = None
        self.updated: set[str] | None = None
        self.tasks: list[Task] = []
        self.open = 0  # tasks of the step that have not ended
        self.running = 0
        self.ready: deque[Task] = deque()
        self.parked: dict[str, deque[Task]] = {}
        self.node_load: dict[str, int] = {}
        self.error: BaseException | None = None
        self.drained: GraphDrained | None = None
        self.interrupted = False  # a task of the step asked a question
        self.recorded = False  # a task of the step left a record
        self.kept: Mapping[str, Sequence[tuple[str, Any]]] | None = None
        self.called: dict[tuple[Any, ...], Any] = {}  # by path, what tasks of the step `called_in` called
        self.called_in: int | None = None
        self.lent = 0  # tasks that run, but only wait for what they called

    def start_at(self, step: int) -> None:
        """Go on from a saved step instead of the first."""
        self.step = step
        self.stop = step + self.recursion_limit + 1

    # -- the only mutator ---------------------------------------------------------------------------------------------

    def handle(self, stimulus: Stimulus) -> list[Instruction]:
        kind = stimulus[0]
        if kind <= CLOSED:
            attempt: Attempt = stimulus[1]
            task: Task = attempt.task
            if task.attempt is not attempt:
                return []  # a stale attempt, or an outcome that was delivered twice
        elif kind == DUE:
            task = stimulus[1]
            if task.state != WAITING:
                return []
        elif kind != CLOSED_MANY:
            return self._handle_run(kind, stimulus)
        out: list[Instruction] = []
        if kind == CLOSED_MANY:
            self._done_all(stimulus[1], stimulus[2], out)
        else:
            self._change(task, kind, stimulus, out)
        if self.ready and self.phase is STEPPING:
            self._dispatch(out)
        if self.open == 0:
            self._end_step(out)
        return out

    def _change(self, task: Task, kind: int, stimulus: Stimulus, out: list[Instruction]) -> None:
        row = self.TRANSITIONS.get((task.state, kind))
        if row is None:
            raise InternalError(f"stimulus {kind} is not possible for {task!r}", [*task.story, task.state])
        row(self, task, stimulus, out)

    def _go_on(self, stimulus: Stimulus, out: list[Instruction]) -> None:
        self._dispatch(out)

    def _over(self, stimulus: Stimulus, out: list[Instruction]) -> None:
        """What was to be dispatched has been dropped since."""

    def _handle_run(self, kind: int, stimulus: Stimulus) -> list[Instruction]:
        row = self.RUN_TRANSITIONS.get((self.phase, kind))
        if row is None:
            raise InternalError(f"stimulus {kind} is not possible while the run is {self.phase}, at step {self.step}")
        out: list[Instruction] = []
        row(self, stimulus, out)
        return out

    # -- the run ------------------------------------------------------------------------------------------------------

    def _begin(self, stimulus: Stimulus, out: list[Instruction]) -> None:
        _, writes, given = stimulus
        state = self.state
        if given:
            merge(state, [_Source(given)])  # type: ignore[list-item]
        self.phase = BETWEEN
        if writes is None:  # resume: what changed until now is no reason to pause again
            state.seen[INTERRUPT] = dict(state.versions)
            self.updated = None
            return
        # What was due before the input came is given up: its triggers count as seen (EX-11).
        dropped = due_tasks(self.plan, state, self.step, self.stop, None, self.warn) if state.versions else []
        merged = merge(state, [*dropped, _Source(writes)])  # type: ignore[list-item]
        self.updated = merged.updated
        self.step += 1
        out.append((MERGED, (), merged))

    def _advance(self, stimulus: Stimulus, out: list[Instruction]) -> None:
        if self.step > self.stop:
            self._break(_recursion_error(self.recursion_limit), out)
            return
        facts: StepFacts = stimulus[1]
        kept: Mapping[str, Sequence[tuple[str, Any]]] | None = stimulus[2]
        tasks = due_tasks(self.plan, self.state, self.step, self.stop, self.updated, self.warn)
        if not tasks:
            self.phase = FINAL
            out.append((OVER,))
            return
        self.facts = facts
        self.tasks = tasks
        self.recorded = False
        self.open = len(tasks)
        self.phase = STEPPING
        if kept:
            self.kept = kept
            self._keep(kept, out)
        if self.pause_before and self._is_breakpoint(self.pause_before):
            self.phase = FINAL
            out.append((PAUSED, ()))
            return
        if self.open == 0:
            self._end_step(out)
            return
        if len(stimulus) > 3:
            self.tasks = []
            self._break(stimulus[3], out)
            return
        self.ready.extend([task for task in tasks if task.state is READY] if kept else tasks)
        self._dispatch(out)

    def _keep(self, kept: Mapping[str, Sequence[tuple[str, Any]]], out: list[Instruction]) -> None:
        """Take over the diffs of tasks that finished before the run was resumed."""
        for task in tuple(self.tasks):
            writes = kept.get(self._task_id(task))
            if writes is not None:
                if writes and writes[0][0] == ERROR:
                    self._take_over(task, writes[0][1], kept, out)
                    continue
                task.writes = writes
                task.state = FINISHED
                task.cached = True
                self.open -= 1
                out.append((ENDED_TASK, task))

    def _take_over(self, task: Task, error: Any, kept: Mapping[str, Any], out: list[Instruction]) -> None:
        """Go on where a run stopped between a task's failure and the end of its handler (EH-4)."""
        task.error = error if isinstance(error, BaseException) else Exception(error)
        task.state = TASK_FAILED
        task.handled = task.cached = True
        handling = self._add_handling(task)
        writes = kept.get(self._task_id(handling))
        if writes is None:
            return
        handling.writes = writes
        handling.state = FINISHED
        handling.cached = True
        self.open -= 1
        out.append((ENDED_TASK, handling))

    def _is_breakpoint(self, names: Collection[str]) -> bool:
        """Whether a task of the step is a breakpoint, and something changed since the last pause (IN-10)."""
        seen = self.state.seen.get(INTERRUPT, {})
        if not any(name not in seen or version > seen[name] for name, version in self.state.versions.items()):
            return False
        if "*" in names:
            return any(not task.node.hidden for task in self.tasks)
        return any(task.name in names for task in self.tasks)

    def _stop(self, stimulus: Stimulus, out: list[Instruction]) -> None:
        error, kill = stimulus[1], stimulus[2]
        if self.error is None:
            self.error = error
        if self.phase is BETWEEN or self.phase is NEW:
            self._break(error, out)
            return
        self._give_up(out, kill=kill)
        if self.open == 0:
            self._end_step(out)

    def _break(self, error: BaseException, out: list[Instruction]) -> None:
        self.phase = FINAL
        self.error = error
        out.append((BROKEN, error))

    # -- tasks --------------------------------------------------------------------------------------------------------

    def _done(self, task: Task, stimulus: Stimulus, out: list[Instruction]) -> None:
        task.writes = stimulus[2]
        self._finish(task, FINISHED, out)

    def _done_all(self, attempts: Sequence[Attempt], diffs: Sequence[Any], out: list[Instruction]) -> None:
        """As one `CLOSED` each, with what they have in common done once. Stale ones among them change nothing."""
        ended: list[Task] = []
        for attempt, writes in zip(attempts, diffs, strict=True):
            task: Task = attempt.task
            if task.attempt is not attempt:
                continue
            if task.state is not RUNNING or task.caller or not task.weight or task.node.max_concurrency is not None:
                self._change(task, CLOSED, (CLOSED, attempt, writes), out)
                continue
            task.writes = writes
            task.state = FINISHED
            task.attempt = None
            ended.append(task)
        self.running -= len(ended)
        self.open -= len(ended)
        if ended:
            out.append((ENDED_TASK, *ended))

    def _failed(self, task: Task, stimulus: Stimulus, out: list[Instruction]) -> None:
        error: BaseException = stimulus[2]
        if isinstance(error, GraphBubbleUp):
            if isinstance(error, GraphInterrupt):
                task.error = error
                self.interrupted = True
                self._finish(task, INTERRUPTED, out)
            elif isinstance(error, GraphDrained):  # a graph within it stopped at a step's end; siblings finish
                self.drained = error
                self._finish(task, TASK_CANCELLED, out)
            else:
                self._fail(task, error, out)
            return
        task.failures += 1
        policies = task.node.retry
        wait_s = None
        if policies and self.phase is STEPPING and isinstance(error, Exception):
            wait_s = interval_s(policies, error, task.failures, stimulus[3])
        if wait_s is None:
            self._fail(task, error, out)
        else:
            self._leave(task)
            task.story += (f"attempt failed: {type(error).__name__}",)
            task.state = WAITING
            out.append((RETRY, task, wait_s))

    def _lost(self, task: Task, stimulus: Stimulus, out: list[Instruction]) -> None:
        death = stimulus[2]
        deaths = task.deaths = (*task.deaths, death)
        if not task.node.rerun_on_loss:
            self._fail(task, OutcomeUnknown(task.name, self._task_id(task), death), out)
        elif is_poison(deaths):
            self._fail(task, PoisonTaskError(task.name, self._task_id(task), deaths), out)
        elif self.phase is ENDING:
            self._finish(task, TASK_CANCELLED, out)
        else:
            self._leave(task)
            task.story += (f"lost: {death.reason}",)
            task.state = READY
            self.ready.append(task)

    def _cancelled(self, task: Task, stimulus: Stimulus, out: list[Instruction]) -> None:
        if self.phase is ENDING:
            self._finish(task, TASK_CANCELLED, out)
        else:  # nobody gave the run up: a step without this task's diff would be a wrong one
            self._fail(task, NodeCancelledError(task.name), out)

    def _due(self, task: Task, stimulus: Stimulus, out: list[Instruction]) -> None:
        task.state = READY
        self.ready.append(task)

    def _leave(self, task: Task) -> None:
        """The task's attempt is over: free its place among the running ones."""
        if task.weight:
            self.running -= 1
        else:
            task.weight = 1
            self.lent -= 1
        node = task.node
        if node.max_concurrency is not None:
            self.node_load[node.name] -= 1
            parked = self.parked.get(node.name)
            if parked:
                self.ready.append(parked.popleft())
        task.attempt = None

    def _finish(self, task: Task, state: str, out: list[Instruction]) -> None:
        self._leave(task)
        task.state = state
        self.open -= 1
        if task.caller is not None:
            returned(self, task)
        out.append((ENDED_TASK, task))

    def _fail(self, task: Task, error: BaseException, out: list[Instruction]) -> None:
        task.error = error
        if task.caller is not None and isinstance(error, Exception):
            self._finish(task, TASK_FAILED, out)
            return
        if task.node.handler is not None and isinstance(error, Exception) and not isinstance(error, GraphBubbleUp):
            task.handled = True
            self._finish(task, TASK_FAILED, out)
            if self.phase is STEPPING:
                if task.node.handler.name in self.pause_before or "*" in self.pause_before:
                    self.interrupted = True
                else:
                    self.open += 1
                    self.ready.append(self._add_handling(task))
            return
        if (record := record_of(task, error, self.on_error, self._task_id)) is not None:
            task.record = record
            self.recorded = True
            self._leave(task)
            task.state = FINISHED
            self.open -= 1
            return
        self._finish(task, TASK_FAILED, out)
        if self.error is None:
            self.error = error
            self._give_up(out, kill=self.kill_on_failure)

    def _add_handling(self, task: Task) -> Task:
        """Add the task of a failed one's error handler to the step, at its place in path order. The caller counts it."""
        assert task.error is not None
        handling = handling_task(task, task.error)
        self.tasks.insert(self.tasks.index(task) + 1, handling)
        return handling

    def _give_up(self, out: list[Instruction], *, kill: bool) -> None:
        """Drop what has not started and cancel what runs; the step ends when the last place has answered."""
        self.phase = ENDING
        running = []
        for task in self.tasks:
            if task.state == RUNNING:
                running.append(task.attempt)
            elif task.state == READY or task.state == WAITING:
                task.state = TASK_CANCELLED
                self.open -= 1
                if task.caller is not None:
                    give_up(self, task, out)
        self.ready.clear()
        self.parked.clear()
        if running:
            out.append((CANCEL, running, kill))

    # -- dispatch and the end of a step -------------------------------------------------------------------------------

    def _dispatch(self, out: list[Instruction]) -> None:
        attempts: list[Attempt] = []
        ready = self.ready
        limit = self.max_concurrency
        facts = self.facts
        assert facts is not None
        most = max(SLICE, self.running)
        while ready and (limit is None or self.running < limit) and len(attempts) < most:
            task = ready.popleft()
            node = task.node
            if node.max_concurrency is not None:
                load = self.node_load.get(node.name, 0)
                if load >= node.max_concurrency:
                    self.parked.setdefault(node.name, deque()).append(task)
                    continue
                self.node_load[node.name] = load + 1
            deaths = len(task.deaths)
            attempt = Attempt(
                task,
                task.failures + deaths + 1,
                node.program,
                task.input,
                task.facts or facts,
                task.path,
                task.triggers,
                None,
                task.timeout_s,
                deaths > 0,
                node.rerun_on_loss,
            )
            task.state = RUNNING
            task.attempt = attempt
            self.running += 1
            attempts.append(attempt)
        if attempts:
            out.append((DISPATCH, attempts))
            if len(attempts) == most and ready:
                out.append((MORE,))

    def _end_step(self, out: list[Instruction]) -> None:
        if self.error is not None or self.drained is not None:
            self._break(self.error or self.drained, out)  # type: ignore[arg-type]  # one of them is there
            return
        tasks = self.tasks
        if self.interrupted:
            self.phase = FINAL
            asking = [task for task in tasks if task.state == INTERRUPTED]
            # What a called task asked is asked by its caller too, unless that one would not hear of it.
            out.append((PAUSED, [task for task in asking if task.caller is None] or asking))
            return
        try:
            if self.recorded:
                out.extend((ENDED_TASK, task) for task in place_records(tasks, self.state))
            merged = merge(self.state, tasks, explain=self._writers)
        except Exception as error:
            self._break(error, out)
            return
        for name in merged.unknown:
            self.warn(f"wrote to unknown channel {name}, ignoring it.")
        self.updated = merged.updated
        self.step += 1
        self.phase = BETWEEN
        out.append((MERGED, tasks, merged))
        if self.pause_after and self._is_breakpoint(self.pause_after):
            self.phase = FINAL
            out.append((PAUSED, ()))
        self.tasks = []

    def _writers(self, channel: str) -> str:
        """Who wrote a channel in this step, for the error of one that takes a single write."""
        names = [task.name for task in self.tasks for name, _ in task.writes if name == channel]
        if len(names) < 2:
            return ""
        return "Written in this step by: " + ", ".join(f"'{name}'" for name in names) + "."

    def _task_id(self, task: Task) -> str:
        from mpflow._scope import task_id_of

        facts = task.facts or self.facts
        assert facts is not None
        return task_id_of(facts.checkpoint_id, facts.checkpoint_ns, facts.step, task.name, task.path, task.triggers)

    TRANSITIONS: ClassVar[dict[tuple[str, int], Callable[[Scheduler, Task, Stimulus, list[Instruction]], None]]] = {
        (RUNNING, CLOSED): _done,
        (RUNNING, FAILED): _failed,
        (RUNNING, LOST): _lost,
        (RUNNING, CANCELLED): _cancelled,
        (WAITING, DUE): _due,
    }

    RUN_TRANSITIONS: ClassVar[dict[tuple[str, int], Callable[[Scheduler, Stimulus, list[Instruction]], None]]] = {
        (NEW, BEGIN): _begin,
        (BETWEEN, ADVANCE): _advance,
        (NEW, STOP): _stop,
        (BETWEEN, STOP): _stop,
        (STEPPING, STOP): _stop,
        (STEPPING, GO_ON): _go_on,
        (ENDING, GO_ON): _over,
        (BETWEEN, GO_ON): _over,
        (FINAL, GO_ON): _over,
        (ENDING, STOP): _stop,
        (STEPPING, SPAWN): spawn,
        **{(phase, SPAWN): refuse for phase in (NEW, BETWEEN, ENDING, FINAL)},
        (STEPPING, DROP): drop,
        **{(phase, DROP): ignore for phase in (NEW, BETWEEN, ENDING, FINAL)},
    }


def _recursion_error(limit: int) -> GraphRecursionError:
    return GraphRecursionError(
        create_error_message(
            message=f"Recursion limit of {limit} reached without hitting a stop condition. A graph that is meant to take "
            "more steps needs a higher limit: config={'recursion_limit': N}.",
            error_code=ErrorCode.GRAPH_RECURSION_LIMIT,
        )
    )


class _Source:
    """The run's input as a merge sees it: writes without a task, which end no step."""

    __slots__ = ("name", "pulled", "triggers", "writes")

    def __init__(self, writes: Sequence[tuple[str, Any]]) -> None:
        self.name = ""
        self.pulled = False
        self.triggers = ()
        self.writes = writes
