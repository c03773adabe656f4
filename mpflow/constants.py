"""The public constants of LangGraph's `constants` module; private names live in `mpflow._names`."""

from __future__ import annotations

from typing import Any, Final

from mpflow._names import CONF, TASKS

START: Final = "__start__"
"""The first node, virtual: edges from it say where a run begins."""
END: Final = "__end__"
"""The last node, virtual: an edge to it says that a path is over."""
TAG_HIDDEN: Final = "langsmith:hidden"
"""A node or edge so tagged is left out of drawings and streams."""
TAG_NOSTREAM: Final = "nostream"
"""A chat model so tagged stays out of the "messages" stream."""

__all__ = ("CONF", "END", "START", "TAG_HIDDEN", "TAG_NOSTREAM", "TASKS")

_MOVED = ("Interrupt", "Send")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MOVED:
        module = "mpflow.types"
        said = f"import {name} from mpflow.types, not from mpflow.constants"
    else:
        module = "mpflow._names"
        said = f"{name} of mpflow.constants is private: nothing but its text is promised"
    if name not in _MOVED and not (name.isupper() and hasattr(import_module(module), name)):
        raise AttributeError(f"module 'mpflow.constants' has no attribute {name!r}")
    import_module("warnings").warn(import_module("mpflow.warnings").LangGraphDeprecatedSinceV10(said), stacklevel=2)
    return getattr(import_module(module), name)
