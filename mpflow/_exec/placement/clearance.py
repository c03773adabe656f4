"""What a safety walk found: the reason to stay, or what was let through, and what must not be bound anew since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from mpflow._exec.placement import surroundings

MISSING: Any = object()


class Held(Exception):
    """Something was found that keeps a node where it is. The message names it and what reached it."""


class Clearance:
    """What a walk found. ``held`` is the reason to stay, or None."""

    __slots__ = ("_bindings", "_cells", "_names", "_sizes", "entries", "held", "imports", "moves", "settings")

    def __init__(self) -> None:
        self.held: str | None = None
        self.entries: dict[str, str] = {}
        """With each thing that was let through, text that a walk in another process must come to as well."""
        self.imports: dict[str, None] = {}
        """The modules that code imports while it runs; all of them are loaded here."""
        self.moves: str | None = None
        """A call that moves a file, if what it is a method of is a path."""
        self.settings: dict[str, Any] = {}
        """What the code goes by without naming it (`surroundings`), as it was when the walk met it."""
        self._names: dict[str, int] = {}
        self._bindings: list[tuple[Mapping[str, Any], str, Any]] = []
        self._cells: list[tuple[Any, Any]] = []
        self._sizes: list[tuple[Any, int]] = []

    def note(self, name: str, text: str) -> None:
        """Something was let through: `text` says what it is."""
        count = self._names[name] = self._names.get(name, 0) + 1
        if len(text) > 200:
            text = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        self.entries[f"{name} #{count}" if count > 1 else name] = text

    def watch(self, namespace: Any) -> None:
        """Nothing may be added to `namespace`."""
        self._sizes.append((namespace, len(namespace)))

    def bind(self, namespace: Any, name: str, value: Any) -> None:
        """`name` must stay bound to `value`, or to nothing (`MISSING`)."""
        self._bindings.append((namespace, name, value))

    def goes_by(self, settings: Iterable[str]) -> None:
        """The code depends on these settings of the process, which must stay as they are."""
        self.settings.update(surroundings.look(name for name in settings if name not in self.settings))

    def bind_cell(self, cell: Any, value: Any) -> None:
        """The variable of an outer function must stay bound to `value`."""
        self._cells.append((cell, value))

    def changed(self) -> str | None:
        """What is another than when the walk met it: a global, attribute, variable or setting, by its name; else None."""
        for namespace, name, value in self._bindings:
            if namespace.get(name, MISSING) is not value:
                return name
        for namespace, size in self._sizes:
            if len(namespace) != size:
                return str(next(reversed(namespace), "an attribute"))
        for cell, value in self._cells:
            try:
                if cell.cell_contents is not value:
                    return "a variable of an outer function"
            except ValueError:
                return "a variable of an outer function"
        for name, value in surroundings.look(self.settings).items():
            if self.settings[name] != value:
                return name
        return None

    def digest(self) -> str:
        """Of the entries: equal for the same code and constants."""
        return blake2b(repr(sorted(self.entries.items())).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def difference(self, other: Mapping[str, str]) -> str | None:
        """The name of the first thing that another walk, of the same node, saw otherwise; None if they agree."""
        for name, text in self.entries.items():
            if other.get(name) != text:
                return name
        return next((name for name in other if name not in self.entries), None)
