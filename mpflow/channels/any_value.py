"""`AnyValue`: for writers that are known to agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpflow._names import MISSING
from mpflow.channels.base import Value, ValueChannel

if TYPE_CHECKING:
    pass

__all__ = ("AnyValue",)


class AnyValue(ValueChannel[Value]):
    """Keeps the last of a step's writes, and is empty after a step without one (ST-9)."""

    __slots__ = ()

    resets = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyValue)

    def update(self, values: Sequence[Value]) -> bool:
        if values:
            self.value = values[-1]
            return True
        if self.value is MISSING:
            return False
        self.value = MISSING
        return True
