"""Items of a batch whose threads finished before: found many at a time, and their outputs read, with nothing run or claimed.

It must be sure of each. Whatever is not plainly finished, and whatever is wrong with a thread, is for a run to find out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from mpflow._core.plan import OBJECT
from mpflow._names import CHECKPOINT_ID, CHECKPOINT_NS, CONF, MISSING, TASKS
from mpflow.checkpoint.log.driver import STEP, Row
from mpflow.checkpoint.log.folding import Opening, State, fold
from mpflow.checkpoint.log.operations import metadata_of

if TYPE_CHECKING:
    from mpflow._core.plan import Plan, Reads
    from mpflow.checkpoint.log.saver import LogSaver
    from mpflow.pregel.compiled import CompiledGraph

Item = tuple[int, Any, Any]
"""The number of an input, the input, and its config."""


def shown_of(plan: Plan) -> Reads:
    """The channels that make the output of an item that is not run: those of the output that a saved state shows."""
    if isinstance(plan.stream, str) or isinstance(plan.output, str):
        return plan.stream
    return tuple([name for name in plan.output if name in plan.stream_keys])


class Finished:
    """The threads of one batch that need not run: number 7's is ``<prefix>7``."""

    def __init__(self, graph: CompiledGraph, saver: LogSaver, prefix: str) -> None:
        self._plan: Plan = graph._plan
        self._saver = saver.for_types(graph._types)
        self._prefix = prefix
        self._shown = shown_of(self._plan)
        self._read: Any = None
        """The frame of the last step whose metadata could be read: others have the same."""

    def among(self, items: Sequence[Item]) -> tuple[list[tuple[int, Any]], list[Item]]:
        """The outputs of the items that have finished, with their numbers, and the other items. Blocks."""
        threads: dict[str, int] = {}
        for number, _, config in items:
            where = (config or {}).get(CONF) or {}
            if not where.get(CHECKPOINT_ID) and not where.get(CHECKPOINT_NS):
                threads[f"{self._prefix}{number}"] = number
        found: list[tuple[int, Any]] = []
        saved: Sequence[tuple[str, Row]] = ()
        try:
            if threads:
                saved = self._saver.reach("chains", list(threads), "")
        except Exception:  # of one thread, maybe
            return [], list(items)
        for thread_id, pairs in groupby(saved, itemgetter(0)):
            try:
                state = self._opened(thread_id, [row for _, row in pairs])
                if self._is_over(state):
                    found.append((threads[thread_id], self._output(state)))
            except Exception:  # the run that meets it tells of it, as this item's failure
                continue
        over = {number for number, _ in found}
        return found, [item for item in items if item[0] not in over]

    def _opened(self, thread_id: str, rows: Sequence[Row]) -> State:
        last = next(row.checkpoint_id for row in reversed(rows) if row.kind == STEP)
        return fold(thread_id, "", self._saver.records(thread_id, rows), (last,))[last]

    def _is_over(self, state: State) -> bool:
        """Whether no task is due, and nothing was written since the last step."""
        cells, versions = state.cells, state.versions
        if state.results or TASKS in cells:
            return False
        kinds = self._plan.kinds
        for name, node in self._plan.nodes.items():
            seen = state.seen.get(name, {})
            for trigger in node.triggers:
                if trigger in versions and (trigger in cells or kinds.get(trigger) == OBJECT):
                    if trigger not in seen or versions[trigger] > seen[trigger]:
                        return False
        return True

    def _output(self, state: State) -> Any:
        frame = state.step.frame
        if frame is not self._read:
            metadata_of(self._saver, state.step)
            self._read = frame
        opening = Opening(self._saver.coder)
        if isinstance(self._shown, str):
            value = self._value(state, opening, self._shown)
            return None if value is MISSING else value
        values = ((name, self._value(state, opening, name)) for name in self._shown)
        return {name: value for name, value in values if value is not MISSING}

    def _value(self, state: State, opening: Opening, name: str) -> Any:
        """What a run that goes on would find in the channel; MISSING if nothing."""
        cell = state.cells.get(name)
        value = MISSING if cell is None else opening.value(cell)
        if self._plan.kinds.get(name) != OBJECT:
            return value
        channel = self._plan.channels[name].from_checkpoint(value)
        return channel.get() if channel.is_available() else MISSING
