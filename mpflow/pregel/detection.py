"""Which graph a node runs: found by looking at what it calls, without calling it (SG-5)."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from types import CodeType, FunctionType
from typing import Any

_NOTHING_WITHIN = frozenset(
    (int, float, complex, bool, str, bytes, bytearray, list, tuple, dict, set, frozenset, type(None))
)
"""What functions name most, and no graph is looked for in."""
_PASSING = frozenset(("PUSH_NULL", "CACHE", "PRECALL", "COPY"))
"""Instructions between those that load a name and its attributes."""
_GLOBAL, _CELL, _ATTRIBUTE = "global", "cell", "attribute"
_OTHER = ("", "")


class Combined:
    """Several callables in one, of which any may run a graph."""

    sources: Sequence[Any]


def graph_within(source: Any) -> Any:
    """The compiled graph that a node is, or that what it calls refers to; None if there is none.

    A graph that keeps no state (``checkpointer=False``) does not count.
    """
    candidates = [source]
    for candidate in candidates:  # which grows
        if hasattr(type(candidate), "get_subgraphs"):
            if getattr(candidate, "checkpointer", None) is not False:
                return candidate
            continue
        if isinstance(candidate, Combined):
            candidates += candidate.sources
            continue
        steps = _several(candidate, "steps") or _several(candidate, "deps")
        candidates += steps or (getattr(value, "__self__", value) for value in _named_in(_function_of(candidate)))
    return None


def _several(candidate: Any, name: str) -> list[Any]:
    """The steps of a sequence, or what a langchain function depends on."""
    if isinstance(candidate, type) or not hasattr(type(candidate), "invoke"):
        return []
    found = _attribute(candidate, name)
    return list(found) if isinstance(found, (list, tuple)) else []


def _function_of(source: Any) -> FunctionType | None:
    """The Python function that a node comes to, if it is written as one."""
    while isinstance(source, partial):
        source = source.func
    if isinstance(source, type) or not callable(source):
        source = _attribute(source, "func") or _attribute(source, "afunc")
    elif not inspect.isroutine(source):
        call = getattr(type(source), "__call__", None)
        source = call if isinstance(call, FunctionType) else source
    source = getattr(source, "__func__", source)
    wrapped = _attribute(source, "__wrapped__")
    if callable(wrapped):
        source = getattr(wrapped, "__func__", wrapped)
    return source if isinstance(source, FunctionType) else None


def _named_in(function: FunctionType | None) -> Iterator[Any]:
    """All that a function has captured, and the globals that it names itself, with what is read off them by attribute."""
    if function is None:
        return
    code = function.__code__
    cells: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            cells[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield from cells.values()
    named = {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    value: Any = None
    for kind, name in _loads_of(code):
        if kind is _GLOBAL:
            value = named.get(name)
        elif kind is _CELL:
            value = cells.get(name)
        elif kind is _ATTRIBUTE:
            value = None if type(value) in _NOTHING_WITHIN else _attribute(value, name)
        else:
            value = None
        if value is not None:
            yield value


@lru_cache(maxsize=1024)
def _loads_of(code: CodeType) -> tuple[tuple[str, str], ...]:
    """What a function's code loads, one after the other: each kind and name, and empty ones for whatever comes between."""
    loads: list[tuple[str, str]] = []
    codes = [code]
    for code in codes:  # which grows: what is defined within reads the same names
        codes += (constant for constant in code.co_consts if isinstance(constant, CodeType))
        loads.append(_OTHER)
        for instruction in dis.get_instructions(code):
            name = instruction.opname
            if name.startswith("LOAD_GLOBAL"):
                loads.append((_GLOBAL, instruction.argval))
            elif name in ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"):
                loads.append((_CELL, instruction.argval))
            elif name in ("LOAD_ATTR", "LOAD_METHOD"):
                loads.append((_ATTRIBUTE, instruction.argval))
            elif name not in _PASSING and loads[-1] is not _OTHER:
                loads.append(_OTHER)
    return tuple(loads)


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:  # a property of the user's may raise whatever it likes; here it is only looked at
        return None
