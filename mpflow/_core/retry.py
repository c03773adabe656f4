"""Whether and when a failed task is tried again (RY-2 to RY-4). Pure: the clock and the dice come with the stimulus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow._messages import Death
    from mpflow.types import RetryPolicy

MAX_DEATHS = 3
"""A task whose worker died this often is quarantined (FAULTS, promise 7)."""


def is_poison(deaths: Sequence[Death]) -> bool:
    """Whether a task that lost its workers in these ways is run no more: three deaths, or two for want of memory."""
    return len(deaths) >= MAX_DEATHS or (len(deaths) > 1 and deaths[-1].reason == "out of memory")


def matches(retry_on: Any, error: BaseException) -> bool:
    """Whether a policy's ``retry_on`` names this exception: a class, a sequence of classes, or a predicate."""
    if isinstance(retry_on, type):
        return isinstance(error, retry_on)
    if isinstance(retry_on, Sequence):
        return isinstance(error, tuple(retry_on))
    if isinstance(retry_on, Callable):  # type: ignore[arg-type]
        return bool(retry_on(error))
    raise TypeError("retry_on must be an Exception class, a list or tuple of Exception classes, or a callable")


def interval_s(policies: Sequence[RetryPolicy], error: BaseException, failures: int, dice: float) -> float | None:
    """Seconds to wait before the next attempt, or None if there is none.

    The first policy that matches governs; failures are counted over all policies together. `dice` is in [0, 1).
    """
    for policy in policies:
        if matches(policy.retry_on, error):
            if failures >= policy.max_attempts:
                return None
            wait: float = min(policy.max_interval, policy.initial_interval * policy.backoff_factor ** (failures - 1))
            return wait + dice if policy.jitter else wait
    return None
