"""Which tasks are due in a step: every node with a trigger it has not seen, and the queued sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core.task import Task
from mpflow._messages import Handled
from mpflow._names import PUSH, TASKS
from mpflow._sends import ReplayableSends, SendIterator, listed
from mpflow.errors import NodeError
from mpflow.types import Send

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan, Plan
    from mpflow._core.state import ChannelState


def due_tasks(
    plan: Plan,
    state: ChannelState,
    step: int,
    stop: int,
    started: Sequence[NodePlan] | None,
    warn: Callable[[str], None],
) -> list[Task]:
    """The tasks of the next step in path order (EX-2): triggered nodes by name, then the sends as they were queued."""
    sends = listed(state.values.get(TASKS, ()))
    return triggered_tasks(plan, state, step, stop, started) + sent_tasks(plan, sends, warn)


def triggered_tasks(
    plan: Plan, state: ChannelState, step: int, stop: int, started: Sequence[NodePlan] | None
) -> list[Task]:
    """The tasks of nodes that were triggered.

    `started` are those that the last step gave a trigger a new value of, which nobody has seen; None looks at every node,
    as a resumed run must.
    """
    tasks: list[Task] = []
    for node in _unseen(plan, state) if started is None else started:
        reads: Any = node.reads
        if type(reads) is str:
            if reads not in state.values:
                continue
            input = state.values[reads]
        else:
            input = state.current(reads).values.copy()
            if plan.managed:
                for key, manager in plan.managed.items():
                    if key in reads:
                        input[key] = manager.get(_Scratch(step, stop))
        tasks.append(Task(node, node.path, input, node.triggers))
    return tasks


def entering(plan: Plan, writes: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]] | None:
    """What the first step writes for an input that its one node passes on as it is; None if that is to be seen."""
    if len(writes) != 1:
        return None
    channel, input = writes[0]
    nodes = plan.starts.get(channel, ())
    return nodes[0].passed(input) if len(nodes) == 1 else None


def _unseen(plan: Plan, state: ChannelState) -> list[NodePlan]:
    """The nodes with a trigger that was written since they last ran; one is enough, and the run takes in all of them."""
    found = []
    for name in sorted(plan.nodes):
        seen = state.seen.get(name)
        node = plan.nodes[name]
        if any(trigger in state.values and _is_news(trigger, state.versions, seen) for trigger in node.triggers):
            found.append(node)
    return found


def _is_news(trigger: str, versions: Mapping[str, Any], seen: Mapping[str, Any] | None) -> bool:
    """Whether a trigger was written since the node last ran. A channel's first default was not."""
    if trigger not in versions:
        return False
    return seen is None or trigger not in seen or versions[trigger] > seen[trigger]


def sent_tasks(plan: Plan, sends: Sequence[Any], warn: Callable[[str], None]) -> list[Task]:
    """The tasks of the queued `sends`, as they were queued, up to those that are still to be made (see `flow`)."""
    nodes = plan.nodes
    tasks: list[Task] = []
    for index, packet in enumerate(sends):
        if not isinstance(packet, Send):
            if isinstance(packet, (SendIterator, ReplayableSends)):  # it and what follows are taken as there is room
                break
            warn(f"Ignoring invalid packet type {type(packet).__name__} in pending sends")
            continue
        node = nodes.get(packet.node)
        if node is None:
            warn(f"Ignoring unknown node name {packet.node} in pending sends")
            continue
        if packet.timeout is not None:
            node = node.timed(packet.timeout)
        tasks.append(Task(node, (PUSH, index, False), packet.arg))
    return tasks


def handling_task(task: Task, error: BaseException) -> Task:
    """The task that takes over from one that failed for good: it gets the same input, and what went wrong (EH-1)."""
    handler = task.node.handler
    assert handler is not None
    given = Handled(task.input, NodeError(task.name, error))
    # Its path sorts it right after the task it stands in for.
    return Task(handler, (*task.path, "node_error_handler", False), given)


class _Scratch:
    """What a managed value may look at."""

    __slots__ = ("step", "stop")

    def __init__(self, step: int, stop: int) -> None:
        self.step = step
        self.stop = stop
