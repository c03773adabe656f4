"""The values that users and the engine exchange: Send, Command, Interrupt, policies, snapshots, stream shapes.

Data and their checks only. It must stay cheap to import: no asyncio, pydantic or langchain, and what few programs
name is loaded on demand.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, Union, final
from warnings import warn

from mpflow._names import OVERWRITE, PARENT, ROOT
from mpflow.typing import annotated_keys, object_writes

if TYPE_CHECKING:
    from datetime import timedelta

    from mpflow._payloads import (
        CheckpointPayload,
        CheckpointStreamPart,
        CheckpointTask,
        CustomStreamPart,
        DebugPayload,
        DebugStreamPart,
        MessagesStreamPart,
        PregelExecutableTask,
        StreamPart,
        TaskPayload,
        TaskResultPayload,
        TasksStreamPart,
        UpdatesStreamPart,
        ValuesStreamPart,
    )
    from mpflow._policies import (
        CachePolicy,
        RetryPolicy,
        TimeoutPolicy,
        TracePolicy,
        default_cache_key,
        default_retry_on,
        omit_payload,
    )
    from mpflow._sends import ReplayableSends
    from mpflow.checkpoint.base import BaseCheckpointSaver, CheckpointMetadata
    from mpflow.config import RunnableConfig

    Checkpointer = Union[None, bool, BaseCheckpointSaver[Any]]  # noqa: UP007
else:
    Checkpointer = Any

__all__ = (
    "All",
    "CachePolicy",
    "CheckpointPayload",
    "CheckpointStreamPart",
    "CheckpointTask",
    "Checkpointer",
    "Command",
    "CustomStreamPart",
    "DebugPayload",
    "DebugStreamPart",
    "Durability",
    "FailureRecord",
    "GraphOutput",
    "Interrupt",
    "MessagesStreamPart",
    "Overwrite",
    "PregelExecutableTask",
    "PregelTask",
    "ReplayableSends",
    "RetryPolicy",
    "Send",
    "StateSnapshot",
    "StateUpdate",
    "StreamMode",
    "StreamPart",
    "StreamWriter",
    "TaskPayload",
    "TaskResultPayload",
    "TasksStreamPart",
    "TimeoutPolicy",
    "TracePolicy",
    "UpdatesStreamPart",
    "ValuesStreamPart",
    "default_cache_key",
    "default_retry_on",
    "ensure_valid_checkpointer",
    "interrupt",
    "omit_payload",
)

All = Literal["*"]
"""Stands for every node, in `interrupt_before` and `interrupt_after`."""

StreamMode = Literal["values", "updates", "checkpoints", "tasks", "debug", "messages", "custom"]
"""What `stream` delivers: whole states, each node's update, checkpoints, task starts and ends, both of the last two
wrapped, model tokens, or what nodes write themselves."""

Durability = Literal["sync", "async", "exit"]
"""When a step is durable: before the next one starts, while it runs, or only when the run ends."""

StreamWriter = Callable[[Any], None]
"""Takes a chunk for ``stream_mode="custom"``; does nothing if nobody streams that."""

N = TypeVar("N", bound=Hashable)
ResponseT = TypeVar("ResponseT")
OutputT = TypeVar("OutputT")

_POLICIES = (
    "CachePolicy",
    "RetryPolicy",
    "TimeoutPolicy",
    "TracePolicy",
    "default_cache_key",
    "default_retry_on",
    "omit_payload",
)
_ON_DEMAND = {
    "CheckpointTask": "mpflow._payloads",
    "PregelExecutableTask": "mpflow._payloads",
    "ReplayableSends": "mpflow._sends",
    **{name: "mpflow._payloads" for name in __all__ if name.endswith(("Part", "Payload"))},
    **dict.fromkeys(_POLICIES, "mpflow._policies"),
}


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_ON_DEMAND[name]), name)
        return value
    raise AttributeError(f"module 'mpflow.types' has no attribute {name!r}")


class Send:
    """Run `node` in the next superstep on `arg`, instead of on the state (SN-1).

    Returned from a branch or in `Command.goto`; each makes a task of its own. The node gets exactly `arg`. `timeout`
    overrides the node's.
    """

    __slots__ = ("arg", "node", "timeout")

    node: str
    arg: Any
    timeout: TimeoutPolicy | None

    def __init__(self, /, node: str, arg: Any, *, timeout: float | timedelta | TimeoutPolicy | None = None) -> None:
        self.node = node
        self.arg = arg
        self.timeout = None
        if timeout is not None:
            from mpflow._policies import TimeoutPolicy

            self.timeout = TimeoutPolicy.coerce(timeout)

    def __hash__(self) -> int:
        return hash((self.node, self.arg, self.timeout))

    def __repr__(self) -> str:
        timeout = "" if self.timeout is None else f", timeout={self.timeout!r}"
        return f"Send(node={self.node!r}, arg={self.arg!r}{timeout})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Send)
            and self.node == other.node
            and self.arg == other.arg
            and self.timeout == other.timeout
        )


class ToolOutput:
    """Base of what a tool may return as it is. The langchain bridge puts langchain's own marker in its place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command(Generic[N], ToolOutput):
    """An update and where to go next, in one return value; as input, an answer to an interrupt (CM-1 to CM-8).

    `graph` names the graph it is for: None is the node's own, `Command.PARENT` the nearest one around it. `update` is
    applied as a node's return would be. `resume` answers interrupts: a value, or a mapping of interrupt ids to
    values. `goto` is a node's name, a `Send`, or a sequence of both.
    """

    graph: str | None = None
    update: Any | None = None
    resume: dict[str, Any] | Any | None = None
    goto: Send | Sequence[Send | N] | N = ()

    PARENT: ClassVar[Literal["__parent__"]] = PARENT

    def __repr__(self) -> str:
        fields = ((name, getattr(self, name)) for name in ("graph", "update", "resume", "goto"))
        return f"Command({', '.join(f'{name}={value!r}' for name, value in fields if value)})"

    def _update_as_tuples(self) -> Sequence[tuple[str, Any]]:
        update = self.update
        if isinstance(update, dict):
            return list(update.items())
        if isinstance(update, (list, tuple)) and all(
            isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in update
        ):
            return update
        if update is None:
            return []
        if annotated_keys(type(update)):
            return object_writes(update)
        return [(ROOT, update)]


