"""Graphs and nodes that were written for LangGraph, as they are, on our engine (D-12)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow.interop.bridge import bridged
    from mpflow.interop.langgraph import from_langgraph

__all__ = ("bridged", "from_langgraph")


def __getattr__(name: str) -> Any:
    home = {"bridged": "mpflow.interop.bridge", "from_langgraph": "mpflow.interop.langgraph"}.get(name)
    if home is None:
        raise AttributeError(f"module 'mpflow.interop' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value
