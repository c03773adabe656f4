"""Many sends as one write: those of an iterator, which are not made yet, and long lists of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import countOf
from typing import TYPE_CHECKING, Any

from mpflow.constants import END
from mpflow.types import Send

if TYPE_CHECKING:
    from mpflow._scope import TaskScope


class SendIterator:
    """A packet that holds an iterator of sends. It can be taken from once, in one process, and not be saved."""

    __slots__ = ("sends",)

    def __init__(self, sends: Iterator[Any]) -> None:
        self.sends = sends


_MANY = 16


def bundle_of(answers: Sequence[Any], scope: TaskScope) -> list[Any] | None:
    """The answers of an edge as one write, if all of them are sends, and many, and nobody is to see each."""
    if len(answers) < _MANY or type(answers[0]) is not Send:
        return None
    if _are_seen(scope):
        return None
    if countOf(map(type, answers), Send) != len(answers) or END in {send.node for send in answers}:
        return None
    return list(answers)


def packets_of(sends: Iterator[Any], scope: TaskScope) -> Sequence[Any]:
    """The answers of an edge that gave `sends`: as one packet, or all made now if a saver or a stream is to see them."""
    return list(sends) if _are_seen(scope) else [SendIterator(sends)]


def _are_seen(scope: TaskScope) -> bool:
    """Whether a saver or a stream is to see each send."""
    local = scope.facts.local
    return local is None or bool(local.sees_all)
