"""How much memory this process may use: the cgroup's limit, else the machine's. Reads files only; must not cache what changes."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_UNKNOWN_BYTES: Final = 4 << 30


def limit_bytes() -> int:
    """The smallest limit on the way from our cgroup to its root, or the machine's memory."""
    limits = [size for directory, limit, _ in _cgroups() if (size := _number(directory / limit)) is not None]
    return min([_machine_bytes(), *limits])


def headroom_bytes() -> int:
    """How much more may be allocated before the kernel looks for a victim. Memory that it could reclaim counts as used
    in a cgroup, so this errs on the safe side."""
    rooms = [_available_bytes()]
    for directory, limit, usage in _cgroups():
        most, used = _number(directory / limit), _number(directory / usage)
        if most is not None and used is not None:
            rooms.append(most - used)
    return max(0, min(rooms))


@functools.lru_cache(1)
def _cgroups() -> list[tuple[Path, str, str]]:
    """Every cgroup directory that limits us, with the names of its limit and its usage (v2, then v1)."""
    found: list[tuple[Path, str, str]] = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, limit, usage = _CGROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, usage = _CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        own = root / path.lstrip("/")
        found += [
            (directory, limit, usage)
            for directory in (own, *own.parents)
            if directory.is_relative_to(root) and (directory / limit).exists()
        ]
    return found


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


@functools.lru_cache(1)
def _machine_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return _UNKNOWN_BYTES


def _available_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return _machine_bytes()
