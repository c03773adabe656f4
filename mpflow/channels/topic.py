"""`Topic`: all the values written to it, as a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Union

from mpflow._names import MISSING
from mpflow.channels.base import BaseChannel, Value
from mpflow.errors import EmptyChannelError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("Topic",)


class Topic(BaseChannel[Sequence[Value], Any, list[Value]], Generic[Value]):
    """Collects a step's writes in order; a list that is written counts as its items (ST-8).

    Emptied at each step unless `accumulate`.
    """

    __slots__ = ("accumulate", "values")

    values: list[Value]

    def __init__(self, typ: Any, accumulate: bool = False) -> None:
        super().__init__(typ)
        self.accumulate = accumulate
        self.values = []

    @property
    def resets(self) -> bool:  # type: ignore[override]
        return not self.accumulate

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Topic) and other.accumulate == self.accumulate

    @property
    def ValueType(self) -> Any:
        return Sequence[self.typ]  # type: ignore[name-defined]

    @property
    def UpdateType(self) -> Any:
        return Union[self.typ, list[self.typ]]  # type: ignore[name-defined]  # noqa: UP007

    def copy(self) -> Self:
        return self.from_checkpoint(self.values)

    def checkpoint(self) -> list[Value]:
        return self.values

    def from_checkpoint(self, checkpoint: list[Value] | Any) -> Self:
        new = self.__class__(self.typ, self.accumulate)
        new.key = self.key
        if checkpoint is not MISSING:
            # Old checkpoints of LangGraph hold a pair whose second item is the list.
            new.values = list(checkpoint[1] if isinstance(checkpoint, tuple) else checkpoint)
        return new

    def get(self) -> Sequence[Value]:
        if not self.values:
            raise EmptyChannelError
        return list(self.values)

    def is_available(self) -> bool:
        return bool(self.values)

    def update(self, values: Sequence[Value | list[Value]]) -> bool:
        fresh: list[Value] = []
        for value in values:
            if isinstance(value, list):
                fresh.extend(value)
            else:
                fresh.append(value)
        if self.accumulate:
            if fresh:
                self.values = self.values + fresh
            return bool(fresh)
        changed = bool(fresh or self.values)
        self.values = fresh
        return changed
