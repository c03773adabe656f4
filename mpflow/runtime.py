"""What a node may ask of its run: context, store, writer, facts of its execution, and draining."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, cast

from mpflow.typing import ContextT

if TYPE_CHECKING:
    from mpflow.store.base import BaseStore
    from mpflow.types import StreamWriter

__all__ = ("DEFAULT_RUNTIME", "BaseUser", "ExecutionInfo", "RunControl", "Runtime", "ServerInfo", "get_runtime")


class BaseUser(Protocol):
    """The user that a server has authenticated, as far as nodes may rely on it (CF-8)."""

    @property
    def is_authenticated(self) -> bool: ...

    @property
    def display_name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    @property
    def permissions(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class ExecutionInfo:
    """Where and for the how-manieth time a task runs (CF-6)."""

    checkpoint_id: str
    """The checkpoint that the step started from."""
    checkpoint_ns: str
    """The namespace of the task."""
    task_id: str
    thread_id: str | None = None
    run_id: str | None = None
    node_attempt: int = 1
    """Counts from 1; deaths of workers and exceptions both count."""
    node_first_attempt_time: float | None = None
    """Seconds since the epoch."""

    @property
    def idempotency_key(self) -> str:
        """A key for side effects, the same in each attempt of this task and when a saved run is resumed.

        It is the task's id. A run without checkpoints adds its run id, if it has one, as its ids repeat.
        """
        if self.checkpoint_id or not self.run_id:
            return self.task_id
        return f"{self.run_id}:{self.task_id}"

    def patch(self, **overrides: Any) -> ExecutionInfo:
        """Return a copy with some fields changed."""
        return replace(self, **overrides)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server that hosts the graph says of itself (CF-8)."""

    assistant_id: str
    graph_id: str
    user: BaseUser | None = None


class RunControl:
    """Handed to a run as ``control=``, to ask it from elsewhere to stop at its next step (CF-7). Thread safe."""

    __slots__ = ("_drain_reason",)

    def __init__(self) -> None:
        self._drain_reason: str | None = None

    def request_drain(self, reason: str = "shutdown") -> None:
        """Ask the run to save and stop, with `GraphDrained`, once the running step is over. Returns at once."""
        self._drain_reason = reason

    @property
    def drain_requested(self) -> bool:
        """Whether `request_drain` was called."""
        return self._drain_reason is not None

    @property
    def drain_reason(self) -> str | None:
        """What it was called with last, or None."""
        return self._drain_reason


def _write_nothing(_chunk: Any) -> None: ...


def _beat_nothing() -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime(Generic[ContextT]):
    """What a node gets as its parameter ``runtime`` (CF-5)."""

    context: ContextT = None  # type: ignore[assignment]
    """What the run was given as ``context=``."""
    store: BaseStore | None = None
    """The store the graph was compiled with."""
    stream_writer: StreamWriter = _write_nothing
    """Writes to ``stream_mode="custom"``."""
    heartbeat: Callable[[], None] = _beat_nothing
    """A sign of life, for the idle timeout."""
    previous: Any = None
    """What the last run on this thread returned or saved; entrypoints only."""
    execution_info: ExecutionInfo | None = None
    """Facts of this execution; None outside of a task."""
    server_info: ServerInfo | None = None
    control: RunControl | None = None
    """Through it a node may ask its own run to drain."""

    def merge(self, other: Runtime[ContextT]) -> Runtime[ContextT]:
        """Return this runtime with all that `other` has set."""
        return Runtime(
            context=other.context or self.context,
            store=other.store or self.store,
            stream_writer=self.stream_writer if other.stream_writer is _write_nothing else other.stream_writer,
            heartbeat=self.heartbeat if other.heartbeat is _beat_nothing else other.heartbeat,
            previous=self.previous if other.previous is None else other.previous,
            execution_info=other.execution_info or self.execution_info,
            server_info=other.server_info or self.server_info,
            control=other.control or self.control,
        )

    def override(self, **overrides: Any) -> Runtime[ContextT]:
        """Return a copy with some fields changed."""
        return replace(self, **overrides)

    def patch_execution_info(self, **overrides: Any) -> Runtime[ContextT]:
        """Return a copy with some fields of `execution_info` changed. Raises `RuntimeError` if it has none."""
        if self.execution_info is None:
            raise RuntimeError("this runtime has no execution_info to patch: it belongs to no task")
        return replace(self, execution_info=self.execution_info.patch(**overrides))

    @property
    def idempotency_key(self) -> str:
        """A key for side effects, the same in each attempt and resume of this task. See `ExecutionInfo`."""
        if self.execution_info is None:
            raise RuntimeError("this runtime has no idempotency key: it belongs to no task")
        return self.execution_info.idempotency_key

    @property
    def drain_requested(self) -> bool:
        """Whether someone asked the run to drain."""
        return self.control is not None and self.control.drain_requested

    @property
    def drain_reason(self) -> str | None:
        """Why, or None."""
        return None if self.control is None else self.control.drain_reason


def get_runtime(context_schema: type[ContextT] | None = None) -> Runtime[ContextT]:
    """Return the runtime of the running task. Raises `RuntimeError` outside of one.

    `context_schema` is for type checkers alone.
    """
    from mpflow._scope import current_scope

    return cast("Runtime[ContextT]", current_scope().runtime)


DEFAULT_RUNTIME: Runtime[Any] = Runtime()
"""What code outside of a run may take for one: nothing in it is set."""
