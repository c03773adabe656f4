"""Context variables on the private wire: by what name another process finds one, and which values go along with a task.

A variable has no module of its own, so it is looked for in those that are loaded. Owns the names that `carry` gave.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterable
from contextvars import Context, ContextVar
from typing import Any, Final, NamedTuple

from mpflow._wire import pickling
from mpflow.errors import VariableNotPicklableError

_CARRIED: Final = "carry"
_BY_VALUE: Final = "by value"
_MAIN: Final = frozenset({"__main__", "__mp_main__"})
# Theirs say something about this process: its event loop, the runs in it.
_NOT_CARRIED: Final = frozenset(
    {"anyio", "asyncio", "concurrent", "langchain_core", "langgraph", "mpflow", "opentelemetry", "sniffio", "trio"}
)

Name = tuple[str, str]
"""A module and what the variable is called there; or `_CARRIED` and the name it was given; or `_BY_VALUE` and a label."""

_declared: dict[str, ContextVar[Any]] = {}
_by_value: dict[str, ContextVar[Any]] = {}
_names: dict[int, tuple[ContextVar[Any], Name | None]] = {}


class Carried(NamedTuple):
    """A variable with its value, on its way."""

    name: Name
    value: bytes


def carry(name: str, var: ContextVar[Any]) -> None:
    """Have the value of a context variable travel to worker processes under `name`.

    Variables that a module holds do so by themselves if their value can be pickled, and stay behind quietly if not; a
    variable named here must travel, so a value that cannot is an error. Call it where the variable is made, in a module
    that workers import as well or in the script itself. Raises ValueError if `name` means another variable by now.
    """
    if not isinstance(var, ContextVar):
        raise TypeError(f"carry({name!r}): expected a ContextVar, got {type(var).__name__}")
    known = _declared.setdefault(name, var)
    if known is not var and known.name != var.name:
        raise ValueError(f"carry({name!r}): the name means another context variable, {known.name!r}")
    # The same line run once more, in a notebook or a reloaded module, makes another variable.
    _declared[name] = var
    _names.clear()


def name_of(var: ContextVar[Any]) -> Name | None:
    """By what another process finds the variable; None if it cannot."""
    known = _names.get(id(var))
    if known is None:
        known = _names[id(var)] = var, _find(var)
    return known[1]


def _find(var: ContextVar[Any]) -> Name | None:
    for name, declared in _declared.items():
        if declared is var:
            return _CARRIED, name
    modules = [(name, vars(module)) for name, module in list(sys.modules.items()) if hasattr(module, "__dict__")]
    for name, held in modules:
        if held.get(var.name) is var:
            return name, var.name
    for name, held in modules:
        for attribute, value in list(held.items()):
            if value is var:
                return name, attribute
    return None


def pack(variables: Context) -> tuple[Carried, ...]:
    """What is set in a context and can travel. Raises VariableNotPicklableError for what `carry` named and cannot."""
    packed = []
    for var, value in variables.items():
        name = name_of(var) or _labels().get(id(var))
        if name is None or name[0].partition(".")[0] in _NOT_CARRIED:
            continue
        try:
            packed.append(Carried(name, pickling.dumps(value)))
        except Exception as error:
            if name[0] == _CARRIED:
                raise VariableNotPicklableError(name[1], f"{type(error).__name__}: {error}") from error
    return tuple(packed)


def _labels() -> dict[int, Name]:
    return {id(var): (_BY_VALUE, label) for label, var in _by_value.items()}


def unpack(variables: Iterable[Carried], scope: Any = None) -> None:
    """Set in this context what `pack` found. What this process cannot make sense of is left out."""
    for name, value in variables:
        try:
            var = _variable(name)
            if var is not None:
                var.set(pickle.loads(value))
        except Exception:
            if name[0] == _CARRIED:
                raise


def reduced(var: ContextVar[Any]) -> tuple[Any, ...]:
    """How pickle carries a variable that a function names: by its name; its default goes along."""
    name = name_of(var)
    if name is None:
        label = f"{var.name} {id(var)}"
        _by_value[label] = var
        name = _BY_VALUE, label
    default: tuple[Any, ...]
    try:
        default = (Context().run(var.get),)
    except LookupError:
        default = ()
    return _rebuilt, (name, var.name, default)


def _rebuilt(name: Name, label: str, default: tuple[Any, ...]) -> ContextVar[Any]:
    found = _variable(name)
    if found is None:
        found = ContextVar(label, default=default[0]) if default else ContextVar(label)
        (_declared if name[0] == _CARRIED else _by_value)[_key(name)] = found
    return found


def _variable(name: Name) -> ContextVar[Any] | None:
    """The variable of that name in this process; None if it has not come to be."""
    module, attribute = name
    if module == _CARRIED:
        return _declared.get(attribute)
    if module == _BY_VALUE or module in _MAIN:
        return _by_value.get(_key(name))
    found = getattr(importlib.import_module(module), attribute)
    return found if isinstance(found, ContextVar) else None


def _key(name: Name) -> str:
    return f"{name[0]}.{name[1]}" if name[0] in _MAIN else name[1]
