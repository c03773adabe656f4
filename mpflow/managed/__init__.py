"""Managed values: state keys that the engine computes for each task."""

from mpflow.managed.is_last_step import IsLastStep, RemainingSteps

__all__ = ("IsLastStep", "RemainingSteps")
