"""What every compiled graph can do, for annotations and `isinstance`. It builds and runs nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from mpflow.config import RunnableConfig
    from mpflow.types import StateSnapshot

__all__ = ("PregelProtocol",)


@runtime_checkable
class PregelProtocol(Protocol):
    """A graph that can be run, looked at and changed: one of ours, or an object of a user's own in its place."""

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> Any: ...

    def get_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> Any: ...

    async def aget_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> Any: ...

    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot: ...

    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot: ...

    def get_state_history(self, config: RunnableConfig, **kwargs: Any) -> Iterator[StateSnapshot]: ...

    def aget_state_history(self, config: RunnableConfig, **kwargs: Any) -> AsyncIterator[StateSnapshot]: ...

    def bulk_update_state(self, config: RunnableConfig, updates: Any) -> RunnableConfig: ...

    async def abulk_update_state(self, config: RunnableConfig, updates: Any) -> RunnableConfig: ...

    def update_state(self, config: RunnableConfig, values: Any, as_node: str | None = None) -> RunnableConfig: ...

    async def aupdate_state(
        self, config: RunnableConfig, values: Any, as_node: str | None = None
    ) -> RunnableConfig: ...

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]: ...

    def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]: ...

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any: ...

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any: ...


def __getattr__(name: str) -> Any:
    if name == "StreamProtocol":
        raise ImportError(
            "mpflow.pregel.protocol has no StreamProtocol: a stream is an iterator, what stream() and astream() return; "
            "what else a node tells goes through mpflow.config.get_stream_writer()"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
