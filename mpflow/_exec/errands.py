"""What tasks in a worker ask of their run, which alone touches savers, stores and caches: questions go up, answers come down.

Owns the reading side of a worker's socket, since whoever waits for an answer must read: one thread at a time does so for
all. Must not know what is asked.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from time import sleep
from typing import Any

from mpflow._exec import batches, link
from mpflow._wire.codec import Codec

Frame = tuple[int, Any]

POLITE_S = 0.005
"""So long our reader leaves the socket alone, unless somebody cannot read: who asked mostly waits for the answer at once."""

Told = Callable[[bool, Any], None]
"""``told(True, value)`` or ``told(False, error)``."""


class _Question:
    __slots__ = ("answer", "bell", "told")

    def __init__(self, bell: threading.Event, told: Told | None = None) -> None:
        self.bell = bell
        """Rung when it is answered, and for whoever waits for it to read."""
        self.told = told
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
        self._is_wanted = False
        """The worker's own thread waits for its turn, which goes before that of our reader."""
        self._reader: threading.Thread | None = None
        self._reader_bell = threading.Event()
        self._is_eager = False
        """Somebody waits who cannot read by itself."""
        self._books = threading.Lock()

    def ask(self, task: int, target: str, *arguments: Any) -> Any:
        """What `task`'s run answers; raises what it raises. Blocks; from any thread. OSError when the parent is gone."""
        question = _Question(threading.Event())
        number = self._put(question, task, target, arguments)
        try:
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

    def ask_later(self, task: int, target: str, *arguments: Any, told: Told, is_eager: bool = False) -> int:
        """As `ask`, but `told` gets the answer, in a thread of its own that reads until all such answers are here.

        Returns the number of the question. Unless it ``is_eager``, whoever asks will most likely wait in `next_frame`.
        """
        number = self._put(_Question(self._reader_bell, told), task, target, arguments)
        with self._books:
            self._is_eager |= is_eager
            if self._reader is None:
                self._reader = threading.Thread(target=self._read_on, name="mpflow-answers", daemon=True)
                self._reader.start()
        return number

    def _put(self, question: _Question, task: int, target: str, arguments: tuple[Any, ...]) -> int:
        data = self._codec.encode(arguments, path=f"what a task asked of its run's {target}")
        number = next(self._numbers)
        self._open[number] = question
        self._send(link.ASK, batches.pack((task, number, target, data)))
        return number

    def _read_on(self) -> None:
        while True:
            with self._books:
                if all(question.told is None for question in tuple(self._open.values())):
                    self._reader = None
                    self._is_eager = False
                    return
            if not self._is_eager:
                sleep(POLITE_S)
            if not self._is_wanted and self._turn.acquire(blocking=False):
                try:
                    self._read()
                except OSError:  # the parent is gone, and so are we
                    return
                finally:
                    self._turn.release()
            else:
                self._reader_bell.wait()
                self._reader_bell.clear()

    def next_frame(self, is_done: Callable[[], bool] | None = None) -> Frame | None:
        """The next frame that is no answer; None once `is_done`. For the worker's own thread, between tasks or in a task
        that waits. OSError when the parent is gone."""
        self._is_wanted = True
        try:
            if is_done is not None and is_done():  # by our reader, which may wait for another frame by now
                return None
            with self._turn:
                while is_done is None or not is_done():
                    if self._aside:
                        return self._aside.popleft()
                    frame = self._link.next()
                    if frame is None:
                        raise OSError("the parent is gone")
                    if frame[0] != link.ANSWER:
                        return frame
                    self._take(frame[1])
                return None
        finally:
            self._is_wanted = False
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
            question.answer = answer = tuple(self._codec.decode(data))
            if question.told is not None:
                del self._open[number]
                question.told(*answer)
            question.bell.set()

    def _hand_over(self) -> None:
        """Nobody reads now: if somebody waits, let one of them."""
        for question in tuple(self._open.values()):
            if question.answer is None:
                question.bell.set()
                return
