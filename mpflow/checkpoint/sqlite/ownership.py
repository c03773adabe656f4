"""Which process runs which thread of a database: locks that the kernel keeps, and frees when a process ends.

A lock is one byte of a file beside the database, at an offset that the thread's id gives. Such locks are the process's:
within it a thread may be claimed several times, which is counted here. The file is opened once a process, because
closing any descriptor of it would free them all.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from hashlib import blake2b

from mpflow.errors import RunOwnedElsewhere, StorageError


class _LockFile:
    """The open file, and how often this process claimed each thread."""

    __slots__ = ("counts", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.counts: dict[str, int] = {}


_lock = threading.Lock()
_open: dict[str, _LockFile] = {}


def _forget() -> None:
    """A forked child has none of its parent's locks."""
    for file in _open.values():
        os.close(file.fd)
    _open.clear()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forget)


class Ownership:
    """Claims on the threads of the database beside which `path` lies."""

    def __init__(self, path: str) -> None:
        self._path = os.path.realpath(os.path.dirname(path)) + "/" + os.path.basename(path)

    def claim(self, thread_id: str) -> None:
        """Raises RunOwnedElsewhere if another process has the thread, StorageError if there can be no lock."""
        with _lock:
            file = _open.get(self._path)
            if file is None:
                file = _open[self._path] = self._opened()
            if thread_id not in file.counts:
                try:
                    fcntl.lockf(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(thread_id), os.SEEK_SET)
                except OSError as error:
                    owner = _owner(file.fd, thread_id)
                    self._close_unused(file)
                    if isinstance(error, (BlockingIOError, PermissionError)):
                        raise RunOwnedElsewhere(thread_id, owner) from None
                    raise StorageError(self._path, f"{type(error).__name__}: {error}") from error
            file.counts[thread_id] = file.counts.get(thread_id, 0) + 1

    def release(self, thread_id: str) -> None:
        """Undo one claim; one that is not there is none to undo: a forked child has none."""
        with _lock:
            file = _open.get(self._path)
            if file is None or thread_id not in file.counts:
                return
            file.counts[thread_id] -= 1
            if not file.counts[thread_id]:
                del file.counts[thread_id]
                fcntl.lockf(file.fd, fcntl.LOCK_UN, 1, _offset(thread_id), os.SEEK_SET)
            self._close_unused(file)

    def _opened(self) -> _LockFile:
        try:
            return _LockFile(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StorageError(self._path, f"{type(error).__name__}: {error}") from error

    def _close_unused(self, file: _LockFile) -> None:
        if not file.counts:
            del _open[self._path]
            os.close(file.fd)


def _offset(thread_id: str) -> int:
    digest = blake2b(thread_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2


def _owner(fd: int, thread_id: str) -> str:
    """Who holds the lock, where the kernel says so in the way that Linux does."""
    layout = "hhqqi4x"
    try:
        asked = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, _offset(thread_id), 1, 0)
        pid = struct.unpack(layout, fcntl.fcntl(fd, fcntl.F_GETLK, asked))[4]
    except (OSError, struct.error):
        return ""
    return f"pid {pid}" if pid > 0 else ""
