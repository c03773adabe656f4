"""What a worker keeps for tasks to come: encoded values that they name by number (see `shelf`, which decides what)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mpflow._wire.mappings import Held, Mappings


class Kept:
    """Encoded values, and what holds their shared memory. Every task decodes them anew: none sees another's changes."""

    def __init__(self, decode: Callable[..., Any], mappings: Mappings) -> None:
        self._decode = decode
        self._mappings = mappings
        self._values: dict[int, tuple[Any, Held | None]] = {}
        self._opened: set[Held] = set()
        """What was opened of them for the batch that runs."""

    def add(self, number: int, ticket: int, data: Any) -> None:
        self._values[number] = data, self._mappings.hold(ticket, is_lasting=True) if ticket else None

    def forget(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            _, held = self._values.pop(number)
            if held is not None:
                held.close()

    def settle(self) -> None:
        """The batch has ended."""
        for held in self._opened:
            held.settle()
        self._opened.clear()

    def assemble(self, held: Held | None, light: bytes, refs: tuple[tuple[Any, Any], ...], base: int) -> Any:
        """An input of which parts are kept here (see `shelf.Sheet`); `held` holds the shared memory of the rest."""
        if not light:
            return self._value(refs[0][1])
        value = self._decode(light, held)
        if base:
            value = {**self._value(base), **value}
        for key, item in refs:
            value[key] = self._value(item)
        return value

    def _value(self, item: Any) -> Any:
        if type(item) is not int:
            return self._decode(item)
        data, held = self._values[item]
        if held is not None:
            self._opened.add(held)
        return self._decode(data, held)
