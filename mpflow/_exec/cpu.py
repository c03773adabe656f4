"""How many workers a machine, or the part of it that we were given, can keep busy, and how many threads each may use.

The count is the least of the processors, the affinity mask, the quotas of all cgroups around us (v1, v2, nested) and
``LOKY_MAX_CPU_COUNT``. Reads files only; starts nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""What the numeric libraries read at their import."""


def cpu_count(*, root: str = "/", environ: Mapping[str, str] | None = None) -> int:
    """The processors this process may use, at least 1. `root` is where ``proc`` and ``sys`` are looked for."""
    environ = os.environ if environ is None else environ
    counts: list[float] = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    counts.extend(quotas(root))
    limit = environ.get("LOKY_MAX_CPU_COUNT", "")
    if limit.strip().isdigit():
        counts.append(int(limit))
    return max(1, math.ceil(min(counts)))


@lru_cache(maxsize=1)
def cores() -> int:
    """As `cpu_count` was when it was first asked: reading the files of cgroups takes longer than many a run."""
    return cpu_count()


def thread_limits(workers: int, environ: Mapping[str, str] | None = None, cpus: int | None = None) -> dict[str, str]:
    """What to set in the environment of each of `workers`, so that their inner threads together fit the processors.

    A variable that the user has set is left alone.
    """
    environ = os.environ if environ is None else environ
    threads = max(1, (cpu_count(environ=environ) if cpus is None else cpus) // max(1, workers))
    return {name: str(threads) for name in THREAD_VARIABLES if name not in environ}


def quotas(root: str = "/") -> Iterator[float]:
    """The processor quotas of the cgroups that hold this process, each level of each hierarchy; unlimited ones left out."""
    base = Path(root)
    for controllers, path in _memberships(base):
        if controllers == "":
            # A process in its own cgroup namespace sees "/", and its limits at the mount's root.
            yield from _walk(base / "sys/fs/cgroup", path, _quota_v2)
            yield from _walk(base / "sys/fs/cgroup/unified", path, _quota_v2)
        elif "cpu" in controllers.split(","):
            for mount in dict.fromkeys((controllers, "cpu", "cpu,cpuacct")):
                yield from _walk(base / "sys/fs/cgroup" / mount, path, _quota_v1)


def _memberships(base: Path) -> list[tuple[str, str]]:
    found = []
    for line in _read(base / "proc/self/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            found.append((parts[1], parts[2]))
    # Without /proc (or with it hidden) the mount's root still tells of a container's own limits.
    return found or [("", "/"), ("cpu", "/")]


def _walk(mount: Path, path: str, quota: Callable[[Path], float | None]) -> Iterator[float]:
    """The quotas from the mount's root down to our group: a parent's limit binds its children."""
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for depth in range(len(parts) + 1):
        value = quota(mount.joinpath(*parts[:depth]))
        if value is not None:
            yield value


def _quota_v2(group: Path) -> float | None:
    words = _read(group / "cpu.max").split()
    return _ratio(words[0], words[1]) if len(words) == 2 else None


def _quota_v1(group: Path) -> float | None:
    return _ratio(_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    try:
        over = int(quota)
        under = int(period)
    except ValueError:  # "max", or a file that is not there
        return None
    return over / under if over > 0 and under > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
