"""The state of a run: its channels, their versions, and the views of them that nodes and streams are given.

Views are dicts kept current write by write, so that a step costs what changed and not the width of the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mpflow.channels.base import BaseChannel
from mpflow.errors import EmptyChannelError

if TYPE_CHECKING:
    from mpflow._core.plan import Reads


class View:
    """Some channels' values as one dict, in the order of the keys asked for; absent where a channel is empty."""

    __slots__ = ("keys", "stale", "values")

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        self.values: dict[str, Any] = {}
        self.stale = True


class ChannelState:
    """The channels of one run and what is derived from them.

    ``versions`` counts each channel's changes on one common counter; ``seen`` holds, for each node, the versions of its
    triggers when it last ran. ``values`` has every available channel's value.
    """

    __slots__ = (
        "channels",
        "consuming",
        "counter",
        "finishing",
        "resetting",
        "seen",
        "values",
        "versions",
        "views",
        "watchers",
    )

    def __init__(self, prototypes: Mapping[str, BaseChannel[Any, Any, Any]]) -> None:
        self.channels = {key: prototype.copy() for key, prototype in prototypes.items()}
        self.versions: dict[str, int] = {}
        self.seen: dict[str, dict[str, int]] = {}
        self.counter = 0
        self.finishing = [key for key, channel in self.channels.items() if channel.finishes]
        self.consuming = {
            key for key, channel in self.channels.items() if type(channel).consume is not BaseChannel.consume
        }
        self.resetting: dict[str, None] = {}
        self.values: dict[str, Any] = {}
        self.views: dict[tuple[str, ...], View] = {}
        self.watchers: dict[str, list[View]] = {}
        for key in self.channels:
            self.refresh(key)

    def refresh(self, key: str) -> bool:
        """Take a channel's value over into `values` and the views after it changed; whether it has one now."""
        channel = self.channels[key]
        try:
            value = channel.get()
        except EmptyChannelError:
            self.resetting.pop(key, None)
            if key in self.values:
                del self.values[key]
                for view in self.watchers.get(key, ()):
                    view.stale = True
            return False
        if channel.resets:
            self.resetting[key] = None
        known = key in self.values
        self.values[key] = value
        watchers = self.watchers.get(key)
        if watchers:
            for view in watchers:
                if known and not view.stale:
                    view.values[key] = value
                else:  # its place among the keys is found by building the view anew
                    view.stale = True
        return True

    def view(self, keys: tuple[str, ...]) -> dict[str, Any]:
        """The values of `keys` that are there. The dict is the state's own: callers copy it before giving it away."""
        view = self.views.get(keys)
        if view is None:
            view = self.views[keys] = View(keys)
            for key in keys:
                self.watchers.setdefault(key, []).append(view)
        if view.stale:
            values = self.values
            view.values = {key: values[key] for key in keys if key in values}
            view.stale = False
        return view.values

    def read(self, reads: Reads) -> Any:
        """A fresh dict of the channels read, or one channel's bare value (None if it is empty)."""
        if isinstance(reads, str):
            return self.values.get(reads)
        return self.view(reads).copy()

    def read_with(self, reads: Reads, writes: Iterable[tuple[str, Any]]) -> Any:
        """As `read`, with a task's own writes applied to it and nothing else changed (RT-1)."""
        keys = (reads,) if isinstance(reads, str) else reads
        grouped: dict[str, list[Any]] = {}
        for channel, value in writes:
            if channel in keys:
                grouped.setdefault(channel, []).append(value)
        fresh = self.read(keys)
        for name, values in grouped.items():
            copy = self.channels[name].copy()
            copy.update(values)
            try:
                fresh[name] = copy.get()
            except EmptyChannelError:
                fresh.pop(name, None)
        return fresh.get(reads) if isinstance(reads, str) else fresh
