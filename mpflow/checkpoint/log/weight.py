"""When a step is saved whole: once reading the rows since the last whole one costs more than reading the state would."""

from __future__ import annotations

from typing import Final

ROW_BYTES: Final = 2048
"""What opening one row costs, in bytes of a large one: some 14 us, measured, against 7 ns a byte."""
LEAST_BYTES: Final = 4 << 20
"""Never before that much, whatever the state: it is read in some 30 ms."""
SHARE: Final = 3
"""Rows may weigh so many times the last whole step, so that whole steps add a third to what is written, or little more."""


class Tip:
    """The end of a line of steps: the whole step that it builds on, and what has been added since."""

    __slots__ = ("base", "weight_bytes", "whole_bytes")

    def __init__(self, base: str, whole_bytes: int, weight_bytes: int = 0) -> None:
        self.base = base
        self.whole_bytes = whole_bytes
        self.weight_bytes = weight_bytes

    def grow(self, row_bytes: int) -> None:
        self.weight_bytes += row_bytes + ROW_BYTES

    @property
    def is_heavy(self) -> bool:
        return self.weight_bytes >= LEAST_BYTES and self.weight_bytes >= SHARE * self.whole_bytes
