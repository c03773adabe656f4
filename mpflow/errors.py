"""Every exception a user of mpflow can see; the type says whose fault it was.

LangGraph's names keep their place in its hierarchy. mpflow's own fall into five families: `GraphFault` (the graph or
the call is wrong), `WorkerLost` (a process died or misbehaved), `StorageError` (what keeps checkpoints failed), `ContentionError` (another
process has it) and `InternalError` (ours). All of them carry fields and survive pickling; nothing here catches or logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal
from warnings import warn

from mpflow._faults import (
    CheckpointCorruptError,
    CheckpointVersionError,
    ContentionError,
    DatabaseDamagedError,
    EngineUnhealthy,
    Fielded,
    GraphChangedError,
    GraphFault,
    InternalError,
    NodeNotPicklableError,
    OutcomeUnknown,
    PoisonTaskError,
    PoolClosedError,
    ProtocolError,
    ReducerError,
    RunOwnedElsewhere,
    StorageError,
    StrictGraphError,
    VariableNotPicklableError,
    WorkerLost,
    WorkerStartError,
    WrongProcessError,
)

if TYPE_CHECKING:
    from mpflow.types import Command, Interrupt

__all__ = (
    "CheckpointCorruptError",
    "CheckpointVersionError",
    "DatabaseDamagedError",
    "ContentionError",
    "EmptyChannelError",
    "EmptyInputError",
    "EngineUnhealthy",
    "ErrorCode",
    "GraphBubbleUp",
    "GraphChangedError",
    "GraphDrained",
    "GraphFault",
    "GraphInterrupt",
    "GraphRecursionError",
    "InternalError",
    "InvalidUpdateError",
    "NodeCancelledError",
    "NodeError",
    "NodeInterrupt",
    "NodeNotPicklableError",
    "NodeTimeoutError",
    "OutcomeUnknown",
    "ParentCommand",
    "PoisonTaskError",
    "PoolClosedError",
    "ProtocolError",
    "ReducerError",
    "RunOwnedElsewhere",
    "StorageError",
    "StrictGraphError",
    "TaskNotFound",
    "UnknownInterruptError",
    "VariableNotPicklableError",
    "WorkerLost",
    "WorkerStartError",
    "WrongProcessError",
    "add_note",
    "is_invalid_resume",
)


class ErrorCode(Enum):
    """Names for the common mistakes, shown at the end of their messages (ER-6)."""

    GRAPH_RECURSION_LIMIT = "GRAPH_RECURSION_LIMIT"
    INVALID_CONCURRENT_GRAPH_UPDATE = "INVALID_CONCURRENT_GRAPH_UPDATE"
    INVALID_GRAPH_NODE_RETURN_VALUE = "INVALID_GRAPH_NODE_RETURN_VALUE"
    MULTIPLE_SUBGRAPHS = "MULTIPLE_SUBGRAPHS"
    INVALID_CHAT_HISTORY = "INVALID_CHAT_HISTORY"


def create_error_message(*, message: str, error_code: ErrorCode) -> str:
    """Return `message` with the code a reader can look up."""
    return f"{message}\nError code: {error_code.value} (explained in the mpflow docs, page 'errors')"


def add_note(exc: BaseException, text: str) -> None:
    """Attach `text` to `exc` as `BaseException.add_note` does, on Python 3.10 too. Never raises."""
    notes = getattr(exc, "__notes__", None)
    try:
        if isinstance(notes, list):
            notes.append(text)
        else:
            exc.__notes__ = [text]  # type: ignore[attr-defined]
    except Exception:  # an exception whose class forbids attributes simply goes without
        return


# -- LangGraph's ---------------------------------------------------------------------------------------------------


class EmptyChannelError(Exception):
    """A channel was read that holds no value."""


class GraphRecursionError(RecursionError):
    """The run took `recursion_limit` steps without coming to an end.

    The last step was saved. Either the graph loops by mistake, or the limit in `config` is too low.
    """


class InvalidUpdateError(Exception):
    """The writes to a channel, or what a node returned, do not fit the graph."""


class EmptyInputError(Exception):
    """The run got no input and had nothing to resume."""


class TaskNotFound(Exception):
    """A task id was given that the run does not have."""


class GraphBubbleUp(Exception):
    """Base of the exceptions that steer a run. They are never retried nor given to error handlers (ER-8)."""


class GraphDrained(Fielded, GraphBubbleUp):
    """The run stopped at a step's end because `RunControl.request_drain` asked for it; it can be resumed."""

    _fields = ("reason",)

    def __init__(self, reason: str = "shutdown") -> None:
        self.reason = reason
        super().__init__(f"Graph drained: {reason}")


