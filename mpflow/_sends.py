"""Sends that are not made yet: what a conditional edge that answers with an iterator stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow._scope import TaskScope


class SendIterator:
    """A packet that holds an iterator of sends. It can be taken from once, in one process, and not be saved."""

    __slots__ = ("sends",)

    def __init__(self, sends: Iterator[Any]) -> None:
        self.sends = sends


def packets_of(sends: Iterator[Any], scope: TaskScope) -> Sequence[Any]:
    """The answers of an edge that gave `sends`: as one packet, or all made now if a saver or a stream is to see them."""
    local = scope.facts.local
    if local is None or local.sees_all:
        return list(sends)
    return [SendIterator(sends)]
