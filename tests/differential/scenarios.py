"""The same small program under LangGraph and under mpflow, in both colours, must show the same.

A scenario is a function of a library and a colour that returns what a user would see. Ids differ between the libraries, so
they are told by the order in which they first show; times are left out, of errors only the type counts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from difflib import unified_diff
from functools import lru_cache
from importlib import import_module
from itertools import islice
from pprint import pformat
from typing import Any

from mpflow.errors import ReducerError
from tests.colours import AsyncRun, Run, SyncRun

Scenario = Callable[[Any, Run], Any]

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*\+00:00")


class Library:
    """A package's public modules as attributes: ``lib.types``, ``lib.checkpoint_memory``, ``lib.store_base``."""

    def __init__(self, package: str, saver: Callable[[], Any] | None = None) -> None:
        self.package = package
        self.new_saver = saver or (lambda: self.checkpoint_memory.InMemorySaver())

    def __getattr__(self, name: str) -> Any:
        try:
            return import_module(f"{self.package}.{name.replace('_', '.')}")
        except ImportError as missing:
            raise AttributeError(name) from missing


def tried(call: Callable[[], Any]) -> Any:
    """What a call comes to, be it an error."""
    try:
        return call()
    except Exception as error:
        return error


def _is_question(value: Any) -> bool:
    return hasattr(value, "response_schema") and hasattr(value, "id")


class _Plain:
    """Turns what a library shows into builtins that can be compared."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, str):
            return _TIME.sub("<time>", _ID.sub(self._id, value))
        if isinstance(value, BaseException):
            kind = type(value)
            # An error around what a reducer raised is caught as that too.
            return ("raised", (kind.__bases__[-1] if isinstance(value, ReducerError) else kind).__name__)
        if _is_question(value):
            return {"asks": self(value.value), "id": self(value.id), "schema": self(value.response_schema)}
        if hasattr(value, "_asdict"):  # a snapshot, or one of its tasks
            return {key: self(item) for key, item in value._asdict().items() if key != "created_at"}
        if isinstance(value, Mapping):
            return {self(key): self(item) for key, item in value.items() if not str(key).startswith("__pregel_")}
        if isinstance(value, (list, tuple)):
            if value and all(map(_is_question, value)):  # in LangGraph their order may be that of the threads
                value = type(value)(sorted(value, key=lambda asked: repr(asked.value)))
            return type(value)([self(item) for item in value])
        return value

    def _id(self, match: re.Match[str]) -> str:
        return self.ids.setdefault(match.group(), f"<id {len(self.ids)}>")


def shown(scenario: Scenario, library: Library, run: Run) -> Any:
    """What a scenario shows under one library."""
    return _Plain()(tried(lambda: scenario(library, run)))


@lru_cache(maxsize=64)
def _shown_by_langgraph(scenario: Scenario, colour: type[SyncRun | AsyncRun]) -> Any:
    """What it shows is the same however often it is asked, for each of our savers."""
    return shown(scenario, Library("langgraph"), colour())


def check(scenario: Scenario, saver: Callable[[], Any] | None = None) -> None:
    """Assert that a scenario shows the same under both libraries, whichever the colour; ours with this saver."""
    runs: list[Run] = [SyncRun()]
    if sys.version_info >= (3, 11):  # before, LangGraph's async nodes do not find their run
        runs.append(AsyncRun())
    for run in runs:
        expected = _shown_by_langgraph(scenario, type(run))
        failed = isinstance(expected, tuple) and expected[:1] == ("raised",)
        assert not failed, f"nothing is compared: the scenario itself comes to {expected}"
        found = shown(scenario, Library("mpflow", saver), run)
        assert found == expected, _differences(expected, found, run.colour)


def _differences(expected: Any, found: Any, colour: str) -> str:
    theirs, ours = (pformat(shown, width=120).splitlines() for shown in (expected, found))
    lines = unified_diff(theirs, ours, "langgraph", "mpflow", lineterm="", n=2)
    return "\n".join([f"in the {colour} colour", *islice(lines, 60)])
