"""Attempts that wait for a worker: fair between runs, in order within each. Must not know what a worker is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from mpflow._columns import Attempts, Piece, Span, singly, size_of
from mpflow._messages import Attempt

_LOOKED_AT: Final = 256
"""So far into a run one looks for what may be lent. It mostly comes first; what is not found another worker takes."""


def is_below(attempt: Attempt, above: Attempt) -> bool:
    """Whether the task of `above` called that of `attempt`, or one that did, and so on."""
    caller = attempt.caller
    while caller is not None:
        if caller.task is above.task:
            return True
        caller = caller.caller
    return False


class Queue:
    """Runs take turns, batch by batch. Attempts that must travel alone are kept apart: they need a fresh worker; so are
    those that were set aside, by their program."""

    def __init__(self) -> None:
        self._runs: dict[int, deque[Piece]] = {}
        self._turns: deque[int] = deque()
        self._size = 0
        self.alone: deque[Attempt] = deque()
        self.aside: dict[int, deque[Attempt]] = {}
        self._held: dict[int, deque[Piece]] = {}

    def __len__(self) -> int:
        """How many wait, without those that must travel alone or were set aside."""
        return self._size

    @property
    def apart(self) -> int:
        """How many must travel alone or were set aside."""
        return len(self.alone) + sum(map(len, list(self.aside.values())))  # from any thread

    @property
    def is_shared(self) -> bool:
        """Whether several runs wait."""
        return len(self._turns) > 1

    def has_run(self, outbox: object) -> bool:
        """Whether attempts of the run with that outbox wait."""
        return id(outbox) in self._runs

    def add(self, attempts: Attempts) -> None:
        """Queue at the end of each one's run."""
        self._add([attempts] if type(attempts) is Span else attempts)

    def _add(self, pieces: Iterable[Piece]) -> None:
        runs = self._runs
        last: object = None
        run: deque[Piece] | None = None
        for attempt in pieces:
            if attempt.alone:
                self.alone += singly((attempt,))
                continue
            outbox = attempt.outbox
            if self._held and id(outbox) in self._held:
                self._held[id(outbox)].append(attempt)
                continue
            if outbox is not last or run is None:
                last = outbox
                run = runs.get(id(outbox))
                if run is None:
                    run = runs[id(outbox)] = deque()
                    self._turns.append(id(outbox))
            if attempt.is_called:  # somebody waits for it, and holds a worker
                run.appendleft(attempt)
            else:
                run.append(attempt)
            self._size += size_of(attempt)

    def put_back(self, pieces: Iterable[Piece]) -> None:
        """Queue at the front, in the order given: they waited already."""
        for attempt in reversed(list(pieces)):
            if attempt.alone:
                self.alone.extendleft(singly((attempt,)))
                continue
            key = id(attempt.outbox)
            if key in self._held:
                self._held[key].appendleft(attempt)
                continue
            run = self._runs.get(key)
            if run is None:
                run = self._runs[key] = deque()
                self._turns.appendleft(key)
            run.appendleft(attempt)
            self._size += size_of(attempt)

    def hold(self, outbox: object) -> None:
        """Keep what the run with that outbox has queued, and will queue, from being taken."""
        key = id(outbox)
        if key in self._held:
            return
        run = self._held[key] = self._runs.pop(key, deque())
        self._size -= sum(map(size_of, run))
        if run:
            self._turns.remove(key)
        if self.aside:
            run.extendleft(reversed(self._remove_aside(lambda attempt: attempt.outbox is outbox)))

    def let_go(self, outbox: object) -> None:
        """Undo `hold`."""
        self._add(self._held.pop(id(outbox), ()))

    def head(self) -> Piece | None:
        """What `take` would begin with, or begin to take from."""
        return self._runs[self._turns[0]][0] if self._turns else None

    def turn_to_called(self) -> bool:
        """Let the next turn be that of a run in which somebody waits for a task that it called; whether there is one."""
        for turn, key in enumerate(self._turns):
            if self._runs[key][0].is_called:
                self._turns.rotate(-turn)
                return True
        return False

    def take(self, limit: int) -> Attempts:
        """Up to `limit` attempts of one program of the run whose turn it is; then it is the next run's turn."""
        key = self._turns[0]
        run = self._runs[key]
        first = run.popleft()
        batch: Attempts
        if type(first) is Span:
            batch = first.take(limit)
            if first:
                run.appendleft(first)
        else:
            batch = self._alike(first, run, limit)
        self._size -= len(batch)
        if run:
            self._turns.rotate(-1)
        else:
            self._turns.popleft()
            del self._runs[key]
        return batch

    @staticmethod
    def _alike(first: Attempt, run: deque[Piece], limit: int) -> list[Attempt]:
        """`first`, and what follows it of its program."""
        batch = [first]
        program = first.program
        if first.rerun_on_loss:
            while len(batch) < limit and run:
                following = run[0]
                if type(following) is Span or following.program is not program or not following.rerun_on_loss:
                    break
                batch.append(following)
                run.popleft()
        return batch

    def find_below(self, above: Attempt) -> tuple[int, Attempt] | None:
        """One that a task below `above` called, or that task itself, and where it is in their run."""
        for at, attempt in enumerate(islice(self._runs.get(id(above.outbox), ()), _LOOKED_AT)):
            if type(attempt) is not Span and attempt.rerun_on_loss and is_below(attempt, above):
                return at, attempt
        return None

    def take_at(self, at: int, first: Attempt, limit: int, above: Attempt) -> list[Attempt]:
        """Take `first`, which is there in its run (see `find_below`), and those that follow, are of its program and below
        `above`: up to `limit` in all."""
        key = id(first.outbox)
        run = self._runs[key]
        batch: list[Attempt] = []
        while len(batch) < limit and at < len(run):
            attempt = run[at]
            if type(attempt) is Span or attempt.program is not first.program or not attempt.rerun_on_loss:
                break
            if not is_below(attempt, above):
                break
            batch.append(attempt)
            del run[at]
        self._size -= len(batch)
        if not run:
            del self._runs[key]
            self._turns.remove(key)
        return batch

    def set_aside(self) -> int:
        """Keep what `take` would begin with, and what follows it of its program, out of the turns until `bring_back`;
        how many they are."""
        batch = self.take(self._size)
        self.aside.setdefault(id(batch[0].program), deque()).extend(batch)
        return len(batch)

    def bring_back(self, group: deque[Attempt], count: int) -> None:
        """Let `take` begin with the first `count` of a group that was set aside."""
        attempts = [group.popleft() for _ in range(count)]
        if not group:
            del self.aside[id(attempts[0].program)]
        self.put_back(attempts)
        key = id(attempts[0].outbox)
        if self._turns[0] != key:
            self._turns.remove(key)
            self._turns.appendleft(key)

    def remove(self, wanted: Callable[[Attempt], bool]) -> list[Attempt]:
        """Take out all that are `wanted`."""
        removed: list[Attempt] = []
        for key in list(self._turns):
            run = self._runs[key]
            kept: deque[Piece] = deque()
            for attempt in singly(run):
                (removed if wanted(attempt) else kept).append(attempt)
            if kept:
                self._runs[key] = kept
            else:
                del self._runs[key]
                self._turns.remove(key)
        self._size -= len(removed)
        for key, run in self._held.items():
            removed += [attempt for attempt in singly(run) if wanted(attempt)]
            self._held[key] = deque(attempt for attempt in singly(run) if not wanted(attempt))
        removed += self._remove_aside(wanted)
        alone = [attempt for attempt in self.alone if wanted(attempt)]
        if alone:
            self.alone = deque(attempt for attempt in self.alone if not wanted(attempt))
        return removed + alone

    def _remove_aside(self, wanted: Callable[[Attempt], bool]) -> list[Attempt]:
        removed: list[Attempt] = []
        for key, group in list(self.aside.items()):
            removed += [attempt for attempt in group if wanted(attempt)]
            kept = deque(attempt for attempt in group if not wanted(attempt))
            if kept:
                self.aside[key] = kept
            else:
                del self.aside[key]
        return removed
