"""What a step is made of: which results it carries along, which have rows of their own, and what was written by whom.

It holds the results that wait for their step; when rows are written, and what they say of channels, is the recording's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._names import NO_WRITES
from mpflow.checkpoint.log.records import NOTHING, Apart, Part

if TYPE_CHECKING:
    from mpflow._core.task import Task
    from mpflow._engine.packing import Packing
    from mpflow._engine.pending import Writes

MOST_CARRIED = 32
"""A step carries no more results than that along: those of a wide step have rows of their own."""
_MOST_KINDS = 64
_NO_WRITES: Writes = [(NO_WRITES, None)]


class Made:
    """What a step is made of: by channel what was written to it, and where that is saved; and the results it carries along.

    Writes are in path order. A channel has no places, or one for each write to it.
    """

    __slots__ = ("apart", "numbers", "parts", "places", "values", "written")

    def __init__(
        self,
        written: Mapping[str, Sequence[Any]] = NOTHING,
        places: Mapping[str, tuple[int, ...]] = NOTHING,
        parts: tuple[Part | None, ...] = (),
        values: tuple[Any, ...] = (),
        numbers: tuple[int, ...] = (),
        apart: Mapping[int, Apart] = NOTHING,
    ) -> None:
        self.written = written
        self.places = places
        self.parts = parts
        self.values = values
        self.numbers = numbers
        self.apart = apart


class Making:
    """The results of a run's tasks until their step is saved.

    ``ended`` are tasks whose result is in no row, ``numbers`` the writes that are in one, by their identity, with its
    number; ``input`` is what was written before the first step. `tracked` leaves out what is never saved, which is there
    if there are channels `untracked`.
    """

    def __init__(self, packing: Packing, untracked: Collection[str], tracked: Callable[[Writes], Writes]) -> None:
        self.packing = packing
        self._untracked = untracked
        self._tracked = tracked
        self.ended: list[Task] = []
        self.numbers: dict[int, tuple[Writes, int]] = {}
        self.input: Writes = ()
        self._singles: dict[Any, tuple[tuple[Part], dict[str, tuple[int, ...]]]] = {}

    def take(self, tasks: Sequence[Task]) -> Made:
        """What the step of these tasks is made of. What had ended is in it, and waits no longer."""
        ended = self.ended
        if len(ended) == len(tasks) == 1 and ended[0] is tasks[0] and not self._untracked and not self.input:
            return self._of_one(tasks[0])
        return self._of_all(tasks)

    def _of_one(self, task: Task) -> Made:
        """As `_of_all`, for a step of one task: the rounds of a loop, say, which do the same each time."""
        writes = task.writes
        names = tuple([name for name, _ in writes])
        like = self._singles.get((task.node, names))
        if like is None:
            if len(set(names)) != len(names) or not names:
                return self._of_all((task,))
            part = Part(task.name, task.path, tuple(task.triggers), names)
            like = (part,), {name: (0, index) for index, name in enumerate(names)}
            if len(self._singles) < _MOST_KINDS and task.pulled:
                self._singles[task.node, names] = like
        parts, places = like
        values, apart = self.packed_of(task, names, [value for _, value in writes])
        self.ended.clear()
        written = {name: (value,) for name, value in writes}
        return Made(written, places, parts, (values,), apart={0: apart} if apart else NOTHING)

    def _of_all(self, tasks: Sequence[Task]) -> Made:
        written: dict[str, list[Any]] = {}
        places: dict[str, tuple[int, ...]] = {}
        scattered: dict[str, list[int]] = {}
        parts: list[Part | None] = []
        numbers: list[int] = []
        packed: list[tuple[Any, Apart]] = []
        for name, value in self.input:
            written.setdefault(name, []).append(value)
        self.input = ()
        carried = {id(task): task for task in self.ended}
        for task in tasks:
            place = -1
            if id(task) in carried:
                place = len(parts)
                parts.append(self._carry(packed, carried.pop(id(task))))
            elif (known := self.numbers.get(id(task.writes))) is not None:
                place = len(parts)
                parts.append(None)
                numbers.append(known[1])
            index = 0
            for name, value in task.writes:
                if name in self._untracked:
                    continue
                if name in written:
                    written[name].append(value)
                    if name in places:
                        scattered[name] = [*places.pop(name)]
                    if name in scattered and place >= 0:
                        scattered[name] += (place, index)
                else:
                    written[name] = [value]
                    if place >= 0:
                        places[name] = (place, index)
                index += 1
        for name, found in scattered.items():
            if len(found) == 2 * len(written[name]):
                places[name] = tuple(found)
        parts += [self._carry(packed, task) for task in carried.values()]
        self.ended.clear()
        values = tuple([value for value, _ in packed])
        apart = {at: one for at, (_, one) in enumerate(packed) if one}
        return Made(written, places, tuple(parts), values, tuple(numbers), apart)

    def _carry(self, packed: list[tuple[Any, Apart]], task: Task) -> Part:
        saved = self.saved_writes(task)
        names = tuple([name for name, _ in saved])
        packed.append(self.packed_of(task, names, [value for _, value in saved]))
        return Part(task.name, task.path, tuple(task.triggers), names)

    def packed_of(self, task: Task, names: Sequence[str], values: list[Any]) -> tuple[Any, dict[int, tuple[int, Any]]]:
        try:
            return self.packing.packed(task.name, names, values)
        except BaseException:  # the others are still to be saved
            self.ended = [other for other in self.ended if other is not task]
            raise

    def saved_writes(self, task: Task) -> Writes:
        writes = task.writes or _NO_WRITES
        return self._tracked(writes) if self._untracked else writes
