"""`LastValue`, the default channel, and its variant for deferred nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpflow._names import MISSING
from mpflow.channels.base import Value, ValueChannel, at_key
from mpflow.errors import EmptyChannelError, ErrorCode, InvalidUpdateError, create_error_message

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("LastValue", "LastValueAfterFinish")


class LastValue(ValueChannel[Value]):
    """Keeps the last value written; takes at most one write a step (ST-4)."""

    __slots__ = ()

    resets = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LastValue)

    def update(self, values: Sequence[Value]) -> bool:
        if not values:
            return False
        if len(values) != 1:
            raise InvalidUpdateError(
                create_error_message(
                    message=at_key(self.key) + "Can receive only one value per step. "
                    "Use an Annotated key to handle multiple values.",
                    error_code=ErrorCode.INVALID_CONCURRENT_GRAPH_UPDATE,
                )
            )
        self.value = values[0]
        return True

    def condensed(self, values: Sequence[Value]) -> Sequence[Value]:
        return values[:2]


class LastValueAfterFinish(ValueChannel[Value]):
    """Keeps the last value written, shows it only once the run would otherwise end, then drops it (ST-10)."""

    __slots__ = ("finished",)

    resets = False

    def __init__(self, typ: Any, key: str = "") -> None:
        super().__init__(typ, key)
        self.finished = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LastValueAfterFinish)

    def copy(self) -> Self:
        return self.from_checkpoint(self.checkpoint())

    def checkpoint(self) -> tuple[Value | Any, bool] | Any:
        return MISSING if self.value is MISSING else (self.value, self.finished)

    def from_checkpoint(self, checkpoint: tuple[Value | Any, bool] | Any) -> Self:
        new = self._empty()
        if checkpoint is not MISSING:
            new.value, new.finished = checkpoint
        return new

    def get(self) -> Value:
        if not self.finished:
            raise EmptyChannelError
        return super().get()

    def is_available(self) -> bool:
        return self.finished and self.value is not MISSING

    def update(self, values: Sequence[Value | Any]) -> bool:
        if not values:
            return False
        self.value = values[-1]
        self.finished = False
        return True

    def condensed(self, values: Sequence[Value | Any]) -> Sequence[Value | Any]:
        return values[-1:]

    def consume(self) -> bool:
        if not self.finished:
            return False
        self.finished = False
        self.value = MISSING
        return True

    def finish(self) -> bool:
        if self.finished or self.value is MISSING:
            return False
        self.finished = True
        return True
