"""Shapes of what streams deliver, and others that few programs name. `mpflow.types` shows them, loading this on demand."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, Union

if TYPE_CHECKING:
    from typing_extensions import NotRequired, TypedDict
elif sys.version_info >= (3, 11):
    from typing import NotRequired, TypedDict
else:  # generic TypedDicts came with 3.11
    from typing_extensions import NotRequired, TypedDict

from mpflow.checkpoint.base import CheckpointMetadata
from mpflow.config import RunnableConfig
from mpflow.types import CacheKey, Interrupt, RetryPolicy, StateSnapshot, TimeoutPolicy

StateT = TypeVar("StateT")
OutputT = TypeVar("OutputT")


@dataclass(frozen=True, slots=True)
class PregelExecutableTask:
    """A task ready to run, as LangGraph's extension points describe it."""

    name: str
    input: Any
    proc: Any
    writes: deque[tuple[str, Any]]
    config: RunnableConfig
    triggers: Sequence[str]
    retry_policy: Sequence[RetryPolicy]
    cache_key: CacheKey | None
    id: str
    path: tuple[str | int | tuple[Any, ...], ...]
    writers: Sequence[Any] = ()
    subgraphs: Sequence[Any] = ()
    timeout: TimeoutPolicy | None = None


class TaskPayload(TypedDict):
    """A "tasks" event at a task's start."""

    id: str
    name: str
    input: Any
    triggers: list[str]
    metadata: NotRequired[dict[str, Any]]


class TaskResultPayload(TypedDict):
    """A "tasks" event at a task's end."""

    id: str
    name: str
    error: str | None
    interrupts: list[dict[str, Any]]
    result: dict[str, Any]


class CheckpointTask(TypedDict):
    """A task as a "checkpoints" event lists it."""

    id: str
    name: str
    error: NotRequired[str]
    result: NotRequired[Any]
    interrupts: NotRequired[list[dict[str, Any]]]
    state: StateSnapshot | RunnableConfig | None


class CheckpointPayload(TypedDict, Generic[StateT]):
    """A "checkpoints" event."""

    config: RunnableConfig | None
    metadata: CheckpointMetadata
    values: StateT
    next: list[str]
    parent_config: RunnableConfig | None
    tasks: list[CheckpointTask]


class DebugCheckpoint(TypedDict, Generic[StateT]):
    """A "debug" event that tells of a checkpoint."""

    step: int
    timestamp: str
    type: Literal["checkpoint"]
    payload: CheckpointPayload[StateT]


class DebugTask(TypedDict):
    """A "debug" event that tells of a task's start."""

    step: int
    timestamp: str
    type: Literal["task"]
    payload: TaskPayload


class DebugTaskResult(TypedDict):
    """A "debug" event that tells of a task's end."""

    step: int
    timestamp: str
    type: Literal["task_result"]
    payload: TaskResultPayload


DebugPayload = Union[DebugCheckpoint[StateT], DebugTask, DebugTaskResult]  # noqa: UP007 - generic on 3.10 too


class ValuesStreamPart(TypedDict, Generic[OutputT]):
    """An item of ``stream(version="v2")`` in mode "values" (SM-12)."""

    type: Literal["values"]
    ns: tuple[str, ...]
    data: OutputT
    interrupts: tuple[Interrupt[Any], ...]


class UpdatesStreamPart(TypedDict):
    """The same in mode "updates"."""

    type: Literal["updates"]
    ns: tuple[str, ...]
    data: dict[str, Any]


class MessagesStreamPart(TypedDict):
    """The same in mode "messages": a message chunk and its metadata."""

    type: Literal["messages"]
    ns: tuple[str, ...]
    data: tuple[Any, dict[str, Any]]


class CustomStreamPart(TypedDict):
    """The same in mode "custom": what a node gave the stream writer."""

    type: Literal["custom"]
    ns: tuple[str, ...]
    data: Any


class CheckpointStreamPart(TypedDict, Generic[StateT]):
    """The same in mode "checkpoints"."""

    type: Literal["checkpoints"]
    ns: tuple[str, ...]
    data: CheckpointPayload[StateT]


class TasksStreamPart(TypedDict):
    """The same in mode "tasks"."""

    type: Literal["tasks"]
    ns: tuple[str, ...]
    data: TaskPayload | TaskResultPayload


class DebugStreamPart(TypedDict, Generic[StateT]):
    """The same in mode "debug"."""

    type: Literal["debug"]
    ns: tuple[str, ...]
    data: DebugPayload[StateT]


StreamPart = Union[  # noqa: UP007
    ValuesStreamPart[OutputT],
    UpdatesStreamPart,
    MessagesStreamPart,
    CustomStreamPart,
    CheckpointStreamPart[StateT],
    TasksStreamPart,
    DebugStreamPart[StateT],
]
