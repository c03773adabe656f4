"""One task of one step: its state, its attempts so far, and the story of its states, which an illegal transition is told with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpflow._names import PUSH

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan
    from mpflow._messages import Attempt, Death, StepFacts

# Task states.
READY = "ready"  # waits for a place within the concurrency limits
RUNNING = "running"  # its attempt is with a place to run
WAITING = "waiting"  # failed, and waits for its retry interval to pass
FINISHED = "finished"  # has a diff
FAILED = "failed"  # has an error that no policy retries
INTERRUPTED = "interrupted"  # asked a question
CANCELLED = "cancelled"  # given up because the step was

ENDED = frozenset((FINISHED, FAILED, INTERRUPTED, CANCELLED))

PUSHED = (PUSH,)
"""The triggers of a task that was sent or called."""


class Task:
    """A node's run in one step. ``path`` orders it among its siblings.

    What most tasks never need are class attributes until they do: tasks are made by the ten thousand.
    """

    pulled = False
    """Its node was due by a trigger, and not sent or called."""
    state = READY
    attempt: Attempt | None = None
    failures = 0
    deaths: tuple[Death, ...] = ()
    error: BaseException | None = None
    record: Any = None
    cached = False
    """It finished before the run was resumed, or its writes were in the cache."""
    from_cache = False
    cache_key: Any = None
    """What its writes are cached under, if they are."""
    handled = False
    """It failed, and its error handler takes over."""
    flows = False
    """It was made while others of its step ran, and is let go of before the step ends: see `flow`."""
    first_at: float | None = None
    """When its first attempt began, in seconds since the epoch, where there may be others."""
    answers: Any = None
    """The `Answers` its last attempt was given."""
    writes: Sequence[tuple[str, Any]] = ()
    story: tuple[str, ...] = ()
    """What befell its attempts; empty while it has had none, or its first is still to end."""
    caller: Task | None = None
    """The task that called it, if one did: then it fails to its caller and not to the run."""
    open_calls = 0
    graphs: int | None = None
    """How many graphs its attempts have started."""
    weight = 1
    """What it takes of ``max_concurrency`` while it runs: nothing while it waits for tasks that it called."""
    facts: StepFacts | None = None
    facts_below: StepFacts | None = None
    """The facts of its attempts, where they are not the step's; and of those of the tasks that it calls."""

    def __init__(self, node: NodePlan, path: tuple[Any, ...], input: Any, triggers: Sequence[str] = PUSHED) -> None:
        self.node = node
        self.name = node.name
        self.path = path
        self.input = input
        self.triggers = triggers
        if triggers is not PUSHED:
            self.pulled = True
        self.plain = True
        """It was not called and has not called, and nothing has befallen its attempts."""

    @property
    def timeout_s(self) -> float | None:
        timeout_s: float | None = self.node.timeout_s
        return timeout_s

    def tell(self, event: str) -> None:
        """Add to the story what befell an attempt."""
        self.story += (event,)
        self.plain = False

    def __repr__(self) -> str:
        return f"<Task {self.name} {self.path} {self.state}>"
