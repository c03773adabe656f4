"""`UntrackedValue`: state that is never saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpflow._names import MISSING
from mpflow.channels.base import GuardedChannel, Value

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("UntrackedValue",)


class UntrackedValue(GuardedChannel[Value]):
    """Keeps the last value written during a run; no checkpoint ever holds it (ST-9).

    With `guard`, takes at most one write a step.
    """

    __slots__ = ()

    def checkpoint(self) -> Any:
        return MISSING

    def from_checkpoint(self, checkpoint: Any) -> Self:
        return self._empty()
