"""`MessageGraph`: a graph whose whole state is a list of messages, as LangGraph had it before `MessagesState`."""

from __future__ import annotations

import warnings
from typing import Annotated, Any

from mpflow.graph.message import add_messages, message_type
from mpflow.graph.state import StateGraph
from mpflow.warnings import LangGraphDeprecatedSinceV10

__all__ = ("MessageGraph",)


class MessageGraph(StateGraph[Any, Any, Any, Any]):
    """A graph whose nodes get the list of messages and return the new ones, merged by `add_messages`.

    Deprecated by LangGraph 1.0 in favour of a `StateGraph` over `MessagesState`. Needs langchain-core.
    """

    def __init__(self) -> None:
        warnings.warn(
            LangGraphDeprecatedSinceV10("`MessageGraph` is deprecated: use a `StateGraph` with a key `messages`"),
            stacklevel=2,
        )
        super().__init__(Annotated[list[message_type()], add_messages])  # type: ignore[misc, arg-type]
