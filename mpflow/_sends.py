"""Many sends as one write: long lists of them, and those that are not made yet, but while they run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
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


class ReplayableSends(ABC):
    """Sends that a conditional edge answers with, to be made while they run, and made again after a crash.

    A subclass has in its fields what its ``__iter__`` makes them of, and that is what a saver keeps instead of them: data of
    the kinds that may be kept (a dataclass or a pydantic model, named in the edge's return annotation). Each iteration
    must give the same sends in the same order: a resumed run iterates anew, and passes those whose tasks had finished.
    """

    __slots__ = ()

    @abstractmethod
    def __iter__(self) -> Iterator[Send]: ...


def each_of(packets: Iterable[Any]) -> Generator[Any, None, None]:
    """The queued `packets`, with each send that is made only now. Closed, it closes what it takes from."""
    for packet in packets:
        if isinstance(packet, SendIterator):
            yield from packet.sends
        elif isinstance(packet, ReplayableSends):
            yield from packet
        else:
            yield packet


def listed(packets: Sequence[Any]) -> Sequence[Any]:
    """The queued `packets`, with all sends made that can be made again."""
    if not any(isinstance(packet, ReplayableSends) for packet in packets):
        return packets
    return [send for packet in packets for send in (packet if isinstance(packet, ReplayableSends) else (packet,))]


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


def made_of(answers: Sequence[Any], scope: TaskScope) -> Sequence[Any]:
    """The answers of an edge, with all sends made that somebody is to see when their step starts, or another process keeps."""
    local = scope.facts.local
    return listed(answers) if local is None or local.is_away or local.shows_tasks else answers


def _are_seen(scope: TaskScope) -> bool:
    """Whether a saver or a stream is to see each send."""
    local = scope.facts.local
    return local is None or bool(local.sees_all)
