"""Workers whose tasks have called others: what of it is open, who waits for it, and who is of no use meanwhile.

Must not decide what such a worker is given: `lending` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from mpflow._exec import link
from mpflow._exec.crew import Wait, Worker

PATIENCE_S: Final = 0.05
"""A task that has called others, and has not said for so long that it waits for them, waits in a way of its own."""
STILL_S: Final = 0.25
"""A worker that waits, and was lent nothing for so long, waits for what takes time."""


class _Calls:
    """The open ones of one worker."""

    __slots__ = ("by_task", "callers", "changed_at")

    def __init__(self) -> None:
        self.callers: dict[int, int] = {}
        """The number of the task that called, by question."""
        self.by_task: Counter[int] = Counter()
        self.changed_at = 0.0


class Callers:
    """Of one pool."""

    def __init__(self) -> None:
        self._calls: dict[Worker, _Calls] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Worker]:
        return iter(tuple(self._calls))

    def __contains__(self, worker: object) -> bool:
        """Whether tasks that it runs have called others that have not ended."""
        return worker in self._calls

    def called(self, worker: Worker, number: int, question: int, now: float) -> bool:
        """Task `number` of `worker` has called another, whose result is the answer to `question`. Whether it is the only one
        so far."""
        calls = self._calls.setdefault(worker, _Calls())
        calls.callers[question] = number
        calls.by_task[number] += 1
        calls.changed_at = now
        return calls.by_task[number] == 1

    def said(self, worker: Worker, number: int, question: int, is_open: bool, now: float) -> None:
        """Task `number` of `worker` says that it waits, or goes on (see `link`). What is answered by now it need not."""
        calls = self._calls.get(worker)
        if calls is None or not calls.by_task[number]:
            return
        calls.changed_at = now
        if question == link.NONE:
            worker.waits.pop(number, None)
        elif question in (link.WHICHEVER, link.ALL) or question in calls.callers:
            worker.waits[number] = Wait(question, is_open)
            if worker.running == number:
                worker.begun.setdefault(number, worker.started_at)

    def returned(self, worker: Worker, question: int, now: float) -> None:
        """The answer to `question` is on its way to `worker`."""
        calls = self._calls.get(worker)
        number = calls.callers.pop(question, None) if calls is not None else None
        if calls is None or number is None:
            return
        calls.changed_at = now
        calls.by_task[number] -= 1
        wait = worker.waits.get(number)
        if wait is not None and (wait.question in (question, link.WHICHEVER) or not calls.by_task[number]):
            del worker.waits[number]
        if not calls.callers:
            del self._calls[worker]

    def ended(self, worker: Worker, numbers: Iterable[int]) -> None:
        """These tasks of `worker` are over: they wait for nothing that they called."""
        calls = self._calls.get(worker)
        if calls is None:
            return
        over = {number for number in numbers if number in calls.by_task}
        if over:
            calls.callers = {question: number for question, number in calls.callers.items() if number not in over}
            for number in over:
                del calls.by_task[number]
                worker.waits.pop(number, None)
            if not calls.callers:
                del self._calls[worker]

    def died(self, worker: Worker) -> None:
        self._calls.pop(worker, None)

    def waits(self, worker: Worker) -> bool:
        """Whether the task that `worker` runs on top of others has called some that have not ended."""
        calls = self._calls.get(worker)
        return calls is not None and calls.by_task[worker.window.last()] > 0

    def is_absent(self, worker: Worker, now: float) -> bool:
        """Whether `worker` does nothing until they have."""
        return self.waits(worker) and (
            worker.window.last() in worker.waits or now - self._calls[worker].changed_at >= PATIENCE_S
        )

    def is_still(self, worker: Worker, now: float) -> bool:
        """Whether nothing has come of the calls of `worker` for long."""
        return now - self._calls[worker].changed_at >= STILL_S

    def next_at(self, now: float) -> float:
        """When the next worker may turn out to be absent, or to stand still; infinite if there is none."""
        due = (calls.changed_at + after_s for calls in self._calls.values() for after_s in (PATIENCE_S, STILL_S))
        return min((at for at in due if at > now), default=float("inf"))
