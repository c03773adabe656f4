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
from typing import TYPE_CHECKING, Any

from mpflow._core import outcomes
from mpflow._core.calls import drop, ignore, refuse, spawn
from mpflow._core.dispatch import dispatch
from mpflow._core.fan import Fan, count, fan_of
from mpflow._core.flow import flow_of
from mpflow._core.merge import NOTHING, merge
from mpflow._core.protocol import (
    ADVANCE,
    BEGIN,
    BETWEEN,
    BROKEN,
    DROP,
    DUE,
    ENDED_TASK,
    ENDING,
    FINAL,
    GO_ON,
    MERGED,
    NEW,
    OVER,
    PAUSED,
    SPAWN,
    STEPPING,
    STOP,
    Instruction,
    Stimulus,
)
from mpflow._core.records import place_records
from mpflow._core.resuming import is_breakpoint, keep
from mpflow._core.steps import due_tasks, entering, sent_tasks, triggered_tasks
from mpflow._core.task import INTERRUPTED, READY, RUNNING, WAITING, Task
from mpflow._messages import CANCELLED, CLOSED, CLOSED_MANY, FAILED, LOST, Attempt, StepFacts
from mpflow._names import INTERRUPT, TASKS
from mpflow._scope import task_id_of
from mpflow.errors import ErrorCode, GraphDrained, GraphRecursionError, InternalError, create_error_message

if TYPE_CHECKING:
    from mpflow._core.flow import Flow
    from mpflow._core.plan import NodePlan, Plan
    from mpflow._core.resuming import Kept
    from mpflow._core.state import ChannelState


