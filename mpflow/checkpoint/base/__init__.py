"""The contract of a saver, in LangGraph's protocol, and the shapes it keeps. It knows no storage and no engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Generic, Literal, NamedTuple, TypedDict, TypeVar, Union, cast

from mpflow._names import (
    CHECKPOINT_ID,
    CHECKPOINT_MAP,
    CHECKPOINT_NS,
    CONF,
    ERROR,
    INTERRUPT,
    PRIVATE_CONF_PREFIX,
    RESUME,
    SCHEDULED,
    THREAD_ID,
)
from mpflow.checkpoint.deltas import DeltaChannelHistory, walk
from mpflow.checkpoint.ids import new_checkpoint_id
from mpflow.config import RunnableConfig

V = TypeVar("V", int, float, str)

ChannelVersions = dict[str, Union[str, int, float]]  # noqa: UP007 - evaluated
"""Each channel's version; versions of one saver compare."""

PendingWrite = tuple[str, str, Any]
"""Task id, channel, value: a write that no checkpoint holds yet."""

WRITES_IDX_MAP = {ERROR: -1, SCHEDULED: -2, INTERRUPT: -3, RESUME: -4}
"""The slots of special writes: a second one of a task replaces the first (CP-6)."""

LATEST_VERSION = 4

EXCLUDED_METADATA_KEYS = frozenset(
    {
        THREAD_ID,
        CHECKPOINT_ID,
        CHECKPOINT_NS,
        CHECKPOINT_MAP,
        "langgraph_step",
        "langgraph_node",
        "langgraph_triggers",
        "langgraph_path",
        "langgraph_checkpoint_ns",
    }
)


class CheckpointMetadata(TypedDict, total=False):
    """What is known of a checkpoint (CP-3); the run's own metadata keys stand beside these."""

    source: Literal["input", "loop", "update", "fork"]
    step: int
    parents: dict[str, str]
    run_id: str
    counters_since_delta_snapshot: dict[str, tuple[int, int]]


class Checkpoint(TypedDict):
    """The state of a graph after a step (CP-4)."""

    v: int
    id: str
    ts: str
    channel_values: dict[str, Any]
    channel_versions: ChannelVersions
    versions_seen: dict[str, ChannelVersions]
    updated_channels: list[str] | None


class CheckpointTuple(NamedTuple):
    """A checkpoint with all that belongs to it (CP-8)."""

    config: RunnableConfig
    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    parent_config: RunnableConfig | None = None
    pending_writes: list[PendingWrite] | None = None


def now_iso() -> str:
    """The time as checkpoints carry it: ISO 8601, UTC, microseconds."""
    from datetime import datetime, timezone

    return datetime.now(timezone.utc).isoformat()


def empty_checkpoint() -> Checkpoint:
    """Return the checkpoint of a thread that has none."""
    return {
        "v": LATEST_VERSION,
        "id": new_checkpoint_id(),
        "ts": now_iso(),
        "channel_values": {},
        "channel_versions": {},
        "versions_seen": {},
        "updated_channels": None,
    }


def copy_checkpoint(checkpoint: Checkpoint) -> Checkpoint:
    """Return a copy whose mappings may be changed; the channel values in it are the same objects."""
    return {
        "v": checkpoint["v"],
        "id": checkpoint["id"],
        "ts": checkpoint["ts"],
        "channel_values": checkpoint["channel_values"].copy(),
        "channel_versions": checkpoint["channel_versions"].copy(),
        "versions_seen": {node: seen.copy() for node, seen in checkpoint["versions_seen"].items()},
        "updated_channels": checkpoint.get("updated_channels"),
    }


def get_checkpoint_id(config: RunnableConfig) -> str | None:
    """The checkpoint that `config` addresses; None means the latest."""
    return cast("str | None", config.get("configurable", {}).get(CHECKPOINT_ID))


