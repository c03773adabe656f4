"""The base of the checks: how a saver is opened for one, in either colour, in a place of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest import SkipTest

from mpflow.testing.colours import COLOURS, Colour
from mpflow.testing.probe import Probe


class Suite:
    """Checks of one saver. Each is a method ``test_...(self, colour)``; subclasses say how the saver is opened."""

    colours: tuple[str, ...] = ("sync", "async")
    """Which sides of the saver to check."""
    persistent: bool = False
    """Whether what was saved is found again by a saver that is opened later, in another process too."""
    lacks: frozenset[str] = frozenset()
    """Methods of the protocol that the saver does not have; what needs them is skipped."""
    refusals: tuple[type[BaseException], ...] = (ValueError,)
    """What the saver raises for ids that it cannot keep exactly."""

    def open(self, place: Path) -> AbstractContextManager[Any]:
        """A context manager whose value is the saver, ready for use.

        `place` is an empty folder that only this check knows: keep a file in it, or derive the name of a database
        from its name. Opened a second time with the same place, a `persistent` saver finds what it saved.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to open its saver: define open()")

    def aopen(self, place: Path) -> AbstractAsyncContextManager[Any] | AbstractContextManager[Any]:
        """As `open`, for the async side; the same saver unless overridden."""
        return self.open(place)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """pytest runs each check once a colour."""
        if "colour" in metafunc.fixturenames:
            metafunc.parametrize("colour", self.colours)

    @contextmanager
    def place(self) -> Iterator[Path]:
        """A folder for one check."""
        with tempfile.TemporaryDirectory(prefix="saver-") as folder:
            yield Path(folder)

    @contextmanager
    def opened(self, colour: str, place: Path | None = None) -> Iterator[Probe]:
        """The saver, opened in a colour at a place, or at one of its own."""
        with COLOURS[colour]() as calls:
            where = calls.open(self.place()) if place is None else place
            yield self.probe(calls, where)

    def probe(self, calls: Colour, place: Path) -> Probe:
        """The saver opened for as long as these calls are."""
        return Probe(calls.open(self.open(place) if calls.name == "sync" else self.aopen(place)), calls)

    def needs(self, *methods: str) -> None:
        """Skip the check where the saver lacks one of these."""
        for method in methods:
            if method in self.lacks:
                raise SkipTest(f"the saver has no {method}()")
