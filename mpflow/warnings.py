"""Warnings of what is going to go, by the version of LangGraph that gave it up, so that filters written for it work."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

__all__ = (
    "LangGraphDeprecatedSinceV05",
    "LangGraphDeprecatedSinceV10",
    "LangGraphDeprecatedSinceV11",
    "LangGraphDeprecationWarning",
)

Version = tuple[int, int]
F = TypeVar("F", bound=Callable[..., Any])


class LangGraphDeprecationWarning(DeprecationWarning):
    """Something is deprecated: since which version of LangGraph, and in which it is expected to be gone."""

    def __init__(self, message: str, *args: object, since: Version, expected_removal: Version | None = None) -> None:
        super().__init__(message, *args)
        self.message = message.rstrip(".")
        self.since = since
        self.expected_removal = expected_removal or (since[0] + 1, 0)

    def __str__(self) -> str:
        major, minor = self.since
        return f"{self.message} (deprecated since LangGraph {major}.{minor}, gone in {self.expected_removal[0]}.0)"


class LangGraphDeprecatedSinceV05(LangGraphDeprecationWarning):
    """Deprecated since LangGraph 0.5."""

    def __init__(self, message: str, *args: object) -> None:
        super().__init__(message, *args, since=(0, 5), expected_removal=(2, 0))


class LangGraphDeprecatedSinceV10(LangGraphDeprecationWarning):
    """Deprecated since LangGraph 1.0."""

    def __init__(self, message: str, *args: object) -> None:
        super().__init__(message, *args, since=(1, 0), expected_removal=(2, 0))


class LangGraphDeprecatedSinceV11(LangGraphDeprecationWarning):
    """Deprecated since LangGraph 1.1."""

    def __init__(self, message: str, *args: object) -> None:
        super().__init__(message, *args, since=(1, 1), expected_removal=(3, 0))


_SINCE_V05 = frozenset(("input", "output", "retry"))


def takes_former_names(**names: str) -> Callable[[F], F]:
    """Let a function take keyword arguments under former names of its parameters, with a warning: ``former="present"``."""

    def decorate(function: F) -> F:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for former in names.keys() & kwargs.keys():
                present = names[former]
                kind = LangGraphDeprecatedSinceV05 if former in _SINCE_V05 else LangGraphDeprecatedSinceV10
                warnings.warn(kind(f"`{former}` is deprecated: pass it as `{present}`"), stacklevel=2)
                value = kwargs.pop(former)
                if kwargs.get(present) is None:
                    kwargs[present] = value
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate
