"""The "messages" stream: tokens of chat models that nodes call, and the messages that nodes return (SM-6).

The one place of the engine that knows langchain-core, which it imports when the mode, or user callbacks, are asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from mpflow._engine.payloads import user_tags
from mpflow.constants import TAG_NOSTREAM
from mpflow.schema import is_pydantic

if TYPE_CHECKING:
    from mpflow._core.task import Task
    from mpflow._scope import Emit, TaskScope

Told = tuple[Any, dict[str, Any]]
"""A message, or a piece of one, and the metadata of the task that it comes from."""


def entrance(heard: Collection[str]) -> Callable[[TaskScope], None]:
    """What prepares a task for langchain: its models and tools find the task's config, and tell the run what is `heard`.

    Raises ImportError when something is to be heard of langchain-core and it is not installed.
    """
    try:
        import langchain_core.runnables.config  # noqa: F401 - asks whether it is there
    except ImportError as missing:
        if not heard:
            return _nothing
        raise ImportError(
            f"stream_mode='{min(heard)}' needs langchain-core, which is not installed: "
            'pip install "mpflow-engine[langchain]"'
        ) from missing

    return partial(_enter, tuple(heard))


def _enter(heard: Collection[str], scope: TaskScope) -> None:
    from langchain_core.runnables.config import var_child_runnable_config

    config: Any = scope.config
    if scope.emit is not None and heard:
        config["callbacks"] = _managed(config)
        if "messages" in heard:
            config["callbacks"].add_handler(_handler_class()(scope.emit), inherit=True)
        if "tools" in heard:
            from mpflow._engine.tools import tool_handler_class

            config["callbacks"].add_handler(tool_handler_class()(scope.emit), inherit=True)
    var_child_runnable_config.set(config)


def enter_away(heard: Collection[str], is_called_back: bool, taps: bool, scope: TaskScope) -> None:
    """The same in a worker, where the run's own callbacks are not: what they would be told is sent to them.

    `taps` says that some of them want to see pieces of outputs.
    """
    if is_called_back and scope.emit is not None:
        from mpflow._engine.callbacks import relay_class

        scope.config["callbacks"] = _with(scope.config.get("callbacks"), relay_class(taps)(scope.emit))
    _enter(heard, scope)


def _nothing(scope: TaskScope) -> None:
    return None


def _with(callbacks: Any, handler: Any) -> Any:
    if callbacks is None:
        return [handler]
    if isinstance(callbacks, list):
        return [*callbacks, handler]
    manager = callbacks.copy()
    manager.add_handler(handler, inherit=True)
    return manager


def _managed(config: Any) -> Any:
    """The callbacks of a config as a manager of its own, which hands on whose task it is to models that bring metadata."""
    callbacks = config.get("callbacks")
    metadata = config.get("metadata") or {}
    if callbacks is not None and not isinstance(callbacks, list):
        manager = callbacks.copy()
        manager.add_metadata(metadata)  # a task of a graph within brings what the task around it knew
        return manager
    from langchain_core.callbacks import CallbackManager

    tags, handlers = config.get("tags") or (), callbacks or ()
    manager = CallbackManager(list(handlers), list(handlers))
    manager.add_tags(list(tags))
    manager.add_metadata(metadata)
    return manager


def without_ours(callbacks: Any) -> Any:
    """Callbacks that a task handed on, without what tells the run of that task: a nested run tells for itself."""
    if callbacks is None or "langchain_core" not in sys.modules:
        return callbacks
    if isinstance(callbacks, list):
        return [handler for handler in callbacks if not is_ours(handler)] or None
    manager = callbacks.copy()
    for held in (manager.handlers, manager.inheritable_handlers):
        held[:] = [handler for handler in held if not is_ours(handler)]
    return manager


def is_ours(handler: Any) -> bool:
    return getattr(handler, "tells_its_run", False) is True


@lru_cache(maxsize=1)
def _handler_class() -> Any:
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk

    try:  # its presence among the handlers makes models stream although they are only invoked
        from langchain_core.tracers._streaming import _StreamingCallbackHandler as Streaming
    except ImportError:
        Streaming = object  # type: ignore[assignment,misc]

    class TokenHandler(BaseCallbackHandler, Streaming):  # type: ignore[type-arg,misc,unused-ignore]
        """Tells the run of one task what the models called in it say."""

        run_inline = True
        tells_its_run = True

        def __init__(self, emit: Emit) -> None:
            self._emit = emit
            self._calls: dict[Any, dict[str, Any]] = {}

        def tap_output_aiter(self, run_id: Any, output: Any) -> Any:
            return output

        def tap_output_iter(self, run_id: Any, output: Any) -> Any:
            return output

        def on_chat_model_start(
            self,
            serialized: dict[str, Any],
            messages: list[list[Any]],
            *,
            run_id: Any,
            tags: list[str] | None = None,
            metadata: dict[str, Any] | None = None,
            **kwargs: Any,
        ) -> None:
            if TAG_NOSTREAM in (tags or ()):
                return
            told = dict(metadata or {})
            if kept := user_tags(tags):
                told["tags"] = kept
            self._calls[run_id] = told

        def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: Any, **kwargs: Any) -> None:
            told = self._calls.get(run_id)
            if told is not None and isinstance(chunk, ChatGenerationChunk):
                self._emit("message", (named(chunk.message), told))

        def on_llm_end(self, response: Any, *, run_id: Any, **kwargs: Any) -> None:
            told = self._calls.pop(run_id, None)
            if told is not None and response.generations and response.generations[0]:
                generation = response.generations[0][0]
                if isinstance(generation, ChatGeneration):
                    self._emit("whole message", (named(generation.message), told))

        def on_llm_error(self, error: BaseException, *, run_id: Any, **kwargs: Any) -> None:
            self._calls.pop(run_id, None)

    return TokenHandler


def named(message: Any) -> Any:
    """The message, with an id if it had none."""
    if message.id is None:
        message.id = str(uuid4())
    return message


def returned_by(task: Task) -> Iterator[Any]:
    """The messages among a task's writes, as values or one level down in sequences."""
    for _, value in task.writes:
        yield from _messages_in(value)


def given_to(task: Task) -> Iterator[str]:
    """The ids of the messages in a task's input."""
    for value in _values_of(task.input):
        for message in _messages_in(value):
            if message.id is not None:
                yield message.id


def _messages_in(value: Any) -> Iterator[Any]:
    from langchain_core.messages import BaseMessage

    if isinstance(value, BaseMessage):
        yield value
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for item in value:
            if isinstance(item, BaseMessage):
                yield item


def _values_of(state: Any) -> Sequence[Any]:
    if isinstance(state, Mapping):
        return list(state.values())
    if is_pydantic(state):
        return [getattr(state, name) for name in type(state).model_fields]
    if is_dataclass(state) and not isinstance(state, type):
        return [getattr(state, field.name) for field in fields(state)]
    return [state]
