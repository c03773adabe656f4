"""Which keys of the state a path looks at, where its code shows that plainly: others need not be read, or folded, for it.

It must not guess: of a path that does anything else with the state than to subscript it by a constant, nothing is known.
"""

from __future__ import annotations

import dis
from types import FunctionType
from typing import Any, Final

_SKIPPED: Final = frozenset(("CACHE", "EXTENDED_ARG", "NOP"))
_LOADS: Final = frozenset(("LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_CHECK"))
_SEES_LOCALS: Final = frozenset(
    ("breakpoint", "currentframe", "dir", "eval", "exec", "locals", "set_trace", "stack", "trace", "vars", "_getframe")
)
"""Names of what may look at a function's variables."""


def keys_looked_at(path: Any) -> frozenset[str] | None:
    """The keys by which a function subscripts its first argument; None if it may do anything else with it."""
    if type(path) is not FunctionType:
        return None
    code = path.__code__
    if not code.co_argcount or not _SEES_LOCALS.isdisjoint(code.co_names):
        return None
    state = code.co_varnames[0]
    if state in code.co_cellvars:
        return None
    steps = [step for step in dis.get_instructions(code) if step.opname not in _SKIPPED]
    found: set[str] = set()
    for at, step in enumerate(steps):
        if "FAST" not in step.opname:
            continue
        if type(step.argval) is tuple and state not in step.argval:  # of two variables at once
            continue
        if type(step.argval) is not str:
            return None
        if step.argval == state:
            key = _subscripted_by(steps[at + 1 : at + 3]) if step.opname in _LOADS else None
            if key is None:
                return None
            found.add(key)
    return frozenset(found)


def _subscripted_by(steps: list[dis.Instruction]) -> str | None:
    """The constant by which these two steps subscript what was loaded before them, if they do and it is a text."""
    if len(steps) < 2 or steps[0].opname != "LOAD_CONST" or type(steps[0].argval) is not str:
        return None
    last = steps[1]
    is_subscript = last.opname == "BINARY_SUBSCR" or (last.opname == "BINARY_OP" and last.argrepr == "[]")
    return steps[0].argval if is_subscript else None
