"""The contract of a managed value: a state key that nodes read and nobody writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeGuard, TypeVar

V = TypeVar("V")

__all__ = ("ManagedValue", "ManagedValueMapping", "ManagedValueSpec", "Scratch", "is_managed_value")


class Scratch(Protocol):
    """What a managed value is computed from: the running step, and the step that the recursion limit forbids."""

    @property
    def step(self) -> int: ...

    @property
    def stop(self) -> int: ...


class ManagedValue(ABC, Generic[V]):
    """Base of managed values. Annotate a key with a subclass: ``Annotated[bool, IsLastStepManager]`` (ST-13)."""

    @staticmethod
    @abstractmethod
    def get(scratchpad: Scratch) -> V:
        """Return the value for a task of the step that `scratchpad` tells of."""


ManagedValueSpec = type[ManagedValue[Any]]
ManagedValueMapping = dict[str, ManagedValueSpec]


def is_managed_value(value: Any) -> TypeGuard[ManagedValueSpec]:
    """Whether an annotation's metadata item names a managed value."""
    return isinstance(value, type) and issubclass(value, ManagedValue)
