"""Whether a graph still has what a saved run needs in order to go on (FAULTS row 38). It reads names, never values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mpflow._names import BRANCH_TO, JOIN, NULL_TASK_ID, TASKS
from mpflow.errors import GraphChangedError
from mpflow.types import Send

if TYPE_CHECKING:
    from mpflow._core.plan import Plan


def check_graph(
    plan: Plan,
    values: Mapping[str, Any],
    pending: Iterable[tuple[str, str, Any]],
    thread_id: str,
    checkpoint_id: str,
) -> None:
    """Raises GraphChangedError where the saved run is on its way to what the graph no longer has.

    `values` are the checkpoint's, `pending` the writes of tasks that have finished since. What the graph has besides,
    such as new nodes, keys and edges, does not matter.
    """

    def gone(kind: str, name: str) -> GraphChangedError:
        return GraphChangedError(kind, name, thread_id, checkpoint_id)

    nodes, channels = plan.nodes, plan.channels
    for name, value in values.items():
        if name.startswith(BRANCH_TO) and name[len(BRANCH_TO) :] not in nodes:
            raise gone("node", name[len(BRANCH_TO) :])
        if name.startswith(JOIN) and name not in channels and value:
            raise gone("waiting edge", name[len(JOIN) :])
    sends = list(values.get(TASKS) or ())
    for task_id, name, value in pending:
        if task_id == NULL_TASK_ID:  # a Command's, which may name what it likes (RT-4)
            continue
        if name.startswith(BRANCH_TO) and name[len(BRANCH_TO) :] not in nodes:
            raise gone("node", name[len(BRANCH_TO) :])
        if name.startswith(JOIN) and name not in channels:
            raise gone("waiting edge", name[len(JOIN) :])
        if name == TASKS:
            sends.append(value)
    for send in sends:
        if isinstance(send, Send) and send.node not in nodes:
            raise gone("node", send.node)
