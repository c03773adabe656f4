"""The messages between the parent and one worker: what they are called, and their way through a socket.

Nothing here blocks but `Blocking`, which only workers use.
"""

from __future__ import annotations

import os
import socket
from array import array
from collections import deque
from collections.abc import Sequence
from typing import Any

from mpflow._wire.frames import FrameReader, frame, rest_of

# To the worker.
SETUP = (
    1  # msgpack: pickled initializer, whether to report memory, budget of shared memory; comes with the door's outside
)
PROGRAM = 2  # number (8 bytes), pickled program
FACTS = 3  # number (8 bytes), encoded facts
TASKS = 4  # see `batches`
CLOSE = 5  # end when the tasks before it are done
ANSWER = 7  # msgpack: number of a question, encoded pair of whether it is a value and that, or the exception
VALUE = 8  # number (8 bytes), ticket of its shared memory or 0 (8 bytes), encoded value
LENT = 10  # as TASKS: to be run while a task of this worker waits for what it called
FORGET = 9  # msgpack: numbers of values, and of programs, that no task will name again

# From the worker.
HELLO = 16  # msgpack: peak memory at its start
REFUSED = 17  # text: why it cannot serve
RESULTS = 18  # see `batches`
EVENT = 19  # msgpack: task number, kind, encoded data
LOG = 20  # msgpack: fields of a log record
OUTPUT = 21  # msgpack: "stdout" or "stderr", text
CONSUMER = "consumer"
"""Whom a task asks to take what it has said so far."""
CALL = "call"
"""What a task asks to have a task run that it calls; the answer is its result."""
MEMORY = 23  # msgpack: number of a task that has ended, by how much such tasks grow the worker, whether as its first
WAITS = 24  # msgpack: number of a task, whose answer it waits for, whether it may be lent tasks; see below
ASK = 22  # msgpack: task number, number of the question, whom it is for, encoded arguments

WHICHEVER = 0
"""In the place of the question that a task waits for: the next one that is answered."""
NONE = -1
"""It goes on."""
ALL = -2
"""It waits from now on whenever any is open."""

# Both ways.
FILES = 32  # msgpack: numbers of files of shared memory; their descriptors come along
RELEASE = 33  # msgpack: tickets of shared memory that are done with
DROP_FILES = 34  # msgpack: numbers of files that hold nothing any more

CAN_WAIT = frozenset({HELLO, RESULTS, MEMORY, RELEASE})
"""What a worker says without knocking (see `door`)."""

_FDS = 16
_ROOM = socket.CMSG_SPACE(_FDS * array("i").itemsize)
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def _receive(sock: socket.socket, frames: FrameReader, fds: deque[int]) -> int:
    """Receive once into `frames`' buffer; descriptors that come along are ours to close."""
    got, ancillary, _, _ = sock.recvmsg_into([frames.buffer()], _ROOM, _CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            fds.extend(numbers)
    return got


def _rights(fds: Sequence[int]) -> list[tuple[int, int, Any]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))]


def file_frames(files: Sequence[tuple[int, int]]) -> list[tuple[bytes, list[int]]]:
    """Bodies and descriptors of the FILES frames that carry `files`, as (number, descriptor)."""
    import msgpack

    few = [files[at : at + _FDS] for at in range(0, len(files), _FDS)]
    return [(msgpack.packb([number for number, _ in some]), [fd for _, fd in some]) for some in few]


class Reader:
    """Cuts what arrives on a non-blocking socket into frames; large bodies are received in place."""

    __slots__ = ("_frames", "fds", "received")

    def __init__(self) -> None:
        self._frames = FrameReader()
        self.received = 0
        self.fds: deque[int] = deque()

    def receive(self, sock: socket.socket) -> list[tuple[int, Any]] | None:
        """Take what there is, once, and return the frames complete by now; None at the end of the stream.

        Raises ProtocolError, and what `recvmsg_into` raises.
        """
        got = _receive(sock, self._frames, self.fds)
        if not got:
            return None
        self.received += got
        return self._frames.received(got)

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.popleft())


class Writer:
    """Frames on their way out over a non-blocking socket."""

    __slots__ = ("_queue", "_rights", "queued", "sent")

    def __init__(self) -> None:
        self._queue: deque[memoryview] = deque()
        self._rights: dict[int, list[int]] = {}
        """Descriptors that go with the first byte of a queued view, by its identity."""
        self.sent = 0
        self.queued = 0
        """Bytes queued since the beginning, sent or not."""

    def add(self, kind: int, *parts: Any, fds: list[int] | None = None) -> None:
        """Queue a frame; `flush` sends it."""
        views = [memoryview(part) for part in frame(kind, *parts)]
        if fds:
            self._rights[id(views[0])] = fds
        self.queued += sum(map(len, views))
        self._queue.extend(views)

    def flush(self, sock: socket.socket) -> bool:
        """Send what the socket takes; whether nothing is left. Raises what `sendmsg` raises."""
        queue = self._queue
        while queue:
            try:
                fds = self._rights.get(id(queue[0])) if self._rights else None
                if fds is not None:
                    sent = sock.sendmsg([queue[0]], _rights(fds))
                    del self._rights[id(queue[0])]
                else:
                    # One by one while descriptors wait: they must begin a message of their own.
                    count = 1 if self._rights else min(len(queue), 64)
                    sent = sock.sendmsg([queue[at] for at in range(count)])
            except BlockingIOError:
                return False
            self.sent += sent
            while sent:
                head = queue[0]
                if sent < len(head):
                    queue[0] = head[sent:]
                    break
                sent -= len(head)
                queue.popleft()
        return True


class Blocking:
    """A worker's end: reads frame by frame and writes whole ones. The parent always reads, so writing ends."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames = FrameReader()
        self._ready: deque[tuple[int, Any]] = deque()
        self.fds: deque[int] = deque()

    def next(self) -> tuple[int, Any] | None:
        """The next frame, or None when the parent is gone."""
        ready = self._ready
        while not ready:
            got = _receive(self._sock, self._frames, self.fds)
            if not got:
                return None
            ready.extend(self._frames.received(got))
        return ready.popleft()

    def send(self, kind: int, *body: Any, fds: list[int] | None = None) -> None:
        parts = frame(kind, *body)
        if fds:
            parts = rest_of(parts, self._sock.sendmsg(parts[:1], _rights(fds)))
        while parts:
            parts = rest_of(parts, self._sock.sendmsg(parts[:64]))
