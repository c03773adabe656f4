"""A memory cgroup of a test's own, where it can make one (version 1 or 2)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Path | None]:
    """The directory of a new group with that limit, to whose ``cgroup.procs`` a process may write itself; None if impossible."""
    name = f"mpflow-test-{os.getpid()}"
    found = None
    for parent, limit in ((_ROOT / "memory", "memory.limit_in_bytes"), (_ROOT, "memory.max")):
        made = parent / name
        try:
            made.mkdir()
        except OSError:
            continue
        try:
            (made / limit).write_text(str(limit_bytes))
            with contextlib.suppress(OSError):  # where it is counted at all
                (made / "memory.swap.max").write_text("0")
        except OSError:
            made.rmdir()
            continue
        found = made
        break
    try:
        yield found
    finally:
        if found is not None:
            deadline = time.monotonic() + 10
            while True:  # the group is busy until the last process in it is buried
                try:
                    found.rmdir()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
