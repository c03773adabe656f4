"""The end of a step: the writes of all its tasks are applied in task-path order, never in the order of arrival (EX-2)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._names import RESERVED
from mpflow.errors import EmptyChannelError, InvalidUpdateError, ReducerError

if TYPE_CHECKING:
    from mpflow._core.state import ChannelState
    from mpflow._core.task import Task

Writes = Sequence[tuple[str, Any]]


class Merge:
    """What a merge changed: channels that have a new value, and names that were written but do not exist."""

    __slots__ = ("unknown", "updated")

    def __init__(self, updated: set[str], unknown: list[str]) -> None:
        self.updated = updated
        self.unknown = unknown


def merge(
    state: ChannelState,
    tasks: Sequence[Task],
    triggers: Collection[str],
    *,
    explain: Callable[[str], str] | None = None,
) -> Merge:
    """Apply the writes of `tasks`, given in path order, to `state`; all or nothing (FAULTS: a reducer that raises).

    `triggers` are the channels that start nodes: when none of them changed, the run is about to end and channels may
    hold something back for that moment (`defer`). Raises InvalidUpdateError as the channels do, ReducerError when a
    reducer raised.
    """
    versions = state.versions
    seen = state.seen
    channels = state.channels
    step = False
    consumed: dict[str, None] = {}
    grouped: dict[str, list[Any]] = {}
    unknown: list[str] = []
    for task in tasks:
        if task.triggers:
            step = True
            if task.pulled:
                mine = seen.get(task.name)
                if mine is None:
                    mine = seen[task.name] = {}
                for trigger in task.triggers:
                    if trigger in versions:
                        mine[trigger] = versions[trigger]
                        consumed[trigger] = None
        for name, value in task.writes:
            values = grouped.get(name)
            if values is not None:
                values.append(value)
            elif name in channels:
                grouped[name] = [value]
            elif name not in RESERVED:
                unknown.append(name)

    undo = _Undo(state)
    version = state.counter + 1
    updated: set[str] = set()
    try:
        for name in consumed:
            if name in state.consuming:
                undo.keep(name)
                if channels[name].consume():
                    versions[name] = version
                    state.refresh(name)
        for name, values in grouped.items():
            undo.keep(name)
            if _update(state, name, values, explain):
                versions[name] = version
                if state.refresh(name):
                    updated.add(name)
        if step:
            for name in [name for name in state.resetting if name not in grouped]:
                undo.keep(name)
                if _update(state, name, (), explain):
                    versions[name] = version
                    if state.refresh(name):
                        updated.add(name)
            if state.finishing and updated.isdisjoint(triggers):
                for name in state.finishing:
                    undo.keep(name)
                    if channels[name].finish():
                        versions[name] = version
                        if state.refresh(name):
                            updated.add(name)
    except BaseException:
        undo.restore()
        raise
    if undo.kept:
        state.counter = version
    return Merge(updated, unknown)


def _update(
    state: ChannelState, name: str, values: Sequence[Any], explain: Callable[[str], str] | None
) -> bool:
    try:
        return state.channels[name].update(values)
    except InvalidUpdateError as error:
        if explain is not None and (by := explain(name)):
            error.args = (f"{error.args[0]} {by}" if error.args else by, *error.args[1:])
        raise
    except EmptyChannelError:
        raise
    except Exception as error:
        raise ReducerError(name, f"{type(error).__name__}: {error}") from error


class _Undo:
    """Keeps what a merge is about to change, so that a failed one leaves the old state whole.

    A channel's copy has containers of its own and shares only the user's value, which a reducer must not change.
    """

    __slots__ = ("kept", "state", "versions")

    def __init__(self, state: ChannelState) -> None:
        self.state = state
        self.kept: dict[str, Any] = {}
        self.versions: dict[str, int | None] = {}

    def keep(self, name: str) -> None:
        if name not in self.kept:
            self.kept[name] = self.state.channels[name].copy()
            self.versions[name] = self.state.versions.get(name)

    def restore(self) -> None:
        state = self.state
        for name, channel in self.kept.items():
            state.channels[name] = channel
            version = self.versions[name]
            if version is None:
                state.versions.pop(name, None)
            else:
                state.versions[name] = version
            state.refresh(name)
