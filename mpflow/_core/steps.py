"""Which tasks are due in a step: the queued sends, and every node with a trigger it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mpflow._core.task import Task
from mpflow._messages import Handled
from mpflow._names import PULL, PUSH, TASKS
from mpflow.errors import NodeError
from mpflow.types import Send

if TYPE_CHECKING:
    from mpflow._core.plan import Plan
    from mpflow._core.state import ChannelState

_PUSH_TRIGGERS = (PUSH,)


def due_tasks(
    plan: Plan,
    state: ChannelState,
    step: int,
    stop: int,
    updated: set[str] | None,
    warn: Callable[[str], None],
) -> list[Task]:
    """The tasks of the next step in path order (EX-2): triggered nodes by name, then the sends as they were queued.

    `updated` are the channels that the last step changed; None looks at every node, as a resumed run must.
    """
    tasks: list[Task] = []
    nodes = plan.nodes
    trigger_to_nodes = plan.trigger_to_nodes
    names: Iterable[str]
    if updated is None:
        names = sorted(nodes)
    else:
        found: set[str] = set()
        for channel in updated:
            if channel in trigger_to_nodes:
                found.update(trigger_to_nodes[channel])
        names = sorted(found) if len(found) > 1 else found
    versions = state.versions
    values = state.values
    for name in names:
        node = nodes[name]
        seen = state.seen.get(name)
        triggers = node.triggers
        if len(triggers) == 1:
            trigger = triggers[0]
            if trigger not in values or not _is_news(trigger, versions, seen):
                continue
        else:
            for trigger in triggers:
                if trigger in values and _is_news(trigger, versions, seen):
                    break  # one is enough, and the run takes in all of them
            else:
                continue
        reads = node.reads
        if isinstance(reads, str):
            if reads not in values:
                continue
            input = values[reads]
        else:
            input = state.view(reads).copy()
            if plan.managed:
                for key, manager in plan.managed.items():
                    if key in reads:
                        input[key] = manager.get(_Scratch(step, stop))
        tasks.append(Task(node, (PULL, name), triggers, input, True, node.timeout_s))
    sends = values.get(TASKS)
    if sends:
        _add_sends(plan, sends, tasks, warn)
    return tasks


def _is_news(trigger: str, versions: Mapping[str, Any], seen: Mapping[str, Any] | None) -> bool:
    """Whether a trigger was written since the node last ran. A channel's first default was not."""
    if trigger not in versions:
        return False
    return seen is None or trigger not in seen or versions[trigger] > seen[trigger]


def _add_sends(plan: Plan, sends: list[Any], tasks: list[Task], warn: Callable[[str], None]) -> None:
    nodes = plan.nodes
    for index, packet in enumerate(sends):
        if not isinstance(packet, Send):
            warn(f"Ignoring invalid packet type {type(packet).__name__} in pending sends")
            continue
        node = nodes.get(packet.node)
        if node is None:
            warn(f"Ignoring unknown node name {packet.node} in pending sends")
            continue
        if packet.timeout is not None:
            node = node.timed(packet.timeout)
        path = (PUSH, index, False)
        tasks.append(Task(node, path, _PUSH_TRIGGERS, packet.arg, False, node.timeout_s))


def handling_task(task: Task, error: BaseException) -> Task:
    """The task that takes over from one that failed for good: it gets the same input, and what went wrong (EH-1)."""
    handler = task.node.handler
    assert handler is not None
    given = Handled(task.input, NodeError(task.name, error))
    # Its path sorts it right after the task it stands in for.
    return Task(handler, (*task.path, "node_error_handler", False), _PUSH_TRIGGERS, given, False, handler.timeout_s)


class _Scratch:
    """What a managed value may look at."""

    __slots__ = ("step", "stop")

    def __init__(self, step: int, stop: int) -> None:
        self.step = step
        self.stop = stop
