"""What nodes say in a worker, on its way to the parent: log records, and prints where the parent's stdout is no file.

A worker inherits the parent's stdout and stderr, so what nodes and C libraries print goes straight there, in order.
Only where the parent has put another object in the place of ``sys.stdout`` (a notebook, a test that captures), text
written through ``sys.stdout`` and ``sys.stderr`` travels as frames instead. Log records always do, and are handled by
the parent's loggers as if they had been made there.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

WARNING = 30

_STREAMS = ("stdout", "stderr")
RECORD = "record"
TEXT = "text"

# -- in the worker -----------------------------------------------------------------------------------------------------

_FIELDS = [
    "name",
    "levelno",
    "levelname",
    "pathname",
    "filename",
    "module",
    "lineno",
    "funcName",
    "created",
    "msecs",
    "relativeCreated",
    "thread",
    "threadName",
    "process",
    "processName",
    "exc_text",
    "stack_info",
    "taskName",
]
_STANDARD = frozenset((*_FIELDS, "msg", "args", "exc_info", "message", "asctime"))


def install_handler(send: Callable[[dict[str, Any]], None], where: Callable[[], tuple[str, int]]) -> Any:
    """Give the root logger a handler that sends records; `where` tells node and attempt. Returns ``set_level``."""
    import logging

    class ToParent(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                if record.exc_info and not record.exc_text:
                    record.exc_text = logging.Formatter().formatException(record.exc_info)
                fields = {key: value for key in _FIELDS if (value := getattr(record, key, None)) is not None}
                fields["msg"] = record.getMessage()
                fields["node"], fields["attempt"] = where()
                for key, value in record.__dict__.items():
                    if key not in _STANDARD and isinstance(value, (str, int, float, bool)):
                        fields.setdefault(key, value)
                send(fields)
            except Exception:
                self.handleError(record)

    root = logging.getLogger()
    root.addHandler(ToParent())
    return root.setLevel


class Forwarded(io.TextIOBase):
    """A standard stream of a worker whose text goes to the parent's stream of that name, line by line."""

    def __init__(self, name: str, send: Callable[[str, str], None], original: Any) -> None:
        self._name = name
        self._send = send
        self._original = original
        self._held: list[str] = []
        self._flushing = threading.RLock()
        """The worker's lookout flushes too, and what is written must neither be sent twice nor out of order."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "replace"

    @property
    def buffer(self) -> Any:
        return self._original.buffer

    def fileno(self) -> int:
        number: int = self._original.fileno()
        return number

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        held = self._held
        held.append(text)
        if "\n" in text and sum(map(len, held)) > 8192:
            self.flush()
        return len(text)

    def flush(self) -> None:
        held = self._held
        with self._flushing:
            if count := len(held):
                text = "".join(held[:count])
                del held[:count]
                self._send(self._name, text)


class Voice:
    """All that. ``say(RECORD, fields)`` and ``say(TEXT, (stream, text))`` send it; `where` tells node and attempt."""

    def __init__(self, say: Callable[[str, Any], None], where: Callable[[], tuple[str, int]]) -> None:
        self._say = say
        self._where = where
        self._is_forwarding = False
        self._own: dict[str, Any] = {}
        """The streams by which it forwards, while it does."""
        self._set_level: Callable[[int], None] | None = None

    def tune(self, forwards: bool, level: int) -> None:
        """Send records from `level` on, and what is printed only if it `forwards`."""
        if self._set_level is None:
            self._set_level = install_handler(partial(self._say, RECORD), self._where)
        self._set_level(level)
        if forwards == self._is_forwarding:
            return
        self._is_forwarding = forwards
        for name in _STREAMS:
            stream = getattr(sys, name)
            if forwards and not isinstance(stream, Forwarded):
                self._own[name] = Forwarded(name, self._print, getattr(sys, f"__{name}__"))
                setattr(sys, name, self._own[name])
            elif not forwards and isinstance(stream, Forwarded):
                self._own.pop(name, None)
                setattr(sys, name, getattr(sys, f"__{name}__"))

    def take_over(self) -> tuple[Any, ...]:
        """Put the worker's own streams in the place of those that a task has put there; return these."""
        taken = tuple(getattr(sys, name) for name in _STREAMS)
        for name in _STREAMS:
            setattr(sys, name, self._own.get(name, getattr(sys, f"__{name}__")))
        return taken

    def give_back(self, taken: tuple[Any, ...]) -> None:
        """Undo `take_over`."""
        for name, stream in zip(_STREAMS, taken, strict=True):
            if not _is_ours(stream):
                setattr(sys, name, stream)

    def _print(self, name: str, text: str) -> None:
        self._say(TEXT, (name, text))

    def flush(self) -> None:
        _flush(sys.stdout, sys.stderr)

    def flush_ours(self) -> None:
        """Likewise, but streams that a task has put there, from whatever thread, are that task's own."""
        _flush(*(stream for stream in (sys.stdout, sys.stderr) if _is_ours(stream)))


def _flush(*streams: Any) -> None:
    for stream in streams:
        try:
            stream.flush()
        except Exception:  # closed or replaced by a task: its own affair
            continue


def _is_ours(stream: Any) -> bool:
    return stream is sys.__stdout__ or stream is sys.__stderr__ or isinstance(stream, Forwarded)


# -- in the parent -----------------------------------------------------------------------------------------------------


def level() -> int:
    """The level below which workers need not send: the root logger's."""
    logging = sys.modules.get("logging")
    return WARNING if logging is None else int(logging.getLogger().getEffectiveLevel())


def is_replaced() -> bool:
    """Whether ``sys.stdout`` or ``sys.stderr`` is something other than the file that workers inherit."""
    return _is_not_file(sys.stdout, 1) or _is_not_file(sys.stderr, 2)


def _is_not_file(stream: Any, fd: int) -> bool:
    if stream is None:
        return False
    if stream is sys.__stdout__ or stream is sys.__stderr__:
        return False
    try:
        return bool(stream.fileno() != fd)
    except Exception:
        return True


def replay(fields: dict[str, Any]) -> None:
    """Handle a record that a worker sent, by this process's loggers and their levels. Never raises."""
    import logging

    try:
        record = logging.makeLogRecord(fields)
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    except Exception:  # a filter or handler of the user's: logging must not break a run
        if logging.raiseExceptions:
            import traceback

            traceback.print_exc()


def write(output: tuple[str, str]) -> None:
    """Write what a worker printed to the stream of that name. Never raises."""
    name, text = output
    stream = getattr(sys, name, None)
    if stream is not None:
        try:
            stream.write(text)
            stream.flush()
        except Exception:  # a closed stream: print would fail as quietly in a thread
            return