class Scheduler:
    """One run of a plan. Not thread-safe: its one driver feeds it.

    With `tells_ends` each task's end is told by `ENDED_TASK`; without, only those that were called. Sends to a node that
    `keeps_columns` are dispatched as a `Span`, if they are many and nobody is told of each.
    """

    __slots__ = (
        "called",
        "called_in",
        "drained",
        "error",
        "facts",
        "fans",
        "flow",
        "interrupted",
        "keeps_columns",
        "kept",
        "kill_on_failure",
        "lent",
        "max_concurrency",
        "node_load",
        "on_error",
        "open",
        "parked",
        "pause_after",
        "pause_before",
        "phase",
        "plan",
        "ready",
        "recorded",
        "recursion_limit",
        "running",
        "started",
        "state",
        "step",
        "stop",
        "tasks",
        "tells_ends",
        "unseen",
        "warn",
    )

    def __init__(
        self,
        plan: Plan,
        state: ChannelState,
        step: int = -1,
        recursion_limit: int = 25,
        max_concurrency: int | None = None,
        kill_on_failure: bool = False,
        on_error: str | None = None,
        warn: Callable[[str], None] = lambda text: None,
        pause_before: Collection[str] = (),
        pause_after: Collection[str] = (),
        tells_ends: bool = True,
        keeps_columns: Callable[[NodePlan], bool] | None = None,
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
        self.tells_ends = tells_ends
        self.unseen = not (tells_ends or pause_before or pause_after)  # nobody can tell where one step ends
        self.keeps_columns = keeps_columns if self.unseen and not max_concurrency else None
        self.facts: StepFacts | None = None
        self.started: Sequence[NodePlan] | None = None  # the nodes that the last step's writes have started
        self.tasks: list[Any] = []  # each a `Task`, or the step's `Fan`
        self.open = 0  # tasks of the step that have not ended
        self.running = 0
        self.ready: deque[Any] = deque()
        self.parked: dict[str, deque[Task]] = {}
        self.node_load: dict[str, int] = {}
        self.error: BaseException | None = None
        self.drained: GraphDrained | None = None
        self.interrupted = False  # a task of the step asked a question
        self.recorded = False  # a task of the step left a record
        self.kept: Kept | None = None
        self.called: dict[tuple[Any, ...], Any] = {}  # by path, what tasks of the step `called_in` called
        self.called_in: int | None = None
        self.flow: Flow | None = None  # the step's sends that are still to be made
        self.fans: set[Fan] = set()  # the step's sends that have no tasks of their own
        self.lent = 0  # tasks that run, but only wait for what they called

    def start_at(self, step: int) -> None:
        """Go on from a saved step instead of the first."""
        self.step = step
        self.stop = step + self.recursion_limit + 1

    # -- the only mutator ---------------------------------------------------------------------------------------------

    def handle(self, stimulus: Stimulus, out: list[Instruction] | None = None) -> list[Instruction]:
        """Take a stimulus in. The instructions that follow from it, added to `out` if that is given."""
        kind = stimulus[0]
        if out is None:
            out = []
        if kind <= CLOSED:
            attempt: Attempt = stimulus[1]
            task: Task = attempt.task
            if self.fans:
                self.spread_for((attempt,))
            if task.attempt is not attempt:
                return out  # a stale attempt, or an outcome that was delivered twice
        elif kind == DUE:
            task = stimulus[1]
            if task.state != WAITING:
                return out
        elif kind == CLOSED_MANY:
            if outcomes.closed_many(self, stimulus[1], stimulus[2], out):
                self._settle(out)
            return out
        else:
            if self.fans and kind != GO_ON:
                self.spread_all()
            change = RUN_TRANSITIONS.get((self.phase, kind))
            if change is None:
                raise InternalError(
                    f"stimulus {kind} is not possible while the run is {self.phase}, at step {self.step}"
                )
            change(self, stimulus, out)
            return out
        row = TRANSITIONS.get((task.state, kind))
        if row is None:
            raise InternalError(f"stimulus {kind} is not possible for {task!r}", [*task.story, task.state])
        row(self, task, stimulus, out)
        if self.ready or self.flow is not None:
            self._settle(out)
        elif self.open == 0:
            self._end_step(out)
        return out

    def _settle(self, out: list[Instruction]) -> None:
        """After tasks have changed: dispatch those that may run now, and end the step with its last one."""
        if self.flow is not None and self.phase is STEPPING:
            self._flow_on(self.flow, out)
        if self.ready and self.phase is STEPPING:
            dispatch(self, out)
        if self.open == 0:
            self._end_step(out)

    def _flow_on(self, flow: Flow, out: list[Instruction]) -> None:
        """Fold what has finished, and take the next sends once there is room for a good number of them."""
        was_open = flow.is_open
        try:
            flow.fold(self, out)
            tasks = flow.take(self.running + count(self.ready), self.max_concurrency, self.keeps_columns)
        except Exception as error:
            self.error = self.error or error
            outcomes.give_up(self, out, kill=self.kill_on_failure)
            return
        self._add(tasks)
        self.ready += tasks
        self.open -= was_open and not flow.is_open

    def _add(self, tasks: Sequence[Any]) -> None:
        """Tasks, and fans, of the step."""
        self.tasks += tasks
        for task in tasks:
            if type(task) is Fan:
                self.fans.add(task)
        self.open += count(tasks)

    # -- the run ------------------------------------------------------------------------------------------------------

    def _begin(self, stimulus: Stimulus, out: list[Instruction]) -> None:
        _, writes, given = stimulus
        state = self.state
        merged = merge(state, [_Source(given)]) if given else None  # type: ignore[list-item]
        self.phase = BETWEEN
        if writes is None:  # resume: what changed until now is no reason to pause again
            state.seen[INTERRUPT] = dict(state.versions)
            self.started = None
            return
        # What was due before the input came is given up: its triggers count as seen (EX-11).
        dropped: list[Task] = []
        if state.versions or merged is not None:
            before = None if state.counted or merged is None else merged.started
            dropped = due_tasks(self.plan, state, self.step, self.stop, before, self.warn)
        self.step += 1
        passed = entering(self.plan, writes) if self.unseen and not dropped else None
        if passed is None:
            merged = merge(state, [*dropped, _Source(writes)])  # type: ignore[list-item]
        else:
            self.step += 1
            try:
                merged = merge(state, [_Entry(passed)])  # type: ignore[list-item]
            except Exception as error:
                self._break(error, out)
                return
        self.started = merged.started
        out.append((MERGED, (), merged))

    def _advance(self, stimulus: Stimulus, out: list[Instruction]) -> None:
        step, stop, state = self.step, self.stop, self.state
        if step > stop:
            self._break(_recursion_error(self.recursion_limit), out)
            return
        tasks: list[Any] = triggered_tasks(self.plan, state, step, stop, self.started)
        flow = None
        has_sends = TASKS in state.values
        if has_sends:
            flow = self._take_sends(tasks, may_be_fan=not stimulus[2] and len(stimulus) == 3)
        if not tasks and flow is None:
            self.phase = FINAL
            out.append((OVER,))
            return
        self.facts = stimulus[1]
        self.tasks = tasks
        self.flow = flow
        self.recorded = False
        self.open = len(tasks)
        if flow is not None or self.fans:
            self.open = count(tasks) + (flow is not None)
        self.phase = STEPPING
        kept: Kept | None = stimulus[2]
        if kept:
            self.kept = kept
            keep(self, kept, out)
            tasks = [task for task in self.tasks if task.state is READY]
        if self.pause_before and is_breakpoint(self, self.pause_before):
            self.phase = FINAL
            out.append((PAUSED, ()))
        elif not tasks and flow is None:
            self._end_step(out)
        elif len(stimulus) > 3:
            self.tasks = []
            self._break(stimulus[3], out)
        elif self.open == 1 and tasks and tasks[0].node.passes is not None and outcomes.passed_on(self, tasks[0], out):
            self._end_step(out)
        else:
            # Sends are started first, although what triggered nodes write is merged before what they do.
            self.ready += sorted(tasks, key=_is_pulled) if has_sends else tasks
            if flow is None:
                dispatch(self, out)
            else:
                self._settle(out)

    def _take_sends(self, tasks: list[Any], *, may_be_fan: bool) -> Flow | None:
        """Add what the queued sends start; the flow of those that are still to be made."""
        if may_be_fan and self.keeps_columns is not None:
            fan = fan_of(self.plan, self.state.values[TASKS], self.keeps_columns)
            if fan is not None:
                tasks.append(fan)
                self.fans.add(fan)
                return None
        tasks += sent_tasks(self.plan, self.state, self.warn)
        return flow_of(self.plan, self.state, tasks)

    def _go_on(self, stimulus: Stimulus, out: list[Instruction]) -> None:
        self._settle(out)

    def _over(self, stimulus: Stimulus, out: list[Instruction]) -> None:
        """What was to be dispatched has been dropped since."""

    def _stop(self, stimulus: Stimulus, out: list[Instruction]) -> None:
        error, kill = stimulus[1], stimulus[2]
        if self.error is None:
            self.error = error
        if self.phase is BETWEEN or self.phase is NEW:
            self._break(error, out)
            return
        outcomes.give_up(self, out, kill=kill)
        if self.open == 0:
            self._end_step(out)

    def _break(self, error: BaseException, out: list[Instruction]) -> None:
        if self.flow is not None:
            self.flow.close()
        self.phase = FINAL
        self.error = error
        out.append((BROKEN, error))

    def spread_all(self) -> None:
        """Have a task for each of the step's sends."""
        for fan in tuple(self.fans):
            if fan.left:
                self.spread(fan)

    def spread_for(self, attempts: Sequence[Attempt]) -> None:
        """Have a task for each of the sends of the fans that these attempts are of."""
        for fan in tuple(self.fans):
            if fan.left and any(map(fan.has_made, attempts)):
                self.spread(fan)

    def spread(self, fan: Fan) -> None:
        """Have a task for each of the sends that a fan stands for."""
        self.fans.discard(fan)
        at = self.tasks.index(fan)
        self.tasks[at : at + 1] = tasks = fan.spread()
        if fan.state is READY:
            self.ready.remove(fan)
            self.ready.extend(tasks)

    def running_attempts(self) -> list[Attempt]:
        """The attempts that have not ended."""
        self.spread_all()
        return [task.attempt for task in self.tasks if task.attempt is not None]

    # -- the end of a step --------------------------------------------------------------------------------------------

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
        folded: Mapping[str, Any] = NOTHING
        try:
            if self.flow is not None:
                self.flow.fold(self, out, all=True)
                tasks, folded = self.flow.finish(tasks)
                self.flow = None
            elif self.recorded:
                out.extend((ENDED_TASK, task) for task in place_records(tasks, self.state))
            grouped = tasks[0].grouped() if self.fans and len(tasks) == 1 else None
            merged = merge(self.state, tasks, self._writers, folded, grouped)
        except Exception as error:
            self._break(error, out)
            return
        for name in merged.unknown:
            self.warn(f"{self._authors(name)}wrote to unknown channel {name}, ignoring it.")
        self.started = merged.started
        self.step += 1
        self.phase = BETWEEN
        out.append((MERGED, tasks, merged))
        if self.fans:
            self.fans.clear()
        if self.pause_after and is_breakpoint(self, self.pause_after):
            self.phase = FINAL
            out.append((PAUSED, ()))
        elif self.unseen and not merged.started and self.step <= self.stop and TASKS not in self.state.values:
            self.phase = FINAL
            out.append((OVER,))
        self.tasks = []

    def _authors(self, channel: str) -> str:
        """Who wrote to a channel that is none, for the word on it."""
        names = dict.fromkeys(task.name for task in self.tasks for name, _ in task.writes if name == channel)
        return f"node {', '.join(map(repr, names))} " if names else ""

    def _writers(self, channel: str) -> str:
        """Who wrote a channel in this step, for the error of one that takes a single write."""
        names = [task.name for task in self.tasks for name, _ in task.writes if name == channel]
        if len(names) < 2:
            return ""
        return "Written in this step by: " + ", ".join(f"'{name}'" for name in names) + "."

    def task_id(self, task: Task) -> str:
        facts = task.facts or self.facts
        assert facts is not None
        return task_id_of(facts.checkpoint_id, facts.checkpoint_ns, facts.step, task.name, task.path, task.triggers)


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

    __slots__ = ("writes",)

    ends_step = False
    name = ""
    pulled = False
    triggers = ()

    def __init__(self, writes: Sequence[tuple[str, Any]]) -> None:
        self.writes = writes


class _Entry(_Source):
    """The run's input where it has passed the step that only takes it in."""

    __slots__ = ()

    ends_step = True


def _is_pulled(task: Task) -> bool:
    return task.pulled


TRANSITIONS: dict[tuple[str, int], Callable[[Scheduler, Task, Stimulus, list[Instruction]], None]] = {
    (RUNNING, CLOSED): outcomes.closed,
    (RUNNING, FAILED): outcomes.failed,
    (RUNNING, LOST): outcomes.lost,
    (RUNNING, CANCELLED): outcomes.cancelled,
    (WAITING, DUE): outcomes.due,
}

RUN_TRANSITIONS: dict[tuple[str, int], Callable[[Scheduler, Stimulus, list[Instruction]], None]] = {
    (NEW, BEGIN): Scheduler._begin,
    (BETWEEN, ADVANCE): Scheduler._advance,
    (NEW, STOP): Scheduler._stop,
    (BETWEEN, STOP): Scheduler._stop,
    (STEPPING, STOP): Scheduler._stop,
    (STEPPING, GO_ON): Scheduler._go_on,
    (ENDING, GO_ON): Scheduler._over,
    (BETWEEN, GO_ON): Scheduler._over,
    (FINAL, GO_ON): Scheduler._over,
    (ENDING, STOP): Scheduler._stop,
    (STEPPING, SPAWN): spawn,
    **{(phase, SPAWN): refuse for phase in (NEW, BETWEEN, ENDING, FINAL)},
    (STEPPING, DROP): drop,
    **{(phase, DROP): ignore for phase in (NEW, BETWEEN, ENDING, FINAL)},
}
