"""Frames on a stream socket: a header of kind and length, then that many bytes. Sans-I/O: must not touch a socket.

Reading, with the socket non-blocking and ``reader`` a `FrameReader`::

    while True:
        count = sock.recv_into(reader.buffer())     # or: frames = reader.feed(sock.recv(65536))
        frames = reader.received(count)             # [(kind, payload), ...]; 0 means end of file
        ...

``buffer()`` is a small common buffer until a header announces a large frame, and then the rest of that very frame: a
payload of 200 MB is received in place and copied nowhere. Writing: ``sock.sendmsg(frame(kind, *parts))``, which joins
nothing, and goes on after a short write with `rest_of`.
"""

from __future__ import annotations

import struct
from typing import Final

from mpflow._wire.errors import ProtocolError

# Magic and version, kind, 2 bytes that are zero (so that a foreign write is seen), length of the payload.
_HEADER: Final = struct.Struct("!4sBxxxQ")
_MAGIC: Final = b"mpf1"
HEADER_BYTES: Final = _HEADER.size
_ZEROS: Final = b"\0\0\0"

_COMMON_BYTES: Final = 256 * 1024
# A frame whose missing rest is longer than this gets a buffer of its own.
_LARGE_BYTES: Final = 64 * 1024
DEFAULT_MAX_BYTES: Final = 1 << 40

Part = bytes | bytearray | memoryview
Frame = tuple[int, memoryview]


def frame(kind: int, *parts: Part) -> list[Part]:
    """One frame as a list for ``sendmsg``: the header, then the parts that are not empty, none of them copied."""
    views = [part for part in parts if len(part)]
    size_bytes = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in views)
    return [_HEADER.pack(_MAGIC, kind, size_bytes), *views]


def rest_of(parts: list[Part], sent_bytes: int) -> list[Part]:
    """What ``sendmsg`` has still to send of `parts` after it sent that many bytes."""
    for index, part in enumerate(parts):
        view = memoryview(part).cast("B")
        if sent_bytes < view.nbytes:
            return [view[sent_bytes:], *parts[index + 1 :]]
        sent_bytes -= view.nbytes
    return []


class FrameReader:
    """Cuts a byte stream into frames. After a ProtocolError the stream is lost: the position of frames is unknown."""

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._common = bytearray(_COMMON_BYTES)
        self._filled = 0  # of the common buffer
        self._kind = 0
        self._large: bytearray | None = None
        self._large_filled = 0

    @property
    def is_between_frames(self) -> bool:
        """Whether an end of file now would cut no frame in two."""
        return self._large is None and self._filled == 0

    @property
    def missing_bytes(self) -> int:
        """How much of a large frame has still to come."""
        return 0 if self._large is None else len(self._large) - self._large_filled

    def buffer(self) -> memoryview:
        """Where to receive next: never empty. Valid until the next call of `received`."""
        if self._large is not None:
            return memoryview(self._large)[self._large_filled :]
        return memoryview(self._common)[self._filled :]

    def received(self, count: int) -> list[Frame]:
        """Take note that `count` bytes were received into `buffer()`; the frames that this completes.

        A payload is the reader's to give away: writable and never touched again.
        """
        if self._large is not None:
            self._large_filled += count
            if self._large_filled < len(self._large):
                return []
            done = (self._kind, memoryview(self._large))
            self._large, self._large_filled = None, 0
            return [done]
        self._filled += count
        return self._cut()

    def feed(self, data: Part) -> list[Frame]:
        """The frames that `data` completes, for bytes that are in hand already."""
        frames: list[Frame] = []
        view = memoryview(data).cast("B")
        while view.nbytes:
            room = self.buffer()
            count = min(room.nbytes, view.nbytes)
            room[:count] = view[:count]
            frames += self.received(count)
            view = view[count:]
        return frames

    def _cut(self) -> list[Frame]:
        frames: list[Frame] = []
        at, filled, common = 0, self._filled, self._common
        while filled - at >= HEADER_BYTES:
            magic, kind, size_bytes = _HEADER.unpack_from(common, at)
            if magic != _MAGIC or common[at + 5 : at + 8] != _ZEROS:
                raise ProtocolError(
                    f"expected a frame, got {bytes(common[at : min(filled, at + 32)])!r}: something else than mpflow "
                    "wrote to this socket, or it speaks another version"
                )
            if size_bytes > self._max_bytes:
                raise ProtocolError(f"a frame of {size_bytes} bytes is announced, the limit is {self._max_bytes}")
            start = at + HEADER_BYTES
            if start + size_bytes <= filled:
                # One copy, so that a payload outlives the buffer.
                frames.append((kind, memoryview(bytearray(memoryview(common)[start : start + size_bytes]))))
                at = start + size_bytes
                continue
            if size_bytes > _LARGE_BYTES:
                self._begin_large(kind, size_bytes, start, filled)
                at = filled
            break
        # Frames below _LARGE_BYTES always fit behind the move.
        if at:
            common[: filled - at] = common[at:filled]
        self._filled = filled - at
        return frames

    def _begin_large(self, kind: int, size_bytes: int, start: int, filled: int) -> None:
        try:
            self._large = bytearray(size_bytes)
        except (MemoryError, OverflowError):
            raise ProtocolError(f"a frame of {size_bytes} bytes is announced, there is no memory for it") from None
        self._kind = kind
        self._large_filled = filled - start
        self._large[: filled - start] = memoryview(self._common)[start:filled]
