"""Bytes that decide, one each, what a random description is made of.

A whole description is one draw of hypothesis, a hundred times cheaper than a draw a decision, and still shrinks: what
a zero decides is the simplest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Choices:
    """Decisions in order; after the last byte all are the simplest."""

    def __init__(self, data: bytes) -> None:
        self._rest = iter(data)

    def below(self, bound: int) -> int:
        return next(self._rest, 0) % bound

    def one_of(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def once_in(self, odds: int) -> bool:
        return self.below(odds) == odds - 1

    def some(self, options: Sequence[T], most: int, least: int = 0) -> tuple[T, ...]:
        return tuple(self.one_of(options) for _ in range(least + self.below(most - least + 1)))

    def permuted(self, options: Sequence[T]) -> list[T]:
        rest = list(options)
        return [rest.pop(self.below(len(rest))) for _ in options]


def described(make: Callable[[Choices], T], size_bytes: int) -> st.SearchStrategy[T]:
    """What `make` makes of so many random decisions."""
    return st.binary(min_size=size_bytes, max_size=size_bytes).map(lambda data: make(Choices(data)))
