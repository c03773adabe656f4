"""How much memory this process may use: the cgroup's limit, else the machine's. Reads files only; must not cache what changes."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
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
    return max(0, min([_free_bytes(), *(free for _, free in _cgroup_rooms())]))


def available_bytes() -> int:
    """How much more may be allocated if the kernel first drops what it can read again from files, as a machine's
    MemAvailable counts it: all that was not read of late, and half of the rest."""
    rooms = [free + _reclaimable_bytes(directory) for directory, free in _cgroup_rooms()]
    return max(0, min([_free_bytes(), *rooms]))


def private_bytes(pid: int) -> int:
    """The resident memory of a process that is its own: neither files nor shared memory. 0 where the kernel does not tell."""
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_bytes().split()[1:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _cgroup_rooms() -> Iterator[tuple[Path, int]]:
    """The cgroups that limit us to less than the machine has, each with what is left of its limit."""
    for directory, limit, usage in _cgroups():
        most = _number(directory / limit)
        if most is not None and most < _machine_bytes():
            used = _number(directory / usage)
            if used is not None:
                yield directory, most - used


def _reclaimable_bytes(cgroup: Path) -> int:
    try:
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    own = "total_" if "total_inactive_file" in stat else ""  # version 1 counts the groups below apart
    return int(stat.get(own + "inactive_file", 0)) + int(stat.get(own + "active_file", 0)) // 2


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


def _free_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return _machine_bytes()
