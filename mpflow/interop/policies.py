"""LangGraph's policies as ours. It knows them by their fields, and imports nothing of LangGraph's."""

from __future__ import annotations

from typing import Any

from mpflow.types import CachePolicy, RetryPolicy, TimeoutPolicy


def retries(policy: Any) -> list[RetryPolicy] | None:
    """One or several retry policies as a list."""
    if policy is None:
        return None
    several = [policy] if hasattr(policy, "max_attempts") else list(policy)
    return [RetryPolicy(**one._asdict()) for one in several]


def caching(policy: Any) -> CachePolicy[Any] | None:
    return None if policy is None else CachePolicy(key_func=policy.key_func, ttl=policy.ttl)


def timeout_policy(policy: Any) -> TimeoutPolicy | None:
    if policy is None:
        return None
    return TimeoutPolicy(run_timeout=policy.run_timeout, idle_timeout=policy.idle_timeout, refresh_on=policy.refresh_on)
