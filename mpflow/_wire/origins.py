"""Which buffers are blocks of another process, mapped here and unchanged: such a block is passed on, not copied.

Owns the memory of where mappings came from, and the look at the page table that tells whether somebody wrote to one.
"""

from __future__ import annotations

import mmap
import struct
import weakref
from io import FileIO
from typing import Any, Final, Protocol

# Of /proc/self/pagemap (Documentation/admin-guide/mm/pagemap.rst): in the topmost byte of an entry,
_ENTRY_BYTES: Final = 8
_PRESENT: Final = 0x80
_SWAPPED: Final = 0x40
_OF_FILE: Final = 0x20
# and in its ioctl PAGEMAP_SCAN (Linux 6.7), which skips what was never read and stops at the first page that it finds.
_SCAN: Final = 0xC0606610
_SCAN_REQUEST: Final = struct.Struct("=12Q")
_SCAN_PRESENT: Final = 8
_SCAN_SWAPPED: Final = 16
_SCAN_OF_FILE: Final = 4
_SCAN_REGION_BYTES: Final = 24


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
    if origin is None or view.nbytes != origin.size_bytes or view.readonly or not is_untouched(view):
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


def is_untouched(view: memoryview, *, at_a_glance: bool = False) -> bool:
    """Whether no page of a private mapping was written to: a page that was is no longer one of the file's.

    Also false if the kernel does not tell, or with `at_a_glance` if it takes reading the entry of every page.
    """
    import ctypes

    start = ctypes.addressof(ctypes.c_char.from_buffer(view))
    first, last = start // mmap.PAGESIZE, (start + view.nbytes - 1) // mmap.PAGESIZE
    try:
        with FileIO("/proc/self/pagemap") as file:
            try:
                return not _has_private(file, first * mmap.PAGESIZE, (last + 1) * mmap.PAGESIZE)
            except OSError:  # an older kernel
                return not at_a_glance and _all_of_file(file, first, last + 1 - first)
    except OSError:  # not Linux, or not for us to see
        return False


def _has_private(pagemap: FileIO, start: int, end: int) -> bool:
    import ctypes
    import fcntl

    region = ctypes.create_string_buffer(_SCAN_REGION_BYTES)
    one_page = 1
    # Pages that are not of the file, and present or swapped out.
    inverted = must = _SCAN_OF_FILE
    either = _SCAN_PRESENT | _SCAN_SWAPPED
    request = bytearray(
        _SCAN_REQUEST.pack(
            _SCAN_REQUEST.size, 0, start, end, 0, ctypes.addressof(region), 1, one_page, inverted, must, either, either
        )
    )
    found: int = fcntl.ioctl(pagemap, _SCAN, request)
    return found > 0


def _all_of_file(pagemap: FileIO, first: int, count: int) -> bool:
    pagemap.seek(first * _ENTRY_BYTES)
    entries = b""
    while len(entries) < count * _ENTRY_BYTES:
        more = pagemap.read(count * _ENTRY_BYTES - len(entries))
        if not more:
            return False
        entries += more
    tops = set(entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES])
    return not any(top & _SWAPPED or (top & _PRESENT and not top & _OF_FILE) for top in tops)