_NO_ID = "placeholder-id"


@final
@dataclass(init=False, slots=True)
class Interrupt(Generic[ResponseT]):
    """A question that a node asked and that pauses the run (IN-3). Answered by ``Command(resume={id: answer})``."""

    value: Any
    id: str
    response_schema: type[ResponseT] | dict[str, Any] | None = None

    def __init__(
        self,
        value: Any,
        id: str = _NO_ID,
        *,
        response_schema: type[ResponseT] | dict[str, Any] | None = None,
        **deprecated: Any,
    ) -> None:
        self.value = value
        self.response_schema = response_schema
        namespace = deprecated.get("ns")  # until LangGraph 0.6
        if id == _NO_ID and isinstance(namespace, Sequence) and namespace:
            id = _id_of("|".join(namespace))
        self.id = id

    @classmethod
    def from_ns(
        cls, value: Any, ns: str, *, response_schema: type[ResponseT] | dict[str, Any] | None = None
    ) -> Interrupt[ResponseT]:
        """Return the interrupt of the task with namespace `ns`; its id is a hash of that (D-13)."""
        return cls(value, _id_of(ns), response_schema=response_schema)

    @property
    def interrupt_id(self) -> str:
        """Deprecated: `id`."""
        from mpflow.warnings import LangGraphDeprecatedSinceV10

        warn(LangGraphDeprecatedSinceV10("Interrupt.interrupt_id is deprecated: read Interrupt.id"), stacklevel=2)
        return self.id


def _id_of(ns: str) -> str:
    from hashlib import blake2b

    return blake2b(ns.encode(), digest_size=16).hexdigest()


@dataclass(slots=True)
class Overwrite:
    """Replaces the value of a channel with a reducer, instead of being reduced into it (ST-6)."""

    value: Any
    type: Literal["__overwrite__"] = OVERWRITE


class StateUpdate(NamedTuple):
    """One update for `bulk_update_state`."""

    values: dict[str, Any] | None
    as_node: str | None = None
    task_id: str | None = None


