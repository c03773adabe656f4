"""What a function's code names, found where it will be looked up when it runs. Raises `Held` for what must not be named."""

from __future__ import annotations

import sys
import types
from typing import Any

from mpflow._exec.placement import trusted
from mpflow._exec.placement.bytecode import Report, Use
from mpflow._exec.placement.clearance import MISSING, Clearance, Held


def check_names(report: Report, name: str, clearance: Clearance) -> None:
    """Refuse what a function names in a text, or as an attribute of anything."""
    for move in report.moves[:1]:
        clearance.moves = f"{name} {move.what} (line {move.line})"
    texts = report.strings if report.attributes & trusted.NAMING else ()
    for word in trusted.REACHING | frozenset("@"):
        if any(word in text for text in texts):
            raise Held(f"{name} has names looked up in a text ('{word}')")
    if "load" in report.attributes and report.strings & {"r+", "w+"}:
        raise Held(f"{name} loads an array from a file that it may write")
    for attribute in report.attributes:
        if attribute in trusted.REACHING:
            raise Held(f"{name} looks at '{attribute}'")
        if attribute in trusted.WRITING:
            raise Held(f"{name} calls '{attribute}', which writes outside")
    if any(
        use.name in ("getattr", "attrgetter", "methodcaller") or "attrgetter" in use.attributes for use in report.uses
    ):
        for text in report.strings & (trusted.REACHING | trusted.WRITING):
            raise Held(f"{name} names '{text}'")


def variable(function: types.FunctionType, use: Use, name: str, clearance: Clearance) -> Any:
    """What a variable of an outer function holds."""
    try:
        cell = (function.__closure__ or ())[function.__code__.co_freevars.index(use.name)]
        value = cell.cell_contents
    except ValueError:
        raise Held(f"the variable '{use.name}', which {name} uses (line {use.line}), is not assigned yet") from None
    if use.name != "__class__":  # which is there for super()
        clearance.bind_cell(cell, value)
    return value


def imported(use: Use, name: str, clearance: Clearance) -> Any:
    """What an import within the function will find."""
    module_name, _, attribute = use.name.partition(":")
    module = sys.modules.get(module_name)
    if module is None:
        raise Held(f"{name} imports '{module_name}' (line {use.line}), which is not loaded")
    clearance.imports[module_name] = None
    if not attribute:
        return module
    value = held_by(module, attribute)
    if value is MISSING:
        raise Held(
            f"{name} imports '{attribute}' of '{module_name}' (line {use.line}), which is not there, or made when it is asked for"
        )
    clearance.bind(vars(module), attribute, value)
    return value


def held_by(module: types.ModuleType, name: str) -> Any:
    """What a module has under a name; MISSING if it has nothing, or only its own code (``__getattr__``, a property) could tell."""
    if trusted.is_known(module.__name__):
        return getattr(module, name, MISSING)
    kinds = type(module).__mro__
    if any(name in kind.__dict__ for kind in kinds[: kinds.index(types.ModuleType)]):
        return MISSING
    return vars(module).get(name, MISSING)
