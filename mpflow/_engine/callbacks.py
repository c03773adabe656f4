"""User callbacks of a run, driven by what models and tools do in its worker processes (D-11).

A handler in the worker turns each event into a message; here it is handed to the user's handlers, which never travel, as
something that happened within the task. It knows langchain-core, which is imported when a run has callbacks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow._scope import Emit

CALLBACK = "callback"
"""The event ``(name, arguments, keyword arguments)``: something happened that handlers are told of."""
_TAP = "tap_output_iter"
"""The name of the event that a piece of an output was given out, which event streams want to see: run id and piece."""

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


@lru_cache(maxsize=2)
def relay_class(taps: bool) -> Any:
    """A handler that hands every event on to `emit`, for models and tools in a worker.

    With `taps` pieces of outputs too: its presence among the handlers makes models stream although they are only invoked.
    """
    from langchain_core.callbacks import BaseCallbackHandler

    class Relay(BaseCallbackHandler):
        run_inline = True

        def __init__(self, emit: Emit) -> None:
            self._emit = emit

    for name in _EVENTS:
        setattr(Relay, name, _relayed(name))
    return _tapping(Relay) if taps else Relay


def _tapping(relay: Any) -> Any:
    class TappingRelay(relay, _tap_class()):  # type: ignore[misc]
        def tap_output_iter(self, run_id: Any, output: Iterator[Any]) -> Iterator[Any]:
            for piece in output:
                self._tell(run_id, piece)
                yield piece

        async def tap_output_aiter(self, run_id: Any, output: AsyncIterator[Any]) -> AsyncIterator[Any]:
            async for piece in output:
                self._tell(run_id, piece)
                yield piece

        def _tell(self, run_id: Any, piece: Any) -> None:
            from mpflow._wire.errors import EncodeError

            with suppress(EncodeError):
                self._emit(CALLBACK, (_TAP, (run_id, piece), {}))

    return TappingRelay


def _tap_class() -> Any:
    from langchain_core.tracers._streaming import _StreamingCallbackHandler

    return _StreamingCallbackHandler


def any_taps(callbacks: Any) -> bool:
    """Whether handlers among these want to see pieces of outputs, as those of event streams do."""
    return any(hasattr(handler, _TAP) for handler in _handlers_of(callbacks))


def _handlers_of(callbacks: Any) -> Sequence[Any]:
    return callbacks if isinstance(callbacks, list) else getattr(callbacks, "handlers", ())


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


def drive(callbacks: Any, event: tuple[str, tuple[Any, ...], dict[str, Any]], task: Any) -> None:
    """Tell the handlers of a run's config what happened in a worker, within `task`, if that was told of."""
    from langchain_core.callbacks.manager import handle_event

    name, arguments, options = event
    handlers = [*_handlers_of(callbacks)]
    if name == _TAP:
        run_id, piece = arguments
        for handler in handlers:
            if hasattr(handler, _TAP):
                deque(handler.tap_output_iter(run_id, iter((piece,))), maxlen=0)
        return
    if task is not None and "parent_run_id" in options and options["parent_run_id"] is None:
        options = {**options, "parent_run_id": task.run_id}
        if "tags" in options:
            options["tags"] = ["seq:step:1", *(options["tags"] or ())]
    handle_event(handlers, name, _EVENTS[name], *arguments, **options)
