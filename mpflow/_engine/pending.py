"""The writes of a step that has not ended, by the task that left them: results, errors, questions and answers.

It knows what the names of writes mean; when they are saved, and who asks for them, is `persistence`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mpflow._names import ERROR, ERROR_SOURCE_NODE, INTERRUPT, NULL_TASK_ID, RESUME, SCHEDULED
from mpflow.checkpoint.base import WRITES_IDX_MAP

Writes = Sequence[tuple[str, Any]]

SPECIAL = frozenset((ERROR, ERROR_SOURCE_NODE, INTERRUPT, RESUME, SCHEDULED))


class Pending:
    """Pending writes, as a saver gives them: ``(task_id, name, value)`` each. Those of one task are found at once."""

    __slots__ = ("_by_task",)

    def __init__(self, writes: Iterable[tuple[str, str, Any]] = ()) -> None:
        self._by_task: dict[str, list[tuple[str, Any]]] = {}
        for task_id, name, value in writes:
            self._by_task.setdefault(task_id, []).append((name, value))

    def __bool__(self) -> bool:
        return bool(self._by_task)

    def __iter__(self) -> Iterator[tuple[str, str, Any]]:
        return ((task_id, name, value) for task_id, writes in self._by_task.items() for name, value in writes)

    def of(self, task_id: str) -> Writes:
        return self._by_task.get(task_id, ())

    def put(self, task_id: str, writes: Writes) -> None:
        """A task's writes, in place of those that it had."""
        self._by_task[task_id] = [*writes]

    def carry(self, writes: Writes) -> None:
        """Writes that belong to no task. These add up; the special ones, which replace each other, come last.

        A saver knows them by their place.
        """
        before = [write for write in self.of(NULL_TASK_ID) if not _is_special(write)]
        self._by_task[NULL_TASK_ID] = [*before, *sorted(writes, key=_is_special)]

    def forget(self, name: str) -> None:
        """Drop all writes of that name."""
        for task_id, writes in tuple(self._by_task.items()):
            left = [write for write in writes if write[0] != name]
            if left:
                self._by_task[task_id] = left
            else:
                del self._by_task[task_id]

    def begun(self) -> set[str]:
        """The tasks whose start was noted."""
        return {task_id for task_id, name, value in self if name == SCHEDULED and value}

    def kept(self) -> dict[str, list[tuple[str, Any]]]:
        """By task, the writes of those that finished; the error of one that is handled."""
        found: dict[str, list[tuple[str, Any]]] = {}
        for task_id, writes in self._by_task.items():
            if any(name == ERROR_SOURCE_NODE for name, _ in writes):
                found[task_id] = [write for write in writes if write[0] == ERROR]
            elif task_id != NULL_TASK_ID:
                plain = [write for write in writes if write[0] not in SPECIAL]
                if plain:
                    found[task_id] = plain
        return found

    def answers(self, task_id: str) -> list[Any]:
        """The answers that a task was already given."""
        for name, value in self.of(task_id):
            if name == RESUME:
                return list(value) if isinstance(value, (list, tuple)) else [value]
        return []

    def open_questions(self) -> set[str]:
        """The ids of the questions of tasks that have not finished: an answer may be that to an earlier question."""
        return {
            question.id
            for writes in self._by_task.values()
            if SPECIAL.issuperset(name for name, _ in writes)
            for name, value in writes
            if name == INTERRUPT
            for question in (value if isinstance(value, (list, tuple)) else (value,))
        }

    def null_answer(self) -> list[Any]:
        """The answer that was given without naming its question, in a list of its own; empty if there is none.

        One that was taken is replaced by None.
        """
        return [value for name, value in self.of(NULL_TASK_ID) if name == RESUME and value is not None][-1:]

    def null_writes(self) -> list[tuple[str, Any]]:
        """Writes that belong to no task: a command's update and its destinations."""
        return [write for write in self.of(NULL_TASK_ID) if write[0] != RESUME]


def _is_special(write: tuple[str, Any]) -> bool:
    return write[0] in WRITES_IDX_MAP
