"""Why a value cannot be encoded: a second, slow walk to the innermost thing that fails, and words for it.

Runs after a failure only, and must not fail itself, whatever the user's objects do.
"""

from __future__ import annotations

import functools
import json
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from mpflow._wire import classes
from mpflow._wire.errors import DecodeLimitError, EncodeError
from mpflow._wire.limits import MAX_DEPTH

if TYPE_CHECKING:
    from mpflow._wire.encoding import Encoding

# Trying every child of a wide container costs an encoding each; past this many the walk stops where it is.
_MAX_TRIES: Final = 100_000
_ATOMS: Final = (int, str, float, bool, bytes, type(None))


def explain(value: Any, path: str, error: BaseException, encoding: Encoding) -> EncodeError:
    """The EncodeError for `value`, which `encoding` could not encode because of `error`."""
    try:
        culprit, where, reason = _Walk(encoding).find(value, path, error)
        type_name = _type_name(culprit)
    except BaseException as failure:
        culprit, where, reason = value, path, _reason(failure)
        type_name = type(value).__name__
    if encoding.trust:
        message = (
            f"Could not pickle the task's data: {where}: {reason} (it is a {type_name}). "
            "Leave it out of what the node receives and returns, or make it where it is used."
        )
    else:
        message = f"Could not save {where}: {reason} (it is a {type_name})."
        if (classes.kind_of(type(culprit)) is not None and "not among" in reason) or "no type" in reason:
            message += f" If it is data, name its class: compile(types=[{type(culprit).__name__}])."
    return EncodeError(message, path=where, type_name=type_name, reason=reason)


class _Walk:
    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._tries = 0

    def find(self, value: Any, path: str, error: BaseException) -> tuple[Any, str, str]:
        """Step into the first child that fails, until none does."""
        seen: dict[int, str] = {}
        while True:
            if id(value) in seen:
                return value, path, f"it contains itself: it is also {seen[id(value)]}"
            if len(seen) > MAX_DEPTH:
                return value, path, f"it lies deeper than {MAX_DEPTH} containers"
            seen[id(value)] = path
            for child, way in self._children(value):
                if isinstance(child, _ATOMS) and type(child) in _ATOMS and type(child) is not str:
                    continue
                failure = self._failure(child)
                if failure is not None:
                    value, path, error = child, path + way, failure
                    break
            else:
                return value, path, _reason(error)

    def _children(self, value: Any) -> Iterator[tuple[Any, str]]:
        # On the disk an unknown class is the culprit itself, whatever it holds.
        if not self._encoding.trust and not _is_open(type(value), self._encoding):
            return iter(())
        return _children(value)

    def _failure(self, value: Any) -> BaseException | None:
        self._tries += 1
        if self._tries > _MAX_TRIES:
            return None
        try:
            self._encoding.encode(value)
        except BaseException as error:
            return error
        return None


def _is_open(kind: type, encoding: Encoding) -> bool:
    return kind.__module__ in ("builtins", "collections") or encoding.registry.name(kind) is not None


def _children(value: Any) -> Iterator[tuple[Any, str]]:
    """What `value` holds, each with the way to it as a user would write it."""
    kind = type(value)
    if isinstance(value, dict):
        for key, item in list(value.items()):
            yield item, f"[{_short(key)}]"
        for key in list(value):
            if not isinstance(key, (str, int)):
                yield key, f".key({_short(key)})"
    elif isinstance(value, tuple) and hasattr(kind, "_fields"):
        for name, item in zip(kind._fields, value, strict=False):
            yield item, f".{name}"
    elif isinstance(value, (list, tuple)) or kind.__name__ == "deque":
        for index, item in enumerate(value):
            yield item, f"[{index}]"
    elif isinstance(value, (set, frozenset)):
        for item in value:
            yield item, f".item({_short(item)})"
    if isinstance(value, (type, types.ModuleType)):
        return
    if isinstance(value, types.MethodType):
        yield value.__self__, ".__self__"
        yield value.__func__, ".__func__"
    elif isinstance(value, functools.partial):
        yield value.func, ".func"
        for index, item in enumerate(value.args):
            yield item, f".args[{index}]"
        for name, item in value.keywords.items():
            yield item, f".keywords[{name!r}]"
    elif isinstance(value, types.FunctionType):
        yield from _children_of_function(value)
    elif isinstance(value, BaseException):
        for index, item in enumerate(value.args):
            yield item, f".args[{index}]"
    for name, item in classes.state_of(value, classes.slots_of(kind)).items():
        if name not in ("__weakref__", "__dict__"):
            yield item, f".{name}"


def _children_of_function(function: types.FunctionType) -> Iterator[tuple[Any, str]]:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=False):
        try:
            yield cell.cell_contents, f".<closure>.{name}"
        except ValueError:  # not bound yet
            continue
    for index, item in enumerate(function.__defaults__ or ()):
        yield item, f".__defaults__[{index}]"
    for name, item in (function.__kwdefaults__ or {}).items():
        yield item, f".__kwdefaults__[{name!r}]"
    for name in function.__code__.co_names:
        if name in function.__globals__:
            item = function.__globals__[name]
            if not isinstance(item, (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)):
                yield item, f".<global>.{name}"


def _reason(error: BaseException) -> str:
    if isinstance(error, (RecursionError, DecodeLimitError)) or "recursion limit" in str(error):
        return f"it nests deeper than {MAX_DEPTH} containers, or contains itself"
    text = str(error)
    return text if text and type(error).__name__ in _PLAIN_WORDS else f"{type(error).__name__}: {text}"


_PLAIN_WORDS: Final = ("TypeError", "PicklingError", "Unencodable")


def _short(key: Any) -> str:
    try:
        text = json.dumps(key, ensure_ascii=False) if type(key) is str else repr(key)
    except BaseException:
        return f"<{type(key).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
