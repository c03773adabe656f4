"""Managed values that tell a node how near the recursion limit is."""

from __future__ import annotations

from typing import Annotated

from mpflow.managed.base import ManagedValue, Scratch

__all__ = ("IsLastStep", "IsLastStepManager", "RemainingSteps", "RemainingStepsManager")


class IsLastStepManager(ManagedValue[bool]):
    """True in the last step that the recursion limit allows."""

    @staticmethod
    def get(scratchpad: Scratch) -> bool:
        return scratchpad.step == scratchpad.stop - 1


class RemainingStepsManager(ManagedValue[int]):
    """How many steps the recursion limit still allows, this one included."""

    @staticmethod
    def get(scratchpad: Scratch) -> int:
        return scratchpad.stop - scratchpad.step


IsLastStep = Annotated[bool, IsLastStepManager]
RemainingSteps = Annotated[int, RemainingStepsManager]