class GraphInterrupt(GraphBubbleUp):
    """A node asked a question by `interrupt`. The root graph catches it; users need not."""

    def __init__(self, interrupts: Sequence[Interrupt[Any]] = ()) -> None:
        super().__init__(interrupts)


class NodeInterrupt(GraphInterrupt):
    """Deprecated: raised by nodes to pause. Call `mpflow.types.interrupt` instead."""

    def __init__(self, value: Any, id: str | None = None) -> None:
        warn("NodeInterrupt is deprecated: call mpflow.types.interrupt instead", DeprecationWarning, stacklevel=2)
        from mpflow.types import Interrupt

        super().__init__([Interrupt(value) if id is None else Interrupt(value, id)])

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild_node_interrupt, (type(self), self.args), self.__dict__ or None)


def _rebuild_node_interrupt(cls: type[NodeInterrupt], args: tuple[Any, ...]) -> NodeInterrupt:
    exc = cls.__new__(cls)
    exc.args = args
    return exc


class ParentCommand(GraphBubbleUp):
    """Carries a `Command(graph=Command.PARENT)` out of a subgraph, to the graph it addresses."""

    args: tuple[Command[Any]]

    def __init__(self, command: Command[Any]) -> None:
        super().__init__(command)


class NodeCancelledError(Fielded):
    """A node raised `asyncio.CancelledError` although nobody had cancelled it."""

    _fields = ("node", "message")

    def __init__(self, node: str, message: str | None = None) -> None:
        self.node = node
        self.message = message
        super().__init__(message or f"Node '{node}' raised asyncio.CancelledError")


class NodeTimeoutError(Fielded):
    """A node ran longer, or was silent for longer, than its `TimeoutPolicy` allows (TO-3).

    ``timeout`` is the limit that struck, in seconds; ``elapsed`` the seconds since the attempt began. Not a
    `TimeoutError`, so the default retry policy retries it.
    """

    _fields = ("node", "elapsed", "kind", "idle_timeout", "run_timeout")

    def __init__(
        self,
        node: str,
        elapsed: float,
        *,
        kind: Literal["idle", "run"],
        idle_timeout: float | None = None,
        run_timeout: float | None = None,
    ) -> None:
        limit = run_timeout if kind == "run" else idle_timeout
        if limit is None:
            raise ValueError(f"{kind}_timeout is required when kind='{kind}'")
        self.node = node
        self.elapsed = elapsed
        self.kind: Literal["idle", "run"] = kind
        self.idle_timeout = idle_timeout
        self.run_timeout = run_timeout
        self.timeout: float = limit
        how = "ran for longer than its run timeout" if kind == "run" else "made no progress within its idle timeout"
        super().__init__(f"Node '{node}' {how} of {limit:.3f}s (elapsed: {elapsed:.3f}s)")


@dataclass(frozen=True, slots=True)
class NodeError:
    """What an error handler is given: the node that failed and the exception of its last attempt (EH-3)."""

    node: str
    error: BaseException


class UnknownInterruptError(Fielded):
    """A strict resume names no, unknown or ambiguous interrupts (IN-12)."""

    _fields = ("message", "reason", "interrupt_ids", "pending_ids")

    def __init__(
        self,
        message: str,
        *,
        reason: Literal["not_pending", "empty_map", "ambiguous"],
        interrupt_ids: Sequence[str] = (),
        pending_ids: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason: Literal["not_pending", "empty_map", "ambiguous"] = reason
        self.interrupt_ids = tuple(interrupt_ids)
        self.pending_ids = tuple(pending_ids)


_INVALID_RESUME = "_mpflow_invalid_resume"


def mark_invalid_resume(error: BaseException) -> None:
    """Remember on `error` that it was a resume answer that failed validation."""
    setattr(error, _INVALID_RESUME, True)


def is_invalid_resume(error: BaseException) -> bool:
    """True if `error` says that the answer to an interrupt did not fit its `response_schema` (IN-11)."""
    return getattr(error, _INVALID_RESUME, False) is True
