"""The state machine of one run. ``handle(stimulus) -> instructions`` is its only mutator.

A run goes from superstep to superstep. `ADVANCE` starts one: the scheduler finds the tasks that are due and answers
with what to dispatch. Each outcome of an attempt is a stimulus; the last one of a step merges all diffs in path order.
What is due next is found at the next `ADVANCE`, which the consumer of the run drives; at once where nobody could tell.
Time, dice and ids come with the stimulus. Outcomes are recognised by the attempt they belong to: stale and repeated ones
change nothing.

Task states and stimuli are the rows of `TRANSITIONS`; what is not in it is our own bug and raises with the task's story.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core import outcomes, phases
from mpflow._core.calls import drop, ignore, refuse, spawn
from mpflow._core.dispatch import dispatch
from mpflow._core.fan import Fan, count
from mpflow._core.protocol import (
    ADVANCE,
    BEGIN,
    BETWEEN,
    DROP,
    DUE,
    ENDING,
    FINAL,
    GO_ON,
    NEW,
    SPAWN,
    STEPPING,
    STOP,
    Instruction,
    Stimulus,
)
from mpflow._core.resuming import keep
from mpflow._core.task import READY, RUNNING, WAITING, Task
from mpflow._messages import CANCELLED, CLOSED, CLOSED_MANY, FAILED, LOST, Attempt, StepFacts
from mpflow._scope import task_id_of
from mpflow.errors import GraphDrained, InternalError

if TYPE_CHECKING:
    from mpflow._core.flow import Flow
    from mpflow._core.plan import NodePlan, Plan
    from mpflow._core.resuming import Kept
    from mpflow._core.state import ChannelState


class Scheduler:
    """One run of a plan. Not thread-safe: its one driver feeds it.

    With `tells_ends` each task's end is told by `ENDED_TASK`; without, only those that were called. Sends to a node that
    `keeps_columns` are dispatched as a `Span`, if they are many and nobody is told of each. Where nobody can tell where a
    step ends and the run `goes_on`, the next one begins at once.
    """

    __slots__ = (
        "called",
        "called_in",
        "drained",
        "error",
        "facts",
        "fans",
        "flow",
        "goes_on",
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
        goes_on: bool = False,
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
        self.goes_on = goes_on and self.unseen
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
                self.settle(out)
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
            self.settle(out)
        elif self.open == 0:
            phases.end_step(self, out)
        return out

    def settle(self, out: list[Instruction]) -> None:
        """After tasks have changed: dispatch those that may run now, and end the step with its last one."""
        if self.flow is not None and self.phase is STEPPING:
            self._flow_on(self.flow, out)
        if self.ready and self.phase is STEPPING:
            dispatch(self, out)
        if self.open == 0:
            phases.end_step(self, out)

    def _flow_on(self, flow: Flow, out: list[Instruction]) -> None:
        """Fold what has finished, and take the next sends once there is room for a good number of them."""
        was_open = flow.is_open
        if self.interrupted and was_open:  # what runs comes to its end; the others wait for the answer
            flow.close()
        tasks: Sequence[Any] = ()
        while not tasks:
            try:
                flow.fold(self, out)
                made = flow.take(self.running + count(self.ready), self.max_concurrency, self.keeps_columns)
            except Exception as error:
                self.error = self.error or error
                outcomes.give_up(self, out, kill=self.kill_on_failure)
                return
            if not made:
                break
            self._add(made)
            tasks = made
            if self.kept:
                keep(self, made, self.kept, out)
                tasks = [task for task in made if task.state is READY]
        self.ready += tasks
        self.open -= was_open and not flow.is_open

    def _add(self, tasks: Sequence[Any]) -> None:
        """Tasks, and fans, of the step."""
        self.tasks += tasks
        for task in tasks:
            if type(task) is Fan:
                self.fans.add(task)
        self.open += count(tasks)

    # -- fans ---------------------------------------------------------------------------------------------------------

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

    def task_id(self, task: Task) -> str:
        facts = task.facts or self.facts
        assert facts is not None
        return task_id_of(facts.checkpoint_id, facts.checkpoint_ns, facts.step, task.name, task.path, task.triggers)


TRANSITIONS: dict[tuple[str, int], Callable[[Scheduler, Task, Stimulus, list[Instruction]], None]] = {
    (RUNNING, CLOSED): outcomes.closed,
    (RUNNING, FAILED): outcomes.failed,
    (RUNNING, LOST): outcomes.lost,
    (RUNNING, CANCELLED): outcomes.cancelled,
    (WAITING, DUE): outcomes.due,
}

RUN_TRANSITIONS: dict[tuple[str, int], Callable[[Scheduler, Stimulus, list[Instruction]], None]] = {
    (NEW, BEGIN): phases.begin,
    (BETWEEN, ADVANCE): phases.advance,
    (NEW, STOP): phases.stop,
    (BETWEEN, STOP): phases.stop,
    (STEPPING, STOP): phases.stop,
    (STEPPING, GO_ON): phases.go_on,
    (ENDING, GO_ON): phases.over,
    (BETWEEN, GO_ON): phases.over,
    (FINAL, GO_ON): phases.over,
    (ENDING, STOP): phases.stop,
    (STEPPING, SPAWN): spawn,
    **{(phase, SPAWN): refuse for phase in (NEW, BETWEEN, ENDING, FINAL)},
    (STEPPING, DROP): drop,
    **{(phase, DROP): ignore for phase in (NEW, BETWEEN, ENDING, FINAL)},
}
