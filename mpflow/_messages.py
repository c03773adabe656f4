"""What the engine and the places to run say to each other: attempts go out, outcomes come back.

Both sides import this and nothing of one another. Structs keep rare fields as class attributes until they are set,
because they are made by the ten thousand; an outcome is a plain tuple ``(kind, attempt, payload, seconds)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

# Kinds of outcome. Exactly one of DONE (or CLOSED, or their forms for many), FAILED, LOST and CANCELLED ends an attempt;
# EVENT may precede it any number of times.
DONE = 0
"""The program returned. Payload: its diff, a list of ``(channel, value)`` in the order they were written."""
FAILED = 1
"""The node raised, or its result could not be carried. Payload: the exception."""
LOST = 2
"""Its worker died while it ran. Payload: a `WorkerDeath`."""
CANCELLED = 3
"""It was cancelled, before or after it started. Payload: None, or the error if the place itself gave it up."""
CLOSED = 4
"""The attempt finished: a diff that is complete, with the writes that say where control goes next."""
EVENT = 5
"""Something said while it runs. Payload: ``(event kind, data)``, for example ``("custom", chunk)``."""

DONE_MANY = 6
"""Attempts of one program returned: in the attempt's place a list of them, in the payload's their diffs in the same
order, in the seconds' what they took together."""
CLOSED_MANY = 7
"""The same for CLOSED."""

Outcome = tuple[int, Any, Any, float]
"""Kind, `Attempt` (a list of them for the kinds for many), payload, seconds."""


def one_by_one(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """Outcomes with those of many attempts taken apart, for a reader to whom each is another matter."""
    for outcome in outcomes:
        kind, attempts, diffs, seconds = outcome
        if kind in (DONE_MANY, CLOSED_MANY):
            single, each_s = DONE if kind == DONE_MANY else CLOSED, seconds / max(len(attempts), 1)
            for attempt, diff in zip(attempts, diffs, strict=True):
                yield single, attempt, diff, each_s
        else:
            yield outcome


class Outbox(Protocol):
    """Where a place to run puts outcomes. `post` is called from any thread, never blocks and never raises."""

    def post(self, outcome: Outcome) -> None: ...


class _MadeWhenAsked:
    """The id of a checkpoint that nothing saves: another for each step, so that no two runs have tasks of the same id."""

    def __get__(self, facts: StepFacts, _: Any = None) -> str:
        from mpflow.checkpoint.ids import new_checkpoint_id

        # Tasks may ask at the same time: one of the ids becomes that of all.
        found: str = facts.__dict__.setdefault("checkpoint_id", new_checkpoint_id(facts.step - 1))
        return found


class StepFacts:
    """What all the attempts of one superstep share, shipped once to each worker and step.

    ``config`` is the run's merged config (plain dict); ``checkpoint_ns`` and ``checkpoint_id`` name the checkpoint the
    step started from, be it saved or not; ``context`` is the user's run context; ``stop`` the step at which the recursion limit strikes.
    ``local`` is what only the parent has (store, control); it never travels. ``depth`` counts the graphs around this one.
    """

    checkpoint_ns = ""
    checkpoint_id: Any = _MadeWhenAsked()
    context: Any = None
    previous: Any = None
    local: Any = None
    depth = 0
    around: str = ""
    """The namespace of the task that this run is nested in."""
    resuming: bool | None = None
    """Whether the run is being resumed, which the graphs within it must know; None where nothing can be."""

    def __init__(self, config: dict[str, Any], step: int, stop: int, local: Any = None) -> None:
        self.config = config
        self.step = step
        self.stop = stop
        self.local = local

    def following(self, step: int) -> StepFacts | None:
        """Those of a later step of a run that nothing is saved of; None once it may be asked to stop before that."""
        local = self.local
        if local is not None and local.control is not None:
            return None
        facts = StepFacts(self.config, step, self.stop, local)
        if self.context is not None:
            facts.context = self.context
        return facts

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "checkpoint_id": self.checkpoint_id}
        state.pop("local", None)
        return state


