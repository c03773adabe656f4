"""State that is a conversation: `add_messages`, `MessagesState`, `push_message`.

langchain-core's message classes are loaded at the first use of any of these, never by importing this module.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, Union, cast
from uuid import uuid4

if TYPE_CHECKING:
    from langchain_core.messages import AnyMessage, BaseMessage, MessageLikeRepresentation

    from mpflow.graph.conversation import MessageGraph

    Messages = Union[list[MessageLikeRepresentation], MessageLikeRepresentation]  # noqa: UP007

__all__ = ("REMOVE_ALL_MESSAGES", "MessageGraph", "MessagesState", "add_messages", "push_message")

REMOVE_ALL_MESSAGES = "__remove_all__"
"""As the id of a `RemoveMessage`, drops every message before it."""


def _langchain_messages() -> Any:
    try:
        from langchain_core import messages
    except ImportError as missing:
        raise ImportError(
            'messages need langchain-core, which is not installed: pip install "mpflow-engine[langchain]"'
        ) from missing
    return messages


_WHOLE = (
    "AIMessage",
    "ChatMessage",
    "FunctionMessage",
    "HumanMessage",
    "RemoveMessage",
    "SystemMessage",
    "ToolMessage",
)


@lru_cache(maxsize=1)
def _whole_types() -> frozenset[type]:
    langchain = _langchain_messages()
    return frozenset(getattr(langchain, name) for name in _WHOLE)


def _coerced(messages: Messages) -> list[BaseMessage]:
    """What langchain takes for messages, as messages of one piece that have ids. The list may be the one given."""
    langchain = _langchain_messages()
    whole: list[Any] = messages if isinstance(messages, list) else [messages]
    if not _whole_types().issuperset(map(type, whole)):  # a long history of plain messages is not gone through
        convert, join = langchain.convert_to_messages, langchain.message_chunk_to_message
        base = langchain.BaseMessage
        coerced = whole if all(isinstance(message, base) for message in whole) else convert(whole)
        whole = [join(message) for message in coerced]
    for message in whole:
        if message.id is None:
            message.id = str(uuid4())
    return whole


def add_messages(
    left: Messages | None = None, right: Messages | None = None, *, format: str | None = None
) -> list[BaseMessage] | Callable[[Messages, Messages], list[BaseMessage]]:
    """Merge `right` into `left` and return a new list; the reducer of conversations (MS-1).

    Both are a message or a list of them, in any form that langchain takes; messages without an id get one. A message
    with the id of one in `left` takes its place, a `RemoveMessage` deletes the one it names (`ValueError` if there
    is none) or, with the id `REMOVE_ALL_MESSAGES`, all before it, and all others are appended in order.
    `format="langchain-openai"` gives the content the shape of OpenAI's API. Without `left` and `right` it returns a
    reducer with that format: ``Annotated[list, add_messages(format=...)]``.
    """
    if left is None and right is None:
        return partial(add_messages, format=format)  # type: ignore[return-value]
    if left is None or right is None:
        only = "right" if left is None else "left"
        raise ValueError(
            f"Must specify non-null arguments for both 'left' and 'right'. Only received: '{only}'. To set a format "
            f"call add_messages with keywords alone"
        )
    if format not in (None, "langchain-openai"):
        raise ValueError(f"Unrecognized format={format!r}. Expected 'langchain-openai' or None.")
    merged = _merge(_coerced(left), _coerced(right))
    return merged if format is None else _in_openai_format(merged)


# Messages of `left` that stay are the same objects, unchanged: a saver need not be given them again.
add_messages.keeps_items = True  # type: ignore[attr-defined]


def _merge(left: list[BaseMessage], right: list[BaseMessage]) -> list[BaseMessage]:
    removal = _langchain_messages().RemoveMessage
    for position in range(len(right) - 1, -1, -1):
        if isinstance(right[position], removal) and right[position].id == REMOVE_ALL_MESSAGES:
            return right[position + 1 :]
    merged = left.copy()
    place_of = {message.id: place for place, message in enumerate(merged)}
    removed: set[str | None] = set()
    for message in right:
        place = place_of.get(message.id)
        if isinstance(message, removal):
            if place is None:
                raise ValueError(f"Attempting to delete a message with an ID that doesn't exist ('{message.id}')")
            removed.add(message.id)
        elif place is None:
            place_of[message.id] = len(merged)
            merged.append(message)
        else:
            removed.discard(message.id)
            merged[place] = message
    return [message for message in merged if message.id not in removed] if removed else merged


def _in_openai_format(messages: list[BaseMessage]) -> list[BaseMessage]:
    langchain = _langchain_messages()
    if not hasattr(langchain, "convert_to_openai_messages"):
        raise ImportError(
            "format='langchain-openai' needs langchain-core 0.3.11 or later: pip install -U \"mpflow-engine[langchain]\""
        )
    openai = langchain.convert_to_openai_messages(messages)
    return cast("list[BaseMessage]", langchain.convert_to_messages(openai))


def push_message(message: Any, *, state_key: str | None = "messages") -> AnyMessage:
    """Emit a message to ``stream_mode="messages"`` from within a node, and write it to the state (SM-6).

    `state_key` is the channel to write to, None for none. Returns the message, coerced. Raises `ValueError` if it
    has no id, and `RuntimeError` outside of a node.
    """
    from mpflow._scope import current_scope

    scope = current_scope()
    langchain = _langchain_messages()
    coerced = langchain.message_chunk_to_message(langchain.convert_to_messages([message])[0])
    if coerced.id is None:
        raise ValueError("Message ID is required: give the message an id before it is pushed")
    if scope.emit is not None:
        scope.emit("message", (coerced, scope.config["metadata"]))
    if state_key is not None:
        scope.writes = [*(scope.writes or ()), (state_key, coerced)]
    return cast("AnyMessage", coerced)


if TYPE_CHECKING:

    class MessagesState(TypedDict):
        """A state with one key, ``messages``, merged by `add_messages` (MS-2)."""

        messages: Annotated[list[AnyMessage], add_messages]


def message_type() -> Any:
    """langchain-core's type of any message; Any without it, so that a state can be declared."""
    try:
        return _langchain_messages().AnyMessage
    except ImportError:
        return Any


def _make_messages_state() -> Any:
    message = message_type()
    # As a class it would have a string for its annotation, with nothing to resolve it by.
    fields = {"messages": Annotated[list[message], add_messages]}  # type: ignore[valid-type]
    make: Any = TypedDict
    state = make("MessagesState", fields)
    state.__module__ = __name__
    state.__doc__ = "A state with one key, ``messages``, merged by `add_messages` (MS-2)."
    return state


def __getattr__(name: str) -> Any:
    # Made on demand: its annotation names langchain's classes, so that JSON schemas describe them.
    if name == "MessagesState":
        state = globals()[name] = _make_messages_state()
        return state
    if name == "MessageGraph":
        from importlib import import_module  # a graph, which knows this module

        return import_module("mpflow.graph.conversation").MessageGraph
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
