"""`LogSaver`: LangGraph's saver protocol over a log, and the engine's shorter way to the same log.

It owns the order of what is read and written; how rows are kept is the driver's, what they hold is the records'.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from mpflow.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
)
from mpflow.checkpoint.ids import next_version
from mpflow.checkpoint.log import envelope, operations, pruning, putting
from mpflow.checkpoint.log.coding import Coder, DataCoder, SerdeCoder
from mpflow.checkpoint.log.driver import STEP, Batch, Driver, Row
from mpflow.checkpoint.log.loaded import loaded_langchain_classes
from mpflow.checkpoint.log.operations import Calls, Known, Loaded
from mpflow.checkpoint.log.records import Result, Step
from mpflow.checkpoint.log.sealing import Sealed, layout_of
from mpflow.checkpoint.log.writer import GroupWriter
from mpflow.config import RunnableConfig

_KNOWN = 256
"""How many checkpoints a saver remembers for their children's sake."""


_PROTOCOL = frozenset(
    name
    for method in ("get", "get_tuple", "list", "put", "put_writes")
    for name in (method, "a" + method, "get_next_version")
)


class LogSaver(BaseCheckpointSaver[str]):
    """A saver that keeps a log (CP-7, CP-8). Thread-safe.

    Values are kept as data: plain types, what the codec knows of libraries, and objects of the classes in `types`, or
    by `serde`, a serializer with ``dumps_typed`` and ``loads_typed``. Anything else is refused when it is put, with
    `mpflow._wire.codec.EncodeError`. Every method of LangGraph's protocol that writes is durable when it returns.

    Beyond the protocol, for the engine: `load`, `append`, `post`, `flush`, `claim`, `release` and `for_types`. Async
    twins run their sync ones in a thread; a saver whose driver is awaited overrides `_aperform`, `apost`, `aappend`,
    `aflush`, `aclaim` and `arelease`.
    """

    layout: Any = envelope
    """What makes rows of records and back."""
    keeps_log = True
    outlives_process = True
    """What it keeps is there for the next process."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Who overrides a method of the protocol expects it to be called.
        if "keeps_log" not in cls.__dict__:
            cls.keeps_log = cls.keeps_log and _PROTOCOL.isdisjoint(cls.__dict__)

    def __init__(self, driver: Driver, *, serde: Any = None, types: Iterable[type] = ()) -> None:
        super().__init__(serde=serde)
        self.driver: Any = driver
        self.coder: Coder = DataCoder(types) if serde is None else SerdeCoder(self.serde)
        if serde is not None and self.layout is envelope:
            self.layout = layout_of(self.serde)
        self.writer = GroupWriter(driver.append)
        self.known: OrderedDict[tuple[str, str, str], Known] = OrderedDict()
        self._twins: dict[frozenset[type], LogSaver] = {}
        self._told: set[type] = set()

    @property
    def has_far_log(self) -> bool:
        """Whether workers can make its rows: rows can travel, and what packs values in them can be told."""
        return (
            self.keeps_log
            and (self.layout is envelope or type(self.layout) is Sealed)
            and self.coder.told() is not None
        )

    def sent(self, thread_id: str, rows: Iterable[Row]) -> Sequence[Row]:
        """Rows as they go to workers."""
        return rows if isinstance(rows, Sequence) else list(rows)

    def received(self, thread_id: str, rows: Iterable[Sequence[Any]]) -> list[Row]:
        """Rows that came from workers, as their fields."""
        return [Row(*row) for row in rows]

    # -- what operations need -----------------------------------------------------------------------------------------

    def records(self, thread_id: str, rows: Iterable[Row]) -> Iterator[Step | Result]:
        """The records in rows. Raises CheckpointCorruptError."""
        layout = self.layout
        for row in rows:
            yield layout.load_step(thread_id, row) if row.kind == STEP else layout.load_result(thread_id, row)

    def remember(self, where: tuple[str, str, str], known: Known) -> None:
        self.known[where] = known
        while len(self.known) > _KNOWN:
            self.known.popitem(last=False)

    def _perform(self, calls: Calls) -> Any:
        """Do what an operation asks of the driver; its result."""
        self.writer.flush()
        return operations.perform(calls, self.driver)

    async def _aperform(self, calls: Calls) -> Any:
        """As `_perform`, awaiting."""
        return await asyncio.to_thread(self._perform, calls)

    # -- the engine's way ---------------------------------------------------------------------------------------------

    def for_types(self, types_of: Callable[[], Collection[type]]) -> LogSaver:
        """A saver on the same log that keeps objects of these classes too. They are asked for if that matters."""
        if not self.coder.learns:
            return self
        wanted = frozenset(types_of())
        twin = self._twins.get(wanted)
        if twin is None:
            self._told |= wanted
            coder = self.coder.knowing(wanted)
            twin = self
            if coder is not self.coder:
                twin = object.__new__(type(self))
                twin.__dict__.update(self.__dict__)
                twin.coder = coder
            self._twins[wanted] = twin
        return twin

    def _knowing_all(self) -> LogSaver:
        """For callers that name no graph: with the classes of all graphs on this log, and langchain's messages."""
        return self.for_types(lambda: self._told | loaded_langchain_classes())

    def load(self, config: RunnableConfig) -> Loaded | None:
        """The checkpoint that `config` names with what it takes to go on from it."""
        loaded: Loaded | None = self._perform(operations.load(self, config))
        return loaded

    def append(self, thread_id: str, rows: Sequence[Row]) -> None:
        """Add rows, in one commit with those posted before; durable when it returns."""
        self.writer.write(thread_id, rows)

    def commit(self, batches: Sequence[Batch]) -> dict[str, BaseException]:
        """Add rows of many threads, in one commit with those posted before; durable when it returns.

        What failed for these threads, now or before: a thread may be given without rows, to hear of it.
        """
        return self.writer.write_all(batches)

    async def acommit(self, batches: Sequence[Batch]) -> dict[str, BaseException]:
        """`commit`, for asyncio."""
        return await asyncio.to_thread(self.commit, batches)

    def reach(self, method: str, *arguments: Any) -> Any:
        """Call the driver, after all that was posted, for somebody who is not in this process."""
        return self._perform(operations.one(method, *arguments))

    async def areach(self, method: str, *arguments: Any) -> Any:
        """`reach`, for asyncio."""
        return await self._aperform(operations.one(method, *arguments))

    def post(self, thread_id: str, rows: Sequence[Row]) -> None:
        """Add rows soon, in order. Raises what went wrong with those posted before for this thread."""
        self.writer.post(thread_id, rows)

    def flush(self, thread_id: str) -> None:
        """Wait until all that was posted is durable. Raises what went wrong."""
        self.writer.flush(thread_id)

    def claim(self, thread_id: str) -> None:
        """Keep other processes from running the thread. Raises RunOwnedElsewhere."""
        self.driver.claim(thread_id)
        self.writer.forget(thread_id)

    def release(self, thread_id: str) -> None:
        """Undo one `claim`."""
        self.driver.release(thread_id)

    async def aload(self, config: RunnableConfig) -> Loaded | None:
        """`load`, for asyncio."""
        loaded: Loaded | None = await self._aperform(operations.load(self, config))
        return loaded

    async def aappend(self, thread_id: str, rows: Sequence[Row]) -> None:
        """`append`, for asyncio."""
        await asyncio.to_thread(self.append, thread_id, rows)

    async def apost(self, thread_id: str, rows: Sequence[Row]) -> None:
        """`post`, for asyncio."""
        self.post(thread_id, rows)

    async def aflush(self, thread_id: str) -> None:
        """`flush`, for asyncio."""
        await asyncio.to_thread(self.flush, thread_id)

    async def aclaim(self, thread_id: str) -> None:
        """`claim`, for asyncio."""
        self.claim(thread_id)

    async def arelease(self, thread_id: str) -> None:
        """`release`, for asyncio."""
        self.release(thread_id)

    # -- LangGraph's protocol -----------------------------------------------------------------------------------------

    def get_next_version(self, current: str | None, channel: None) -> str:
        return next_version(current)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> LogSaver:
        return self

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found: CheckpointTuple | None = self._perform(operations.get_tuple(self._knowing_all(), config))
        return found

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        log = self._knowing_all()
        found = self._perform(operations.find(log, config, filter, _id_in(before), limit))
        while found:
            states = self._perform(operations.page(log, found))
            found = found[operations.PAGE :]
            for thread_id, ns, state in states:
                yield operations.tuple_of(log, thread_id, ns, state)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        where: RunnableConfig = self._perform(
            putting.put(self._knowing_all(), config, checkpoint, metadata, new_versions)
        )
        return where

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._perform(putting.put_writes(self._knowing_all(), config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Forget a thread. Raises RunOwnedElsewhere if another process runs it; a run in this one goes on from here."""
        thread_id = str(thread_id)
        self.claim(thread_id)
        try:
            self._perform(pruning.delete_thread(self, thread_id))
        finally:
            self.release(thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._perform(pruning.delete_for_runs(self._knowing_all(), set(run_ids)))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self._perform(pruning.copy_thread(self, source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest", keep: int = 1) -> None:
        """Forget all but the `keep` latest checkpoints of each namespace of the threads, or all with ``"delete"``."""
        if not pruning.deletes_all(strategy, keep):
            self._perform(pruning.prune(self._knowing_all(), thread_ids, keep))
            return
        for thread_id in thread_ids:
            self.delete_thread(thread_id)

    def vacuum(self) -> None:
        """Give the space of what was deleted back, where the storage can."""
        self._perform(pruning.vacuum())

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found: CheckpointTuple | None = await self._aperform(operations.get_tuple(self._knowing_all(), config))
        return found

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        log = self._knowing_all()
        found = await self._aperform(operations.find(log, config, filter, _id_in(before), limit))
        while found:
            states = await self._aperform(operations.page(log, found))
            found = found[operations.PAGE :]
            for thread_id, ns, state in states:
                yield operations.tuple_of(log, thread_id, ns, state)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        where: RunnableConfig = await self._aperform(
            putting.put(self._knowing_all(), config, checkpoint, metadata, new_versions)
        )
        return where

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self._aperform(putting.put_writes(self._knowing_all(), config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        thread_id = str(thread_id)
        await self.aclaim(thread_id)
        try:
            await self._aperform(pruning.delete_thread(self, thread_id))
        finally:
            await self.arelease(thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        await self._aperform(pruning.delete_for_runs(self._knowing_all(), set(run_ids)))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await self._aperform(pruning.copy_thread(self, source_thread_id, target_thread_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest", keep: int = 1) -> None:
        """`prune`, for asyncio."""
        if not pruning.deletes_all(strategy, keep):
            await self._aperform(pruning.prune(self._knowing_all(), thread_ids, keep))
            return
        for thread_id in thread_ids:
            await self.adelete_thread(thread_id)


def _id_in(config: RunnableConfig | None) -> str | None:
    return None if config is None else get_checkpoint_id(config)
