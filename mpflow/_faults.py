"""The exceptions that are mpflow's own, in five families. Users import them from `mpflow.errors`; nothing here catches or logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


def _rebuild(cls: type[BaseException], fields: dict[str, Any]) -> BaseException:
    return cls(**fields)


class Fielded(Exception):
    """An exception rebuilt from its fields, so that keyword-only and required parameters survive pickling."""

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        if cls.__module__ == __name__:
            cls.__module__ = "mpflow.errors"  # where users find it

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: getattr(self, name) for name in self._fields}
        rest = {name: value for name, value in self.__dict__.items() if name not in fields}
        return (_rebuild, (type(self), fields), rest or None)


# -- mpflow's: the graph or the call is wrong ----------------------------------------------------------------------


class GraphFault(Fielded):
    """Base: the graph's author or the caller can mend it."""


class ReducerError(GraphFault):
    """A reducer raised; the step was not committed and the channel kept its old value. ``__cause__`` says why.

    One that the engine raises is also an instance of what the reducer raised, with its arguments and attributes, wherever
    that class can be derived from.
    """

    _fields = ("channel", "detail")

    def __init__(self, channel: str, detail: str = "") -> None:
        self.channel = channel
        self.detail = detail
        super().__init__(str(self))

    def __str__(self) -> str:
        tail = f": {self.detail}" if self.detail else ""
        return f"the reducer of channel '{self.channel}' failed{tail}; the step was not committed"

    @classmethod
    def around(cls, channel: str, error: Exception) -> ReducerError:
        """The error to raise from `error`, which a reducer raised."""
        detail = f"{type(error).__name__}: {error}"
        if isinstance(error, (StopIteration, StopAsyncIteration)):  # no generator may raise one, and streams are such
            return cls(channel, detail)
        try:
            _, args, *state = _builtin_base(type(error)).__reduce__(error)
            known = {**(state[0] if state and state[0] else {}), "channel": channel, "detail": detail}
            return _of_both_kinds(type(error), args, known)
        except Exception:  # a class that cannot be derived from, or whose instances are made in a way of its own
            return cls(channel, detail)


def _builtin_base(cls: type) -> Any:
    return next(base for base in cls.__mro__ if base.__module__ == "builtins" and issubclass(base, BaseException))


def _of_both_kinds(kind: type[Exception], args: tuple[Any, ...], state: dict[str, Any]) -> ReducerError:
    both = type(
        ReducerError.__name__, (ReducerError, kind), {"__module__": "mpflow.errors", "__reduce__": _reduce_both}
    )
    base = _builtin_base(both)
    error: ReducerError = base.__new__(both, *args)
    base.__init__(error, *args)  # never the class's own, whose signature need not take what it passed on as args
    error.__setstate__(state)
    return error


def _reduce_both(error: ReducerError) -> tuple[Any, ...]:
    _, args, state = _builtin_base(type(error)).__reduce__(error)
    return _of_both_kinds, (type(error).__bases__[1], args, state)


class StrictGraphError(GraphFault):
    """`compile(strict=True)` refused what would otherwise be a warning: ``kind`` of fault, ``where`` and ``detail``."""

    _fields = ("kind", "where", "detail")

    def __init__(self, kind: str, where: str, detail: str) -> None:
        self.kind = kind
        self.where = where
        self.detail = detail
        super().__init__(f"{where}: {detail} ({kind}); mend it, or compile without strict=True")


class GraphChangedError(GraphFault):
    """A saved run cannot go on with this graph: it needs what the graph no longer has (``kind``, ``name``)."""

    _fields = ("kind", "name", "thread_id", "checkpoint_id")

    def __init__(self, kind: str, name: str, thread_id: str = "", checkpoint_id: str = "") -> None:
        self.kind = kind
        self.name = name
        self.thread_id = thread_id
        self.checkpoint_id = checkpoint_id
        super().__init__(
            f"thread '{thread_id}', checkpoint '{checkpoint_id}': the saved run needs the {kind} '{name}', which the "
            f"graph no longer has; put it back, or fork from an earlier checkpoint"
        )


