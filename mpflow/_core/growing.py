"""Lists that grow where they are: to join a step's writes to a list that nobody but the run's state holds, none is copied.

Whoever else holds it (a node that kept what it was given, a chunk of a stream, a saver) must never see it change, so its
references are counted, and where they cannot be, every list is copied.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mpflow._core.state import ChannelState
    from mpflow.channels.binop import BinaryOperatorAggregate

WORTH_ITEMS: Final = 256
"""Shorter lists are copied sooner than it is found out who holds them."""


class _Held:
    value: list[Any]


def _count_of(holder: Any) -> int:
    """The references to what an object has as its value.

    It is never a local variable here, and it is counted by C code alone: which of a frame's references are real ones differs
    between versions of Python, and between one call of a function and the next once it is compiled.
    """
    return next(map(sys.getrefcount, (holder.value,)))


def _count_of_one() -> int | None:
    """What is counted of a value that has one holder; None where counts say nothing: threads without a common lock put
    theirs off, and other interpreters have none."""
    if sys.implementation.name != "cpython" or "free-threading" in sys.version:
        return None
    holder = _Held()
    holder.value = []
    return _count_of(holder)


_ONE: Final = _count_of_one()


def may_grow(state: ChannelState, name: str, channel: BinaryOperatorAggregate[Any], writes: Sequence[Any]) -> bool:
    """Whether these writes, if they are all of a step's, can be joined to the channel's list where it is.

    The answer holds until anybody else is given the state.
    """
    if _ONE is None or type(channel.value) is not list or len(channel.value) < WORTH_ITEMS:
        return False
    if not channel.joins_lists(writes):
        return False
    count = _count_of(channel) - (state.values.get(name) is channel.value)
    for view in state.watchers.get(name, ()):
        count -= view.values.get(name) is channel.value
    return count == _ONE


def grow(channels: Sequence[tuple[BinaryOperatorAggregate[Any], Sequence[Any]]]) -> None:
    """Join its writes to the list of each of these channels; all or none."""
    sizes = [len(channel.value) for channel, _ in channels]
    try:
        for channel, writes in channels:
            for write in writes:
                channel.value.extend(write)
    except BaseException:
        for (channel, _), size in zip(channels, sizes, strict=True):
            del channel.value[size:]
        raise
