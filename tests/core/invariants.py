"""What must hold of a scheduler after every stimulus."""

from __future__ import annotations

from mpflow._core.fan import Fan
from mpflow._core.protocol import BETWEEN, ENDING, STEPPING
from mpflow._core.retry import MAX_DEATHS
from mpflow._core.scheduler import Scheduler
from mpflow._core.task import ENDED, READY, RUNNING


def invariants(scheduler: Scheduler) -> list[str]:
    """What must hold after every stimulus; the list of what does not."""
    broken = []
    tasks = [task for task in scheduler.tasks if type(task) is not Fan]
    fans = [task for task in scheduler.tasks if type(task) is Fan]
    left = sum(fan.left for fan in fans)
    if not scheduler.fans.issuperset(fans):
        broken.append("a fan of which the scheduler does not know")
    if scheduler.phase in (STEPPING, ENDING):
        still_to_be_made = scheduler.flow is not None and scheduler.flow.is_open
        if scheduler.open != sum(task.state not in ENDED for task in tasks) + left + still_to_be_made:
            broken.append(f"open counts {scheduler.open}")
        if scheduler.running != sum(task.weight for task in tasks if task.state == RUNNING) + left:
            broken.append(f"running counts {scheduler.running}")
        if scheduler.lent != sum(task.state == RUNNING and not task.weight for task in tasks):
            broken.append(f"lent counts {scheduler.lent}")
        limit = scheduler.max_concurrency
        if limit is not None and scheduler.running > limit:
            broken.append(f"{scheduler.running} run at once, {limit} may")
        for name, load in scheduler.node_load.items():
            if load != sum(task.state == RUNNING and task.name == name for task in tasks):
                broken.append(f"load of {name} counts {load}")
        queued = {id(task) for task in scheduler.ready} | {id(t) for line in scheduler.parked.values() for t in line}
        if queued != {id(task) for task in tasks if task.state == READY}:
            broken.append("a ready task is in no queue, or a queued one is not ready")
    for task in tasks:
        if (task.state == RUNNING) != (task.attempt is not None):
            broken.append(f"{task!r} runs without an attempt, or has one and does not run")
        if len(task.deaths) > MAX_DEATHS:
            broken.append(f"{task!r} died too often")
    if scheduler.phase == BETWEEN and scheduler.tasks:
        broken.append("tasks outlive their step")
    return broken
