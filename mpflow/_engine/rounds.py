"""Steps like one before, such as the rounds of a loop: what was found out of the first need only be checked for the next.

It knows steps of one task that all went the usual way; whatever is not just so is for `changes` and `making` to look into.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core.plan import OBJECT
from mpflow._names import INTERRUPT, MISSING
from mpflow.channels.binop import BinaryOperatorAggregate
from mpflow.checkpoint.log.records import DROP, SET, Frame, Part

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan
    from mpflow._core.state import ChannelState
    from mpflow._core.task import Task
    from mpflow._engine.changes import Changes


class Rounds:
    """By node, the last step that its task alone made."""

    def __init__(self) -> None:
        self._known: dict[NodePlan, Round] = {}

    def note(self, state: ChannelState, tasks: Sequence[Task], updated: Collection[str] | None, frame: Frame) -> None:
        """A step of these tasks has this frame."""
        if len(tasks) == 1 and tasks[0].pulled and updated is not None and _is_usual(state, frame):
            self._known[tasks[0].node] = Round(updated, frame)

    def like(self, task: Task) -> Round | None:
        """A step that another one of this task may be like."""
        return self._known.get(task.node)


def _is_usual(state: ChannelState, frame: Frame) -> bool:
    """Whether all that the step says of channels is what its one task wrote to them, or that they are empty now."""
    if len(frame.parts) != 1 or frame.parts[0] is None or len(frame.saw) != 1 or frame.gone:
        return False
    if len({name for name, _, _ in frame.ops}) != len(frame.ops):
        return False
    for name, code, refs in frame.ops:
        if state.kinds.get(name) == OBJECT:
            if code in (SET, DROP) or refs is None or type(state.objects[name]) is not BinaryOperatorAggregate:
                return False
        elif code != DROP and (code != SET or refs is None):
            return False
    return True


class Round:
    """What a step of one task did: ``writes`` are the channels it wrote to, in order, ``names`` those that got its version,
    ``grown`` those that grew, each with the operation.
    """

    __slots__ = ("_given", "_looks", "_updated", "frame", "grown", "names", "writes")

    def __init__(self, updated: Collection[str], frame: Frame) -> None:
        part = frame.parts[0]
        assert isinstance(part, Part)
        self.frame = frame
        self.writes = list(part.names)
        self.names = list(frame.names)
        self._given = updated
        self._updated = frozenset(updated)
        self.grown = {name: code for name, code, _ in frame.ops if code not in (SET, DROP)}
        self._looks = [(name, code == SET) for name, code, _ in frame.ops if code in (SET, DROP)]

    def is_again(
        self,
        state: ChannelState,
        task: Task,
        written: Mapping[str, Any],
        updated: Collection[str] | None,
        changes: Changes,
        versions: Mapping[str, Any],
    ) -> bool:
        """Whether the step that `task` made by what it has `written` has this one's frame. Before it channels had these `versions`."""
        if list(written) != self.writes or (updated is not self._given and updated != self._updated):
            return False
        version, now = state.counter, state.versions
        if [name for name, one in now.items() if one is version] != self.names:
            return False
        values = state.values
        for name, has_value in self._looks:
            if values.get(name, MISSING) is not (written[name] if has_value else MISSING):
                return False
        for name, code in self.grown.items():
            if not changes.has_grown(state, name, code, written[name]):
                return False
        seen = state.seen
        own = seen[task.name]
        for trigger in task.triggers:
            if own.get(trigger) != versions.get(trigger):
                return False
        return INTERRUPT not in seen
