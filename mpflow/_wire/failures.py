"""Exceptions as records: what a worker's failure was, in plain data, and the exception again at best effort.

Owns the layout of EXCEPTION records. An exception's own code may raise, exit or lie while it is taken apart or put
together; nothing of that may leave this module: at worst a `RemoteError` stands in. A record is a list:

    type name, message, traceback text, payload or None, cause record or None, context record or None,
    is the context suppressed, notes

The payload is an encoded message of its own, so that what fails to decode in it spoils nothing around it:
``(0, class or name of a builtin one, arguments, attributes)`` or ``(1, pickle, attributes that the pickle leaves out)``.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Callable
from typing import Any, Final

from mpflow._wire import classes, pickling
from mpflow._wire.errors import DecodeError
from mpflow._wire.limits import DEFAULT_LIMITS
from mpflow._wire.tags import PICKLED

_MAX_CHAIN: Final = 16
# Of exceptions in the arguments of exceptions; each level may try its arguments twice.
_MAX_NESTED: Final = 8
_MAX_TEXT: Final = 64 * 1024
_BY_PARTS: Final = 0
_BY_PICKLE: Final = 1


class RemoteError(Exception):
    """Stands in for an exception of a worker that cannot be rebuilt here. Its fields say what it was."""

    def __init__(self, type_name: str, message: str, traceback_text: str = "") -> None:
        super().__init__(type_name, message, traceback_text)
        self.type_name = type_name
        self.message = message
        self.traceback_text = traceback_text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name

    def __repr__(self) -> str:
        return f"{self.type_name.rpartition('.')[2]}({self.message!r})"


class WorkerTraceback(Exception):
    """Shown as the cause at the root of a rebuilt exception: the traceback as the worker printed it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


class Reader:
    """What it takes to decode payloads: whose classes may be named, and at which trust."""

    def __init__(self, registry: classes.Registry, trust: bool) -> None:
        self.registry = registry
        self.trust = trust

    def decode(self, payload: Any) -> Any:
        # A decoding of its own: another may be in the middle of the message around the record.
        from mpflow._wire.decoding import Decoding

        return Decoding(self.registry, self.trust, DEFAULT_LIMITS).decode(payload)


def exception_of(record: Any, reader: Reader) -> BaseException:
    """The exception of a record met inside a value."""
    if type(record) is not list or len(record) != 8 or not all(type(text) is str for text in record[:3]):
        raise DecodeError("expected the record of an exception")
    seen = 0
    links: list[tuple[Any, BaseException]] = []
    top = None
    todo: list[tuple[Any, BaseException | None, str]] = [(record, None, "")]
    while todo:
        part, parent, slot = todo.pop()
        seen += 1
        if seen > _MAX_CHAIN or type(part) is not list or len(part) != 8:
            raise DecodeError("expected the record of an exception and a short chain of causes")
        error = _rebuild(part, reader)
        links.append((part, error))
        if parent is None:
            top = error
        else:
            setattr(parent, slot, error)
        if part[4] is not None:
            todo.append((part[4], error, "__cause__"))
        if part[5] is not None:
            todo.append((part[5], error, "__context__"))
    for part, error in links:
        error.__suppress_context__ = bool(part[6])
    assert top is not None
    if record[2]:
        root = top
        while (below := root.__cause__ or (None if root.__suppress_context__ else root.__context__)) is not None:
            root = below
        root.__cause__ = WorkerTraceback(record[2])
    return top


class Recorder:
    """Makes the record of one exception and its chain. ``open_count`` is how many exceptions it lies within."""

    def __init__(self, registry: classes.Registry, trust: bool, open_count: int = 0) -> None:
        from mpflow._wire.encoding import Encoding

        self._encoding = Encoding(registry, trust, open_exceptions=open_count + 1)
        self._reader = Reader(registry, trust)
        self._is_too_deep = open_count >= _MAX_NESTED
        self._seen: set[int] = set()
        self.flags = 0

    def record(self, error: BaseException, is_top: bool = True) -> list[Any]:
        self._seen.add(id(error))
        type_name, message, notes = _type_name(error), _message(error), _notes(error)
        if self._is_too_deep:
            return [type_name, message, "", None, None, None, False, notes]
        text = _traceback_text(error) if is_top else ""
        hides = bool(error.__suppress_context__)
        cause = self._link(error.__cause__)
        context = None if hides else self._link(error.__context__)
        return [type_name, message, text, self._payload(error), cause, context, hides, notes]

    def _link(self, error: BaseException | None) -> list[Any] | None:
        # A worker's traceback from further down is in the text already.
        if error is None or isinstance(error, WorkerTraceback):
            return None
        if id(error) in self._seen or len(self._seen) >= _MAX_CHAIN:
            return None
        return self.record(error, is_top=False)

    def _payload(self, error: BaseException) -> bytes | None:
        """The first way that also leads back, tried here: what would kill or fail in the parent does so here."""
        ways = [self._by_parts]
        if self._encoding.trust:
            ways.insert(0 if _has_own_pickling(type(error)) else 1, self._by_pickle)
        for way in ways:
            try:
                payload = way(error)
                flags = self._encoding.flags
                rebuilt = _from_payload(payload, self._reader)
            except BaseException:
                continue
            if type(rebuilt).__name__ == type(error).__name__:
                self.flags |= flags
                return payload
        return None

    def _by_pickle(self, error: BaseException) -> bytes:
        pickled = pickling.dumps(error)
        known = getattr(pickling.loads(pickled), "__dict__", {})
        own = getattr(error, "__dict__", {})
        lost = {key: self._carried(own[key]) for key in own if key not in known and _may_set(key)}
        data = self._encoding.encode((_BY_PICKLE, pickled, lost))
        self._encoding.flags |= PICKLED
        return data

    def _by_parts(self, error: BaseException) -> bytes:
        cls = type(error)
        # CPython's own types know here what their constructors took, and what their fields are.
        _, args, *rest = _builtin_base(cls).__reduce__(error)
        state = dict(rest[0]) if rest and rest[0] else {}
        name: Any = f"builtins:{cls.__qualname__}" if vars(builtins).get(cls.__qualname__) is cls else cls
        state = {key: value for key, value in state.items() if _may_set(key)}
        try:
            return self._encoding.encode((_BY_PARTS, name, list(args), state))
        except BaseException:  # then without what cannot be carried
            args = [self._carried(arg) for arg in args]
            state = {key: self._carried(value) for key, value in state.items()}
            return self._encoding.encode((_BY_PARTS, name, args, state))

    def _carried(self, value: Any) -> Any:
        """`value`, or its repr if it cannot be carried."""
        try:
            self._encoding.encode(value)
        except BaseException:
            return _bounded(_safely(repr, value))
        return value


