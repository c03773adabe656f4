"""How much memory this process may use: the cgroup's limit, else the machine's. Reads files only; must not cache what changes."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Final

# Paths are strings here: every worker reads this file as it starts, and pathlib would be a tenth of what it imports.
_CGROUPS: Final = "/sys/fs/cgroup"
_UNKNOWN_BYTES: Final = 4 << 30


def limit_bytes() -> int:
    """The smallest limit on the way from our cgroup to its root, or the machine's memory."""
    limits = [size for directory, limit, _ in _cgroups() if (size := _number(f"{directory}/{limit}")) is not None]
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
        resident, shared = _read(f"/proc/{pid}/statm").split()[1:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _cgroup_rooms() -> Iterator[tuple[str, int]]:
    """The cgroups that limit us to less than the machine has, each with what is left of its limit."""
    for directory, limit, usage in _cgroups():
        most = _number(f"{directory}/{limit}")
        if most is not None and most < _machine_bytes():
            used = _number(f"{directory}/{usage}")
            if used is not None:
                yield directory, most - used


def _reclaimable_bytes(cgroup: str) -> int:
    try:
        stat = dict(line.split() for line in _read(f"{cgroup}/memory.stat").splitlines())
    except (OSError, ValueError):
        return 0
    own = "total_" if "total_inactive_file" in stat else ""  # version 1 counts the groups below apart
    return int(stat.get(own + "inactive_file", 0)) + int(stat.get(own + "active_file", 0)) // 2


@functools.lru_cache(1)
def _cgroups() -> list[tuple[str, str, str]]:
    """Every cgroup directory that limits us, with the names of its limit and its usage (v2, then v1)."""
    found: list[tuple[str, str, str]] = []
    try:
        lines = _read("/proc/self/cgroup").splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, limit, usage = _CGROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, usage = f"{_CGROUPS}/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts), -1, -1):
            directory = "/".join([root, *parts[:depth]])
            if os.path.exists(f"{directory}/{limit}"):
                found.append((directory, limit, usage))
    return found


def _number(path: str) -> int | None:
    try:
        text = _read(path).strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


@functools.lru_cache(1)
def _machine_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return _UNKNOWN_BYTES


def _free_bytes() -> int:
    try:
        for line in _read("/proc/meminfo").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return _machine_bytes()
