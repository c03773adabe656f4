"""Graphs: `StateGraph`, its start and end, and the state that holds messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpflow.constants import END, START
from mpflow.graph.state import StateGraph

if TYPE_CHECKING:
    from mpflow.graph.conversation import MessageGraph
    from mpflow.graph.message import MessagesState, add_messages

__all__ = ("END", "START", "MessageGraph", "MessagesState", "StateGraph", "add_messages")


def __getattr__(name: str) -> Any:
    if name in ("MessageGraph", "MessagesState", "add_messages"):
        import mpflow.graph.message as message

        return getattr(message, name)
    raise AttributeError(f"module 'mpflow.graph' has no attribute {name!r}")