def get_checkpoint_metadata(config: RunnableConfig, metadata: CheckpointMetadata) -> CheckpointMetadata:
    """Return what to save as metadata: the checkpoint's own, then the run's, so far as it is plain (CP-3).

    Only strings, numbers and booleans of the run's metadata and configurable are taken, without the ids that say
    where, and strings without NUL, which databases refuse.
    """
    kept: dict[str, Any] = {
        key: value.replace("\0", "") if isinstance(value, str) else value for key, value in metadata.items()
    }
    for source in (config.get("metadata"), config.get(CONF)):
        for key, value in cast("Mapping[str, Any]", source or {}).items():
            if key in kept or key in EXCLUDED_METADATA_KEYS or key.startswith(PRIVATE_CONF_PREFIX):
                continue
            if isinstance(value, str):
                kept[key] = value.replace("\0", "")
            elif isinstance(value, (int, float, bool)):
                kept[key] = value
    return cast(CheckpointMetadata, kept)


def get_serializable_checkpoint_metadata(config: RunnableConfig, metadata: CheckpointMetadata) -> CheckpointMetadata:
    """`get_checkpoint_metadata` without ``writes``, which older versions of LangGraph put there."""
    kept: dict[str, Any] = {**get_checkpoint_metadata(config, metadata)}
    kept.pop("writes", None)
    return cast(CheckpointMetadata, kept)


def writes_sort_key(task_path: str, task_id: str = "", idx: int = 0) -> tuple[str, str, int]:
    """How the writes of one step sort: by task path, then task, then the order in which it wrote."""
    return (task_path, task_id, idx)


def path_text(path: tuple[Any, ...]) -> str:
    """A task's path as savers are given it and sort it: numbers padded, parts joined."""
    return "~" + ", ".join(_part(part) for part in path)


def _part(part: Any) -> str:
    if isinstance(part, tuple):
        return path_text(part)
    return f"{part:010d}" if isinstance(part, int) else str(part)


class _Serializer:
    """A saver's serializer, made when it is first asked for: most savers never are, and it stands above this module."""

    def __get__(self, saver: Any, owner: type) -> Any:
        if saver is None:
            return self
        saver.serde = import_module("mpflow.checkpoint.serde.jsonplus").JsonPlusSerializer()
        return saver.serde


