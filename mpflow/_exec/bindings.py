"""What the bytes of a program depend on and may be bound anew: the cells, defaults and globals of functions sent by value,
and what the runnables around them are made of.

Must not pickle anything. A change made in place to what a function holds (a list appended to, a class patched) is not seen.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from operator import is_
from typing import Any, NamedTuple

from mpflow._names import MISSING

_MOST = 1000
"""Into so many objects one looks."""
_FEW = 64
_WHOLE = (type, types.ModuleType, types.CodeType, str, bytes, int, float, dict, set, types.BuiltinFunctionType)
"""What has no parts that may be bound anew."""


class Bindings:
    """What was bound where when a program was pickled. Holds what it found, so that an identity is never that of a dead one."""

    __slots__ = ("_places",)

    def __init__(self, program: Any) -> None:
        self._places: list[_Place] = []
        todo = [program]
        seen: set[int] = set()
        while todo and len(seen) <= _MOST:
            item = todo.pop()
            if id(item) in seen or isinstance(item, _WHOLE):
                continue
            seen.add(id(item))
            names = _names_of(item, item is program)
            if names is None:
                continue
            found = _bound(item, names)
            # The program itself must be free to die.
            self._places.append(_Place(None if item is program else item, names, found))
            todo += found

    def stand(self, program: Any) -> bool:
        """Whether everything is bound to the same objects still."""
        for item, names, before in self._places:
            now = _bound(program if item is None else item, names)
            if len(now) != len(before) or not all(map(is_, now, before)):
                return False
        return True


class _Place(NamedTuple):
    item: Any
    names: tuple[str, ...]
    found: list[Any]


def _names_of(item: Any, is_program: bool) -> tuple[str, ...] | None:
    """Under which names `item` holds what may be bound anew; None if it is not to be looked into."""
    if isinstance(item, types.FunctionType):
        return None if is_importable(item) else tuple(global_names(item.__code__))
    if isinstance(item, (types.MethodType, list, tuple)):
        return ()
    if is_program or _is_wrapper(item):
        # Only what leads to functions: the rest may be counts and caches.
        attributes = [*slots_of(item), *getattr(item, "__dict__", ())]
        return tuple(name for name in attributes if _is_looked_into(getattr(item, name, None)))
    return None


def _bound(item: Any, names: tuple[str, ...]) -> list[Any]:
    if isinstance(item, types.FunctionType):
        found: list[Any] = list(map(item.__globals__.get, names, repeat(MISSING)))
        found += map(_contents, item.__closure__ or ())
        found += item.__defaults__ or ()
        found += (item.__kwdefaults__ or {}).values()
        return found
    if isinstance(item, types.MethodType):
        return [item.__func__, item.__self__]
    if isinstance(item, (list, tuple)):
        return [part for part in item[:_FEW] if _is_looked_into(part)]
    found = [getattr(item, name, MISSING) for name in names]
    if isinstance(item, partial):
        found += (item.func, *item.args, *item.keywords.values())
    return found


def _is_looked_into(item: Any) -> bool:
    return isinstance(item, (types.FunctionType, types.MethodType, list, tuple)) or _is_wrapper(item)


def _is_wrapper(item: Any) -> bool:
    """Whether it is worth looking for functions inside: partials and the runnables a program is made of."""
    if isinstance(item, _WHOLE):
        return False
    module = type(item).__module__
    return module == "functools" or module.partition(".")[0] == "mpflow"


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet bound
        return MISSING


def is_importable(function: types.FunctionType) -> bool:
    """Whether a worker finds a function by its name."""
    module = sys.modules.get(function.__module__ or "")
    if module is None or function.__module__ in ("__main__", "__mp_main__"):
        return False
    found: Any = module
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


def global_names(code: types.CodeType) -> Iterator[str]:
    """The names that a function's code, or that of functions within it, may look up in its globals."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from global_names(constant)


def slots_of(item: Any) -> Iterator[str]:
    for kind in type(item).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in ("__weakref__", "__dict__"):
                yield slot
