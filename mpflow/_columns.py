"""Attempts by the thousand that differ in path and input alone, kept as columns.

An attempt of theirs is made only where somebody looks at that one. Whoever takes attempts may be given a `Span` in the
place of a list of them; whoever knows nothing of spans finds a sequence of attempts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, final, overload

from mpflow._messages import Attempt, StepFacts

if TYPE_CHECKING:
    from mpflow._messages import Outbox

Writes = list[tuple[str, Any]]


class Column:
    """What attempts at many tasks have in common, and the input of each by its position.

    The path of a task is ``(head, first + position, tail)``. `at` may be called from any thread.
    """

    outbox: Outbox | None = None
    is_spread = False
    """Its owner has the tasks one by one."""
    left = 0
    """How many have not finished, as far as its owner has them in one."""

    def __init__(self, program: Any, inputs: list[Any], facts: StepFacts | None, triggers: Sequence[str]) -> None:
        self.program = program
        self.inputs = inputs
        self.facts: Any = facts
        """None until its owner knows them."""
        self.triggers = triggers
        self.head: Any = None
        self.first = 0
        self.tail: Any = None
        self.made: dict[int, Attempt] = {}

    def path(self, position: int) -> tuple[Any, ...]:
        return (self.head, self.first + position, self.tail)

    def at(self, position: int) -> Attempt:
        """The attempt at the task at `position`: each time the same one."""
        found = self.made.get(position)
        return self.made.setdefault(position, self._make(position)) if found is None else found

    def _make(self, position: int) -> Attempt:
        attempt = Attempt(
            self.task(position), 1, self.program, self.inputs[position], self.facts, self.path(position), self.triggers
        )
        attempt.outbox = self.outbox
        attempt.plain = True
        return attempt

    def task(self, position: int) -> Any:
        """The owner's handle of the task at `position`. Called once for each."""
        raise NotImplementedError


@final
class Span(Sequence[Attempt]):
    """The attempts from one position of a column to another. It has what they have in common under the same names."""

    __slots__ = ("column", "start", "stop")

    number = 1
    alone = False
    rerun_on_loss = True
    is_called = False
    plain = True
    timeout_s = None
    first_at = None
    answers = None

    def __init__(self, column: Column, start: int, stop: int) -> None:
        self.column = column
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    @overload
    def __getitem__(self, index: int) -> Attempt: ...

    @overload
    def __getitem__(self, index: slice) -> Span: ...

    def __getitem__(self, index: int | slice) -> Attempt | Span:
        positions = range(self.start, self.stop)[index]
        if isinstance(positions, int):
            return self.column.at(positions)
        if positions.step != 1:
            raise ValueError("a span has no steps")
        return Span(self.column, positions.start, positions.stop)

    def __iter__(self) -> Iterator[Attempt]:
        return map(self.column.at, range(self.start, self.stop))

    def take(self, count: int) -> Span:
        """Cut the first `count` off."""
        begin = self.start
        self.start = min(begin + count, self.stop)
        return Span(self.column, begin, self.start)

    @property
    def program(self) -> Any:
        return self.column.program

    @property
    def facts(self) -> StepFacts:
        facts: StepFacts = self.column.facts
        return facts

    @property
    def triggers(self) -> Sequence[str]:
        return self.column.triggers

    @property
    def outbox(self) -> Outbox | None:
        return self.column.outbox

    @outbox.setter
    def outbox(self, outbox: Outbox) -> None:
        self.column.outbox = outbox
        for attempt in self.column.made.values():
            attempt.outbox = outbox

    @property
    def path(self) -> tuple[Any, ...]:
        """That of the first."""
        return self.column.path(self.start)

    @property
    def input(self) -> Any:
        """That of the first."""
        return self.column.inputs[self.start]

    @property
    def inputs(self) -> list[Any]:
        return self.column.inputs[self.start : self.stop]


Attempts = Sequence[Attempt]
"""A list, or a `Span`."""
Piece = Attempt | Span
"""One, or consecutive ones."""


def singly(pieces: Iterable[Piece]) -> list[Attempt]:
    """Each attempt by itself."""
    return [attempt for piece in pieces for attempt in (piece if type(piece) is Span else (piece,))]


def size_of(piece: Piece) -> int:
    """How many attempts it is."""
    return len(piece) if type(piece) is Span else 1


def gather(grouped: dict[str, list[Any]], writes: Iterable[tuple[str, Any]]) -> None:
    """Add writes to those of their channels, in order."""
    for name, value in writes:
        if name in grouped:
            grouped[name].append(value)
        else:
            grouped[name] = [value]


def lead(attempts: Attempts) -> Piece:
    """Who stands for all of `attempts` in what they have in common."""
    return attempts if type(attempts) is Span else attempts[0]


def inputs_of(attempts: Attempts) -> list[Any]:
    return attempts.inputs if type(attempts) is Span else [attempt.input for attempt in attempts]


@final
class Diffs(Sequence[Writes]):
    """The diffs of many attempts that each wrote one value to the same channel, and then `rest`, which is the same for all."""

    __slots__ = ("channel", "rest", "values")

    def __init__(self, channel: str, values: list[Any], rest: Sequence[tuple[str, Any]] = ()) -> None:
        self.channel = channel
        self.values = values
        self.rest = rest

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Diffs(self.channel, self.values[index], self.rest)
        return [(self.channel, self.values[index]), *self.rest]

    def __iter__(self) -> Iterator[Writes]:
        rest = self.rest
        if rest:
            return ([pair, *rest] for pair in zip(repeat(self.channel), self.values))
        return ([pair] for pair in zip(repeat(self.channel), self.values))

    def columns(self) -> Iterator[tuple[str, list[Any]]]:
        """What was written, by channel."""
        yield self.channel, self.values
        for name, value in self.rest:
            yield name, [value] * len(self.values)
