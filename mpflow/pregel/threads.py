"""The threads of a batch whose runs are made in workers: claimed before a run is given away, and free when it is kept.

A run takes along what its thread had saved, and comes back with what it saved itself, which is durable before anybody is
told of the run's end. It knows no pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpflow._names import CHECKPOINT_ID, CHECKPOINT_NS, CONF, THREAD_ID
from mpflow.checkpoint.log.driver import Batch
from mpflow.checkpoint.log.far import sent

if TYPE_CHECKING:
    from mpflow.checkpoint.log.saver import LogSaver

Item = tuple[int, Any, Any]
"""The number of an input, the input, and its config."""
Settled = tuple[int, Any]
Given = tuple[Any, "str | None", "Sequence[Any] | None"]
"""An input as a worker gets it: with its thread, and the rows that a run on it starts from if they are known."""
Refused = tuple[int, Any, BaseException]
"""The number of an item and its input, and why it fails."""


class Threads:
    """Those of one batch. Raises what the saver raises, except for one thread alone: that is its item's failure."""

    def __init__(self, saver: LogSaver, prefix: str | None) -> None:
        self._saver = saver
        self._prefix = prefix
        self._claimed: dict[int, tuple[str, Any]] = {}
        """By number, the thread of an item that is under way, and the item's input."""

    def given(self, items: Sequence[Item]) -> tuple[list[Item], list[Refused]]:
        """Claim the threads of items: the items as they go to workers, and those whose thread cannot be had."""
        ready: list[Item] = []
        refused: list[Refused] = []
        for number, input, config in items:
            try:
                ready.append((number, self._given(number, input, config), config))
            except Exception as error:
                refused.append((number, input, error))
        return ready, refused

    def _given(self, number: int, input: Any, config: Any) -> Given:
        where = (config or {}).get(CONF) or {}
        if self._prefix is not None:
            thread_id: Any = f"{self._prefix}{number}"
        else:
            thread_id = where.get(THREAD_ID)
            if thread_id is None:
                return input, None, None
        thread_id = str(thread_id)
        self._saver.claim(thread_id)
        self._claimed[number] = thread_id, input
        if where.get(CHECKPOINT_ID) or where.get(CHECKPOINT_NS):
            return input, thread_id, None
        return input, thread_id, sent(self._saver, thread_id, self._saver.reach("chain", thread_id, "", None))

    def keep(self, settled: Sequence[Settled], ended: Sequence[int]) -> tuple[list[Settled], list[Refused]]:
        """Have the rows of settled items durable: their outputs, and those whose rows could not be kept.

        Their threads are free then, as are those of the `ended`, which sent theirs before.
        """
        failed = frozenset(ended)
        batches: list[Batch] = []
        outputs: list[Settled] = []
        for number, output in settled:
            if number not in failed:
                output, rows = output
                thread_id = self._claimed[number][0]
                batches.append((thread_id, self._saver.received(thread_id, rows)))
            outputs.append((number, output))
        lost = self._saver.commit(batches)
        refused: list[Refused] = []
        if lost:
            for number, _ in settled:
                thread_id, input = self._claimed.get(number, ("", None))
                if thread_id in lost:
                    refused.append((number, input, lost[thread_id]))
            numbers = {number for number, _, _ in refused}
            outputs = [pair for pair in outputs if pair[0] not in numbers]
        for number, _ in settled:
            self.release(number)
        for number in ended:
            self.release(number)
        return outputs, refused

    def release(self, number: int) -> None:
        found = self._claimed.pop(number, None)
        if found is not None:
            self._saver.release(found[0])

    def leave(self) -> None:
        """The batch is over: have what was posted durable, and free all threads."""
        if self._claimed:
            self._saver.commit(())
        for number in tuple(self._claimed):
            self.release(number)
