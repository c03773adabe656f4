"""What this process holds at one moment, and what it holds more of later: children, threads, descriptors, shared memory.

Linux's /proc is read directly because it is done twice around every test; elsewhere psutil serves. Nothing here ends or
closes what leaked: it is named, that is all.
"""

from __future__ import annotations

import functools
import gc
import os
import re
import select
import sys
import threading
import time
from dataclasses import dataclass, field

import psutil

GRACE_S = 2.0
"""How long asynchronous teardown may take after a test before what is left counts as leaked."""

_LINUX = sys.platform.startswith("linux")
# Names in /dev/shm that Python code makes. Others on the machine make theirs at the same time: a name that bears the
# process id of somebody else is theirs, and so is one without any that somebody else has mapped.
_SHM_NAME = re.compile(r"mpflow|psm_|loky|sem\.loky|sem\.mp|joblib")
_SHM_PID = re.compile(r"(?:(?<=-)|(?<=_))\d+(?=[-_]|$)")


@dataclass(frozen=True)
class Holdings:
    """What was held. Keys identify a thing for good (a pid comes with its start time), values describe it."""

    children: dict[tuple[int, str], str] = field(default_factory=dict)
    threads: dict[int, threading.Thread] = field(default_factory=dict)
    fds: dict[tuple[int, str], str] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)


def holdings() -> Holdings:
    """Take stock. Costs some hundred microseconds, and no garbage collection."""
    tracker_pids, tracker_fds = _resource_trackers()
    return Holdings(
        children=_children(tracker_pids),
        threads={id(t): t for t in threading.enumerate() if t.is_alive()},
        fds=_fds(tracker_fds),
        shared=_shared(),
    )


def leaked(before: Holdings, grace_s: float = GRACE_S) -> list[str]:
    """Say what is held now that was not held before, one line each; wait for what is still on its way out."""
    now = holdings()
    if not _more(before, now):
        return []
    gc.collect()
    deadline = time.monotonic() + grace_s
    while True:
        now = holdings()
        lines = _more(before, now)
        left_s = deadline - time.monotonic()
        if not lines or left_s <= 0:
            return lines
        _wait_for_an_end(before, now, min(left_s, 0.05))


def _more(before: Holdings, now: Holdings) -> list[str]:
    lines = [f"process {pid}: {what}" for (pid, _), what in _new(before.children, now.children)]
    lines += [
        f"thread {thread.name!r} ({'daemon, ' if thread.daemon else ''}{_target(thread)})"
        for _, thread in _new(before.threads, now.threads)
    ]
    lines += [f"descriptor {fd}: {what}" for (fd, _), what in _new(before.fds, now.fds) if _FONTS not in what]
    lines += [f"shared memory {what}" for name, what in _new(before.shared, now.shared) if not _is_theirs(name)]
    return lines


_FONTS = "/mpl-data/fonts/"
"""matplotlib keeps the fonts it has drawn with open."""


def _new(before: dict, now: dict) -> list:
    return [item for item in now.items() if item[0] not in before]


def _target(thread: threading.Thread) -> str:
    target = getattr(thread, "_target", None)
    return f"runs {getattr(target, '__qualname__', target)}" if target else f"runs {type(thread).__qualname__}.run"


def _wait_for_an_end(before: Holdings, now: Holdings, timeout_s: float) -> None:
    """Block until one of the new processes or threads ends; closing a descriptor wakes nobody, hence the time-out."""
    new_children = [pid for (pid, _), _ in _new(before.children, now.children)]
    pidfds = []
    try:
        for pid in new_children if hasattr(os, "pidfd_open") else ():
            try:
                pidfds.append(os.pidfd_open(pid))
            except OSError:
                return
        if pidfds:
            select.select(pidfds, [], [], timeout_s)
            return
    finally:
        for fd in pidfds:
            os.close(fd)
    for _, thread in _new(before.threads, now.threads):
        if thread is not threading.current_thread():
            thread.join(timeout_s)
            return
    threading.Event().wait(min(timeout_s, 0.01))


