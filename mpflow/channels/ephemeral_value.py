"""`EphemeralValue`: a value for the next step only. Edges between nodes are such channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpflow._names import MISSING
from mpflow.channels.base import Value, ValueChannel, at_key
from mpflow.errors import InvalidUpdateError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("EphemeralValue",)


class EphemeralValue(ValueChannel[Value]):
    """Holds a value for one step, then is empty. With `guard`, takes at most one write a step (ST-7)."""

    __slots__ = ("guard",)

    resets = True

    def __init__(self, typ: Any, guard: bool = True) -> None:
        super().__init__(typ)
        self.guard = guard

    def _empty(self) -> Self:
        new = self.__class__(self.typ, self.guard)
        new.key = self.key
        return new

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EphemeralValue) and other.guard == self.guard

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
