"""Which classes a program allows a serializer to build.

Names of classes come from the program alone; nothing here imports what data names.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable
from typing import Any, Literal

Allowed = Iterable[tuple[str, ...] | type] | Literal[True] | None
"""Classes, or the parts of their import paths; True was LangGraph's word for all that data names."""


def classes_of(allowed: Allowed, argument: str) -> frozenset[type]:
    """The classes that a program allows. Raises ImportError, AttributeError or TypeError for what is none."""
    if allowed is True:
        warnings.warn(
            f"{argument}=True allows nothing: classes that data names are never imported. Pass the classes themselves, "
            f"or compile(types=[...])",
            stacklevel=4,
        )
        return frozenset()
    return frozenset(_class_of(one, argument) for one in allowed or ())


def _class_of(one: tuple[str, ...] | type, argument: str) -> type:
    if isinstance(one, type):
        return one
    *module, name = one
    found: Any = importlib.import_module(".".join(module))
    for part in name.split("."):
        found = getattr(found, part)
    if not isinstance(found, type):
        raise TypeError(f"{argument}: expected classes, got {'.'.join(one)}, which is a {type(found).__name__}")
    return found
