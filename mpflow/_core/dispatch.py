"""What is ready is given out as attempts, as many as the limits allow.

A function on a `Scheduler`, which alone calls it, with its transitions.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from mpflow._columns import Span
from mpflow._core.fan import Fan
from mpflow._core.protocol import DISPATCH, MORE, Instruction
from mpflow._core.task import RUNNING, Task
from mpflow._messages import Attempt, StepFacts

if TYPE_CHECKING:
    from mpflow._core.scheduler import Scheduler

SLICE = 512
"""How many attempts are handed out at once: the first of a wide step run while the rest are made. Then ever more."""


def dispatch(scheduler: Scheduler, out: list[Instruction]) -> None:
    """Make attempts at what is ready. A fan goes as a whole: where it may be, there is no limit."""
    ready = scheduler.ready
    facts: Any = scheduler.facts
    limit = scheduler.max_concurrency
    running = scheduler.running
    room = most = SLICE if running < SLICE else running
    if limit is not None:
        room = min(most, limit - running)
    attempts: list[Attempt] = []
    spans: list[Span] = []
    while ready and room > 0:
        task = ready.popleft()
        node = task.node
        if task.plain and node.plain:
            attempt = Attempt(task, 1, node.program, task.input, facts, task.path, task.triggers)
            attempt.plain = True
        elif type(task) is Fan:
            spans.append(task.start(facts))
            continue
        elif node.max_concurrency is None or _admits(scheduler, task):
            attempt = _ruled(task, facts)
        else:
            continue
        task.state = RUNNING
        task.attempt = attempt
        attempts.append(attempt)
        room -= 1
    if attempts:
        out.append((DISPATCH, attempts))
        scheduler.running = running + len(attempts)
    if spans:
        out.extend((DISPATCH, span) for span in spans)
        scheduler.running += sum(map(len, spans))
    if (ready and len(attempts) == most) or (scheduler.flow is not None and (attempts or spans)):
        out.append((MORE,))


def _admits(scheduler: Scheduler, task: Task) -> bool:
    """Count a task among those that its node may run at once, or park it until one of them is over."""
    name, limit = task.name, task.node.max_concurrency
    assert limit is not None
    load = scheduler.node_load.get(name, 0)
    if load >= limit:
        scheduler.parked.setdefault(name, deque()).append(task)
        return False
    scheduler.node_load[name] = load + 1
    return True


def _ruled(task: Task, facts: StepFacts) -> Attempt:
    """An attempt with what only some have: limits, facts of its own, a number that is not the first."""
    node = task.node
    attempt = Attempt(
        task, 1, node.program, task.input, facts if task.facts is None else task.facts, task.path, task.triggers
    )
    attempt.number = task.failures + len(task.deaths) + 1
    attempt.alone = bool(task.deaths)
    if task.caller is not None:
        attempt.is_called = True
        attempt.caller = task.caller.attempt
    attempt.rerun_on_loss = node.rerun_on_loss
    attempt.timeout_s = node.timeout_s
    return attempt
