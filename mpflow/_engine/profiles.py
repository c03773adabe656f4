"""``mpflow.profile(path)``: what graphs learn of their nodes, kept from one run of a program to the next."""

from __future__ import annotations

import atexit
import logging
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpflow._exec.placement import profile as profiles
from mpflow._exec.placement.keeping import Keeper

if TYPE_CHECKING:
    from typing_extensions import Self


class ProfileFile:
    """A file of profiles in use, from its making to its `close`, at the latest to the end of the program.

    Graphs that first run meanwhile begin with what the file knows of their nodes, and what they learn is written back. A
    context manager. There is one at a time: a new one takes the place of the last, which is saved.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(fspath(path))
        self._keeper: Keeper | None = Keeper(self.path)
        if self._keeper.problem is not None:
            logging.getLogger("mpflow").warning("profile %s is ignored: %s", self.path, self._keeper.problem)
        global _open
        if _open is not None:
            _open.close()
        _open = self
        profiles.recall = self._keeper.recall
        atexit.register(self._close_at_exit)

    def save(self) -> None:
        """Write what is known by now. Raises OSError."""
        if self._keeper is not None:
            self._keeper.save()

    def close(self) -> None:
        """Write what is known and let go of the file. May be called again. Raises OSError."""
        global _open
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        atexit.unregister(self._close_at_exit)
        if _open is self:
            _open = None
            profiles.recall = None
        keeper.save()

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except OSError as error:
            logging.getLogger("mpflow").warning("profile %s could not be written: %s", self.path, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


_open: ProfileFile | None = None


def profile(path: str | PathLike[str]) -> ProfileFile:
    """Keep what graphs learn of their nodes in a file, so that the next run of the program places them at once.

    Call it before the first run of a graph; what is learnt is written when the program ends, or at the end of a ``with``
    block. The file holds figures alone, by function and code: entries of other code, another Python or another machine are
    ignored, as is a file that cannot be read, with one logged warning. Raises OSError where it cannot be written.
    """
    return ProfileFile(path)
