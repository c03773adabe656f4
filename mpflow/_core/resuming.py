"""Where a step meets what came before the run was resumed: tasks that had finished, and breakpoints that have been seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core.outcomes import add_handling
from mpflow._core.protocol import ENDED_TASK, Instruction
from mpflow._core.task import FAILED, FINISHED, Task
from mpflow._names import ERROR, INTERRUPT

if TYPE_CHECKING:
    from mpflow._core.scheduler import Scheduler

Kept = Mapping[str, Sequence[tuple[str, Any]]]
"""By task id, what is known to have been written."""


def keep(scheduler: Scheduler, tasks: Sequence[Task], kept: Kept, out: list[Instruction]) -> None:
    """Take over the diffs of those `tasks` that finished before the run was resumed."""
    for task in tuple(tasks):
        writes = kept.get(scheduler.task_id(task))
        if writes is None:
            continue
        if writes and writes[0][0] == ERROR:
            _take_over(scheduler, task, writes[0][1], kept, out)
        else:
            _has_finished(scheduler, task, writes, out)


def _take_over(scheduler: Scheduler, task: Task, error: Any, kept: Kept, out: list[Instruction]) -> None:
    """Go on where a run stopped between a task's failure and the end of its handler (EH-4)."""
    task.error = error if isinstance(error, BaseException) else Exception(error)
    task.state = FAILED
    task.handled = task.cached = True
    handling = add_handling(scheduler, task)
    writes = kept.get(scheduler.task_id(handling))
    if writes is not None:
        _has_finished(scheduler, handling, writes, out)


def _has_finished(scheduler: Scheduler, task: Task, writes: Sequence[tuple[str, Any]], out: list[Instruction]) -> None:
    task.writes = writes
    task.state = FINISHED
    task.cached = True
    scheduler.open -= 1
    out.append((ENDED_TASK, task))


def is_breakpoint(scheduler: Scheduler, names: Collection[str]) -> bool:
    """Whether a task of the step is a breakpoint, and something changed since the last pause (IN-10)."""
    state = scheduler.state
    seen = state.seen.get(INTERRUPT, {})
    if not any(name not in seen or version > seen[name] for name, version in state.versions.items()):
        return False
    if "*" in names:
        return any(not task.node.hidden for task in scheduler.tasks)
    return any(task.name in names for task in scheduler.tasks)
