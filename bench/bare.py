"""The floor under any process pool: workers over one socket each, msgpack, and nothing else.

No identity of tasks, no errors, no deaths, no reducers: what is left is the price of a message to another process.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import msgpack

_ROOT = str(Path(__file__).parent.parent)


class BareWorkers:
    """`count` processes that call one importable function. A context manager."""

    def __init__(self, function: Callable[[Any], Any], count: int) -> None:
        self._workers: list[tuple[socket.socket, subprocess.Popen[bytes]]] = []
        code = f"from bench.bare import serve; serve({{}}, {function.__module__!r}, {function.__name__!r})"
        for _ in range(count):
            mine, theirs = socket.socketpair()
            process = subprocess.Popen(
                [sys.executable, "-c", code.format(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": _ROOT},
            )
            theirs.close()
            self._workers.append((mine, process))

    def map(self, inputs: Iterable[Any], *, batch: int, window: int) -> list[Any]:
        """Results in the order of arrival. At most `window` messages of `batch` tasks are under way to each worker."""
        given = list(inputs)
        waiting = deque(given[i : i + batch] for i in range(0, len(given), batch))
        results: list[Any] = []
        poll = select.epoll()
        streams = {}
        for sock, _ in self._workers:
            poll.register(sock.fileno(), select.EPOLLIN)
            streams[sock.fileno()] = sock, msgpack.Unpacker()
            for _ in range(min(window, len(waiting))):
                sock.sendall(msgpack.packb(waiting.popleft()))
        while len(results) < len(given):
            for fd, _ in poll.poll():
                sock, stream = streams[fd]
                stream.feed(sock.recv(1 << 16))
                for reply in stream:
                    results += reply
                    if waiting:
                        sock.sendall(msgpack.packb(waiting.popleft()))
        poll.close()
        return results

    def __enter__(self) -> BareWorkers:
        return self

    def __exit__(self, *_: Any) -> None:
        for sock, process in self._workers:
            sock.close()
            process.wait()


def serve(fd: int, module: str, name: str) -> None:
    """The life of a worker: until its socket ends."""
    function = getattr(import_module(module), name)
    sock = socket.socket(fileno=fd)
    stream = msgpack.Unpacker()
    while data := sock.recv(1 << 16):
        stream.feed(data)
        for tasks in stream:
            sock.sendall(msgpack.packb([function(task) for task in tasks]))
