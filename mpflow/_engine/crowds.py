"""Tasks of one node together: those that are with the pool unasked, and those that are seen to be done by the crowd."""

from __future__ import annotations

from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING

from mpflow._columns import Attempts, Column, Span
from mpflow._exec.placement.decide import CROWD, PROCESS

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan
    from mpflow._messages import Attempt


class Batch:
    """Of a batch of runs: how many are under way, or about to be."""

    __slots__ = ("under_way",)

    def __init__(self) -> None:
        self.under_way = 0


batch: ContextVar[Batch | None] = ContextVar("mpflow_batch", default=None)
"""The one that this run belongs to."""


class Abroad:
    """What of one node is with the pool."""

    __slots__ = ("columns", "open", "single")

    def __init__(self) -> None:
        self.open = 0
        self.single: dict[int, Attempt] = {}
        self.columns: list[Column] = []

    def add(self, attempts: Attempts) -> None:
        self.open += len(attempts)
        if type(attempts) is Span:
            self.columns = [column for column in self.columns if column.left or column.is_spread]
            self.columns.append(attempts.column)
        else:
            self.single.update((id(attempt), attempt) for attempt in attempts)

    def ended(self, attempts: Attempts) -> None:
        self.open -= len(attempts)
        if not self.open:
            self.columns.clear()
            self.single.clear()
        elif type(attempts) is not Span:
            for attempt in attempts:
                self.single.pop(id(attempt), None)

    def all(self) -> list[Attempt]:
        """Each of them, and some that have ended."""
        spread = (attempt for column in self.columns for attempt in Span(column, 0, len(column.inputs)))
        return [*self.single.values(), *spread]


class Crowd:
    """Tasks of one node that are done at one place, with nothing else of the run beside them, and what is made of them.

    `since` is when their making began: what that takes, and what is done with their results, is not the same for each place.
    """

    __slots__ = ("_before", "node", "place", "since", "total", "waiting")

    def __init__(self, node: NodePlan, place: str, since: float) -> None:
        self.node = node
        self.place = place
        self.total = self.waiting = 0
        self._begin(since)

    def _begin(self, since: float) -> None:
        self.since = since
        self._before = self.node.meter.used(self.place)

    @property
    def done(self) -> int:
        return self.total - self.waiting

    def note(self) -> None:
        """Have the node's profile know after how long one of them was done, unless too few were.

        The first ones in workers meet much for the first time, and the tasks that sound the pool: they do not count.
        """
        if self.place is PROCESS and not self._before[0]:
            self.total = self.waiting
            self._begin(perf_counter())
            return
        calls, cpu_s = self.node.meter.used(self.place)
        calls -= self._before[0]
        if self.done >= CROWD and calls > 0:
            taken_s = perf_counter() - self.since
            self.node.meter.note_crowd(self.place, taken_s / self.done, (cpu_s - self._before[1]) / calls, taken_s)
