"""Where commands write: files and stdout whose failure ends a command with one line, and is no failure of a graph."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import IO, Any

from mpflow.cli.refusal import Refused


class Unwritten(Refused):
    """Results could not be written, or not all."""

    exit_code = 1


class _Sink(io.FileIO):
    """A file that says which it is when it takes no more. A reader who left needs no telling: BrokenPipeError stays."""

    def __init__(self, file: str | int, name: str) -> None:
        super().__init__(file, "w", closefd=isinstance(file, str))
        self._said = name

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Unwritten(f"cannot write {self._said}: {error.strerror}") from error


def open_file(path: str) -> IO[str]:
    """Open a file for text. Raises OSError if it cannot be opened, and Unwritten from then on."""
    return io.TextIOWrapper(io.BufferedWriter(_Sink(path, path)), encoding="utf-8")


@contextlib.contextmanager
def stdout_that_tells() -> Iterator[None]:
    """Within, what cannot be written to stdout raises Unwritten or BrokenPipeError, at the end at the latest."""
    usual = sys.stdout
    if usual is None or usual is not sys.__stdout__ or not isinstance(usual, io.TextIOWrapper):
        yield
        return
    usual.flush()
    sys.stdout = told = io.TextIOWrapper(
        io.BufferedWriter(_Sink(usual.fileno(), "stdout")),
        encoding=usual.encoding,
        errors=usual.errors,
        line_buffering=usual.line_buffering,
        write_through=usual.write_through,
    )
    try:
        yield
        told.flush()
    except (Unwritten, BrokenPipeError):
        # Python tries to flush once more at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), usual.fileno())
        raise
    finally:
        with contextlib.suppress(Unwritten, BrokenPipeError):
            told.flush()
        sys.stdout = usual
