"""The messages between the parent and one worker: what they are called, and their way through a socket.

Nothing here blocks but `Blocking`, which only workers use.
"""

from __future__ import annotations

from collections import deque
from socket import socket
from typing import Any

from mpflow._wire.frames import FrameReader, frame, rest_of

# To the worker.
SETUP = 1  # msgpack: pickled initializer, whether to report memory
PROGRAM = 2  # number (8 bytes), pickled program
FACTS = 3  # number (8 bytes), encoded facts
TASKS = 4  # msgpack: see `batches`
CLOSE = 5  # end when the tasks before it are done

# From the worker.
HELLO = 16  # msgpack: peak memory at its start
REFUSED = 17  # text: why it cannot serve
RESULTS = 18  # msgpack: see `batches`
EVENT = 19  # msgpack: task number, kind, encoded data
LOG = 20  # msgpack: fields of a log record
OUTPUT = 21  # msgpack: "stdout" or "stderr", text


class Reader:
    """Cuts what arrives on a non-blocking socket into frames; large bodies are received in place."""

    __slots__ = ("_frames", "received")

    def __init__(self) -> None:
        self._frames = FrameReader()
        self.received = 0

    def receive(self, sock: socket) -> list[tuple[int, Any]] | None:
        """Take what there is, once, and return the frames complete by now; None at the end of the stream.

        Raises ProtocolError, and what `recv_into` raises.
        """
        got = sock.recv_into(self._frames.buffer())
        if not got:
            return None
        self.received += got
        return self._frames.received(got)


class Writer:
    """Frames on their way out over a non-blocking socket."""

    __slots__ = ("_queue", "sent")

    def __init__(self) -> None:
        self._queue: deque[memoryview] = deque()
        self.sent = 0

    def add(self, kind: int, *parts: Any) -> None:
        """Queue a frame; `flush` sends it."""
        self._queue.extend(map(memoryview, frame(kind, *parts)))

    def flush(self, sock: socket) -> bool:
        """Send what the socket takes; whether nothing is left. Raises what `sendmsg` raises."""
        queue = self._queue
        while queue:
            try:
                sent = sock.sendmsg([queue[i] for i in range(min(len(queue), 64))])
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

    def __init__(self, sock: socket) -> None:
        self._sock = sock
        self._frames = FrameReader()
        self._ready: deque[tuple[int, Any]] = deque()

    def next(self) -> tuple[int, Any] | None:
        """The next frame, or None when the parent is gone."""
        ready = self._ready
        while not ready:
            got = self._sock.recv_into(self._frames.buffer())
            if not got:
                return None
            ready.extend(self._frames.received(got))
        return ready.popleft()

    def send(self, kind: int, body: Any) -> None:
        parts = frame(kind, body)
        while parts:
            parts = rest_of(parts, self._sock.sendmsg(parts))
