"""SQLite databases as all of ours are opened: files of their owner alone, never through a symbolic link."""

from __future__ import annotations

import os
import sqlite3
from typing import Final

from mpflow.errors import StorageError

BUSY_S: Final = 5.0
"""How long to wait for another process that writes."""


def open_private(path: str) -> sqlite3.Connection:
    """A connection to the database at `path`, made readable by its owner alone if it is new. Refuses symbolic links.

    Missing folders are made, for the owner alone. Raises StorageError, which names the file.
    """
    if path == ":memory:":
        return sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    path = os.path.abspath(path)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        # SQLite gives its side files the mode of the file itself, which must therefore be there first.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(path, flags, 0o600))
        for side in ("-wal", "-shm", "-journal", "-runs"):
            if os.path.islink(path + side):
                raise OSError(f"{path}{side} is a symbolic link")
        return sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        detail = "it is a symbolic link" if os.path.islink(path) else f"{type(error).__name__}: {error}"
        raise StorageError(f"SQLite database {path}", detail) from error
