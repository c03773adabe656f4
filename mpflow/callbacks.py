"""Handlers of what langchain's callbacks do not know of: that a graph pauses for questions, and that it goes on (MOD-13).

Needs langchain-core, whose handlers these are. Who tells them is the engine's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union
from uuid import UUID

try:
    from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
    from langchain_core.callbacks.manager import ahandle_event, handle_event
except ImportError as missing:
    raise ImportError(
        'mpflow.callbacks needs langchain-core, which is not installed: pip install "mpflow-engine[langchain]"'
    ) from missing

if TYPE_CHECKING:
    from mpflow.config import RunnableConfig
    from mpflow.types import Interrupt

__all__ = (
    "GraphCallbackHandler",
    "GraphInterruptEvent",
    "GraphLifecycleEvent",
    "GraphLifecycleStatus",
    "GraphResumeEvent",
    "get_async_graph_callback_manager_for_config",
    "get_sync_graph_callback_manager_for_config",
)

GraphLifecycleStatus = Literal["input", "pending", "done", "interrupt_before", "interrupt_after", "out_of_steps"]
"""What a run is at: a breakpoint says before or after which step; a node's question comes while it is ``pending``."""


@dataclass(frozen=True)
class GraphInterruptEvent:
    """A run has paused. ``interrupts`` are its questions, none at a breakpoint."""

    run_id: UUID | None
    status: GraphLifecycleStatus
    checkpoint_id: str
    checkpoint_ns: tuple[str, ...]
    interrupts: tuple[Interrupt[Any], ...]


@dataclass(frozen=True)
class GraphResumeEvent:
    """A run goes on from a saved state."""

    run_id: UUID | None
    status: GraphLifecycleStatus
    checkpoint_id: str
    checkpoint_ns: tuple[str, ...]


GraphLifecycleEvent = Union[GraphInterruptEvent, GraphResumeEvent]  # noqa: UP007 - evaluated


class GraphCallbackHandler(BaseCallbackHandler):
    """Base of handlers that are told when a graph pauses and goes on; given in ``config["callbacks"]``."""

    def on_interrupt(self, event: GraphInterruptEvent) -> Any:
        """A graph has paused."""

    def on_resume(self, event: GraphResumeEvent) -> Any:
        """A graph goes on."""


class _GraphManager(BaseCallbackManager):
    """The graph handlers among some callbacks, and the run that they are told of."""

    def __init__(self, callbacks: Any, run_id: UUID | None) -> None:
        self.run_id = run_id
        handlers = _graph_handlers(callbacks)
        super().__init__(handlers, handlers)


class _SyncGraphManager(_GraphManager):
    def on_interrupt(self, event: GraphInterruptEvent) -> None:
        handle_event(self.handlers, "on_interrupt", None, event)

    def on_resume(self, event: GraphResumeEvent) -> None:
        handle_event(self.handlers, "on_resume", None, event)


class _AsyncGraphManager(_GraphManager):
    @property
    def is_async(self) -> bool:
        return True

    async def on_interrupt(self, event: GraphInterruptEvent) -> None:
        await ahandle_event(self.handlers, "on_interrupt", None, event)

    async def on_resume(self, event: GraphResumeEvent) -> None:
        await ahandle_event(self.handlers, "on_resume", None, event)


def _graph_handlers(callbacks: Any) -> list[BaseCallbackHandler]:
    if callbacks is None:
        return []
    if isinstance(callbacks, BaseCallbackManager):
        handlers: Sequence[Any] = callbacks.handlers
    elif isinstance(callbacks, BaseCallbackHandler):
        handlers = (callbacks,)
    elif isinstance(callbacks, Sequence) and not isinstance(callbacks, (str, bytes)):
        handlers = callbacks
    else:
        raise TypeError(f"expected a handler, a sequence of handlers or a manager, got {type(callbacks).__name__}")
    return [handler for handler in handlers if isinstance(handler, GraphCallbackHandler)]


def get_sync_graph_callback_manager_for_config(
    config: RunnableConfig, *, run_id: UUID | None = None
) -> _SyncGraphManager:
    """What tells the graph handlers of a config: ``on_interrupt(event)`` and ``on_resume(event)``."""
    return _SyncGraphManager(config.get("callbacks"), run_id)


def get_async_graph_callback_manager_for_config(
    config: RunnableConfig, *, run_id: UUID | None = None
) -> _AsyncGraphManager:
    """As `get_sync_graph_callback_manager_for_config`, for ``await``."""
    return _AsyncGraphManager(config.get("callbacks"), run_id)
