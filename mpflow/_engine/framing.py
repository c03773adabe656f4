"""What steps of one kind have in common, made once for all of them; and what their nodes saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from mpflow._engine.making import MOST_CARRIED
from mpflow._names import INTERRUPT
from mpflow.checkpoint.base import LATEST_VERSION
from mpflow.checkpoint.log.records import NOTHING, Frame, Op, Part

if TYPE_CHECKING:
    from mpflow._core.state import ChannelState
    from mpflow._core.task import Task
    from mpflow.checkpoint.log.coding import Coder

_MOST_KNOWN = 256
_MOST_RUNS = 16
_shared: WeakKeyDictionary[Coder, dict[Any, Frames]] = WeakKeyDictionary()


def frames_of(coder: Coder, own: Mapping[str, Any], parents: Mapping[str, Any], *, keeps: bool) -> Frames:
    """The frames of a run with its `own` metadata within the checkpoints `parents`: those of earlier runs that had the same."""
    if not keeps:
        return Frames(coder, own, keeps=False)
    known = _shared.get(coder)
    if known is None:
        known = _shared[coder] = {}
    exactly = *[(name, type(value), value) for name, value in own.items()], tuple(parents.items())
    found = known.get(exactly)
    if found is None:
        if len(known) >= _MOST_RUNS:
            known.clear()
        found = known[exactly] = Frames(coder, own, keeps=True)
    return found


class Frames:
    """The frames of runs, all with the same `own` metadata and parents. None is known again where the metadata changes with each step.

    Runs in several threads may use it at once: what one makes in vain costs time, no more.
    """

    def __init__(self, coder: Coder, own: Mapping[str, Any], *, keeps: bool) -> None:
        self._coder = ref(coder)  # which holds these
        self._own_metadata = own
        self._keeps = keeps
        self._known: dict[Any, Frame] = {}
        self._last: tuple[Any, Frame | None] = None, None

    def of(
        self,
        about: Mapping[str, Any],
        names: tuple[str, ...],
        saw: tuple[tuple[str, Sequence[str]], ...],
        updated: tuple[str, ...] | None,
        ops: tuple[Op, ...],
        parts: tuple[Part | None, ...],
    ) -> Frame:
        """What the step has in common with others; the very same frame for such a one."""
        key = (about.get("source"), names, saw, updated, ops, parts)
        last, frame = self._last
        if key == last and frame is not None:  # without a hash of all that
            return frame
        frame = self._known.get(key)
        if frame is None:
            packed = {**self._own_metadata, **about}
            del packed["step"]
            coder = self._coder()
            assert coder is not None
            metadata = coder.pack_plain(packed)
            now = None if updated is None else sorted(updated)
            frame = Frame(metadata, v=LATEST_VERSION, names=names, saw=saw, updated=now, ops=ops, parts=parts)
            if len(parts) <= MOST_CARRIED and self._keeps:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[key] = frame
        if self._keeps:
            self._last = key, frame
        return frame


def newly_seen(
    state: ChannelState, tasks: Sequence[Task], versions: Mapping[str, Any], before: Mapping[str, Mapping[str, Any]]
) -> tuple[list[tuple[str, Sequence[str]]], Mapping[str, dict[str, Any]]]:
    """What nodes have seen since the last save: their triggers as they were then; or where it was other, each version.

    Then channels had these `versions`, and nodes had seen those of `before`.
    """
    seen = state.seen
    saw: list[tuple[str, Sequence[str]]] = []
    others: dict[str, dict[str, Any]] = {}
    for task in tasks:
        if task.pulled and task.name in seen:
            own = seen[task.name]
            for trigger in task.triggers:
                if own.get(trigger) != versions.get(trigger):
                    others[task.name] = dict(own)
                    break
            else:
                saw.append((task.name, tuple(task.triggers)))
    if not tasks:
        others = {node: dict(own) for node, own in seen.items() if before.get(node) != own}
    elif INTERRUPT in seen and before.get(INTERRUPT) != seen[INTERRUPT]:
        others[INTERRUPT] = dict(seen[INTERRUPT])
    return saw, others or NOTHING