def _rebuild(record: list[Any], reader: Reader) -> BaseException:
    type_name, message, text, payload = record[:4]
    error: BaseException | None = None
    if payload is not None:
        try:
            error = _from_payload(payload, reader)
        except BaseException:
            error = None
    if error is None:
        error = RemoteError(str(type_name), str(message), str(text))
    notes = record[7]
    if isinstance(notes, list) and notes and not getattr(error, "__notes__", None):
        try:
            error.__dict__["__notes__"] = [str(note) for note in notes]
        except BaseException:
            return RemoteError(str(type_name), str(message), str(text))
    return error


def _from_payload(payload: Any, reader: Reader) -> BaseException:
    how, *rest = reader.decode(payload)
    if how == _BY_PICKLE and reader.trust:
        error = pickling.loads(rest[0])
        if rest[1]:
            error.__dict__.update(rest[1])
    elif how == _BY_PARTS:
        cls, args, state = rest
        error = _from_parts(cls, args, state)
    else:
        raise DecodeError(f"unknown form {how!r} of an exception")
    if not isinstance(error, BaseException):
        raise DecodeError(f"expected an exception, got {type(error).__name__}")
    return error


def _from_parts(cls: Any, args: list[Any], state: dict[str, Any]) -> BaseException:
    if isinstance(cls, str):
        module, _, name = cls.partition(":")
        cls = vars(builtins).get(name) if module == "builtins" else None
    if not isinstance(cls, type) or not issubclass(cls, BaseException):
        raise DecodeError("expected the class of an exception")
    # Never the class's own __init__: its signature need not take what it passed on as args.
    error: BaseException = cls.__new__(cls, *args)
    base = _builtin_base(cls)
    base.__init__(error, *args)
    base.__setstate__(error, {key: value for key, value in state.items() if _may_set(key)})
    return error


def _may_set(name: Any) -> bool:
    return type(name) is str and (not name.startswith("__") or name == "__notes__")


def _builtin_base(cls: type) -> Any:
    return next(base for base in cls.__mro__ if base.__module__ == "builtins" and issubclass(base, BaseException))


def _has_own_pickling(cls: type) -> bool:
    base = _builtin_base(cls)
    names = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
    return any(getattr(cls, name, None) is not getattr(base, name, None) for name in names)


def _type_name(error: BaseException) -> str:
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _message(error: BaseException) -> str:
    return _bounded(_safely(str, error))


def _notes(error: BaseException) -> list[str]:
    notes = _safely(lambda e: getattr(e, "__notes__", []), error)
    return [_bounded(note) for note in notes if type(note) is str] if isinstance(notes, list) else []


def _traceback_text(error: BaseException) -> str:
    if error.__traceback__ is None and error.__cause__ is None and error.__context__ is None:
        return ""
    return _bounded(_safely(lambda e: "".join(traceback.format_exception(type(e), e, e.__traceback__)), error))


def _safely(ask: Callable[[Any], Any], value: Any) -> Any:
    try:
        return ask(value)
    except BaseException as failure:
        return f"<{type(value).__name__} that raises {type(failure).__name__} when asked>"


def _bounded(text: Any) -> str:
    # A subclass of str may lie about its length and slices; this makes it a plain one.
    plain: str = str.__str__(text) if isinstance(text, str) else "<no text>"
    if len(plain) <= _MAX_TEXT:
        return plain
    half = _MAX_TEXT // 2
    return f"{plain[:half]}\n[... {len(plain) - _MAX_TEXT} characters left out ...]\n{plain[-half:]}"
