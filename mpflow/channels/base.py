"""The contract of a channel: one cell of state and how writes to it merge. It knows no task, step or saver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mpflow._names import MISSING
from mpflow.errors import EmptyChannelError, InvalidUpdateError

if TYPE_CHECKING:
    from typing_extensions import Self

Value = TypeVar("Value")
Update = TypeVar("Update")
Checkpoint = TypeVar("Checkpoint")

__all__ = ("MISSING", "BaseChannel", "GuardedChannel", "ValueChannel")


class BaseChannel(ABC, Generic[Value, Update, Checkpoint]):
    """Base of all channels.

    A channel starts empty or with a default, takes all writes of a step at once in `update`, and is read by `get`.
    An `update` that raises must leave the channel as it was. A value that `get` has returned must never be changed
    in place: readers of an earlier step may still hold it.

    ``key`` is the channel's name, set by the graph. Two class attributes let the scheduler leave a channel alone:
    ``resets`` is False where `update([])` can change nothing, ``finishes`` is True where `finish` may do something.
    A subclass that overrides `update` without naming ``resets`` is always asked; ``finishes`` is found out.
    """

    __slots__ = ("key", "typ")

    resets: bool = True
    finishes: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__
        if "update" in own and "resets" not in own:
            cls.resets = True
        if "finishes" not in own:
            cls.finishes = cls.finish is not BaseChannel.finish

    def __init__(self, typ: Any, key: str = "") -> None:
        self.typ = typ
        self.key = key

    @property
    @abstractmethod
    def ValueType(self) -> Any:
        """The type of what `get` returns."""

    @property
    @abstractmethod
    def UpdateType(self) -> Any:
        """The type of one write."""

    def copy(self) -> Self:
        """Return a channel with the same value, independent of this one."""
        return self.from_checkpoint(self.checkpoint())

    def checkpoint(self) -> Checkpoint | Any:
        """Return what a saver must keep to restore the channel, or `MISSING` if there is nothing to keep."""
        try:
            return self.get()
        except EmptyChannelError:
            return MISSING

    @abstractmethod
    def from_checkpoint(self, checkpoint: Checkpoint | Any) -> Self:
        """Return a new channel of this kind, with what `checkpoint` returned, or fresh if given `MISSING`."""

    @abstractmethod
    def get(self) -> Value:
        """Return the value. Raises `EmptyChannelError` if there is none (yet)."""

    def is_available(self) -> bool:
        """True if `get` would return a value."""
        try:
            self.get()
        except EmptyChannelError:
            return False
        return True

    @abstractmethod
    def update(self, values: Sequence[Update]) -> bool:
        """Merge one step's writes, in task-path order; return True if the channel changed.

        Called with no writes at the end of each step in which nobody wrote to it. Raises `InvalidUpdateError` if the
        writes cannot be merged.
        """

    def condensed(self, values: Sequence[Update]) -> Sequence[Update]:
        """Fewer writes that `update` would take for the same, or refuse for the same reason; at best a bounded number."""
        return values

    def consume(self) -> bool:
        """Called when a task that this channel triggered is due; return True if the channel changed by it."""
        return False

    def finish(self) -> bool:
        """Called when the run would otherwise end; return True if the channel changed by it."""
        return False


class ValueChannel(BaseChannel[Value, Value, Value], Generic[Value]):
    """Base of the channels that keep one value or none: all but how writes change it."""

    __slots__ = ("value",)

    value: Value | Any

    def __init__(self, typ: Any, key: str = "") -> None:
        super().__init__(typ, key)
        self.value = MISSING

    @property
    def ValueType(self) -> Any:
        return self.typ

    @property
    def UpdateType(self) -> Any:
        return self.typ

    def _empty(self) -> Self:
        """A channel of this kind and name as it is at first."""
        return self.__class__(self.typ, self.key)

    def copy(self) -> Self:
        new = self._empty()
        new.value = self.value
        return new

    def checkpoint(self) -> Value | Any:
        return self.value

    def from_checkpoint(self, checkpoint: Value | Any) -> Self:
        new = self._empty()
        if checkpoint is not MISSING:
            new.value = checkpoint
        return new

    def get(self) -> Value:
        value: Value = self.value
        if value is MISSING:
            raise EmptyChannelError
        return value

    def is_available(self) -> bool:
        return self.value is not MISSING


class GuardedChannel(ValueChannel[Value]):
    """Base of the channels that keep the last value written: with ``guard``, at most one write a step is allowed."""

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
        return isinstance(other, type(self)) and other.guard == self.guard

    def update(self, values: Sequence[Value]) -> bool:
        if not values:
            return False
        if self.guard and len(values) != 1:
            raise InvalidUpdateError(
                f"{at_key(self.key)}{type(self).__name__}(guard=True) can receive only one value per step, got "
                f"{len(values)}; guard=False keeps the last of them."
            )
        self.value = values[-1]
        return True

    def condensed(self, values: Sequence[Value]) -> Sequence[Value]:
        return values[:2] if self.guard else values[-1:]


def at_key(key: str) -> str:
    """How error messages name a channel."""
    return f"At key '{key}': "
