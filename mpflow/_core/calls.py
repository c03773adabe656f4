"""Tasks that running tasks call: they join the step of their caller, and what becomes of them goes back to it (FN-1, FN-4).

A caller waits for what it called, so it leaves its place within ``max_concurrency`` to them: no limit can deadlock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpflow._core.dispatch import dispatch
from mpflow._core.protocol import ANSWER, CANCEL, ENDED_TASK, REFUSED, SPAWNED
from mpflow._core.task import ENDED, FINISHED, RUNNING, Task
from mpflow._names import NS_END, NS_SEP, PUSH
from mpflow._scope import task_id_of

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan
    from mpflow._core.protocol import Instruction, Stimulus
    from mpflow._core.scheduler import Scheduler
    from mpflow._messages import StepFacts


class CalledTask(Task):
    """A task that another one called. ``waiters`` are opaque: who is to be told its result."""

    def __init__(self, node: NodePlan, path: tuple[Any, ...], input: Any, caller: Task, facts: StepFacts) -> None:
        super().__init__(node, path, input)
        self.plain = False
        self.caller = caller
        self.facts = facts
        self.waiters: list[Any] = []
        self.called_by = caller.attempt
        """The attempt at the caller that it was called in."""


def spawn(scheduler: Scheduler, stimulus: Stimulus, out: list[Instruction]) -> None:
    """A running task calls another: start it, unless it is known from an earlier attempt or run of the caller."""
    _, attempt, node, input, index, waiter, *begun = stimulus
    caller: Task = attempt.task
    if caller.attempt is not attempt:
        out.append((REFUSED, waiter))
        return
    if scheduler.called_in != scheduler.step:
        scheduler.called_in = scheduler.step
        scheduler.called = {}
    path = path_of_call(caller, index)
    known: CalledTask | None = scheduler.called.get(path)
    # An attempt that lost its worker without fault, and runs once more, must not be the way of a failed task to go on anew.
    if known is not None and (known.state == FINISHED or (known.state in ENDED and known.called_by is attempt)):
        out.append((ANSWER, known, waiter))
        return
    if known is not None and known.state not in ENDED:
        known.waiters.append(waiter)
        _lend(scheduler, caller)
        dispatch(scheduler, out)
        return
    if begun:
        task = begun[0].task
    else:
        own_facts = caller.facts or scheduler.facts
        assert own_facts is not None
        task = CalledTask(node, path, input, caller, facts_below(caller, own_facts))
    scheduler.called[path] = task
    if known is None:
        scheduler.tasks.append(task)
    else:  # a failure that the caller is tried again after
        scheduler.tasks[scheduler.tasks.index(known)] = task
    out.append((SPAWNED, task))
    writes = scheduler.kept.get(scheduler.task_id(task)) if scheduler.kept else None
    if writes is not None:
        task.writes = writes
        task.state = FINISHED
        task.cached = True
        out.append((ANSWER, task, waiter))
        return
    task.waiters.append(waiter)
    caller.open_calls += 1
    scheduler.open += 1
    _lend(scheduler, caller)
    if begun:
        task.attempt = begun[0]
        task.state = RUNNING
        scheduler.running += 1
    else:
        scheduler.ready.append(task)
        dispatch(scheduler, out)


def path_of_call(caller: Task, index: int) -> tuple[Any, ...]:
    """The path of the task that is called as the `index`-th by `caller`."""
    return (PUSH, caller.path, index, True)


def refuse(scheduler: Scheduler, stimulus: Stimulus, out: list[Instruction]) -> None:
    """A call that comes too late: the run is ending, or over."""
    out.append((REFUSED, stimulus[5]))


def drop(scheduler: Scheduler, stimulus: Stimulus, out: list[Instruction]) -> None:
    """Nobody waits for a called task any more: cancel it."""
    waiter = stimulus[2]
    for task in scheduler.called.values():
        if waiter in task.waiters:
            task.waiters.remove(waiter)
            if not task.waiters and task.state == RUNNING:
                out.append((CANCEL, [task.attempt], False))


def ignore(scheduler: Scheduler, stimulus: Stimulus, out: list[Instruction]) -> None:
    return None


def returned(scheduler: Scheduler, task: Task) -> None:
    """A called task has ended. After the last of them their caller takes its place among the running again."""
    caller = task.caller
    assert caller is not None
    caller.open_calls -= 1
    if not caller.open_calls and not caller.weight and caller.state == RUNNING:
        caller.weight = 1
        scheduler.running += 1
        scheduler.lent -= 1


def give_up_call(task: Task, out: list[Instruction]) -> None:
    """A called task will not start, since the step is given up: its caller must not wait for it."""
    assert task.caller is not None
    # It stays without a place of its own: others may have taken it, and nothing starts now.
    task.caller.open_calls -= 1
    out.append((ENDED_TASK, task))


def _lend(scheduler: Scheduler, caller: Task) -> None:
    if caller.weight and caller.open_calls:
        caller.weight = 0
        caller.plain = False
        scheduler.running -= 1
        scheduler.lent += 1


def facts_below(caller: Task, own_facts: StepFacts) -> StepFacts:
    """The facts of what a task calls: `own_facts`, but in the caller's namespace."""
    if caller.facts_below is None:
        checkpoint_id = own_facts.checkpoint_id  # before the copy: it may be made only now
        facts = object.__new__(type(own_facts))  # a copy, made as one for a worker would lose what is local
        facts.__dict__.update(own_facts.__dict__)
        task_id = task_id_of(checkpoint_id, facts.checkpoint_ns, facts.step, caller.name, caller.path, caller.triggers)
        own = f"{caller.name}{NS_END}{task_id}"
        facts.checkpoint_ns = f"{facts.checkpoint_ns}{NS_SEP}{own}" if facts.checkpoint_ns else own
        caller.facts_below = facts
    return caller.facts_below