class NodeNotPicklableError(GraphFault):
    """A node, or its input, cannot travel to a process. ``path`` leads to the culprit, ``detail`` is pickle's word."""

    _fields = ("node", "path", "detail")

    def __init__(self, node: str, path: str, detail: str = "") -> None:
        self.node = node
        self.path = path
        self.detail = detail
        tail = f" ({detail})" if detail else ""
        super().__init__(
            f"node '{node}' cannot be sent to a worker process: {path} cannot be pickled{tail}; build it inside the "
            f"node, or place the node with executor='thread'"
        )


class VariableNotPicklableError(GraphFault):
    """A context variable that `mpflow.carry` named holds what cannot travel to a process; ``detail`` is pickle's word."""

    _fields = ("name", "detail")

    def __init__(self, name: str, detail: str = "") -> None:
        self.name = name
        self.detail = detail
        tail = f" ({detail})" if detail else ""
        super().__init__(
            f"context variable '{name}', which mpflow.carry names, cannot be sent to a worker process: its value cannot be "
            f"pickled{tail}; set it to plain data, or leave it behind by not naming it"
        )


class PoolClosedError(GraphFault):
    """Work was given to a pool after its `close`."""

    _fields = ("detail",)

    def __init__(self, detail: str = "") -> None:
        self.detail = detail
        super().__init__(f"the worker pool is closed{': ' + detail if detail else ''}; open a new one")


class WrongProcessError(GraphFault):
    """A pool was used in a forked child of the process that made it."""

    _fields = ("owner_pid", "pid")

    def __init__(self, owner_pid: int, pid: int) -> None:
        self.owner_pid = owner_pid
        self.pid = pid
        super().__init__(
            f"the worker pool belongs to process {owner_pid}, but was used in process {pid}, forked from it; "
            f"make a pool of its own in the child"
        )


# -- mpflow's: a process died or misbehaved ------------------------------------------------------------------------


class WorkerLost(Fielded):
    """Base: worker processes failed, not the Python code of a node. The default retry policy leaves these alone."""


def _death_list(deaths: Sequence[Any]) -> str:
    return "".join(f"\n  {number}. {death}" for number, death in enumerate(deaths, 1))


class PoisonTaskError(WorkerLost):
    """A task killed every process it ran in and was put in quarantine.

    ``deaths`` holds one record an attempt (a `WorkerDeath`, or its text): pid, signal or exit code, peak memory. Those of
    earlier runs of the program count, and those of the program itself.
    """

    _fields = ("node", "task_id", "deaths")

    def __init__(self, node: str, task_id: str, deaths: Sequence[Any] = ()) -> None:
        self.node = node
        self.task_id = task_id
        self.deaths = tuple(deaths)
        super().__init__(
            f"node '{node}' (task {task_id}) was quarantined: its process died in each of {len(self.deaths)} "
            f"attempts{_death_list(self.deaths)}"
        )


class OutcomeUnknown(WorkerLost):
    """A `rerun_on_loss=False` task was lost after its start, so whether its side effects happened is not known."""

    _fields = ("node", "task_id", "death")

    def __init__(self, node: str, task_id: str, death: Any = None) -> None:
        self.node = node
        self.task_id = task_id
        self.death = death
        tail = f": {death}" if death is not None else ""
        super().__init__(
            f"node '{node}' (task {task_id}) started and was lost{tail}; it was not run again because of "
            f"rerun_on_loss=False. Find out whether it took effect, then update the state by hand"
        )


class WorkerStartError(WorkerLost):
    """A worker process could not be started in ``attempts`` tries; ``detail`` is what it said on stderr."""

    _fields = ("attempts", "detail")

    def __init__(self, attempts: int, detail: str = "") -> None:
        self.attempts = attempts
        self.detail = detail
        tail = f"\n{detail}" if detail else ""
        super().__init__(f"no worker process could be started in {attempts} tries{tail}")


