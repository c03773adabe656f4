"""The end of a step: the writes of all its tasks are applied in task-path order, never in the order of arrival (EX-2)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, NoReturn

from mpflow._columns import gather
from mpflow._core.fan import Fan
from mpflow._core.growing import WORTH_ITEMS, grow, may_grow
from mpflow._core.plan import OBJECT
from mpflow._names import RESERVED
from mpflow.channels.binop import BinaryOperatorAggregate
from mpflow.errors import EmptyChannelError, InvalidUpdateError, ReducerError

if TYPE_CHECKING:
    from mpflow._core.plan import Plan
    from mpflow._core.state import ChannelState
    from mpflow._core.task import Task

NOTHING: Mapping[str, Any] = {}
_MOST_KNOWN = 1024
"""The merges that a plan knows. Graphs write to the same few sets of channels all the time."""


class Writer:
    """Writes as a merge sees them without a task: in the name of a node, or of nobody."""

    __slots__ = ("name", "pulled", "writes")

    triggers = ()

    def __init__(self, writes: Sequence[tuple[str, Any]], name: str = "") -> None:
        self.writes = writes
        self.name = name
        self.pulled = bool(name)


class Merge:
    """What a merge did: channels that were written, those that have a new value, the nodes that these start, and unknown
    names among the writes. Of those that are kept as bare values, some are ``lasting``, others ``passing``; ``folding`` are
    ``lasting`` too, but kept by a reducer, which is still to take its one write.
    """

    __slots__ = ("folding", "lasting", "passing", "started", "unknown", "updated", "written")

    def __init__(
        self,
        plan: Plan,
        written: Collection[str],
        updated: AbstractSet[str],
        bare: Iterable[str],
        unknown: Sequence[str],
        folding: tuple[str, ...] = (),
    ) -> None:
        self.folding = folding
        self.written = written
        self.updated = updated
        self.unknown = unknown
        self.started = plan.started_by(updated)
        self.lasting = tuple([name for name in bare if name not in plan.passing])
        self.passing = tuple([name for name in bare if name in plan.passing])


def merge(
    state: ChannelState,
    tasks: Sequence[Task | Fan | Writer],
    folded: Mapping[str, BinaryOperatorAggregate[Any]] = NOTHING,
    grouped: Mapping[str, list[Any]] | None = None,
    ends_step: bool = True,
) -> Merge:
    """Apply the writes of `tasks`, given in path order, to `state`; all or nothing.

    `folded` are channels that have taken all of the step's writes already, to be put in the place of the state's; `grouped`
    the writes by channel, if they are known so. Unless it `ends_step`, what lasts for one step is still there.

    Raises InvalidUpdateError as the channels do, ReducerError when a reducer raised; the values are then what they were.
    """
    plan = state.plan
    counted = state.counted
    version: Any = None
    if counted:
        version = state.next_version(state.counter)
        if ends_step:
            _note_seen(state, tasks)
    merged: Merge | None = None
    if grouped is None:
        writes = tasks[0].writes if len(tasks) == 1 else [write for task in tasks for write in task.writes]
        last = dict(writes)
        if len(last) == len(writes) and not folded and not state.resetting:
            try:
                merged = plan.merges[tuple(last)]
            except KeyError:
                merged = _merge_of(plan, tuple(last))
        if merged is None:
            grouped = _grouped(writes, last)
    else:
        last = {name: values[-1] for name, values in grouped.items()}
    if merged is None:
        assert grouped is not None
        last, merged = _change_objects(state, version, tasks, grouped, last, folded, ends_step)
    elif merged.folding:
        _fold(state, merged.folding, last, tasks)

    # What is kept as bare values cannot fail, so it comes last and needs no way back.
    values = state.values
    watchers = state.watchers
    passing = merged.passing
    if ends_step:
        for name in state.passing:
            if name not in last:
                del values[name]
                if counted:
                    state.versions[name] = version
                if name in watchers:
                    state.show_anew(name)
        state.passing = passing
    elif passing:
        state.passing = tuple(dict.fromkeys((*state.passing, *passing)))
    values |= last
    for name in merged.lasting:
        if name in watchers:
            for view in watchers[name]:
                shown = view.values
                if name in shown:
                    shown[name] = last[name]
                else:
                    view.stale = True
    for name in passing:
        if name in watchers:
            state.show_anew(name)
    if counted:
        state.versions.update(dict.fromkeys(last, version))
        state.counter = version
    return merged


def _merge_of(plan: Plan, names: tuple[str, ...]) -> Merge | None:
    """What one write to each of these channels comes to, if none of them is kept as an object but by a reducer, and none
    does anything else than take writes."""
    merged = None
    folding = tuple([name for name in names if type(plan.channels.get(name)) is BinaryOperatorAggregate])
    if plan.simple and all(name in plan.bare or name in folding for name in names):
        written = dict.fromkeys(names)
        merged = Merge(plan, written, written.keys(), names, (), folding)
    if len(plan.merges) < _MOST_KNOWN:
        plan.merges[names] = merged
    return merged


def _fold(
    state: ChannelState, names: Sequence[str], last: dict[str, Any], tasks: Sequence[Task | Fan | Writer]
) -> None:
    """Let the reducers of these channels take the one write to each, which gives way to their value in `last`; all or none."""
    folded: list[tuple[Any, Any]] = []
    growing: list[tuple[Any, Sequence[Any]]] = []
    name = ""
    try:
        for name in names:
            channel: Any = state.objects.get(name) or state.object(name)
            if type(channel.value) is list and len(channel.value) >= WORTH_ITEMS:
                writes = (last[name],)
                if may_grow(state, name, channel, writes):
                    growing.append((channel, writes))
                    last[name] = channel.value
                    continue
            folded.append((channel, channel.value))
            channel.value = last[name] = channel.folded((last[name],))
        if growing:  # last: a reducer that fails after it would find others at what they are now
            grow(growing)
    except Exception as error:
        for channel, value in folded:
            channel.value = value
        _raise_for(error, name, tasks)


def _note_seen(state: ChannelState, tasks: Sequence[Task | Fan | Writer]) -> None:
    """Each node that a trigger started has now seen what its triggers were when it did."""
    versions = state.versions
    seen = state.seen
    for task in tasks:
        if task.pulled:
            mine = seen.setdefault(task.name, {})
            for trigger in task.triggers:
                if trigger in versions:
                    mine[trigger] = versions[trigger]


def _grouped(writes: Sequence[tuple[str, Any]], last: Collection[str]) -> dict[str, list[Any]]:
    """The writes by channel, in order."""
    if len(last) == 1:
        return {name: [value for _, value in writes] for name in last}
    grouped: dict[str, list[Any]] = {}
    gather(grouped, writes)
    return grouped


def _change_objects(
    state: ChannelState,
    version: Any,
    tasks: Sequence[Task | Fan | Writer],
    grouped: Mapping[str, list[Any]],
    last: Mapping[str, Any],
    folded: Mapping[str, BinaryOperatorAggregate[Any]],
    ends_step: bool,
) -> tuple[dict[str, Any], Merge]:
    """Update the channels that are kept as objects; if one fails, all are what they were.

    Returns what is still to be written, to channels that are kept as bare values, and what has been done then.
    """
    kinds = state.kinds
    bare: dict[str, Any] = {}
    objects: list[str] = []
    unknown: list[str] = []
    for name, written in grouped.items():
        kind = kinds.get(name)
        if kind is None:
            if name not in RESERVED:
                unknown.extend(name for _ in written)
        elif kind == OBJECT:
            objects.append(name)
        else:
            bare[name] = last[name]
            if len(written) > 1:
                _check_several(state, name, written, tasks)
    ending = tasks if ends_step else ()
    updated = set(bare)
    change = _Change(state, version, updated)
    name = ""
    try:
        consuming = state.plan.consuming
        for name in {trigger: None for task in ending for trigger in task.triggers} if consuming else ():
            if name in consuming:
                change.consume(name)
        for name in objects:
            change.update(name, grouped[name])
        for name, channel in folded.items():
            change.take_over(name, channel)
        for name in [name for name in state.resetting if name not in grouped] if ending else ():
            change.update(name, ())
        if ending and state.plan.finishing and updated.isdisjoint(state.plan.trigger_to_nodes):
            # The step starts no node, so the run is about to end: channels give out what they held back for that moment.
            for name in state.plan.finishing:
                change.finish(name)
        if change.growing:
            grow(change.growing)
    except Exception as error:
        change.undo()
        _raise_for(error, name, tasks)
    return bare, Merge(state.plan, [*bare, *objects, *folded], updated, bare, unknown)


class _Change:
    """Changes of channels that are kept as objects, and the way back."""

    __slots__ = ("_state", "_undo", "_updated", "_version", "growing")

    def __init__(self, state: ChannelState, version: Any, updated: set[str]) -> None:
        self._state = state
        self._version = version
        self._updated = updated
        self._undo: list[tuple[str, Any, int | None]] = []
        self.growing: list[tuple[Any, Sequence[Any]]] = []
        """Channels whose list takes its writes where it is, once nothing else can fail."""

    def consume(self, name: str) -> None:
        state = self._state
        self._note(name, state.object(name).copy())
        if state.object(name).consume():
            if state.counted:
                state.versions[name] = self._version
            state.refresh(name)

    def update(self, name: str, written: Sequence[Any]) -> None:
        channel: Any = self._state.object(name)
        if type(channel) is not BinaryOperatorAggregate:
            self._note(name, channel.copy())
        elif may_grow(self._state, name, channel, written):
            self.growing.append((channel, written))
            self._note(name, channel.value)
            self._changed(name)
            return
        else:  # its value alone: it is replaced whole
            self._note(name, channel.value)
        if channel.update(written):
            self._changed(name)

    def take_over(self, name: str, folded: BinaryOperatorAggregate[Any]) -> None:
        channel: Any = self._state.object(name)
        self._note(name, channel.value)
        channel.value = folded.value
        self._changed(name)

    def finish(self, name: str) -> None:
        self._note(name, self._state.object(name).copy())
        if self._state.object(name).finish():
            self._changed(name)

    def _note(self, name: str, old: Any) -> None:
        self._undo.append((name, old, self._state.versions.get(name)))

    def _changed(self, name: str) -> None:
        state = self._state
        if state.counted:
            state.versions[name] = self._version
        if state.refresh(name):
            self._updated.add(name)

    def undo(self) -> None:
        state = self._state
        for name, old, version in reversed(self._undo):
            if version is None:
                state.versions.pop(name, None)
            else:
                state.versions[name] = version
            channel: Any = state.objects[name]
            if type(channel) is BinaryOperatorAggregate:
                channel.value = old
            else:
                state.objects[name] = old
            state.refresh(name)


def _check_several(
    state: ChannelState, name: str, written: Sequence[Any], tasks: Sequence[Task | Fan | Writer]
) -> None:
    """Let the channel say what is wrong with several writes to it, if anything is."""
    try:
        state.object(name).update(written)
    except InvalidUpdateError as error:
        raise _explained(error, name, tasks) from None


def _raise_for(error: Exception, channel: str, tasks: Sequence[Task | Fan | Writer]) -> NoReturn:
    """Raise what a channel raised when it was written, as the run is to hear of it."""
    if isinstance(error, InvalidUpdateError):
        raise _explained(error, channel, tasks) from None
    if isinstance(error, EmptyChannelError):
        raise error
    raise ReducerError.around(channel, error) from error


def _explained(error: InvalidUpdateError, channel: str, tasks: Sequence[Task | Fan | Writer]) -> InvalidUpdateError:
    """The error of a channel that takes a single write, with those who wrote it in this step."""
    writers = [task.name for task in tasks for name, _ in task.writes if name == channel and task.name]
    if len(writers) > 1 and error.args:
        by = "Written in this step by: " + ", ".join(map(repr, writers)) + "."
        error.args = (f"{error.args[0]} {by}", *error.args[1:])
    return error
