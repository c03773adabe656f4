"""SQLite databases as all of ours are opened: files of their owner alone, never through a symbolic link."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from typing import Final

from mpflow.errors import StorageError

BUSY_S: Final = 5.0
"""How long to wait for another process that writes."""

_making = threading.Lock()
os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)


def open_private(path: str) -> sqlite3.Connection:
    """A connection to the database at `path`, made readable by its owner alone if it is new. Refuses symbolic links.

    Missing folders are made, for the owner alone. Raises StorageError, which names the file.
    """
    if path == ":memory:":
        return sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    path = os.path.abspath(path)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        _made_private(path)
        for side in ("", "-wal", "-shm", "-journal", "-runs"):
            if os.path.islink(path + side):
                raise OSError(f"{path}{side} is a symbolic link")
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(f"{path} is no file")
        return sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        detail = "it is a symbolic link" if os.path.islink(path) else f"{type(error).__name__}: {error}"
        raise StorageError(f"SQLite database {path}", detail) from error


def _made_private(path: str) -> None:
    """See that there is a file: SQLite gives its side files the mode of the database, which must therefore be first.

    One that is there is not opened. Closing a descriptor of a file frees all locks that the process has on it: those by
    which SQLite tells other processes that the log beside it is in use, and not to be deleted.
    """
    with _making:  # nobody connects to a file that is about to be closed
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        os.close(descriptor)
