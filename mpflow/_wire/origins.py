"""Which buffers are blocks of another process, mapped here and unchanged: such a block is passed on, not copied.

Owns the memory of where mappings came from, and the look at the page table that tells whether somebody wrote to one.
"""

from __future__ import annotations

import mmap
import weakref
from typing import Any, Final, Protocol

_ENTRY_BYTES: Final = 8
# In the topmost byte of an entry of /proc/self/pagemap (Documentation/admin-guide/mm/pagemap.rst).
_PRESENT: Final = 0x80
_SWAPPED: Final = 0x40
_OF_FILE: Final = 0x20


class Holder(Protocol):
    """What keeps the block of a mapping from being used again: `mappings.Held`."""

    @property
    def is_gone(self) -> bool:
        """Its sender is dead and its files are closed."""
        ...

    def pin(self) -> None: ...
    def unpin(self) -> None: ...

    def duplicate(self, file_id: int) -> int:
        """A descriptor of a file, the caller's to close. Raises OSError if it is closed by now."""
        ...


class Origin:
    """Where a mapping came from: a block in a file, and who holds it."""

    __slots__ = ("file_id", "generation", "holder", "offset", "size_bytes")

    def __init__(self, file_id: int, offset: int, size_bytes: int, generation: int, holder: Holder) -> None:
        self.file_id = file_id
        self.offset = offset
        self.size_bytes = size_bytes
        self.generation = generation
        self.holder = holder


_origins: weakref.WeakKeyDictionary[mmap.mmap, Origin] = weakref.WeakKeyDictionary()


def remember(mapping: mmap.mmap, origin: Origin) -> None:
    """`mapping` is private and shows the block of `origin` behind its header."""
    _origins[mapping] = origin


def find(view: memoryview) -> Origin | None:
    """The origin of these contiguous bytes, if they are all of a block and nobody has written to them since."""
    if not _origins:
        return None
    mapping = _mapping_of(view.obj)
    origin = _origins.get(mapping) if mapping is not None else None
    if origin is None or view.nbytes != origin.size_bytes or view.readonly or not _is_untouched(view):
        return None
    return origin


def _mapping_of(owner: Any) -> mmap.mmap | None:
    """The mapping that a buffer lies in: arrays lead to it by what they are views of."""
    for _ in range(8):
        if isinstance(owner, mmap.mmap):
            return owner
        if isinstance(owner, memoryview):
            owner = owner.obj
        else:
            owner = getattr(owner, "base", None)
            if owner is None:
                return None
    return None


def _is_untouched(view: memoryview) -> bool:
    """Whether no page of a private mapping was written to: a page that was is no longer one of the file's."""
    import ctypes

    start = ctypes.addressof(ctypes.c_char.from_buffer(view))
    first, last = start // mmap.PAGESIZE, (start + view.nbytes - 1) // mmap.PAGESIZE
    size_bytes = (last - first + 1) * _ENTRY_BYTES
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            file.seek(first * _ENTRY_BYTES)
            entries = b""
            while len(entries) < size_bytes:
                more = file.read(size_bytes - len(entries))
                if not more:
                    return False
                entries += more
    except OSError:  # not Linux, or not for us to see
        return False
    tops = set(entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES])
    return not any(top & _SWAPPED or (top & _PRESENT and not top & _OF_FILE) for top in tops)
