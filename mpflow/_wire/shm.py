"""Shared memory for large buffers: who wrote what where, and who may still be reading it. Must not touch a socket.

The sender owns an `Arena`: a few sealed memfds, cut into blocks. The receiver owns one `Mappings` a sender. A value is
encoded inside a scope, once for however many receivers; within a scope an object is copied once however often it
occurs, and between scopes it is copied anew, since it may have changed. In the parent::

    arena = Arena(budget_bytes=...)                     # over budget, or not on Linux: bytes stay in the message
    codec = Codec(trust=True, arena=arena)
    with arena.scope() as lease:
        data, flags = codec.encode_flagged(value)
    if flags & REFERS:
        ticket, files = lease.send_to(worker_id)        # holds the blocks for that worker; once a message sent
        # send: [(file_id, fd), ...] of `files` by SCM_RIGHTS, no later than the message; then ticket and data
    lease.close()                                       # no more sending of these bytes; or let it be collected
    arena.release(worker_id, tickets)                   # as they come back
    arena.forget(worker_id)                             # it died: everything that it held

and in the worker (and the same with parent and worker exchanged, over the worker's own arena)::

    mappings.add_file(file_id, fd)                      # takes the fd over
    held = mappings.hold(ticket)
    value = codec.decode(data, held)                    # as often as wanted: each time pristine, copy on write
    held.close()                                        # no more decoding of this message
    tickets = mappings.take_releases()                  # now and then: send them back, if any

A ticket comes back when its message is closed and the last array made of it is gone, however far the user carried it.
Everything ends with the file descriptors; nothing has a name. In a forked child both ends are dead: `Arena` lets bytes
stay inline, and nothing is released twice.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import threading
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from mpflow._wire import origins
from mpflow._wire.blocks import HEADER, HEADER_BYTES, MAGIC, Block, File, Guest, GuestFile
from mpflow._wire.copying import copy
from mpflow._wire.memory import headroom_bytes, limit_bytes

# Where one copy into a block, a mapping and its faults cost less than two copies through a socket (see bench).
DEFAULT_THRESHOLD_BYTES: Final = 128 * 1024

_PAGE: Final = mmap.PAGESIZE
_FIRST_FILE_BYTES: Final = 8 << 20
_LARGEST_FILE_BYTES: Final = 256 << 20


class Lease:
    """The blocks of what was encoded in one scope. They are kept until it is closed and every receiver is done."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self.blocks: list[Block | Guest] = []
        # Each owner is kept alive as long as its id stands for it.
        self.copies: dict[tuple[int, int], tuple[Block | Guest, Any]] = {}
        self.is_closed = False

    def send_to(self, peer: Hashable) -> tuple[int, list[tuple[int, int]]]:
        """A ticket for one message sent to `peer`, and the files it needs that it has not got: ``(file id, fd)``."""
        return self._arena._issue(self, peer)

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._arena._drop(self.blocks)

    def __del__(self) -> None:
        # Collected at any point of any thread: the arena takes note now and acts later.
        if not self.is_closed and self.blocks:
            self._arena._abandoned.append(self.blocks)


