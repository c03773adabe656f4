"""`DeltaChannel`: a channel whose reducer takes all writes of a step at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Generic

from mpflow._names import MISSING
from mpflow.channels.base import BaseChannel, Value, at_key
from mpflow.channels.binop import concrete_type, overwrite_of, same_reducer
from mpflow.errors import EmptyChannelError, ErrorCode, InvalidUpdateError, create_error_message

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("DeltaChannel",)


class DeltaChannel(BaseChannel[Value, Any, Any], Generic[Value]):
    """Folds a step's writes by one call ``reducer(value, writes)`` (ST-12).

    In LangGraph the class asks savers to keep its writes instead of its value. mpflow's log does so for every
    channel, so here `checkpoint` returns the value, and `snapshot_frequency` is kept but asks for nothing.
    `reducer` must not change `value` in place. In a run the value starts as an empty `typ`, a list unless told; a channel
    that was only made has none.
    """

    __slots__ = ("reducer", "snapshot_frequency", "value")

    resets = False
    value: Value | Any

    def __init__(
        self,
        reducer: Callable[[Any, Sequence[Any]], Any],
        typ: Any = None,
        *,
        snapshot_frequency: int = 100,
    ) -> None:
        if isinstance(snapshot_frequency, bool) or not isinstance(snapshot_frequency, int) or snapshot_frequency < 1:
            raise ValueError(f"snapshot_frequency must be a positive int, got {snapshot_frequency!r}")
        super().__init__(list if typ is None else concrete_type(typ))
        self.reducer = reducer
        self.snapshot_frequency = snapshot_frequency
        self.value = MISSING

    def _first(self) -> Any:
        try:
            return self.typ()
        except Exception:
            return MISSING

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, DeltaChannel)
            and other.snapshot_frequency == self.snapshot_frequency
            and same_reducer(self.reducer, other.reducer)
        )

    @property
    def ValueType(self) -> Any:
        return self.typ

    @property
    def UpdateType(self) -> Any:
        return self.typ

    def copy(self) -> Self:
        new = self._empty()
        new.value = copy(self.value)
        return new

    def _empty(self) -> Self:
        new = self.__class__(self.reducer, self.typ, snapshot_frequency=self.snapshot_frequency)
        new.key = self.key
        return new

    def checkpoint(self) -> Any:
        return self.value

    def from_checkpoint(self, checkpoint: Any) -> Self:
        new = self._empty()
        new.value = self._first() if checkpoint is MISSING else checkpoint
        return new

    def replay_writes(self, writes: Sequence[tuple[str, str, Any]]) -> None:
        """Fold saved writes ``(task id, channel, value)``, oldest first, of any number of steps.

        An `Overwrite` among them drops all that came before it.
        """
        pending: list[Any] = []
        for _, _, value in writes:
            replaced, by = overwrite_of(value)
            if replaced:
                self.value = self._first() if by is None else copy(by)
                pending = []
            else:
                pending.append(value)
        if pending:
            self.value = self._fold(pending)

    def _fold(self, writes: Sequence[Any]) -> Any:
        base = self._first() if self.value is MISSING else self.value
        return self.reducer(None if base is MISSING else base, writes)

    def get(self) -> Any:
        if self.value is MISSING:
            raise EmptyChannelError
        return self.value

    def is_available(self) -> bool:
        return self.value is not MISSING

    def update(self, values: Sequence[Any]) -> bool:
        if not values:
            return False
        values = [with_message_ids(value) for value in values]
        replacements = [by for replaced, by in map(overwrite_of, values) if replaced]
        if len(replacements) > 1:
            raise InvalidUpdateError(
                create_error_message(
                    message=at_key(self.key) + "Can receive only one Overwrite value per super-step.",
                    error_code=ErrorCode.INVALID_CONCURRENT_GRAPH_UPDATE,
                )
            )
        if replacements:
            self.value = self._first() if replacements[0] is None else copy(replacements[0])
        else:
            self.value = self._fold(list(values))
        return True


_SPEAKERS = frozenset(("human", "user", "ai", "assistant", "system", "function", "tool", "remove"))
"""What a dict that is a message says under ``role`` or ``type``."""


def with_message_ids(write: Any) -> Any:
    """A write whose messages have ids, so that they have the same ones whenever it is read.

    In a list, dicts that are messages become some; what replaces the value keeps its dicts. Raises ValueError for a dict
    with the keys of a message that is none.
    """
    messages = sys.modules.get("langchain_core.messages")
    if messages is None:  # then there are none
        return write
    replaces, by = overwrite_of(write)
    if replaces:
        for item in by if isinstance(by, (list, tuple)) else ():
            _identify(item, messages)
        return write
    if isinstance(write, list):
        return [_message_of(item, messages) for item in write]
    if _is_message_dict(write) and not write.get("id"):
        return {**write, "id": _fresh_id()}
    _identify(write, messages)
    return write


def _message_of(item: Any, messages: Any) -> Any:
    if _is_message_dict(item):
        (item,) = messages.convert_to_messages([item])
    _identify(item, messages)
    return item


def _fresh_id() -> str:
    from uuid import uuid4  # most graphs have no such channel

    return str(uuid4())


def _identify(item: Any, messages: Any) -> None:
    if isinstance(item, messages.BaseMessage) and not item.id:
        item.id = _fresh_id()


def _is_message_dict(item: Any) -> bool:
    return isinstance(item, dict) and (item.get("role") in _SPEAKERS or item.get("type") in _SPEAKERS)
