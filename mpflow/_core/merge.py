"""The end of a step: the writes of all its tasks are applied in task-path order, never in the order of arrival (EX-2)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core.plan import EPHEMERAL, OBJECT
from mpflow._names import RESERVED
from mpflow.channels.binop import BinaryOperatorAggregate
from mpflow.errors import EmptyChannelError, InvalidUpdateError, ReducerError

if TYPE_CHECKING:
    from mpflow._core.state import ChannelState
    from mpflow._core.task import Task


class Merge:
    """What a merge did: channels that were written, those that have a new value, and unknown names among the writes."""

    __slots__ = ("unknown", "updated", "written")

    def __init__(self, written: Collection[str], updated: set[str], unknown: list[str]) -> None:
        self.written = written
        self.updated = updated
        self.unknown = unknown


def merge(state: ChannelState, tasks: Sequence[Task], *, explain: Callable[[str], str] | None = None) -> Merge:
    """Apply the writes of `tasks`, given in path order, to `state`; all or nothing.

    Raises InvalidUpdateError as the channels do, ReducerError when a reducer raised; the values are then what they were.
    """
    plan = state.plan
    versions = state.versions
    seen = state.seen
    kinds = state.kinds
    step = False
    consumed: dict[str, None] = {}
    consuming = plan.consuming
    grouped: dict[str, list[Any]] = {}
    unknown: list[str] = []
    for task in tasks:
        if task.pulled:
            step = True
            name = task.name
            mine = seen[name] if name in seen else seen.setdefault(name, {})
            for trigger in task.triggers:
                if trigger in versions:
                    mine[trigger] = versions[trigger]
                if trigger in consuming:
                    consumed[trigger] = None
        elif task.triggers:
            step = True
        for name, value in task.writes:
            if name in grouped:
                grouped[name].append(value)
            elif name in kinds:
                grouped[name] = [value]
            elif name not in RESERVED:
                unknown.append(name)

    objects: list[str] = []
    updated: set[str] = set()
    for name, written in grouped.items():
        if kinds[name] == OBJECT:
            objects.append(name)
        else:
            updated.add(name)
            if len(written) > 1:
                _check_several(state, name, written, explain)
    resetting = state.resetting
    reset = [name for name in resetting if name not in grouped] if step and resetting else []
    version = state.next_version(state.counter)
    if objects or consumed or plan.finishing or (reset and OBJECT in [kinds[name] for name in reset]):
        _change_objects(state, version, consumed, objects, grouped, reset, updated, step, explain)

    # What is kept as bare values cannot fail, so it comes last and needs no way back.
    values = state.values
    watchers = state.watchers
    for name, written in grouped.items():
        kind = kinds[name]
        if kind != OBJECT:
            versions[name] = version
            if name in watchers:
                state.put(name, written[-1])
            else:
                values[name] = written[-1]
            if kind == EPHEMERAL:
                resetting[name] = None
    for name in reset:
        if kinds[name] == EPHEMERAL:
            versions[name] = version
            del resetting[name]
            state.drop(name)
    state.counter = version
    return Merge(grouped, updated, unknown)


def _check_several(
    state: ChannelState, name: str, written: Sequence[Any], explain: Callable[[str], str] | None
) -> None:
    """Let the channel say what is wrong with several writes to it, if anything is."""
    try:
        state.object(name).update(written)
    except InvalidUpdateError as error:
        raise _explained(error, name, explain) from None


def _explained(error: InvalidUpdateError, name: str, explain: Callable[[str], str] | None) -> InvalidUpdateError:
    if explain is not None and error.args and (by := explain(name)):
        error.args = (f"{error.args[0]} {by}", *error.args[1:])
    return error


def _change_objects(
    state: ChannelState,
    version: Any,
    consumed: Iterable[str],
    objects: Sequence[str],
    grouped: dict[str, list[Any]],
    reset: Sequence[str],
    updated: set[str],
    step: bool,
    explain: Callable[[str], str] | None,
) -> None:
    """Update the channels that are kept as objects; if one fails, all are what they were.

    When the step starts no node the run is about to end, and channels give out what they held back for that moment.
    """
    plan = state.plan
    versions = state.versions
    undo: list[tuple[str, Any, int | None]] = []
    name = ""

    def changed() -> None:
        versions[name] = version
        if state.refresh(name):
            updated.add(name)

    try:
        for name in consumed:
            undo.append((name, state.object(name).copy(), versions.get(name)))
            if state.object(name).consume():
                versions[name] = version
                state.refresh(name)
        for name in objects:
            if _update(state, name, grouped[name], undo):
                changed()
        for name in reset:
            if state.kinds[name] == OBJECT and _update(state, name, (), undo):
                changed()
        if step and plan.finishing and updated.isdisjoint(plan.trigger_to_nodes):
            for name in plan.finishing:
                undo.append((name, state.object(name).copy(), versions.get(name)))
                if state.object(name).finish():
                    changed()
    except Exception as error:
        _restore(state, undo)
        if isinstance(error, InvalidUpdateError):
            raise _explained(error, name, explain) from None
        if isinstance(error, EmptyChannelError):
            raise
        raise ReducerError(name, f"{type(error).__name__}: {error}") from error


def _update(state: ChannelState, name: str, written: Sequence[Any], undo: list[Any]) -> bool:
    """Update a channel, noting what it was: its value alone where the kind is known to replace it whole."""
    channel = state.objects.get(name) or state.object(name)
    old = channel.value if type(channel) is BinaryOperatorAggregate else channel.copy()
    undo.append((name, old, state.versions.get(name)))
    return channel.update(written)


def _restore(state: ChannelState, undo: list[tuple[str, Any, int | None]]) -> None:
    for name, old, version in reversed(undo):
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
