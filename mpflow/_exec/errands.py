"""What tasks in a worker ask of their run, which alone touches savers, stores and caches: questions go up, answers come down.

Owns the reading side of a worker's socket, since whoever waits for an answer must read: one thread at a time does so for
all. Must not know what is asked.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import count
from typing import Any

from mpflow._exec import batches, link
from mpflow._wire.codec import Codec

Frame = tuple[int, Any]


class _Question:
    __slots__ = ("answer", "bell")

    def __init__(self) -> None:
        self.bell = threading.Event()
        self.answer: tuple[bool, Any] | None = None


class Errands:
    """The questions of one worker. `send` writes a frame to the parent, from any thread."""

    def __init__(self, blocking: link.Blocking, send: Any) -> None:
        self._link = blocking
        self._send = send
        self._codec = Codec(trust=True)
        self._numbers = count(1)
        self._open: dict[int, _Question] = {}
        self._turn = threading.Lock()
        self._aside: deque[Frame] = deque()

    def ask(self, task: int, target: str, *arguments: Any) -> Any:
        """What `task`'s run answers; raises what it raises. Blocks; from any thread. OSError when the parent is gone."""
        number = next(self._numbers)
        question = self._open[number] = _Question()
        data = self._codec.encode(arguments, path=f"what a task asked of its run's {target}")
        try:
            self._send(link.ASK, batches.pack((task, number, target, data)))
            while question.answer is None:
                if self._turn.acquire(blocking=False):
                    try:
                        while question.answer is None:
                            self._read()
                    finally:
                        self._turn.release()
                else:
                    question.bell.wait()
                    question.bell.clear()
        finally:
            del self._open[number]
            self._hand_over()
        is_value, answer = question.answer
        if is_value:
            return answer
        raise answer

    def next_frame(self) -> Frame | None:
        """The next frame that is no answer; None when the parent is gone. For the worker's own thread, between tasks."""
        try:
            with self._turn:
                if self._aside:
                    return self._aside.popleft()
                while True:
                    frame = self._link.next()
                    if frame is None or frame[0] != link.ANSWER:
                        return frame
                    self._take(frame[1])
        finally:
            self._hand_over()

    def _read(self) -> None:
        frame = self._link.next()
        if frame is None:
            raise OSError("the parent is gone")
        if frame[0] == link.ANSWER:
            self._take(frame[1])
        else:
            self._aside.append(frame)

    def _take(self, body: Any) -> None:
        number, data = batches.unpack(body)
        question = self._open.get(number)
        if question is not None:
            question.answer = tuple(self._codec.decode(data))
            question.bell.set()

    def _hand_over(self) -> None:
        """Nobody reads now: if somebody waits, let one of them."""
        for question in tuple(self._open.values()):
            if question.answer is None:
                question.bell.set()
                return
