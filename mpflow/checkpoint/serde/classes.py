"""Which classes a serializer may build: those it was given, and langchain's messages and documents where they are loaded.

Names of classes come from the program alone; nothing here imports what data names.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterable
from typing import Any, Literal

Allowed = Iterable[tuple[str, ...] | type] | Literal[True] | None
"""Classes, or the parts of their import paths; True was LangGraph's word for all that data names."""

_MESSAGES = "langchain_core.messages"
_DOCUMENTS = "langchain_core.documents"


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


def loaded_langchain_classes() -> frozenset[type]:
    """Messages, their chunks and documents, if the program has imported them: no value of theirs exists otherwise."""
    found: set[type] = set()
    messages = sys.modules.get(_MESSAGES)
    if messages is not None:
        base = messages.BaseMessage
        found.update(
            cls
            for cls in (getattr(messages, name, None) for name in messages.__all__)
            if isinstance(cls, type) and issubclass(cls, base)
        )
    documents = sys.modules.get(_DOCUMENTS)
    if documents is not None:
        found.add(documents.Document)
    return frozenset(found)


def langchain_is_loaded() -> tuple[bool, bool]:
    """Changes when `loaded_langchain_classes` may."""
    return _MESSAGES in sys.modules, _DOCUMENTS in sys.modules
