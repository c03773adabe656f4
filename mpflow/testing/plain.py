"""`PlainSaver`: a saver reduced to LangGraph's protocol, as one that somebody else wrote to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from mpflow.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from mpflow.config import RunnableConfig


class PlainSaver(BaseCheckpointSaver[Any]):
    """Passes the calls of the protocol to `saver` and hides all else, so that runs take no shorter way to it."""

    def __init__(self, saver: Any) -> None:
        super().__init__()
        self.saver = saver

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self.saver.get_next_version(current, channel)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self.saver.get_tuple(config)  # type: ignore[no-any-return]

    def list(self, config: RunnableConfig | None, **narrowing: Any) -> Iterator[CheckpointTuple]:
        return self.saver.list(config, **narrowing)  # type: ignore[no-any-return]

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self.saver.put(config, checkpoint, metadata, new_versions)  # type: ignore[no-any-return]

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self.saver.put_writes(config, writes, task_id, task_path)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self.saver.aget_tuple(config)  # type: ignore[no-any-return]

    async def alist(self, config: RunnableConfig | None, **narrowing: Any) -> AsyncIterator[CheckpointTuple]:
        async for found in self.saver.alist(config, **narrowing):
            yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await self.saver.aput(config, checkpoint, metadata, new_versions)  # type: ignore[no-any-return]

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self.saver.aput_writes(config, writes, task_id, task_path)
