"""`AnyValue`: for writers that are known to agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic

from mpflow._names import MISSING
from mpflow.channels.base import BaseChannel, Value
from mpflow.errors import EmptyChannelError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("AnyValue",)


class AnyValue(BaseChannel[Value, Value, Value], Generic[Value]):
    """Keeps the last of a step's writes, and is empty after a step without one (ST-9)."""

    __slots__ = ("value",)

    resets = True
    value: Value | Any

    def __init__(self, typ: Any, key: str = "") -> None:
        super().__init__(typ, key)
        self.value = MISSING

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyValue)

    @property
    def ValueType(self) -> Any:
        return self.typ

    @property
    def UpdateType(self) -> Any:
        return self.typ

    def checkpoint(self) -> Value | Any:
        return self.value

    def from_checkpoint(self, checkpoint: Value | Any) -> Self:
        new = self.__class__(self.typ, self.key)
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
        if values:
            self.value = values[-1]
            return True
        if self.value is MISSING:
            return False
        self.value = MISSING
        return True
