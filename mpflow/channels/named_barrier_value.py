"""`NamedBarrierValue`: waits until each of a set of names was written. Waiting edges are such channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic

from mpflow._names import MISSING
from mpflow.channels.base import BaseChannel, Value, at_key
from mpflow.errors import EmptyChannelError, InvalidUpdateError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("NamedBarrierValue", "NamedBarrierValueAfterFinish")


class _Barrier(BaseChannel[Value, Value, Any], Generic[Value]):
    """What both barriers are: the names they wait for, and those that were written."""

    __slots__ = ("names", "seen")

    resets = False
    names: set[Value]
    seen: set[Value]

    def __init__(self, typ: Any, names: Iterable[Value]) -> None:
        super().__init__(typ)
        self.names = set(names)
        self.seen = set()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other.names == self.names

    @property
    def ValueType(self) -> Any:
        return self.typ

    @property
    def UpdateType(self) -> Any:
        return self.typ

    def _empty(self) -> Self:
        new = self.__class__(self.typ, self.names)
        new.key = self.key
        return new

    def get(self) -> Any:
        if not self.is_available():
            raise EmptyChannelError
        return None

    def update(self, values: Sequence[Value]) -> bool:
        if not values:
            return False
        strangers = set(values) - self.names
        if strangers:
            raise InvalidUpdateError(
                f"{at_key(self.key)}{min(map(repr, strangers))} is not among the names this barrier waits for: "
                f"{', '.join(sorted(map(repr, self.names)))}"
            )
        seen = self.seen.union(values)
        changed = seen != self.seen
        self.seen = seen
        return changed

    def condensed(self, values: Sequence[Value]) -> Sequence[Value]:
        return list(set(values))


class NamedBarrierValue(_Barrier[Value]):
    """Becomes available (with the value None) when every name was written; empty again once consumed (ST-10)."""

    __slots__ = ()

    resets = False

    def checkpoint(self) -> set[Value]:
        return self.seen

    def from_checkpoint(self, checkpoint: set[Value] | Any) -> Self:
        new = self._empty()
        if checkpoint is not MISSING:
            new.seen = set(checkpoint)
        return new

    def is_available(self) -> bool:
        return self.seen == self.names

    def consume(self) -> bool:
        if self.seen != self.names:
            return False
        self.seen = set()
        return True


class NamedBarrierValueAfterFinish(_Barrier[Value]):
    """A barrier that becomes available only once the run would otherwise end (ST-10)."""

    __slots__ = ("finished",)

    resets = False

    def __init__(self, typ: Any, names: Iterable[Value]) -> None:
        super().__init__(typ, names)
        self.finished = False

    def checkpoint(self) -> tuple[set[Value], bool]:
        return (self.seen, self.finished)

    def from_checkpoint(self, checkpoint: tuple[set[Value], bool] | Any) -> Self:
        new = self._empty()
        if checkpoint is not MISSING:
            seen, new.finished = checkpoint
            new.seen = set(seen)
        return new

    def is_available(self) -> bool:
        return self.finished and self.seen == self.names

    def consume(self) -> bool:
        if not self.is_available():
            return False
        self.seen = set()
        self.finished = False
        return True

    def finish(self) -> bool:
        if self.finished or self.seen != self.names:
            return False
        self.finished = True
        return True
