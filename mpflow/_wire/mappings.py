"""The reading side of shared memory: maps blocks that another process's `Arena` wrote, and tells when they are done with.

Whoever opens a block has a private, writable mapping to himself: what one task writes, no other sees, and dirty pages go
away with the mapping. One that a task has given back unwritten may be lent to the next. `shm` documents the use of both sides.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from mpflow._wire import origins
from mpflow._wire.blocks import HEADER, HEADER_BYTES, MAGIC
from mpflow._wire.errors import DecodeError

# Before 3.13 a Python mmap keeps a duplicate of the file descriptor, and a process often has but 1024; the kernel allows
# 65530 mappings by default. Beyond these numbers, blocks are copied.
_HAS_TRACKFD: Final = sys.version_info >= (3, 13)
_MAX_MAPPINGS: Final = 16_384 if _HAS_TRACKFD else 256
# From here on, mapping a block anew and its faults cost more than the look at what was written.
_LENT_BYTES: Final = 1 << 20
# Ours, and that of the call that counts them.
_REFERENCES_AT_HOME: Final = 2


class _Loan:
    """A mapping that is lent to one task after another, as long as none writes to it or keeps it."""

    __slots__ = ("is_out", "mapping")

    def __init__(self, mapping: mmap.mmap) -> None:
        self.mapping = mapping
        self.is_out = True

    def take_back(self) -> bool:
        """Whether it may be lent again: all that was made of it is gone, and nothing was written."""
        if self.is_out:
            if sys.getrefcount(self.mapping) > _REFERENCES_AT_HOME:
                return False
            self.is_out = not origins.is_untouched(memoryview(self.mapping), at_a_glance=True)
        return not self.is_out


class Held:
    """One message that refers to blocks: opens them while it is decoded, any number of times."""

    def __init__(self, mappings: Mappings, ticket: int, is_lasting: bool) -> None:
        self._mappings = mappings
        self.ticket = ticket
        self.is_lasting = is_lasting
        self.loans: dict[tuple[int, int], _Loan] = {}
        self.views = 0
        self.is_closed = False
        self._opened: list[tuple[int, int, int]] = []

    def open(self, file_id: int, offset: int, size_bytes: int, generation: int) -> memoryview:
        """The block's bytes: writable, private to the caller, released when nothing refers to them any more."""
        return self._mappings._open(self, file_id, offset, size_bytes, generation)

    def settle(self) -> None:
        """The tasks that the message was decoded for are over: keep the mappings that may be lent again, drop the others."""
        if self.loans:
            self._mappings._settle(self)

    def check(self) -> None:
        """Called after decoding: what was opened is still what it was."""
        opened, self._opened = self._opened, []
        for fd, offset, generation in opened:
            _check_header(fd, offset, generation)

    def pin(self) -> None:
        """The blocks are passed on: they are not done with before `unpin`, whatever becomes of their mappings here."""
        self._mappings._pin(self, 1)

    def unpin(self) -> None:
        self._mappings._pin(self, -1)

    @property
    def is_gone(self) -> bool:
        return self._mappings.is_closed

    def duplicate(self, file_id: int) -> int:
        """A descriptor of a file, the caller's to close. Raises OSError if it is closed by now."""
        return self._mappings._duplicate(file_id)

    def close(self) -> None:
        """The message will not be decoded again."""
        self._mappings._close(self)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Mappings:
    """The files of one sending process. Safe to use from several threads."""

    def __init__(self) -> None:
        self._files: dict[int, tuple[int, int]] = {}
        self.is_closed = False
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._done: list[int] = []
        # Weak references to live mappings. Their callbacks may run anywhere, also while this thread holds the lock, so
        # they only append; `take_releases` does the counting.
        self._live: dict[weakref.ref[mmap.mmap], Held] = {}
        self._dead: deque[weakref.ref[mmap.mmap]] = deque()

    def add_file(self, file_id: int, fd: int) -> None:
        """Take over an fd that came from the peer. Refuses one that could shrink under a reader."""
        import fcntl

        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
        try:
            is_sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & seals == seals
        except OSError:
            is_sealed = False
        if not is_sealed or file_id in self._files:
            os.close(fd)
            raise DecodeError(f"file {file_id} of shared memory is not sealed, or came twice")
        self._files[file_id] = (fd, os.fstat(fd).st_size)

    def drop_files(self, file_ids: Iterable[int]) -> None:
        """Close files that the peer has closed: without this their memory would stay."""
        with self._lock:
            for file_id in file_ids:
                fd, _ = self._files.pop(file_id, (-1, 0))
                if fd >= 0:
                    os.close(fd)

    def hold(self, ticket: int, *, is_lasting: bool = False) -> Held:
        """What opens the blocks of one message; `is_lasting` if it will be decoded for one task after another."""
        return Held(self, ticket, is_lasting)

    def take_releases(self) -> list[int]:
        """Tickets that are done with, for the peer. Empty in a forked child, whose parent still reads."""
        if os.getpid() != self._pid:
            return []
        with self._lock:
            self._reap()
            done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Close the files. What is mapped stays readable; tickets are no longer released."""
        with self._lock:
            self.is_closed = True
            for held in set(self._live.values()):
                held.loans.clear()
            for fd, _ in self._files.values():
                os.close(fd)
            self._files.clear()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _open(self, held: Held, file_id: int, offset: int, size_bytes: int, generation: int) -> memoryview:
        if held.is_closed:
            raise DecodeError("the message was closed: its blocks may hold something else by now")
        file = self._files.get(file_id)
        if file is None:
            raise DecodeError(f"the message refers to file {file_id} of shared memory, which did not arrive")
        fd, file_bytes = file
        if offset < 0 or size_bytes < 0 or offset % mmap.PAGESIZE or offset + HEADER_BYTES + size_bytes > file_bytes:
            raise DecodeError(f"no block of {size_bytes} bytes can be at {offset} of {file_bytes} bytes")
        _check_header(fd, offset, generation)
        with self._lock:
            mapping = self._lend(held, file_id, offset) if held.loans else None
            self._reap()
            if mapping is None and len(self._live) < _MAX_MAPPINGS:
                mapping = self._map(fd, offset, HEADER_BYTES + size_bytes)
                if mapping is not None:
                    self._live[weakref.ref(mapping, self._dead.append)] = held
                    held.views += 1
                    origins.remember(mapping, origins.Origin(file_id, offset, size_bytes, generation, held))
                    if held.is_lasting and size_bytes >= _LENT_BYTES and len(self._live) < _MAX_MAPPINGS // 2:
                        held.loans[file_id, offset] = _Loan(mapping)
            held._opened.append((fd, offset, generation))
        if mapping is not None:
            return memoryview(mapping)[HEADER_BYTES : HEADER_BYTES + size_bytes]
        return memoryview(_read(fd, offset + HEADER_BYTES, size_bytes))

    def _lend(self, held: Held, file_id: int, offset: int) -> mmap.mmap | None:
        loan = held.loans.get((file_id, offset))
        if loan is None:
            return None
        if not loan.take_back():
            del held.loans[file_id, offset]
            return None
        loan.is_out = True
        return loan.mapping

    def _settle(self, held: Held) -> None:
        with self._lock:
            held.loans = {place: loan for place, loan in held.loans.items() if loan.take_back()}

    def _map(self, fd: int, offset: int, length: int) -> mmap.mmap | None:
        flags: Any = {"flags": mmap.MAP_PRIVATE, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
        if _HAS_TRACKFD:
            flags["trackfd"] = False
        try:
            return mmap.mmap(fd, length, offset=offset, **flags)
        except (OSError, ValueError, MemoryError):  # no fds or no mappings left
            return None

    def _close(self, held: Held) -> None:
        with self._lock:
            if not held.is_closed:
                held.loans.clear()
                self._reap()
                held.is_closed = True
                if not held.views:
                    self._done.append(held.ticket)

    def _duplicate(self, file_id: int) -> int:
        with self._lock:
            return os.dup(self._files.get(file_id, (-1, 0))[0])

    def _pin(self, held: Held, change: int) -> None:
        with self._lock:
            held.views += change
            if held.is_closed and not held.views:
                self._done.append(held.ticket)

    def _reap(self) -> None:
        while self._dead:
            held = self._live.pop(self._dead.popleft())
            held.views -= 1
            if held.is_closed and not held.views:
                self._done.append(held.ticket)


def _check_header(fd: int, offset: int, generation: int) -> None:
    # Read from the file: a private page could be an old copy.
    magic, _, found, _ = HEADER.unpack(os.pread(fd, HEADER.size, offset))
    if magic != MAGIC or found != generation:
        raise DecodeError(f"the block at {offset} was given to generation {found}, the message means {generation}")


def _read(fd: int, offset: int, size_bytes: int) -> bytearray:
    data = bytearray(size_bytes)
    view, at = memoryview(data), 0
    while at < size_bytes:
        count = os.preadv(fd, [view[at:]], offset + at)
        if not count:
            raise DecodeError("a block of shared memory is cut short")
        at += count
    return data
