"""The inputs of a batch: a file, or stdin, of one JSON document a line. It holds one line at a time, and no result."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from mpflow.cli.documents import parse_json
from mpflow.cli.refusal import Refused, one_line


class Lines:
    """The documents that `given`, a path or "-", holds, in their order; blank lines hold none.

    A regular file is read through when this is made, so that nothing has run when a line turns out to be no JSON. What
    can be read but once, a pipe or stdin, is read as its documents are asked for. Raises `Refused`.
    """

    count: int | None = None
    """How many documents there are, where that is known beforehand."""
    digest: str | None = None
    """Names what the documents say, where that is known beforehand."""

    def __init__(self, given: str) -> None:
        self._path = None if given == "-" else given
        self._where = given if self._path else "stdin"
        if self._path and not os.path.exists(self._path):
            raise Refused(f"cannot read {self._path}: no such file")
        if self._path and os.path.isfile(self._path):
            digest = hashlib.sha256()
            self.count = 0
            for line, _ in self._documents():
                digest.update(line.encode())
                self.count += 1
            self.digest = digest.hexdigest()[:16]

    def __iter__(self) -> Iterator[Any]:
        return (document for _, document in self._documents())

    def _documents(self) -> Iterator[tuple[str, Any]]:
        """Each line that is not blank, and what it says."""
        try:
            if self._path is None:
                yield from self._parsed(sys.stdin)
            else:
                with open(self._path, encoding="utf-8") as file:
                    yield from self._parsed(file)
        except (OSError, UnicodeError) as error:
            raise Refused(f"cannot read {self._where}: {one_line(error)}") from error

    def _parsed(self, file: Iterable[str]) -> Iterator[tuple[str, Any]]:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield line, parse_json(f"{self._where}, line {number}", line)