class Arena:
    """Blocks of shared memory that this process writes. Safe to use from several threads.

    ``budget_bytes`` caps the memfds together; by default a quarter of the cgroup's limit or of the machine's memory.
    The pool divides that between the arenas of the parent and of its workers. Large buffers are copied by up to
    ``copying_threads``.
    """

    def __init__(
        self,
        budget_bytes: int | None = None,
        threshold_bytes: int = DEFAULT_THRESHOLD_BYTES,
        enabled: bool = True,
        copying_threads: int = 1,
    ) -> None:
        self._copying_threads = copying_threads
        self.threshold_bytes = threshold_bytes
        is_possible = enabled and sys.platform == "linux" and hasattr(os, "memfd_create")
        default = limit_bytes() // 4 if budget_bytes is None else budget_bytes
        self.budget_bytes = default if is_possible else 0
        self.copied_bytes = 0
        """Bytes copied into blocks since the beginning."""
        self.is_full = False
        """The last buffer found no room, and nothing was given back since."""
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._files: list[File] = []
        self._next_file = 0
        self._generation = 0
        self._next_ticket = 0
        self._guest_files: dict[tuple[int, int], GuestFile] = {}
        self._tickets: dict[Hashable, dict[int, list[Block | Guest]]] = {}
        self._known_files: dict[Hashable, set[int]] = {}
        self._gone: dict[Hashable, list[int]] = {}
        self._abandoned: list[list[Block | Guest]] = []
        self._scope = threading.local()

    @property
    def used_bytes(self) -> int:
        """Bytes in blocks that somebody may still read."""
        with self._lock:
            self._collect()
            return sum(file.size_bytes - sum(room for _, room in file.free) for file in self._files)

    @property
    def reserved_bytes(self) -> int:
        return sum(file.size_bytes for file in self._files)

    @contextmanager
    def scope(self) -> Iterator[Lease]:
        """Where buffers encoded by this thread go, once each. Without a scope they stay in the message."""
        lease = Lease(self)
        outer = getattr(self._scope, "lease", None)
        self._scope.lease = lease
        try:
            yield lease
        except BaseException:
            lease.close()
            raise
        finally:
            self._scope.lease = outer
            lease.copies.clear()

    def put(self, data: memoryview, owner: Any) -> tuple[int, int, int, int] | None:
        """Copy `data` into a block of the scope: file, offset, size, generation. None: let it stay in the message.

        What is a block of another process already, and unchanged, is passed on as it is.
        """
        lease: Lease | None = getattr(self._scope, "lease", None)
        if lease is None or not self.budget_bytes or os.getpid() != self._pid:
            return None
        key = (id(owner), data.nbytes)
        known = lease.copies.get(key) if owner is not None else None
        block: Block | Guest
        if known is not None:
            block = known[0]
        else:
            found = self._pass_on(data) or self._copy(data)
            if found is None:
                return None
            block = found
            lease.blocks.append(block)
            if owner is not None:
                lease.copies[key] = (block, owner)
        return block.file.file_id, block.offset, block.size_bytes, block.generation

    def _copy(self, data: memoryview) -> Block | None:
        with self._lock:
            self._collect()
            block = self._allocate(data.nbytes)
        if block is not None:
            # Unlocked: nobody else has this block, and copying a gigabyte takes a while.
            start = block.offset + HEADER_BYTES
            copy(block.file.view[start : start + data.nbytes], data, self._copying_threads)
            HEADER.pack_into(block.file.view, block.offset, MAGIC, 0, block.generation, block.size_bytes)
            self.copied_bytes += data.nbytes
        return block

    def _pass_on(self, data: memoryview) -> Guest | None:
        origin = origins.find(data)
        if origin is None:
            return None
        try:
            fd = origin.holder.duplicate(origin.file_id)
        except OSError:  # its sender is dead and its files closed, or no descriptor is left
            return None
        found = os.fstat(fd)
        key = found.st_dev, found.st_ino
        with self._lock:
            self._collect()
            self._dismiss_guests()
            file = self._guest_files.get(key)
            if file is None:
                file = self._guest_files[key] = GuestFile(fd, self._next_file, origin.holder)
                self._next_file += 1
            else:
                os.close(fd)
            return Guest(file, origin)

    def _dismiss_guests(self) -> None:
        """Close files of the dead from which nothing is passed on any more."""
        for key, file in tuple(self._guest_files.items()):
            if not file.guests and file.holder.is_gone:
                del self._guest_files[key]
                self._close_everywhere(file)

    def _close_everywhere(self, file: File | GuestFile) -> None:
        if type(file) is File:
            file.close()
        else:
            os.close(file.fd)
        for peer, known in self._known_files.items():
            if file.file_id in known:
                known.discard(file.file_id)
                self._gone.setdefault(peer, []).append(file.file_id)

    def release(self, peer: Hashable, tickets: Iterable[int]) -> None:
        """`peer` is done with these messages. Unknown tickets are ignored: it may have been forgotten meanwhile."""
        with self._lock:
            held = self._tickets.get(peer, {})
            for ticket in tickets:
                self._let_go(held.pop(ticket, []))

    def take_gone(self, peer: Hashable) -> list[int]:
        """The files that `peer` was sent and may close: to be told it, or their memory stays."""
        return self._gone.pop(peer, []) if self._gone else []

    def forget(self, peer: Hashable) -> None:
        """`peer` is dead, with its process group: nothing of it reads any more."""
        with self._lock:
            for blocks in self._tickets.pop(peer, {}).values():
                self._let_go(blocks)
            self._known_files.pop(peer, None)
            self._gone.pop(peer, None)

    def close(self) -> None:
        """Close the files. What receivers have mapped stays readable to them."""
        with self._lock:
            self.budget_bytes = 0
            for file in self._files:
                file.close()
            self._files.clear()
            for guest_file in self._guest_files.values():
                os.close(guest_file.fd)
            self._guest_files.clear()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _issue(self, lease: Lease, peer: Hashable) -> tuple[int, list[tuple[int, int]]]:
        if lease.is_closed:
            raise ValueError("the lease is closed: its blocks may hold something else by now")
        with self._lock:
            self._next_ticket += 1
            for block in lease.blocks:
                block.holders += 1
            self._tickets.setdefault(peer, {})[self._next_ticket] = list(lease.blocks)
            known = self._known_files.setdefault(peer, set())
            files = {block.file.file_id: block.file.fd for block in lease.blocks if block.file.file_id not in known}
            known.update(files)
            return self._next_ticket, list(files.items())

    def _drop(self, blocks: list[Block | Guest]) -> None:
        with self._lock:
            self._let_go(blocks)

    def _let_go(self, blocks: list[Block | Guest]) -> None:
        if os.getpid() != self._pid:  # the parent's blocks, mapped shared: a forked child must not touch them
            return
        for block in blocks:
            block.holders -= 1
            if block.holders == 0 and (self._files or type(block) is Guest):
                block.free()
                self.is_full = False

    def _collect(self) -> None:
        while self._abandoned:
            self._let_go(self._abandoned.pop())

    def _allocate(self, size_bytes: int) -> Block | None:
        room_bytes = -(-(size_bytes + HEADER_BYTES) // _PAGE) * _PAGE
        for file in self._files:
            offset = file.take(room_bytes)
            if offset is not None:
                break
        else:
            new = self._add_file(room_bytes)
            if new is None:
                # With nothing given out there is nothing to wait for.
                self.is_full = not all(file.is_free for file in self._files)
                return None
            file, offset = new, new.take(room_bytes) or 0
        self._generation += 1
        block = Block(file, offset, room_bytes, size_bytes, self._generation)
        block.holders = 1  # the lease
        return block

    def _add_file(self, room_bytes: int) -> File | None:
        reserved = self.reserved_bytes
        if room_bytes > self.budget_bytes - reserved:
            self._trim()
            reserved = self.reserved_bytes
        left = self.budget_bytes - reserved
        if room_bytes > left:
            return None
        # Files double, so that there are few; what does not fit into one gets its own.
        wanted = min(max(_FIRST_FILE_BYTES, reserved), _LARGEST_FILE_BYTES)
        size_bytes = max(room_bytes, min(wanted, left // _PAGE * _PAGE))
        # A memfd over the cgroup's limit is not refused by the kernel: it brings the OOM killer.
        if 2 * size_bytes > headroom_bytes():
            size_bytes = room_bytes
            if 2 * size_bytes > headroom_bytes():
                return None
        try:
            file = File(self._next_file, size_bytes)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EPERM, errno.ENOSYS):
                return None
            raise
        self._next_file += 1
        self._files.append(file)
        return file

    def _trim(self) -> None:
        """Close the files in which nothing is held. Receivers keep an fd of each until they are told (`take_gone`)."""
        for file in [file for file in self._files if file.is_free]:
            self._files.remove(file)
            self._close_everywhere(file)
