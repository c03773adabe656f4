"""Copies of large buffers, by several threads at once: one core alone does not use up what the memory can move.

Must not import numpy: a buffer of note nearly always comes from it, so that it is there, or the copy is made by one thread.
"""

from __future__ import annotations

import sys
import threading
from itertools import pairwise
from typing import Any, Final

# The least for a thread of its own: starting one takes as long as copying 1 MB.
PART_BYTES: Final = 8 << 20


def copy(target: memoryview, source: memoryview, threads: int) -> None:
    """Copy contiguous bytes; `threads` at most. When it returns or raises, nothing writes to `target` any more."""
    numpy: Any = sys.modules.get("numpy")
    size_bytes = source.nbytes
    count = min(threads, size_bytes // PART_BYTES)
    if count < 2 or numpy is None:
        target[:] = source
        return
    there, here = numpy.frombuffer(target, numpy.uint8), numpy.frombuffer(source, numpy.uint8)
    bounds = [size_bytes * part // count for part in range(count + 1)]
    parts = [(there[start:end], here[start:end]) for start, end in pairwise(bounds)]
    helpers = [threading.Thread(target=numpy.copyto, args=part, daemon=True) for part in parts[1:]]
    started: list[threading.Thread] = []
    try:
        for helper, part in zip(helpers, parts[1:], strict=True):
            try:
                helper.start()
            except RuntimeError:  # no thread to be had
                numpy.copyto(*part)
            else:
                started.append(helper)
        numpy.copyto(*parts[0])
    finally:
        _wait_for(started)


def _wait_for(threads: list[threading.Thread]) -> None:
    interrupt: BaseException | None = None
    for thread in threads:
        while thread.is_alive():
            try:
                thread.join()
            except BaseException as error:  # Ctrl-C: they are done in a moment, and until then they write
                interrupt = error
    if interrupt is not None:
        raise interrupt
