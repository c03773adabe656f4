"""Failures as results: under ``on_error="record"`` a failed Send leaves a `FailureRecord` where its result would be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._names import RESERVED
from mpflow.channels.binop import BinaryOperatorAggregate
from mpflow.channels.topic import Topic
from mpflow.types import FailureRecord

if TYPE_CHECKING:
    from mpflow._core.state import ChannelState
    from mpflow._core.task import Task


def record_of(
    task: Task, error: BaseException, on_error: str | None, task_id_of: Callable[[Task], str]
) -> FailureRecord | None:
    """The record of a task's last failure, if it is a Send's and failures are to be recorded."""
    if task.pulled or not isinstance(error, Exception):
        return None
    if (task.node.on_error or on_error) != "record":
        return None
    attempts = task.failures + len(task.deaths)
    return FailureRecord(node=task.name, task_id=task_id_of(task), error=error, input=task.input, attempts=attempts)


def place_records(tasks: Sequence[Task], state: ChannelState) -> list[Task]:
    """Turn the records of a step into writes; the tasks that got one.

    A record goes, as one item, to the list-valued channels that finished siblings of the same node wrote; if none
    finished, to the only list-valued channel with a reducer that the graph has. The step's tasks are ended, so this
    does not depend on the order in which they did. Raises the failure itself when there is no such place.
    """
    failed = [task for task in tasks if task.record is not None]
    places: dict[str, list[str]] = {}
    for task in failed:
        if task.name not in places:
            places[task.name] = _written_by_siblings(task.name, tasks, state) or _only_list_channel(state)
        targets = places[task.name]
        if not targets:
            assert task.error is not None
            raise task.error
        task.writes = [(target, [task.record]) for target in targets]
    return failed


def _written_by_siblings(name: str, tasks: Sequence[Task], state: ChannelState) -> list[str]:
    found: dict[str, None] = {}
    for task in tasks:
        if task.name == name and task.record is None:
            for channel, value in task.writes:
                if isinstance(value, list) and _collects(state, channel):
                    found[channel] = None
            if found:
                break
    return list(found)


def _only_list_channel(state: ChannelState) -> list[str]:
    found = [key for key in state.plan.channels if _collects(state, key)]
    return found if len(found) == 1 else []


def _collects(state: ChannelState, key: str) -> bool:
    channel: Any = state.plan.channels.get(key)
    if key in RESERVED:
        return False
    if isinstance(channel, Topic):
        return True
    return isinstance(channel, BinaryOperatorAggregate) and isinstance(state.values.get(key, []), list)