class EngineUnhealthy(WorkerLost):
    """Workers kept dying although they ran no task, so the pool gave up instead of spawning for ever."""

    _fields = ("deaths",)

    def __init__(self, deaths: Sequence[Any] = ()) -> None:
        self.deaths = tuple(deaths)
        super().__init__(
            f"{len(self.deaths)} workers in a row died without a task{_death_list(self.deaths)}\n"
            f"look for an import that fails in a fresh interpreter, a memory limit, or a supervisor that kills them"
        )


class ProtocolError(WorkerLost):
    """Bytes came from a worker that mpflow does not send: its socket was written to or closed by other code."""

    _fields = ("detail", "pid", "node")

    def __init__(self, detail: str, pid: int | None = None, node: str | None = None) -> None:
        self.detail = detail
        self.pid = pid
        self.node = node
        while_running = f" while it ran node '{node}'" if node else ""
        super().__init__(f"worker {pid if pid is not None else '?'} broke the protocol{while_running}: {detail}")


# -- mpflow's: the storage failed -----------------------------------------------------------------------------------


class StorageError(Fielded):
    """Base: what keeps checkpoints failed. ``where`` names the file or the server, ``detail`` says what it said, and
    ``advice``, if there is any, what to do.

    What was saved before is whole; the run that needed the storage has failed.
    """

    _fields: ClassVar[tuple[str, ...]] = ("where", "detail", "advice")

    def __init__(self, where: str, detail: str, advice: str = "") -> None:
        self.where = where
        self.detail = detail
        self.advice = advice
        super().__init__(f"{where}: {detail}; {advice}" if advice else f"{where}: {detail}")


class DatabaseDamagedError(StorageError):
    """A database file is not as it was written: a disk or another program has changed it. Nothing was made of it."""

    _fields = ("where", "detail")

    def __init__(self, where: str, detail: str) -> None:
        self.where = where
        self.detail = detail
        Exception.__init__(
            self,
            f"{where} is damaged: {detail}; restore it from a backup, or save what `sqlite3 FILE .recover` still finds",
        )


class CheckpointCorruptError(StorageError):
    """Saved bytes of a thread are not what was saved: damaged, or not mpflow's. Nothing was made of them."""

    _fields = ("thread_id", "checkpoint_id", "detail")

    def __init__(self, thread_id: str, checkpoint_id: str, detail: str) -> None:
        self.thread_id = thread_id
        self.checkpoint_id = checkpoint_id
        self.where = f"thread '{thread_id}', checkpoint '{checkpoint_id}'"
        self.detail = detail
        Exception.__init__(
            self,
            f"{self.where} is damaged: {detail}; restore the storage from a backup, fork from an earlier checkpoint, "
            f"or delete the thread",
        )


class CheckpointVersionError(StorageError):
    """Something was saved by a later version of mpflow: format ``found``, where this one knows up to ``known``."""

    _fields = ("where", "found", "known")

    def __init__(self, where: str, found: int, known: int) -> None:
        self.where = where
        self.found = found
        self.known = known
        self.detail = f"it has format {found}, and this version of mpflow knows formats up to {known}"
        Exception.__init__(self, f"{where}: {self.detail}; use the version that wrote it, or a later one")


# -- mpflow's: another process has it; our bug ---------------------------------------------------------------------


class ContentionError(Fielded):
    """Base: another process holds what this one needs; nothing was changed."""


class RunOwnedElsewhere(ContentionError):
    """Another process runs this thread right now. Its end or death frees the thread at once."""

    _fields = ("thread_id", "owner")

    def __init__(self, thread_id: str, owner: str = "") -> None:
        self.thread_id = thread_id
        self.owner = owner
        who = f" ({owner})" if owner else ""
        super().__init__(f"thread '{thread_id}' is being run by another process{who}; wait for it, or end it")


class InternalError(Fielded):
    """A bug in mpflow. ``story`` tells what happened to the task before; please send it along with a report."""

    _fields = ("detail", "story")

    def __init__(self, detail: str, story: Sequence[Any] = ()) -> None:
        self.detail = detail
        self.story = tuple(story)
        told = "".join(f"\n  {line}" for line in self.story)
        super().__init__(f"bug in mpflow: {detail}{told}")
