"""`InMemorySaver`: checkpoints in this process, gone with it. It keeps any value and never touches a disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mpflow.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from mpflow.checkpoint.log import carrying
from mpflow.checkpoint.log.coding import AnyCoder
from mpflow.checkpoint.log.driver import Row
from mpflow.checkpoint.log.memory import MemoryDriver, Records
from mpflow.checkpoint.log.operations import Calls, perform
from mpflow.checkpoint.log.saver import LogSaver
from mpflow.config import RunnableConfig

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("InMemorySaver", "MemorySaver")


class InMemorySaver(LogSaver):
    """A saver that keeps everything in this process's memory (CP-10). Thread-safe; for tests and short-lived runs.

    `serde` and `factory` are taken for LangGraph's sake and not used.
    """

    layout = Records
    keeps_log = True
    outlives_process = False

    def __init__(self, *, serde: Any = None, factory: Any = dict) -> None:
        super().__init__(MemoryDriver())
        self.coder = AnyCoder()
        if serde is not None:
            self.serde = serde

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    # Nothing waits here for a disk, so nothing is put off, or done in another thread.

    def _perform(self, calls: Calls) -> Any:
        return perform(calls, self.driver)

    async def _aperform(self, calls: Calls) -> Any:
        return perform(calls, self.driver)

    # Who overrides a sync method means its twin as well.

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self.get_tuple(config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        for found in self.list(config, filter=filter, before=before, limit=limit):
            yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self.put(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self.put_writes(config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        self.delete_thread(thread_id)

    @property
    def has_far_log(self) -> bool:
        return self.keeps_log and self.layout is Records

    def sent(self, thread_id: str, rows: Iterable[Row]) -> Sequence[Row]:
        return [carrying.sent(thread_id, row) for row in rows]

    def received(self, thread_id: str, rows: Iterable[Sequence[Any]]) -> list[Row]:
        return [carrying.kept(thread_id, Row(*row)) for row in rows]

    def for_types(self, types_of: Callable[[], Collection[type]]) -> Self:
        return self

    def append(self, thread_id: str, rows: Sequence[Row]) -> None:
        self.driver.add(thread_id, rows)

    post = append

    def flush(self, thread_id: str) -> None:
        return None

    async def aappend(self, thread_id: str, rows: Sequence[Row]) -> None:
        self.driver.add(thread_id, rows)

    apost = aappend

    async def aflush(self, thread_id: str) -> None:
        return None


MemorySaver = InMemorySaver
"""The older name of `InMemorySaver`."""
