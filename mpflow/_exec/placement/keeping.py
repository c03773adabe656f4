"""Profiles that outlive a program: read from a data file when a graph first measures a node, written back at the end.

An entry belongs to a function's name, its code, and the interpreter and machine it was measured on. Whatever does not fit
is ignored: at worst a node is measured anew. The file is JSON, written whole under another name and then renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import types
import weakref
from functools import partial
from pathlib import Path
from typing import Any

from mpflow._exec.cpu import cpu_count
from mpflow._exec.placement.bytecode import digest_of
from mpflow._exec.placement.profile import Profile

VERSION = 2
MOST_ENTRIES = 10_000
MOST_BYTES = 16 << 20
_FIGURES = ("cpu_s", "wall_s", "last_lanes", "best_lanes", "away_s", "away_cpu_s", "input_bytes", "output_bytes")
_COUNTS = ("seen", "company", "sent")


class Keeper:
    """One file of profiles, while it is in use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        """Why what the file held was ignored as a whole; None if it was not."""
        self._entries = self._read()
        self._live: dict[str, weakref.ref[Profile]] = {}
        self._held: list[Profile] = []

    def recall(self, profile: Profile, source: Any) -> None:
        """Fill a new profile with what is known of the same code, and take note of what it becomes."""
        key = key_of(source)
        if key is None:
            return
        self._held.append(profile)
        self._live[key] = weakref.ref(profile)
        entry = self._entries.get(key)
        if _is_entry(entry):
            assert entry is not None
            for name in _FIGURES:
                setattr(profile, name, float(entry[name]))
            for name in _COUNTS:
                setattr(profile, name, int(entry[name]))
            profile.proven_as = entry.get("proven") if isinstance(entry.get("proven"), str) else None
            profile.settle()

    def save(self) -> None:
        """Write all entries. Raises OSError."""
        for key, reference in self._live.items():
            profile = reference()
            if profile is not None and profile.seen >= 2:
                entry: dict[str, Any] = {name: getattr(profile, name) for name in (*_FIGURES, *_COUNTS)}
                standing = profile.standing
                proven = profile.proven_as if standing is None else standing.digest if standing.proven else None
                if proven is not None:  # or in a run too short to look at it again
                    entry["proven"] = proven
                self._entries.pop(key, None)
                self._entries[key] = entry
        kept = dict(list(self._entries.items())[-MOST_ENTRIES:])
        data = json.dumps({"version": VERSION, "made_on": _circumstances(), "nodes": kept}, indent=1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)  # mode 0600
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(data)
            os.replace(temporary, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            if self.path.stat().st_size > MOST_BYTES:
                self.problem = f"larger than {MOST_BYTES} bytes"
                return {}
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found["version"] != VERSION:
                self.problem = f"version {found['version']!r}, expected {VERSION}"
            elif found["made_on"] != _circumstances():
                self.problem = f"measured on {found['made_on']!r}, this is {_circumstances()!r}"
            elif not isinstance(found["nodes"], dict):
                self.problem = "no nodes in it"
            else:
                return found["nodes"]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self.problem = f"{type(error).__name__}: {error}"
        return {}


def key_of(source: Any) -> str | None:
    """What names a node's code from one start of a program to the next; None for what is no function at heart."""
    while isinstance(source, partial):
        source = source.func
    function = getattr(source, "__func__", source)
    if not isinstance(function, types.FunctionType):
        function = getattr(type(source), "__call__", None)
        if not isinstance(function, types.FunctionType):
            return None
    return f"{function.__module__}.{function.__qualname__}:{digest_of(function.__code__)}"


def _circumstances() -> str:
    return f"{sys.implementation.cache_tag}, {cpu_count()} cores"


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    values = [entry.get(name) for name in (*_FIGURES, *_COUNTS)]
    return all(isinstance(value, (int, float)) and 0 <= value < 1e12 for value in values)
