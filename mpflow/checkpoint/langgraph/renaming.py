"""Ids of tasks, namespaces and questions: LangGraph makes them with a hash of its own, so an imported thread gets ours.

Only a graph knows which tasks are due at a checkpoint; a task is told by its path, which both libraries write alike.
"""

from __future__ import annotations

from typing import Any

from mpflow._names import INTERRUPT
from mpflow.checkpoint.base import path_text
from mpflow.types import Interrupt

_LEVEL, _ID = "|", ":"


class Names:
    """What things of one thread are called here, as far as `graph` has told. Without a graph all keep their names."""

    def __init__(self, graph: Any = None) -> None:
        self._graph = graph
        self._tasks: dict[str, str] = {}
        self._questions: dict[str, str] = {}

    def ns(self, ns: str) -> str:
        """A namespace, whose parts name the tasks that it lies within."""
        return _LEVEL.join(self._part(part) for part in ns.split(_LEVEL))

    def _part(self, part: str) -> str:
        name, colon, task_id = part.partition(_ID)
        return f"{name}{colon}{self.task(task_id)}"

    def task(self, task_id: str) -> str:
        return self._tasks.get(task_id, task_id)

    def metadata(self, metadata: dict[str, Any]) -> dict[str, Any]:
        parents = metadata.get("parents")
        if not parents:
            return metadata
        return {**metadata, "parents": {self.ns(ns): checkpoint_id for ns, checkpoint_id in parents.items()}}

    def value(self, channel: str, value: Any) -> Any:
        """A write's value: questions are asked under the id that their task has now."""
        if channel != INTERRUPT or not isinstance(value, (list, tuple)):
            return value
        return type(value)(
            Interrupt(one.value, self._questions[one.id]) if getattr(one, "id", None) in self._questions else one
            for one in value
        )

    def learn(self, config: Any, writes: list[tuple[str, str, str, Any]]) -> None:
        """Find the tasks that wrote beside a checkpoint, which the graph's saver has by now; outer namespaces first."""
        if self._graph is None or not writes:
            return
        due = {path_text(task.path): task for task in self._graph.get_state(config).tasks}
        ns = config["configurable"]["checkpoint_ns"]
        for task_id, path, channel, value in writes:
            task = due.get(path)
            if task is None:
                continue
            self._tasks[task_id] = task.id
            if channel == INTERRUPT and isinstance(value, (list, tuple)):
                where = f"{task.name}{_ID}{task.id}" if not ns else f"{ns}{_LEVEL}{task.name}{_ID}{task.id}"
                for one in value:
                    # A question of a graph within is told at each level: the innermost, which comes last, asked it.
                    self._questions[one.id] = Interrupt.from_ns(None, where).id
