"""What a run waits for by the clock: the intervals before retries, and the time that a step may take (EX-15)."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from mpflow._core.protocol import DUE, STOP, Stimulus

if TYPE_CHECKING:
    from mpflow._core.task import Task
    from mpflow._engine.run import Run


class Timers:
    """The timers of one run, made when there is first something to wait for. It reads the run's clock."""

    __slots__ = ("_deadline", "_order", "_retries", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        self._retries: list[tuple[float, int, Task, float]] = []
        self._order = 0
        self._deadline: float | None = None

    def add(self, task: Task, delay_s: float) -> None:
        """Let a task be due for its retry after the delay."""
        self._order += 1
        heappush(self._retries, (self.run.clock() + delay_s, self._order, task, delay_s))

    def take_only(self) -> tuple[Task, float] | None:
        """The task whose retry is all that the run waits for, and its whole interval, which is not to come due here."""
        if len(self._retries) != 1 or self.run.scheduler.open != 1 or self._deadline is not None:
            return None
        _, _, task, delay_s = self._retries.pop()
        return task, delay_s

    def begin_step(self, timeout_s: float) -> None:
        self._deadline = self.run.clock() + timeout_s

    def timeout_s(self) -> float | None:
        """Seconds until something is due; None if nothing is to be."""
        deadline = self._deadline
        if not self._retries:
            return None if deadline is None else max(0.0, deadline - self.run.clock())
        first = self._retries[0][0]
        return max(0.0, (first if deadline is None else min(first, deadline)) - self.run.clock())

    def due(self) -> Iterator[Stimulus]:
        """What has become due, as stimuli, each to be handled before the next is asked for."""
        now = self.run.clock()
        while self._retries and self._retries[0][0] <= now:
            yield DUE, heappop(self._retries)[2]
        if self._deadline is not None and now >= self._deadline and self.run.scheduler.open:
            self._deadline = None
            yield STOP, self._late(), True

    def _late(self) -> TimeoutError:
        scheduler = self.run.scheduler
        late = ", ".join(f"'{attempt.task.name}'" for attempt in scheduler.running_attempts())
        return TimeoutError(
            f"step {scheduler.step} of graph '{self.run.plan.name}' took longer than its step_timeout of "
            f"{self.run.step_timeout_s} s; still running: {late}"
        )