@dataclass(frozen=True, slots=True)
class Luggage:
    """What the tasks of a step that run in workers are told of what is local to the parent.

    ``entrances`` are called in a task's context before its node, with its scope: functions found by import, with
    arguments that can travel. ``around`` is the task that the run is a part of: its scope, encoded when it is sent.
    ``counts_versions`` says that the saver's versions are whole numbers, which need no asking;
    ``replay`` the checkpoint that a run going back in time started from. ``has_far_log`` says that the saver keeps a log
    whose rows can be made in workers.
    """

    durability: str = "async"
    has_saver: bool = False
    counts_versions: bool = True
    has_far_log: bool = False
    has_store: bool = False
    has_cache: bool = False
    answers_by_id: dict[str, Any] = field(default_factory=dict)
    replay: str | None = None
    entrances: tuple[Callable[[Any], None], ...] = ()
    around: Any = None


class Program(Protocol):
    """A node as a place to run sees it: picklable (by cloudpickle if need be), the same object in every run of a graph."""

    name: str

    def run(self, input: Any, scope: Any) -> list[tuple[str, Any]]:
        """Call the user's function on `input`, with `scope` (a `TaskScope`) as the current one; return the diff."""
        ...


class Attempt:
    """One try at one task. ``task`` is the scheduler's own handle, opaque to a place to run.

    ``number`` counts from 1. ``alone`` asks for a fresh worker with nothing queued beside it (after a death).
    ``timeout_s`` counts from the attempt's start; None means none. ``outbox`` takes the outcomes. ``held`` is free for
    the place that runs it.
    """

    outbox: Outbox | None = None
    timeout_s: float | None = None
    alone = False
    rerun_on_loss = True
    is_called = False
    """Another task called it and waits for its result."""
    caller: Attempt | None = None
    """The attempt that called it."""
    held: Any = None
    lent = 0
    """In how many callers, each waiting for the next, it runs in the thread of one that waits for it."""
    plain = False
    """It is a first try without limits or answers: but for the task, its path and its input it is like others of its node."""
    first_at: float | None = None
    """When the first attempt at the task began, in seconds since the epoch; None where this may be the only one."""
    patience: Any = None
    """The `Patience` with an async node that has a timeout."""
    answers: Any = None
    """The `Answers` to the questions that the task asked in earlier attempts, if the run can be resumed."""

    def __init__(
        self,
        task: Any,
        number: int,
        program: Any,
        input: Any,
        facts: StepFacts,
        path: tuple[Any, ...],
        triggers: Sequence[str],
    ) -> None:
        self.task = task
        self.number = number
        self.program = program
        self.input = input
        self.facts = facts
        self.path = path
        self.triggers = triggers


class Handled:
    """The input of an error handler: what the failed node was given, and what went wrong with it."""

    __slots__ = ("error", "input")

    def __init__(self, input: Any, error: Any) -> None:
        self.input = input
        self.error = error


class Death(Protocol):
    """How an attempt was lost; its text says more."""

    @property
    def reason(self) -> str: ...


class WorkerDeath:
    """How a worker ended: its pid, exit code or signal, peak memory and last words on stderr."""

    __slots__ = ("exit_code", "peak_rss_bytes", "pid", "reason", "signal", "stderr_tail")

    def __init__(
        self,
        pid: int,
        exit_code: int | None = None,
        signal: int | None = None,
        peak_rss_bytes: int = 0,
        stderr_tail: str = "",
        reason: str = "died",
    ) -> None:
        self.pid = pid
        self.exit_code = exit_code
        self.signal = signal
        self.peak_rss_bytes = peak_rss_bytes
        self.stderr_tail = stderr_tail
        self.reason = reason  # "died", "out of memory", "protocol"

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            WorkerDeath,
            (self.pid, self.exit_code, self.signal, self.peak_rss_bytes, self.stderr_tail, self.reason),
        )

    def __str__(self) -> str:
        import signal as _signal

        how = f"exit code {self.exit_code}"
        if self.signal is not None:
            try:
                how = f"{_signal.Signals(self.signal).name}(-{self.signal})"
            except ValueError:
                how = f"signal {self.signal}"
        peak = f", peak memory {self.peak_rss_bytes / 2**20:.0f} MiB" if self.peak_rss_bytes else ""
        tail = f"\n{self.stderr_tail.rstrip()}" if self.stderr_tail.strip() else ""
        return f"worker {self.pid} {self.reason}: {how}{peak}{tail}"


class Place(Protocol):
    """A place to run: takes attempts, posts one ending outcome for each to its outbox."""

    def submit(self, attempts: Sequence[Attempt]) -> None: ...

    def cancel(self, attempts: Sequence[Attempt], *, kill: bool = False) -> None:
        """Drop what has not started (posts CANCELLED); with `kill`, end what runs, where that is possible."""
        ...


Notify = Callable[[], None]
