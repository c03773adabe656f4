"""The smallest driver: rows in this process's memory, kept as records rather than bytes."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from mpflow.checkpoint.log.driver import NEAR, RESULT, STEP, Batch, Drop, Row, row_of
from mpflow.checkpoint.log.records import Result, Step

ROW_BYTES = 512
"""What a row is taken to weigh: nobody reads it from anywhere."""


class Records:
    """The layout of rows that never leave the process: the record itself."""

    @staticmethod
    def size_of(row: Row) -> int:
        return ROW_BYTES

    @staticmethod
    def dump_step(thread_id: str, ns: str, step: Step, base: str) -> Row:
        return row_of((ns, step.checkpoint_id, STEP, base, step))

    @staticmethod
    def dump_result(thread_id: str, ns: str, result: Result) -> Row:
        return Row(ns, result.checkpoint_id, RESULT, "", result)

    @staticmethod
    def load_step(thread_id: str, row: Row) -> Step:
        step: Step = row.data
        return step

    @staticmethod
    def load_result(thread_id: str, row: Row) -> Result:
        result: Result = row.data
        return result


class _Space:
    """One namespace of a thread: the ids of checkpoints in order, and the step and the results of each."""

    __slots__ = ("ids", "results", "steps")

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.results: dict[str, list[Row]] = {}
        self.steps: dict[str, Row] = {}

    def add(self, row: Row) -> None:
        checkpoint_id = row.checkpoint_id
        ids, results, steps = self.ids, self.results, self.steps
        if row.kind == STEP and (not ids or ids[-1] < checkpoint_id):  # a run's next
            ids.append(checkpoint_id)
            steps[checkpoint_id] = row
            return
        if checkpoint_id not in steps and checkpoint_id not in results:
            if ids and ids[-1] > checkpoint_id:
                insort(ids, checkpoint_id)
            else:
                ids.append(checkpoint_id)
        if row.kind == STEP:
            steps[checkpoint_id] = row
        elif checkpoint_id in results:
            results[checkpoint_id].append(row)
        else:
            results[checkpoint_id] = [row]

    def drop(self, checkpoint_id: str, kind: int) -> None:
        rows: dict[str, Any] = self.steps if kind == STEP else self.results
        if rows.pop(checkpoint_id, None) is not None and not (
            checkpoint_id in self.steps or checkpoint_id in self.results
        ):
            self.ids.remove(checkpoint_id)

    def rows(self, ids: Iterable[str]) -> list[Row]:
        found: list[Row] = []
        for one in ids:
            found += self.results.get(one, ())
            if one in self.steps:
                found.append(self.steps[one])
        return found


class MemoryDriver:
    """Rows by thread and namespace."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._threads: dict[str, dict[str, _Space]] = {}

    def append(self, batches: Sequence[Batch]) -> None:
        with self._lock:
            for thread_id, rows in batches:
                self.add(thread_id, rows)

    def add(self, thread_id: str, rows: Sequence[Row]) -> None:
        """Add a thread's rows."""
        with self._lock:
            spaces = self._threads.get(thread_id)
            if spaces is None:
                spaces = self._threads[thread_id] = {}
            for row in rows:
                space = spaces.get(row.ns)
                if space is None:
                    space = spaces[row.ns] = _Space()
                space.add(row)

    def chain(self, thread_id: str, ns: str, checkpoint_id: str | None) -> Sequence[Row]:
        with self._lock:
            space = self._threads.get(thread_id, {}).get(ns)
            if space is None or not space.steps:
                return ()
            ids = space.ids
            if checkpoint_id is None:
                checkpoint_id = next(one for one in reversed(ids) if one in space.steps)
            last = space.steps.get(checkpoint_id)
            if last is None:
                return ()
            end = bisect_right(ids, checkpoint_id)
            found = space.rows(ids[bisect_left(ids, last.base) : end])
            later = (space.steps[one] for one in islice(ids, end, None) if one in space.steps)
            return [*found, *islice(later, NEAR)]

    def chains(self, thread_ids: Sequence[str], ns: str) -> Sequence[tuple[str, Row]]:
        with self._lock:
            return [(thread_id, row) for thread_id in thread_ids for row in self.chain(thread_id, ns, None)]

    def steps(
        self, thread_id: str | None, ns: str | None, before: str | None, limit: int | None
    ) -> Sequence[tuple[str, Row]]:
        with self._lock:
            found: Iterable[tuple[str, Row]] = (
                (owner, space.steps[one])
                for owner in ([thread_id] if thread_id is not None else sorted(self._threads))
                for name, space in sorted(self._threads.get(owner, {}).items())
                if ns is None or name == ns
                for one in reversed(space.ids)
                if one in space.steps and (before is None or one < before)
            )
            if thread_id is None or ns is None:  # those of one namespace are in order
                found = sorted(found, key=lambda pair: pair[1].checkpoint_id, reverse=True)
            return list(islice(found, limit))

    def rows(self, thread_id: str) -> Sequence[Row]:
        with self._lock:
            spaces = self._threads.get(thread_id, {})
            return [row for _, space in sorted(spaces.items()) for row in space.rows(space.ids)]

    def rewrite(self, thread_id: str, drops: Sequence[Drop], rows: Sequence[Row]) -> None:
        with self._lock:
            spaces = self._threads.get(thread_id, {})
            for ns, checkpoint_id, kind in drops:
                if ns in spaces:
                    spaces[ns].drop(checkpoint_id, kind)
            self.append([(thread_id, rows)])

    def delete_thread(self, thread_id: str) -> None:
        with self._lock:
            self._threads.pop(thread_id, None)

    def claim(self, thread_id: str) -> None:
        """Nobody else can have it."""

    def release(self, thread_id: str) -> None:
        """Nobody waits for it."""

    def vacuum(self) -> None:
        """Nothing to give back."""
