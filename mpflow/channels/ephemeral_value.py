"""`EphemeralValue`: a value for the next step only. Edges between nodes are such channels."""

from __future__ import annotations

from collections.abc import Sequence

from mpflow._names import MISSING
from mpflow.channels.base import GuardedChannel, Value

__all__ = ("EphemeralValue",)


class EphemeralValue(GuardedChannel[Value]):
    """Holds a value for one step, then is empty. With `guard`, takes at most one write a step (ST-7)."""

    __slots__ = ()

    resets = True

    def update(self, values: Sequence[Value]) -> bool:
        if values:
            return super().update(values)
        if self.value is MISSING:
            return False
        self.value = MISSING
        return True
