"""`EphemeralValue`: a value for the next step only. Edges between nodes are such channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic

from mpflow._names import MISSING
from mpflow.channels.base import BaseChannel, Value, at_key
from mpflow.errors import EmptyChannelError, InvalidUpdateError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("EphemeralValue",)


class EphemeralValue(BaseChannel[Value, Value, Value], Generic[Value]):
    """Holds a value for one step, then is empty. With `guard`, takes at most one write a step (ST-7)."""

    __slots__ = ("guard", "value")

    resets = True
    value: Value | Any

    def __init__(self, typ: Any, guard: bool = True) -> None:
        super().__init__(typ)
        self.guard = guard
        self.value = MISSING

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EphemeralValue) and other.guard == self.guard

    @property
    def ValueType(self) -> Any:
        return self.typ

    @property
    def UpdateType(self) -> Any:
        return self.typ

    def checkpoint(self) -> Value | Any:
        return self.value

    def from_checkpoint(self, checkpoint: Value | Any) -> Self:
        new = self.__class__(self.typ, self.guard)
        new.key = self.key
        new.value = checkpoint
        return new

    def get(self) -> Value:
        value: Value = self.value
        if value is MISSING:
            raise EmptyChannelError
        return value

    def is_available(self) -> bool:
        return self.value is not MISSING

    def update(self, values: Sequence[Value]) -> bool:
        if not values:
            if self.value is MISSING:
                return False
            self.value = MISSING
            return True
        if self.guard and len(values) != 1:
            raise InvalidUpdateError(
                f"{at_key(self.key)}EphemeralValue(guard=True) can receive only one value per step, got "
                f"{len(values)}; guard=False keeps the last of them."
            )
        self.value = values[-1]
        return True
