"""What the ends of earlier processes say of a run's tasks: how often they were tried, and which of them ends its process.

Nobody is told why a process ended. So each resume of an unfinished step is noted before its tasks begin, and taken back when
the run is left in order. Where some came to nothing, tasks begin one at a time, each on record: one that then ends the
process twice more is given up. Decides who is to blame; what is kept is the log's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core.retry import is_poison
from mpflow._engine.nesting import concurrency_of
from mpflow._messages import LOST
from mpflow._names import ATTEMPTS, NULL_TASK_ID, SCHEDULED

if TYPE_CHECKING:
    from mpflow._core.task import Task
    from mpflow._engine.run import Run
    from mpflow._engine.saving import Call
    from mpflow._messages import Attempt, Outcome

CAREFUL_AFTER = 2
"""So many resumes of a step that ended with their process, without a task having ended, before its tasks begin one by one.

Programs are killed for many reasons, and one task at a time is slow.
"""

Ruling = tuple[list["Attempt"], list["Outcome"], list["Call"]]
"""The attempts that may start, the outcomes of the others, and what is to be saved first."""

STEP = ""
"""In the place of a task's id: the note is of the step."""


class EarlierDeath:
    """The death of an attempt in an earlier process, as far as it is known."""

    __slots__ = ("reason", "text")

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return EarlierDeath, (self.reason, self.text)

    def __str__(self) -> str:
        return self.text


WITH_ITS_PROCESS = EarlierDeath("ended", "with the process that ran it, which ended before it did")
AMONG_OTHERS = EarlierDeath(
    "ended", "the program ended while this task was due, and nothing else of its step had ended"
)
ALONE = EarlierDeath("ended", "the program ended while this task ran alone (going on once more tries it anew)")


class Ledger:
    """What is known of the attempts at the tasks of a step in earlier processes."""

    def __init__(self) -> None:
        self.resumes = 0
        """How many resumes ended with their process since a task of the step last ended."""
        self.tries: dict[str, tuple[int, list[EarlierDeath]]] = {}
        """Failures and deaths of tasks that were to be tried again."""
        self._begun: list[str] = []

    def note(self, task_id: str, names: Sequence[str], value: Any) -> None:
        """Take in the next of the step's results, the oldest first: what it wrote to, and the note if it is one."""
        if ATTEMPTS not in names:
            if task_id != NULL_TASK_ID and SCHEDULED not in names:
                self.resumes = 0
                self.tries.pop(task_id, None)
                if task_id in self._begun:
                    self._begun.remove(task_id)
        elif task_id == STEP:
            self.resumes = value
            if not value:  # the run was left in order
                self._begun.clear()
        else:
            failures, deaths, begins = value
            self.tries[task_id] = failures, [EarlierDeath(*death) for death in deaths]
            if begins:
                self._begun.append(task_id)

    @property
    def asks_for_care(self) -> bool:
        """Whether the step's tasks should begin one by one."""
        return self.resumes >= CAREFUL_AFTER or bool(self._begun)

    @property
    def suspect(self) -> str | None:
        """The task that ran alone when the process ended: of several the last to begin, which the others had called."""
        return self._begun[-1] if self._begun else None


def note_tried(run: Run, task: Task) -> None:
    """Note that a task has failed or was lost, and will be tried again."""
    assert run.persistence is not None
    run.persistence.task_tried(run.task_id(task), run.path_text(task), _note_of(task, begins=False))


def _note_of(task: Task, *, begins: bool) -> list[Any]:
    """What is kept of the attempts at a task: failures, deaths, and whether another begins on record."""
    return [task.failures, [[death.reason, str(death)] for death in task.deaths], begins]


def resumes(run: Run) -> Sequence[Call]:
    """Note that the run goes on with a step that was begun before."""
    persistence = run.persistence
    assert persistence is not None
    calls = persistence.step_resumes()
    if persistence.is_careful:
        run.scheduler.max_concurrency = 1
    return calls


def relax(run: Run) -> None:
    """The step is over that something was known of."""
    assert run.persistence is not None
    run.persistence.ledger = None
    run.persistence.is_careful = False
    run.scheduler.max_concurrency = concurrency_of(run.user_config)


def carry_on(run: Run, attempts: Sequence[Attempt]) -> Ruling:
    """Count earlier attempts at these tasks, and give up the one that ends its process."""
    persistence = run.persistence
    assert persistence is not None
    ledger = persistence.ledger
    assert ledger is not None
    allowed: list[Attempt] = []
    given_up: list[Outcome] = []
    calls: list[Call] = []
    suspect = ledger.suspect
    for attempt in attempts:
        task = attempt.task
        task_id = run.task_id(task)
        tries = ledger.tries.pop(task_id, None)
        if tries is not None:
            task.failures += tries[0]
            task.deaths = (*tries[1], *task.deaths)
        if task_id == suspect:
            deaths = task.deaths or (AMONG_OTHERS,)
            if is_poison((*deaths, ALONE)):
                task.deaths = deaths
                given_up.append((LOST, attempt, ALONE, 0.0))
                continue
            task.deaths = (*deaths, ALONE)
        if task.failures or task.deaths:
            task.plain = attempt.plain = False
            attempt.number = task.failures + len(task.deaths) + 1
            attempt.alone = bool(task.deaths)
        allowed.append(attempt)
        if persistence.is_careful and attempt.rerun_on_loss and _may_end_us(run, task):
            calls += persistence.task_tries(task_id, run.path_text(task), _note_of(task, begins=True))
    return allowed, given_up, calls


def _may_end_us(run: Run, task: Task) -> bool:
    """Whether a task is run by this process itself, and is no graph, which has steps of its own that may get on."""
    node = task.node
    place = node.executor or run.options.get("executor")
    return place != "process" and not getattr(node.program, "holds_graph", False)