class PregelTask(NamedTuple):
    """A task as a `StateSnapshot` shows it (SA-3)."""

    id: str
    name: str
    path: tuple[str | int | tuple[Any, ...], ...]
    error: Exception | None = None
    interrupts: tuple[Interrupt[Any], ...] = ()
    state: RunnableConfig | StateSnapshot | None = None
    result: Any | None = None


class CacheKey(NamedTuple):
    """Where a task's writes are cached, and for how many seconds."""

    ns: tuple[str, ...]
    key: str
    ttl: int | None


class StateSnapshot(NamedTuple):
    """The state of a thread at one checkpoint (SA-1)."""

    values: dict[str, Any] | Any
    """The channels' values."""
    next: tuple[str, ...]
    """The nodes that are due."""
    config: RunnableConfig
    """Addresses this checkpoint."""
    metadata: CheckpointMetadata | None
    created_at: str | None
    """ISO time of the checkpoint, UTC."""
    parent_config: RunnableConfig | None
    """Addresses the checkpoint before it."""
    tasks: tuple[PregelTask, ...]
    """The tasks of the step that follows, with what they have brought so far."""
    interrupts: tuple[Interrupt[Any], ...]
    """The questions not answered yet."""


class FailureRecord(NamedTuple):
    """A task that failed for good in a run which was asked to go on without it."""

    node: str
    task_id: str
    error: BaseException
    input: Any
    attempts: int


@dataclass(frozen=True)
class GraphOutput(Generic[OutputT]):
    """What ``invoke(version="v2")`` returns (SM-12). Use the attributes: item access is deprecated."""

    value: OutputT
    """The output: a dict, or an instance of the output schema."""
    interrupts: tuple[Interrupt[Any], ...] = ()
    """The questions that paused the run, if any."""

    def __getitem__(self, key: str) -> Any:
        self._deprecated("output[key]")
        if key == "__interrupt__":
            return self.interrupts
        if isinstance(self.value, Mapping):
            return self.value[key]
        try:
            return getattr(self.value, key)
        except AttributeError:
            raise KeyError(key) from None

    def __contains__(self, key: object) -> bool:
        self._deprecated("key in output")
        if key == "__interrupt__":
            return bool(self.interrupts)
        if isinstance(self.value, Mapping):
            return key in self.value
        return isinstance(key, str) and hasattr(self.value, key)

    @staticmethod
    def _deprecated(what: str) -> None:
        from mpflow.warnings import LangGraphDeprecatedSinceV11

        text = f"GraphOutput: {what} is deprecated, use output.value and output.interrupts"
        warn(LangGraphDeprecatedSinceV11(text), stacklevel=3)


def ensure_valid_checkpointer(checkpointer: Checkpointer) -> Checkpointer:
    """Return `checkpointer` if it can serve as one: None, a bool or a saver. Raises `TypeError` otherwise (GB-13)."""
    if checkpointer is None or isinstance(checkpointer, bool):
        return checkpointer
    # By duck type, so that savers written for LangGraph pass without its package being imported (D-9).
    if not isinstance(checkpointer, type) and all(
        callable(getattr(checkpointer, name, None)) for name in ("get_tuple", "put", "put_writes")
    ):
        return checkpointer
    raise TypeError(
        f"Invalid checkpointer provided. Expected a saver (a BaseCheckpointSaver), True, False or None, got "
        f"{type(checkpointer).__name__}. from_conn_string() of most savers must be entered: with ... as saver"
    )


def interrupt(value: Any, *, response_schema: dict[str, Any] | type | None = None) -> Any:
    """Pause the run to ask `value`, or return the answer once there is one (IN-1).

    The first call stops the node. When the run is resumed with ``Command(resume=answer)`` the node runs again *from
    its start*, and the call returns the answer; several calls in a node are answered in their order. A
    `response_schema` that is a pydantic model, TypedDict or dataclass validates the answer (IN-11).

    Needs a checkpointer to be resumed. Raises `RuntimeError` outside of a node.
    """
    from mpflow._scope import current_scope

    return current_scope().interrupt(value, response_schema)
