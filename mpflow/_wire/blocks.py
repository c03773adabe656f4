"""The files that shared memory is made of, and their blocks: our own, and those of others that are passed on."""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mpflow._wire.origins import Holder, Origin

# At the start of each block: magic, zero, generation, size. 64 bytes, so that arrays are aligned as numpy likes.
HEADER: Final = struct.Struct("<4sIQQ")
HEADER_BYTES: Final = 64
MAGIC: Final = b"mpfb"


class File:
    """One sealed memfd: its mapping and its free ranges, in order of their offsets."""

    __slots__ = ("fd", "file_id", "free", "map", "size_bytes", "view")

    def __init__(self, file_id: int, size_bytes: int) -> None:
        import fcntl

        self.file_id = file_id
        self.size_bytes = size_bytes
        self.fd = os.memfd_create(f"mpflow-arena-{file_id}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            # Pages are there or this fails: later writes cannot be killed by SIGBUS.
            os.posix_fallocate(self.fd, 0, size_bytes)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self.map = mmap.mmap(self.fd, size_bytes)
        except BaseException:
            os.close(self.fd)
            raise
        self.view = memoryview(self.map)
        self.free = [(0, size_bytes)]

    @property
    def is_free(self) -> bool:
        return self.free == [(0, self.size_bytes)]

    def take(self, size_bytes: int) -> int | None:
        """First fit: the offset of a range that is now taken."""
        for index, (offset, room) in enumerate(self.free):
            if room >= size_bytes:
                if room == size_bytes:
                    del self.free[index]
                else:
                    self.free[index] = (offset + size_bytes, room - size_bytes)
                return offset
        return None

    def give_back(self, offset: int, size_bytes: int) -> None:
        merged: list[tuple[int, int]] = []
        for start, room in sorted([*self.free, (offset, size_bytes)]):
            if merged and merged[-1][0] + merged[-1][1] == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + room)
            else:
                merged.append((start, room))
        self.free = merged

    def close(self) -> None:
        self.view.release()
        self.map.close()
        os.close(self.fd)


class Block:
    """A range of a file, the header included, and how many hold it."""

    __slots__ = ("file", "generation", "holders", "offset", "room_bytes", "size_bytes")

    def __init__(self, file: File, offset: int, room_bytes: int, size_bytes: int, generation: int) -> None:
        self.file = file
        self.offset = offset
        self.room_bytes = room_bytes
        self.size_bytes = size_bytes
        self.generation = generation
        self.holders = 0

    def free(self) -> None:
        # So that a stale reference is seen, not read.
        HEADER.pack_into(self.file.view, self.offset, MAGIC, 0, 0, 0)
        self.file.give_back(self.offset, self.room_bytes)


class GuestFile:
    """A file of another process that blocks are passed on from; known to receivers by a number of ours."""

    __slots__ = ("fd", "file_id", "guests", "holder")

    def __init__(self, fd: int, file_id: int, holder: Holder) -> None:
        self.fd = fd
        self.file_id = file_id
        self.holder = holder
        self.guests = 0


class Guest:
    """A block of another process that is passed on without a copy; its owner is held off until all are done with it."""

    __slots__ = ("file", "generation", "holder", "holders", "offset", "size_bytes")

    def __init__(self, file: GuestFile, origin: Origin) -> None:
        self.file = file
        self.offset = origin.offset
        self.size_bytes = origin.size_bytes
        self.generation = origin.generation
        self.holders = 1  # the lease
        self.holder = origin.holder
        self.holder.pin()
        file.guests += 1

    def free(self) -> None:
        self.file.guests -= 1
        self.holder.unpin()