class BaseCheckpointSaver(Generic[V]):
    """Base of savers: where checkpoints and the writes of unfinished steps are kept (CP-7).

    A saver addresses by ``config["configurable"]``: ``thread_id``, ``checkpoint_ns`` (``""`` for the root graph) and
    ``checkpoint_id`` (absent: the latest). What it returns must be the caller's own: later changes to it, or to what
    was put, change nothing saved. An error from any method fails the run (CP-9). Subclasses override the methods in
    one colour or both; an async method that is not overridden runs its sync twin in a thread.
    """

    serde: Any = _Serializer()
    """Turns values into bytes and back, for savers that need bytes: a `JsonPlusSerializer` unless one was given."""
    keeps_log = False
    """Whether the engine may use the methods of `mpflow.checkpoint.log.saver.LogSaver` besides those here."""

    def __init__(self, *, serde: Any = None) -> None:
        if serde is not None and not hasattr(serde, "dumps_typed"):
            serde = import_module("mpflow.checkpoint.serde.base").maybe_add_typed_methods(serde)
        if serde is not None:
            self.serde = serde

    @property
    def config_specs(self) -> list[Any]:
        """Further configurable fields of the saver; none by default."""
        return []

    def _lacks(self, method: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} does not implement {method}()")

    def get(self, config: RunnableConfig) -> Checkpoint | None:
        """Return the checkpoint that `config` addresses, or None."""
        found = self.get_tuple(config)
        return None if found is None else found.checkpoint

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` addresses with all that belongs to it, or None."""
        raise self._lacks("get_tuple")

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints, newest first: of all threads if `config` is None.

        `filter` names metadata that must be equal, `before` a checkpoint that must be later, `limit` how many.
        """
        raise self._lacks("list")

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep `checkpoint` as the child of the one that `config` addresses; return the config that addresses it.

        `new_versions` are the channels whose values changed since that parent.
        """
        raise self._lacks("put")

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a finished task wrote, beside the checkpoint that its step started from.

        Writing a task's writes twice changes nothing, except for the special ones of `WRITES_IDX_MAP`.
        """
        raise self._lacks("put_writes")

    def delete_thread(self, thread_id: str) -> None:
        """Forget all of a thread."""
        raise self._lacks("delete_thread")

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Forget the checkpoints that these runs made."""
        raise self._lacks("delete_for_runs")

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all of a thread to another."""
        raise self._lacks("copy_thread")

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Forget all but the latest checkpoint of each namespace of the threads, or all with ``"delete"``."""
        raise self._lacks("prune")

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """By channel, what its value at the checkpoint is made of: an ancestor's value and the writes since (ST-12)."""
        steps = walk(config, channels)
        try:
            where = next(steps)
            while True:
                where = steps.send(self.get_tuple(where))
        except StopIteration as stop:
            return cast("Mapping[str, DeltaChannelHistory]", stop.value)

    def get_next_version(self, current: V | None, channel: None) -> V:
        """Return the version that follows `current`; whole numbers unless overridden."""
        if isinstance(current, str):
            raise self._lacks("get_next_version for strings")
        return 1 if current is None else current + 1  # type: ignore[return-value]

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> BaseCheckpointSaver[V]:
        """Return a saver that also rebuilds these types; the same one where types need no permission."""
        return self

    def for_types(self, types_of: Callable[[], Collection[type]]) -> Any:
        """A saver that keeps objects of these classes too: what a run's graph leads to. They are asked for if that matters."""
        learn = getattr(self.serde, "learn", None)
        if learn is not None:
            learn(types_of())
        return self

    async def aget(self, config: RunnableConfig) -> Checkpoint | None:
        """`get`, for asyncio."""
        found = await self.aget_tuple(config)
        return None if found is None else found.checkpoint

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`get_tuple`, for asyncio."""
        return await _in_thread(self.get_tuple, config)  # type: ignore[no-any-return]

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """`list`, for asyncio."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        while (item := await _in_thread(next, found, None)) is not None:
            yield item

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`put`, for asyncio."""
        return await _in_thread(self.put, config, checkpoint, metadata, new_versions)  # type: ignore[no-any-return]

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """`put_writes`, for asyncio."""
        await _in_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread`, for asyncio."""
        await _in_thread(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`delete_for_runs`, for asyncio."""
        await _in_thread(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`copy_thread`, for asyncio."""
        await _in_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`prune`, for asyncio."""
        from functools import partial

        await _in_thread(partial(self.prune, thread_ids, strategy=strategy))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """`get_delta_channel_history`, for asyncio."""
        steps = walk(config, channels)
        try:
            where = next(steps)
            while True:
                where = steps.send(await self.aget_tuple(where))
        except StopIteration as stop:
            return cast("Mapping[str, DeltaChannelHistory]", stop.value)


async def _in_thread(call: Any, *args: Any) -> Any:
    import asyncio

    return await asyncio.to_thread(call, *args)


def create_checkpoint(
    checkpoint: Checkpoint, channels: Mapping[str, Any] | None, step: int, *, id: str | None = None
) -> Checkpoint:
    """The checkpoint after this one, of what the channels hold now; None for the same values. Versions stay."""
    from mpflow.errors import EmptyChannelError

    made = empty_checkpoint()
    made["id"] = id or new_checkpoint_id(step)
    made["channel_versions"] = checkpoint["channel_versions"]
    made["versions_seen"] = checkpoint["versions_seen"]
    if channels is None:
        made["channel_values"] = checkpoint["channel_values"]
        return made
    for name in checkpoint["channel_versions"].keys() & channels.keys():
        with suppress(EmptyChannelError):
            made["channel_values"][name] = channels[name].checkpoint()
    return made


_ELSEWHERE = {
    "EmptyChannelError": "mpflow.errors",
    "EncryptedSerializer": "mpflow.checkpoint.serde.encrypted",
    "JsonPlusSerializer": "mpflow.checkpoint.serde.jsonplus",
    "SerializerProtocol": "mpflow.checkpoint.serde.base",
    "maybe_add_typed_methods": "mpflow.checkpoint.serde.base",
    "uuid6": "mpflow.checkpoint.base.id",
}
"""What the authors of savers import from here; the contract itself needs none of it."""


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        return getattr(import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
