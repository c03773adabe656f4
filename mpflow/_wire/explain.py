"""Why a value cannot be encoded: a second, slow walk to the innermost thing that fails, and words for it.

Runs after a failure only, and must not fail itself, whatever the user's objects do.
"""

from __future__ import annotations

import functools
import json
import time
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from mpflow._wire import classes
from mpflow._wire.errors import DecodeLimitError, EncodeError
from mpflow._wire.limits import MAX_DEPTH

if TYPE_CHECKING:
    from mpflow._wire.encoding import Encoding

# Every child is tried by encoding it. After this long the walk stops and names where it is.
_MOST_S: Final = 2.0
_ATOMS: Final = (int, float, bool, bytes, type(None))


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
        self._deadline = time.monotonic() + _MOST_S

    def find(self, value: Any, path: str, error: BaseException) -> tuple[Any, str, str]:
        """Step into the first child that fails, until none does."""
        if _is_depth(error):
            return self._find_depth(value, path)
        while True:
            found = self._failing_child(value)
            if found is None:
                return value, path, _reason(error)
            value, way, error = found
            path += way

    def _find_depth(self, top: Any, path: str) -> tuple[Any, str, str]:
        """The cycle, or the fact that there is none: trying each level in turn would take the square of the depth."""
        open_ids = {id(top): 0}
        branch: list[tuple[Any, str, Iterator[tuple[Any, str]]]] = [(top, "", self._children(top))]
        finished: dict[int, int] = {}
        while branch and len(branch) <= MAX_DEPTH and time.monotonic() < self._deadline:
            for child, way in branch[-1][2]:
                if type(child) in _ATOMS or type(child) is str or finished.get(id(child), -1) >= len(branch):
                    continue
                if id(child) in open_ids:
                    ways = [step for _, step, _ in branch]
                    to_first = path + "".join(ways[: open_ids[id(child)] + 1])
                    return child, path + "".join(ways) + way, f"it contains itself: it is also {to_first}"
                open_ids[id(child)] = len(branch)
                branch.append((child, way, self._children(child)))
                break
            else:
                done, _, _ = branch.pop()
                del open_ids[id(done)]
                finished[id(done)] = len(branch)
        return top, path, f"it nests deeper than {MAX_DEPTH} containers"

    def _failing_child(self, value: Any) -> tuple[Any, str, BaseException] | None:
        try:
            for child, way in self._children(value):
                if type(child) in _ATOMS:
                    continue
                failure = self._failure(child)
                if failure is not None:
                    return child, way, failure
        except BaseException:  # an object that does not let itself be looked into is the culprit then
            return None
        return None

    def _children(self, value: Any) -> Iterator[tuple[Any, str]]:
        # On the disk an unknown class is the culprit itself, whatever it holds.
        if not self._encoding.trust and not _is_open(type(value), self._encoding):
            return iter(())
        return _children(value)

    def _failure(self, value: Any) -> BaseException | None:
        if time.monotonic() > self._deadline:
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


def _is_depth(error: BaseException) -> bool:
    return isinstance(error, ValueError) and str(error) == "recursion limit exceeded."


def _reason(error: BaseException) -> str:
    if isinstance(error, DecodeLimitError):
        return str(error)
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
