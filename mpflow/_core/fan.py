"""A fan-out kept as columns: sends of one step that all go to one plain node, without a task for each.

As long as they just finish, the fan stands for all of their tasks, in the scheduler and in the merge. When anything else
befalls one of them, or the run is given up, the scheduler spreads it into the tasks that it stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import countOf
from typing import TYPE_CHECKING, Any, final

from mpflow._columns import Column, Diffs, Span, gather
from mpflow._core.task import FINISHED, PUSHED, READY, RUNNING, Task
from mpflow._names import PUSH
from mpflow.types import Send

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan, Plan
    from mpflow._messages import Attempt, StepFacts

LEAST = 16
"""Fewer sends have a task each."""


def count(tasks: Iterable[Any]) -> int:
    """How many tasks they are, or stand for."""
    return sum(map(size, tasks))


def size(task: Any) -> int:
    """How many tasks it is, or stands for."""
    return len(task) if type(task) is Fan else 1


def fan_of(plan: Plan, sends: Sequence[Any], keeps_columns: Callable[[NodePlan], bool], first: int = 0) -> Fan | None:
    """The fan of queued `sends`, if they are many and alike. `first` is the index of the first."""
    if len(sends) < LEAST or not isinstance(sends[0], Send):
        return None
    name = sends[0].node
    node = plan.nodes.get(name)
    if node is None or not node.plain or not keeps_columns(node):
        return None
    if countOf(map(type, sends), Send) != len(sends):
        return None
    inputs = [send.arg for send in sends if send.timeout is None and send.node == name]
    return Fan(node, inputs, first) if len(inputs) == len(sends) else None


@final
class Fan(Column):
    """The tasks of a fan-out, in one. It has what a merge asks of a task."""

    pulled = False
    plain = False
    state = READY
    attempt: Attempt | None = None
    error: BaseException | None = None
    record = None
    caller = None

    def __init__(self, node: NodePlan, inputs: list[Any], first: int = 0) -> None:
        super().__init__(node.program, inputs, None, PUSHED)
        self.head, self.first, self.tail = PUSH, first, False
        self.node = node
        self.name = node.name
        self.left = len(inputs)
        self._ended = bytearray(len(inputs))
        self._diffs: dict[int, Sequence[Any]] = {}
        """By the position of the first of them."""

    def __len__(self) -> int:
        return len(self.inputs)

    def start(self, facts: StepFacts) -> Span:
        """Let all of them run."""
        self.facts = facts
        self.state = RUNNING
        return Span(self, 0, len(self.inputs))

    def task(self, position: int) -> Task:
        return Task(self.node, self.path(position), self.inputs[position])

    def has_made(self, attempt: Attempt) -> bool:
        """Whether an attempt is at one of its tasks."""
        path = attempt.path
        return path[0] == PUSH and type(path[1]) is int and self.made.get(path[1] - self.first) is attempt

    def accept(self, span: Span, diffs: Sequence[Any]) -> bool:
        """Take in that all of `span` have finished; False, and nothing is taken in, if some had ended before."""
        start, stop = span.start, span.stop
        if self._ended.find(1, start, stop) >= 0:
            return False
        self._ended[start:stop] = b"\1" * (stop - start)
        self._diffs[start] = diffs
        self.left -= stop - start
        if not self.left:
            self.state = FINISHED
        return True

    def spread(self) -> list[Task]:
        """The tasks that it stood for, each with what has become of it."""
        self.is_spread = True
        has_started = self.state is not READY
        diffs = {start + at: diff for start, some in self._diffs.items() for at, diff in enumerate(some)}
        tasks: list[Task] = []
        for position in range(len(self.inputs)):
            if not has_started:
                tasks.append(self.task(position))
                continue
            attempt = self.at(position)
            task: Task = attempt.task
            if position in diffs:
                task.state = FINISHED
                task.writes = diffs[position]
            else:
                task.state = RUNNING
                task.attempt = attempt
            tasks.append(task)
        return tasks

    @property
    def writes(self) -> list[tuple[str, Any]]:
        """Those of all of its tasks, in path order."""
        return [write for start in sorted(self._diffs) for diff in self._diffs[start] for write in diff]

    def grouped(self) -> dict[str, list[Any]]:
        """As `writes`, by channel."""
        grouped: dict[str, list[Any]] = {}
        for start in sorted(self._diffs):
            diffs = self._diffs[start]
            if type(diffs) is Diffs:
                for name, values in diffs.columns():
                    grouped.setdefault(name, []).extend(values)
            else:
                gather(grouped, chain.from_iterable(diffs))
        return grouped