def _resource_trackers() -> tuple[set[int], set[int]]:
    """The helper process that multiprocessing and loky each keep until exit, and the pipe to it: theirs, not a leak."""
    pids, fds = set(), set()
    for name in ("multiprocessing.resource_tracker", "loky.backend.resource_tracker"):
        tracker = getattr(sys.modules.get(name), "_resource_tracker", None)
        if tracker is not None:
            pids.add(getattr(tracker, "_pid", None))
            fds.add(getattr(tracker, "_fd", None))
    return pids, fds


def _children(known: set[int]) -> dict[tuple[int, str], str]:
    if not _LINUX:
        own = psutil.Process().children(recursive=True)
        return {(p.pid, str(p.create_time())): p.name() for p in own if p.pid not in known}
    found: dict[tuple[int, str], str] = {}
    parents = [os.getpid()]
    while parents:
        parent = parents.pop()
        for pid in _children_of(parent):
            if pid in known:
                continue
            try:
                with open(f"/proc/{pid}/stat", "rb") as file:
                    # The name in the second field may hold blanks and brackets; what follows its last bracket cannot.
                    state, *rest = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            start = rest[18].decode()
            found[pid, start] = _describe(pid, state.decode())
            parents.append(pid)
    return found


def _children_of(pid: int) -> list[int]:
    pids: list[int] = []
    try:
        for tid in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{tid}/children", "rb") as file:
                pids += map(int, file.read().split())
    except OSError:
        pass
    return pids


def _describe(pid: int, state: str) -> str:
    if state == "Z":
        return "ended, but nobody has waited for it"
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()[:200]
    except OSError:
        return "ended"


def _fds(known: set[int]) -> dict[tuple[int, str], str]:
    if not _LINUX:
        return {(n, ""): "" for n in range(psutil.Process().num_fds())}
    found = {}
    for name in os.listdir("/proc/self/fd"):
        if int(name) in known:
            continue
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        found[int(name), target] = target
    return found


def _is_theirs(name: str) -> bool:
    """Whether a process that is none of ours has the file mapped. Looks at all of them, so only a suspect is worth it."""
    ours = {os.getpid(), *(pid for pid, _ in _children(set()))}
    path = f"/dev/shm/{name}\n".encode()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if pid not in ours:
            try:
                with open(f"/proc/{pid}/maps", "rb") as file:
                    if path in file.read():
                        return True
            except OSError:
                pass
    return False


@functools.lru_cache(4096)  # the same names lie there all the time, hundreds where programs were killed
def _may_be_ours(name: str, own_pid: int) -> bool:
    return _SHM_NAME.match(name) is not None and _SHM_PID.findall(name) in ([], [str(own_pid)])


def _shared() -> dict[str, str]:
    """Names under /dev/shm, and shared memory still mapped after its descriptor was closed."""
    found: dict[str, str] = {}
    if not _LINUX:
        return found
    own_pid = os.getpid()
    for name in os.listdir("/dev/shm"):
        if _may_be_ours(name, own_pid):
            found[name] = f"/dev/shm/{name}"
    with open("/proc/self/status", "rb") as file:
        # With no shared page in memory there is nothing mapped worth the millisecond that reading the map takes.
        if b"\nRssShmem:\t       0 kB" in file.read():
            return found
    with open("/proc/self/maps", "rb") as file:
        maps = file.read()
    at = maps.find(b"/memfd:")
    while at >= 0:
        start, end = maps.rfind(b"\n", 0, at) + 1, maps.find(b"\n", at)
        line = maps[start:end].decode(errors="replace").split(None, 5)
        # Device and inode name the memory; one block mapped in several pieces is one holding.
        found[f"{line[3]}:{line[4]}"] = f"mapped: {line[5]}"
        at = maps.find(b"/memfd:", end)
    return found
