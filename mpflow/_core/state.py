"""The state of a run: its channels' values and versions, and the views of them that nodes and streams are given.

The two kinds of channel that most graphs are made of, `LastValue` and `EphemeralValue`, are kept as bare values; the
others as objects. Views are dicts kept current write by write, so that a step costs what changed and not the width of
the state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core.plan import EPHEMERAL, LAST, OBJECT
from mpflow._names import MISSING
from mpflow.channels.binop import BinaryOperatorAggregate
from mpflow.errors import EmptyChannelError

if TYPE_CHECKING:
    from mpflow._core.plan import Plan, Reads
    from mpflow.channels.base import BaseChannel


class View:
    """Some channels' values as one dict, in the order of the keys asked for; absent where a channel is empty."""

    __slots__ = ("_among", "keys", "stale", "values")

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        self.values: dict[str, Any] = {}
        self.stale = True
        self._among: frozenset[str] | None = None

    @property
    def among(self) -> frozenset[str]:
        if self._among is None:
            self._among = frozenset(self.keys)
        return self._among


class ChannelState:
    """The state of one run.

    ``values`` has every channel that has a value. A step without a write to them takes those that are ``passing`` away, and
    may take those that are ``resetting``, which are kept as objects. ``versions`` counts each channel's changes on one
    common counter; ``seen`` holds, for each node, the versions of its triggers when it last ran. Both are for those who
    come back to a step later (savers, breakpoints) or know an earlier one (worker processes): a state that is not
    ``counted`` keeps neither.
    """

    __slots__ = (
        "counted",
        "counter",
        "kinds",
        "next_version",
        "objects",
        "passing",
        "plan",
        "resetting",
        "seen",
        "values",
        "versions",
        "views",
        "watchers",
    )

    def __init__(self, plan: Plan, counted: bool = True) -> None:
        self.plan = plan
        self.counted = counted
        self.kinds = plan.kinds
        self.objects: dict[str, BaseChannel[Any, Any, Any]] = {}
        self.versions: dict[str, int] = {}
        self.seen: dict[str, dict[str, int]] = {}
        self.counter: Any = 0
        self.next_version: Callable[[Any], Any] = _count
        self.passing: Sequence[str] = ()
        self.resetting: dict[str, None] = {}
        self.values: dict[str, Any] = {}
        # By the identity of their keys, which they hold: the hash of a tuple costs its length each time.
        self.views: dict[int, View] = {}
        self.watchers: dict[str, list[View]] = {}
        for key in plan.starting:  # a fresh default for each run: nodes may change what they are given
            self.objects[key] = plan.channels[key].from_checkpoint(MISSING)
            self.refresh(key)

    def restore(self, checkpoint: Mapping[str, Any], next_version: Callable[[Any], Any]) -> None:
        """Take over what a checkpoint holds. Channels that the graph no longer has are left aside."""
        self.next_version = next_version
        self.versions = dict(checkpoint["channel_versions"])
        self.seen = {name: dict(seen) for name, seen in checkpoint["versions_seen"].items()}
        self.counter = max(self.versions.values(), default=None)
        for key, value in checkpoint["channel_values"].items():
            kind = self.kinds.get(key)
            if kind == OBJECT:
                self.objects[key] = self.plan.channels[key].from_checkpoint(value)
                self.refresh(key)
            elif kind is not None:
                self.put(key, value)
                if kind == EPHEMERAL:
                    self.passing = (*self.passing, key)

    def checkpoint_values(self) -> dict[str, Any]:
        """What a checkpoint holds of the channels: for each that has something to keep, what restores it."""
        found = {}
        for key, kind in self.kinds.items():
            if kind != OBJECT:
                if key in self.values:
                    found[key] = self.values[key]
            elif key in self.objects:
                value = self.objects[key].checkpoint()
                if value is not MISSING:
                    found[key] = value
        return found

    def object(self, key: str) -> BaseChannel[Any, Any, Any]:
        """The channel as an object: the run's own, or one made from its bare value."""
        if self.kinds[key] != OBJECT:
            return self.plan.channels[key].from_checkpoint(self.values.get(key, MISSING))
        found = self.objects.get(key)
        if found is None:
            found = self.objects[key] = self.plan.channels[key].from_checkpoint(MISSING)
        return found

    def refresh(self, key: str) -> bool:
        """Take an object channel's value over after it changed; whether it has one now."""
        channel = self.objects[key]
        try:
            value = channel.get()
        except EmptyChannelError:
            self.resetting.pop(key, None)
            self.drop(key)
            return False
        if channel.resets:
            self.resetting[key] = None
        self.put(key, value)
        return True

    def put(self, key: str, value: Any) -> None:
        if key in self.values:
            for view in self.watchers.get(key, ()):
                view.values[key] = value
        else:
            self.show_anew(key)
        self.values[key] = value

    def show_anew(self, key: str) -> None:
        """A channel has got or lost its value: its place among the keys of a view is found by building that anew."""
        for view in self.watchers.get(key, ()):
            view.stale = True

    def drop(self, key: str) -> None:
        if self.values.pop(key, MISSING) is not MISSING:
            self.show_anew(key)

    def current(self, keys: tuple[str, ...]) -> View:
        """The view of `keys`, kept current from now on."""
        view = self.views.get(id(keys))
        if view is None:
            view = self.views[id(keys)] = View(keys)
            watchers = self.watchers
            for key in keys:
                if key in watchers:
                    watchers[key].append(view)
                else:
                    watchers[key] = [view]
        if view.stale:
            values = self.values
            view.values = {key: values[key] for key in keys if key in values}
            view.stale = False
        return view

    def view(self, keys: tuple[str, ...]) -> dict[str, Any]:
        """The values of `keys` that are there. The dict is the state's own: callers copy it before giving it away."""
        return self.current(keys).values

    def read(self, reads: Reads) -> Any:
        """A fresh dict of the channels read, or one channel's bare value (None if it is empty)."""
        if isinstance(reads, str):
            return self.values.get(reads)
        return self.view(reads).copy()

    def read_last(self, reads: Reads) -> Any:
        """As `read`, for the last time: with no view made for it that would be kept current."""
        if isinstance(reads, str) or id(reads) in self.views:
            return self.read(reads)
        values = self.values
        return {key: values[key] for key in reads if key in values}

    def read_with(
        self, reads: Reads, writes: Iterable[tuple[str, Any]], looks_at: Collection[str] | None = None
    ) -> Any:
        """As `read`, with a task's own writes applied to it and nothing else changed (RT-1).

        Where the reader `looks_at` some keys alone, lists that others hold may be left without what was joined to them.
        """
        view = self.current((reads,) if isinstance(reads, str) else reads)
        among = view.among
        fresh = view.values.copy()
        kinds = self.kinds
        grouped: dict[str, list[Any]] = {}
        for name, value in writes:
            if name in among:
                if kinds[name] == LAST:  # a second write to it is found at the merge
                    fresh[name] = value
                elif name in grouped:
                    grouped[name].append(value)
                else:
                    grouped[name] = [value]
        if grouped:
            self._reduce_into(fresh, grouped, looks_at)
        return fresh.get(reads) if isinstance(reads, str) else fresh

    def _reduce_into(
        self, fresh: dict[str, Any], grouped: Mapping[str, list[Any]], looks_at: Collection[str] | None
    ) -> None:
        for name, values in grouped.items():
            channel: Any = self.object(name)
            if type(channel) is BinaryOperatorAggregate:
                if looks_at is not None and name not in looks_at and channel.joins_lists(values):
                    continue  # which cannot fail either
                fresh[name] = channel.folded(values)
                continue
            copy = channel.copy()
            copy.update(values)
            try:
                fresh[name] = copy.get()
            except EmptyChannelError:
                fresh.pop(name, None)


def _count(version: Any) -> Any:
    return version + 1


__all__ = ("EPHEMERAL", "LAST", "OBJECT", "ChannelState", "View")
