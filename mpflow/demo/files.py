"""Which files the demonstration reads: the Python files below a root, in one order on every machine."""

from __future__ import annotations

import os
import sysconfig

_SKIPPED = frozenset({"__pycache__", "site-packages", "dist-packages", "node_modules"})


def standard_library() -> str:
    """Where the running interpreter keeps its own source: real input that every machine has."""
    return sysconfig.get_paths()["stdlib"]


def python_files(root: str, limit: int = 0) -> list[str]:
    """Paths below `root` of all that is named ``*.py``, sorted; with a `limit`, that many spread evenly over them.

    Links to directories are not followed, so a loop of them is harmless; directories that cannot be read are passed
    over, as are hidden ones and installed packages.
    """
    found = []
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = [d for d in subdirectories if d not in _SKIPPED and not d.startswith(".")]
        below = os.path.relpath(directory, root)
        found += [os.path.normpath(os.path.join(below, name)) for name in names if name.endswith(".py")]
    found.sort()
    if 0 < limit < len(found):
        return [found[i * len(found) // limit] for i in range(limit)]
    return found
