"""User callbacks of a run, driven by what models and tools do in its worker processes (D-11).

A handler in the worker turns each event into a message; here it is handed to the user's handlers, which never travel.
It knows langchain-core, which is imported when a run has callbacks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow._scope import Emit

CALLBACK = "callback"
"""The event ``(name, arguments, keyword arguments)``: something happened that handlers are told of."""

# By event, the attribute by which a handler says that it does not want to know.
_EVENTS = {
    "on_llm_start": "ignore_llm",
    "on_chat_model_start": "ignore_chat_model",
    "on_llm_new_token": "ignore_llm",
    "on_llm_end": "ignore_llm",
    "on_llm_error": "ignore_llm",
    "on_chain_start": "ignore_chain",
    "on_chain_end": "ignore_chain",
    "on_chain_error": "ignore_chain",
    "on_tool_start": "ignore_agent",
    "on_tool_end": "ignore_agent",
    "on_tool_error": "ignore_agent",
    "on_agent_action": "ignore_agent",
    "on_agent_finish": "ignore_agent",
    "on_text": None,
    "on_retry": "ignore_retry",
    "on_retriever_start": "ignore_retriever",
    "on_retriever_end": "ignore_retriever",
    "on_retriever_error": "ignore_retriever",
    "on_custom_event": "ignore_custom_event",
}


@lru_cache(maxsize=1)
def relay_class() -> Any:
    """A handler that hands every event on to `emit`, for models and tools in a worker."""
    from langchain_core.callbacks import BaseCallbackHandler

    class Relay(BaseCallbackHandler):
        run_inline = True

        def __init__(self, emit: Emit) -> None:
            self._emit = emit

    for name in _EVENTS:
        setattr(Relay, name, _relayed(name))
    return Relay


def _relayed(name: str) -> Callable[..., None]:
    def relay(self: Any, *arguments: Any, **options: Any) -> None:
        from mpflow._wire.errors import EncodeError

        try:
            self._emit(CALLBACK, (name, arguments, options))
        except EncodeError:  # what is told by the way (parameters of the call) is not worth the task
            known = {key: options[key] for key in ("run_id", "parent_run_id", "tags", "metadata") if key in options}
            self._emit(CALLBACK, (name, arguments, known))

    relay.__name__ = name
    return relay


def drive(callbacks: Any, event: tuple[str, tuple[Any, ...], dict[str, Any]]) -> None:
    """Tell the handlers of a run's config what happened in a worker."""
    from langchain_core.callbacks.manager import handle_event

    name, arguments, options = event
    handlers = callbacks if isinstance(callbacks, list) else [*callbacks.handlers]
    handle_event(handlers, name, _EVENTS[name], *arguments, **options)
