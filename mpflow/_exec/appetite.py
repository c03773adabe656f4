"""How much memory a task of a node takes, as far as it is known: a hint, what was measured, what a death told."""

from __future__ import annotations

from typing import Final

_FORGET: Final = 0.02
"""The share of the distance by which a lower measurement lowers what is expected: one in fifty may be much higher."""


class Appetite:
    """The peak by which a task of one node grows its worker.

    The first task of a node in a worker may import and load what those after it find there, so the two are apart.
    """

    __slots__ = ("_again_bytes", "_first_bytes", "_has_again", "_raised_bytes", "hint_bytes")

    def __init__(self, hint_bytes: int) -> None:
        self.hint_bytes = hint_bytes
        self._first_bytes = 0.0
        self._again_bytes = 0.0
        self._has_again = False
        self._raised_bytes = 0

    def learn(self, grown_bytes: int, is_first: bool) -> None:
        """Take a measurement: a higher one counts at once, a lower one little by little."""
        if is_first:
            self._first_bytes = _towards(self._first_bytes, grown_bytes)
        else:
            self._again_bytes = _towards(self._again_bytes, grown_bytes)
            self._has_again = True
        self._raised_bytes //= 2

    def starved(self, grown_bytes: int, least_bytes: int) -> None:
        """A task died for want of memory at `grown_bytes`, if that is known. Expect half as much again, or `least_bytes`."""
        self._raised_bytes = max(least_bytes, int(1.5 * max(grown_bytes, self.need_bytes(False))))

    def need_bytes(self, is_known_there: bool) -> int:
        """What to expect of a task in a worker that has run the node before, or has not. 0: nothing worth counting."""
        learnt = self._again_bytes if is_known_there and self._has_again else self._first_bytes
        return max(self.hint_bytes, self._raised_bytes, int(learnt))


def _towards(expected: float, measured: int) -> float:
    return measured if measured >= expected else expected + (measured - expected) * _FORGET
