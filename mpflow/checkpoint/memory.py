"""`InMemorySaver`: checkpoints in this process, gone with it. It keeps any value and never touches a disk."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from mpflow._names import CHECKPOINT_ID, CHECKPOINT_NS, THREAD_ID
from mpflow._seal import copied, seal
from mpflow.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    get_checkpoint_id,
    get_checkpoint_metadata,
    next_version,
)
from mpflow.config import RunnableConfig

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("InMemorySaver", "MemorySaver")


class _Saved:
    """One checkpoint. Its channel values lie apart, by version, since most are those of its parent."""

    __slots__ = ("checkpoint", "metadata", "parent_id", "writes")

    def __init__(self, checkpoint: dict[str, Any], metadata: CheckpointMetadata, parent_id: str | None) -> None:
        self.checkpoint = checkpoint
        self.metadata = metadata
        self.parent_id = parent_id
        self.writes: dict[tuple[str, int], tuple[str, Callable[[], Any]]] = {}


class _Namespace:
    """The checkpoints of one thread and namespace, by id, and their values by channel and version."""

    __slots__ = ("orphans", "saved", "values")

    def __init__(self) -> None:
        self.saved: dict[str, _Saved] = {}
        self.values: dict[tuple[str, Any], Callable[[], Any] | None] = {}
        # Writes whose checkpoint has not come: under "exit" durability and with parallel savers it may come later.
        self.orphans: dict[str, dict[tuple[str, int], tuple[str, Callable[[], Any]]]] = {}


class InMemorySaver(BaseCheckpointSaver[str]):
    """A saver that keeps everything in this process's memory (CP-10). Thread safe; for tests and short-lived runs.

    `serde` and `factory` are taken for LangGraph's sake and not used.
    """

    def __init__(self, *, serde: Any = None, factory: Any = dict) -> None:
        super().__init__(serde=serde)
        self._lock = threading.RLock()
        self._threads: dict[str, dict[str, _Namespace]] = {}

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

    def get_next_version(self, current: str | None, channel: None) -> str:
        return next_version(current)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread_id, ns = _address(config)
        with self._lock:
            space = self._threads.get(thread_id, {}).get(ns)
            if space is None or not space.saved:
                return None
            checkpoint_id = get_checkpoint_id(config) or max(space.saved)
            if checkpoint_id not in space.saved:
                return None
            return self._tuple(thread_id, ns, space, checkpoint_id)

    def _tuple(self, thread_id: str, ns: str, space: _Namespace, checkpoint_id: str) -> CheckpointTuple:
        saved = space.saved[checkpoint_id]
        checkpoint = {**saved.checkpoint, "versions_seen": copied(saved.checkpoint["versions_seen"])}
        checkpoint["channel_versions"] = saved.checkpoint["channel_versions"].copy()
        checkpoint["channel_values"] = {
            channel: unseal()
            for channel, version in saved.checkpoint["channel_versions"].items()
            if (unseal := space.values.get((channel, version))) is not None
        }
        writes: list[PendingWrite] = [
            (task_id, channel, unseal()) for (task_id, _), (channel, unseal) in saved.writes.items()
        ]
        parent = None if saved.parent_id is None else _config(thread_id, ns, saved.parent_id)
        return CheckpointTuple(
            config=_config(thread_id, ns, checkpoint_id),
            checkpoint=cast(Checkpoint, checkpoint),
            metadata=copied(saved.metadata),
            parent_config=parent,
            pending_writes=writes,
        )

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        where: Mapping[str, Any] = {} if config is None else config["configurable"]
        before_id = None if before is None else get_checkpoint_id(before)
        with self._lock:
            threads = [where[THREAD_ID]] if config is not None else list(self._threads)
            addresses = [
                (thread_id, ns, checkpoint_id)
                for thread_id in threads
                for ns, space in self._threads.get(thread_id, {}).items()
                if CHECKPOINT_NS not in where or where[CHECKPOINT_NS] == ns
                for checkpoint_id in sorted(space.saved, reverse=True)
                if (before_id is None or checkpoint_id < before_id)
                and where.get(CHECKPOINT_ID) in (None, checkpoint_id)
            ]
        left = len(addresses) if limit is None else limit
        for thread_id, ns, checkpoint_id in addresses:
            if left <= 0:
                return
            with self._lock:  # not held while the consumer has the item
                found_in = self._threads.get(thread_id, {}).get(ns)
                if found_in is None or checkpoint_id not in found_in.saved:
                    continue
                metadata = found_in.saved[checkpoint_id].metadata
                if any(metadata.get(key) != value for key, value in (filter or {}).items()):
                    continue
                item = self._tuple(thread_id, ns, found_in, checkpoint_id)
            left -= 1
            yield item

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        thread_id, ns = _address(config)
        values = checkpoint["channel_values"]
        sealed = {
            (channel, version): seal(values[channel]) if channel in values else None
            for channel, version in new_versions.items()
        }
        kept = {key: value for key, value in checkpoint.items() if key != "channel_values"}
        kept["channel_versions"] = checkpoint["channel_versions"].copy()
        kept["versions_seen"] = {node: seen.copy() for node, seen in checkpoint["versions_seen"].items()}
        saved = _Saved(kept, copied(get_checkpoint_metadata(config, metadata)), get_checkpoint_id(config))
        with self._lock:
            space = self._threads.setdefault(thread_id, {}).setdefault(ns, _Namespace())
            space.values.update(sealed)
            old = space.saved.get(checkpoint["id"])
            saved.writes = old.writes if old is not None else space.orphans.pop(checkpoint["id"], {})
            space.saved[checkpoint["id"]] = saved
        return _config(thread_id, ns, checkpoint["id"])

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        thread_id, ns = _address(config)
        checkpoint_id = config["configurable"][CHECKPOINT_ID]
        sealed = [(channel, seal(value)) for channel, value in writes]
        with self._lock:
            space = self._threads.setdefault(thread_id, {}).setdefault(ns, _Namespace())
            saved = space.saved.get(checkpoint_id)
            slots = space.orphans.setdefault(checkpoint_id, {}) if saved is None else saved.writes
            for index, (channel, unseal) in enumerate(sealed):
                slot = (task_id, WRITES_IDX_MAP.get(channel, index))
                if slot[1] < 0 or slot not in slots:
                    slots[slot] = (channel, unseal)

    def delete_thread(self, thread_id: str) -> None:
        with self._lock:
            self._threads.pop(thread_id, None)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        gone = set(run_ids)
        with self._lock:
            for spaces in self._threads.values():
                for space in spaces.values():
                    kept = {
                        key: saved for key, saved in space.saved.items() if saved.metadata.get("run_id") not in gone
                    }
                    _keep(space, kept)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        with self._lock:
            target = self._threads.setdefault(target_thread_id, {})
            for ns, space in self._threads.get(source_thread_id, {}).items():
                copy = target.setdefault(ns, _Namespace())
                copy.values.update(space.values)
                for checkpoint_id, saved in space.saved.items():
                    twin = _Saved(saved.checkpoint, saved.metadata, saved.parent_id)
                    twin.writes = dict(saved.writes)
                    copy.saved[checkpoint_id] = twin

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"strategy must be 'keep_latest' or 'delete', got {strategy!r}")
        with self._lock:
            for thread_id in thread_ids:
                if strategy == "delete":
                    self._threads.pop(thread_id, None)
                    continue
                for space in self._threads.get(thread_id, {}).values():
                    if space.saved:
                        latest = max(space.saved)
                        _keep(space, {latest: space.saved[latest]})

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
        for item in self.list(config, filter=filter, before=before, limit=limit):
            yield item

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


MemorySaver = InMemorySaver
"""The older name of `InMemorySaver`."""


def _address(config: RunnableConfig) -> tuple[str, str]:
    configurable = config["configurable"]
    return configurable[THREAD_ID], configurable.get(CHECKPOINT_NS) or ""


def _config(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {THREAD_ID: thread_id, CHECKPOINT_NS: ns, CHECKPOINT_ID: checkpoint_id}}


def _keep(space: _Namespace, saved: dict[str, _Saved]) -> None:
    """Keep these checkpoints of a namespace, and the values they need."""
    needed = {pair for one in saved.values() for pair in one.checkpoint["channel_versions"].items()}
    space.saved = saved
    space.values = {key: value for key, value in space.values.items() if key in needed}
