"""`UntrackedValue`: state that is never saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpflow._names import MISSING
from mpflow.channels.base import Value, ValueChannel, at_key
from mpflow.errors import InvalidUpdateError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("UntrackedValue",)


class UntrackedValue(ValueChannel[Value]):
    """Keeps the last value written during a run; no checkpoint ever holds it (ST-9).

    With `guard`, takes at most one write a step.
    """

    __slots__ = ("guard",)

    resets = False

    def __init__(self, typ: Any, guard: bool = True) -> None:
        super().__init__(typ)
        self.guard = guard

    def _empty(self) -> Self:
        new = self.__class__(self.typ, self.guard)
        new.key = self.key
        return new

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntrackedValue) and other.guard == self.guard

    def checkpoint(self) -> Any:
        return MISSING

    def from_checkpoint(self, checkpoint: Any) -> Self:
        return self._empty()

    def update(self, values: Sequence[Value]) -> bool:
        if not values:
            return False
        if self.guard and len(values) != 1:
            raise InvalidUpdateError(
                f"{at_key(self.key)}UntrackedValue(guard=True) can receive only one value per step, got "
                f"{len(values)}; guard=False keeps the last of them."
            )
        self.value = values[-1]
        return True
