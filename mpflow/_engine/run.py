"""One run of a compiled graph: what it was asked, what it needs, and where its tasks go. The loop lives in loop.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from mpflow._core.plan import keys_of
from mpflow._core.scheduler import Scheduler
from mpflow._core.state import ChannelState
from mpflow._engine.attempts import Performer
from mpflow._engine.local import Local
from mpflow._engine.nesting import (
    PASSED_KEY,
    SAVER_KEYS,
    concurrency_of,
    config_of_part,
    config_of_run,
    depth_below,
    namespace_below,
    saver_of,
    scope_around,
)
from mpflow._engine.streams import PartStreams, Streams
from mpflow._engine.voices import Emitters, Warnings
from mpflow._exec.mailbox import Mailbox
from mpflow._exec.place import THREADED
from mpflow._messages import StepFacts
from mpflow._names import PREVIOUS
from mpflow._scope import TaskScope, current, task_id_of
from mpflow.observe.trace import tracing
from mpflow.types import Command

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan, Plan, Reads
    from mpflow._core.task import Task
    from mpflow._engine.persistence import Persistence

_PART_STEPS = 4
"""More steps than any part of a task has."""


class Run:
    """One run. Made by the compiled graph, obeyed by a driver, forgotten when it is over.

    With `is_part` it is no run of its own but a part of the task it is started from, if any: it has no namespace, no
    saver and no streams, and what is done in it is done by that task.
    """

    __slots__ = (
        "_has_more_facts",
        "_null",
        "_passing",
        "cache",
        "clock",
        "context",
        "depth",
        "dice",
        "facts",
        "forks",
        "is_part",
        "local",
        "mailbox",
        "may_be_answered",
        "namespace",
        "options",
        "output",
        "output_keys",
        "parent",
        "performer",
        "persistence",
        "plan",
        "result",
        "result_is_open",
        "resuming",
        "scheduler",
        "stamps",
        "state",
        "step_timeout_s",
        "stream_keys",
        "streams",
        "user_config",
        "warn",
    )

    def __init__(
        self,
        plan: Plan,
        config: Any,
        *,
        defaults: Any = None,
        context: Any = None,
        stream_mode: Any = None,
        print_mode: Any = (),
        output: Any = None,
        subgraphs: bool = False,
        version: str = "v1",
        options: Mapping[str, Any] | None = None,
        step_timeout_s: float | None = None,
        store: Any = None,
        cache: Any = None,
        control: Any = None,
        checkpointer: Any = None,
        types_of: Callable[[], Collection[type]] | None = None,
        durability: str | None = None,
        pause_before: Collection[str] = (),
        pause_after: Collection[str] = (),
        owner: Any = None,
        is_part: bool = False,
    ) -> None:
        self.plan = plan
        self.options = options or {}
        self.is_part = is_part
        around = scope_around(config, None if is_part else defaults)
        # Where a run has a thread of its own it is a root, wherever it is started.
        outside = around if around is not None else current.get()
        self.parent = parent = None if is_part else around
        called_back = False
        passed: Sequence[str] = ()
        if is_part:
            self.user_config = config_of_part(config, around)
        else:
            self.user_config, called_back, passed = config_of_run(config, defaults, outside, is_root=parent is None)
        self._find_place(around, outside, lasts=checkpointer is True)
        if around is not None:
            context = around.facts.context if context is None else context
            store = around.store if store is None else store
        self.context = context
        self.output = plan.output if output is None else output
        upward = None if around is None else around.emit
        self.streams = (PartStreams if is_part else Streams)(
            stream_mode,
            output=plan.stream if output is None else output,
            channels=plan.stream,
            ns=tuple(self.namespace.split("|")) if self.namespace else (),
            subgraphs=subgraphs,
            version=version,
            passed=passed,
            upward=upward,
            print_modes=print_mode,
            owner=owner,
        )
        if below := self.streams.wanted_below:
            self.user_config["configurable"][PASSED_KEY] = below
        saver = saver_of(checkpointer, parent)
        if types_of is not None and hasattr(saver, "for_types"):
            saver = saver.for_types(types_of)
        self.cache = self._take_in(around, store, cache, control, saver, durability)
        self.local.around = outside
        self.local.shows_tasks = self.streams.wants("tasks") or self.streams.wants("debug")
        self.resuming: bool | None = None
        self.forks = False
        above = None if parent is None else parent.answers
        self.may_be_answered = saver is not None or (above is not None and bool(above.null or above.by_id))
        """Whether its tasks may find answers: saved ones, or, where nothing of it is saved, those to the run around it."""
        self._null: list[Any] | None = None
        self.step_timeout_s = step_timeout_s
        self.stamps = plan.retries
        self.mailbox = Mailbox()
        self.clock: Callable[[], float] = time.monotonic
        self.dice: Callable[[], float] = _chance
        self.warn = Warnings(plan)
        leaves = plan.leaves or self.options.get("executor") == "process"
        is_counted = saver is not None or leaves or bool(pause_before) or bool(pause_after)
        self.state = self.local.state = ChannelState(plan, counted=is_counted)
        self.scheduler = self._schedule(pause_before, pause_after, keeps=saver is not None or self.cache is not None)
        self.persistence = None if saver is None else self._remembering(saver, self.local.durability)
        emits = upward is not None or self.streams.wants_events
        emitters = Emitters(self.mailbox, self.streams) if emits else None
        self.performer = Performer(plan, self.state, copy_context(), self.warn, emitters)
        if called_back or self.streams.heard:
            from mpflow._engine.messages import entrance

            self.performer.enter = entrance(self.streams.heard)
            if called_back:
                from mpflow._engine.telling import teller_of

                self.performer.teller = teller_of(self)
        self.facts: StepFacts | None = None
        self.result: Any = None
        self.result_is_open = True
        self.output_keys = _keys_of(plan, self.output)
        self.stream_keys = _keys_of(plan, self.streams.output)
        self._passing = not plan.fleeting.isdisjoint(self.output_keys)
        self._has_more_facts = (
            context is not None
            or parent is not None
            or saver is not None
            or PREVIOUS in plan.kinds
            or bool(self.namespace)
        )

    def _find_place(self, around: TaskScope | None, outside: TaskScope | None, *, lasts: bool) -> None:
        """Take a depth and a namespace within the task around this run (SG-3). Raises GraphRecursionError."""
        self.depth = 0
        self.namespace = ""
        if self.is_part and around is not None:
            self.depth = around.facts.depth
            self.namespace = around.namespace
        elif outside is not None:
            self.depth = depth_below(outside, self.plan)
            if around is not None:
                self.namespace = namespace_below(around, lasts=lasts)

    def _take_in(
        self, around: TaskScope | None, store: Any, cache: Any, control: Any, saver: Any, durability: str | None
    ) -> Any:
        """Set what tasks reach in this process: given to this run, or had by the run around it. The cache, if it has one."""
        above = None if self.parent is None else self.parent.facts.local
        if durability is not None and saver is None:
            import warnings

            warnings.warn("`durability` has no effect when no checkpointer is present.", stacklevel=5)
        if durability is None:
            durability = "async" if above is None else above.durability
        self.local = local = Local(store, control, saver, durability)
        if self.is_part:
            self._be_part_of(around)
            return cache
        if above is not None:
            cache = above.cache if cache is None else cache
            local.answers_by_id = above.answers_by_id
            if control is None:
                local.control = above.drainable()
        local.cache = cache
        return cache

    def _schedule(self, pause_before: Collection[str], pause_after: Collection[str], *, keeps: bool) -> Scheduler:
        return Scheduler(
            self.plan,
            self.state,
            recursion_limit=_PART_STEPS if self.is_part else self.user_config["recursion_limit"],
            max_concurrency=concurrency_of(self.user_config),
            kill_on_failure=self.options.get("fail_fast") == "kill",
            on_error=self.options.get("on_error"),
            warn=self.warn,
            pause_before=pause_before,
            pause_after=pause_after,
            tells_ends=keeps or self.streams.watched,
            keeps_columns=_unless_elsewhere if self.options.get("executor") == "process" else _if_in_processes,
        )

    def _be_part_of(self, task: TaskScope | None) -> None:
        """Let the graphs that branches in workers call be nested in `task`, like those of branches here."""
        above = None if task is None else task.facts.local
        if above is not None:
            self.local.saver = above.saver
            self.local.cache = above.cache
            self.local.answers_by_id = above.answers_by_id
            self.local.replay = above.replay
            self.local.durability = above.durability

    def _remembering(self, saver: Any, durability: str) -> Persistence:
        """The saved side of this run. Raises ValueError for a root whose config names no thread (CP-1)."""
        from mpflow._engine.persistence import Persistence

        configurable = self.user_config["configurable"]
        if self.parent is None and not any(configurable.get(key) for key in SAVER_KEYS):
            raise ValueError(
                f"Checkpointer requires one or more of the following 'configurable' keys: {', '.join(SAVER_KEYS)}. "
                "Give the run one: config={'configurable': {'thread_id': '...'}}"
            )
        above = None if self.parent is None else self.parent.facts.local
        if above is not None:
            self.local.replay = above.replay
        kind = Persistence
        if getattr(saver, "keeps_log", False) and configurable.get("thread_id") is not None:
            from mpflow._engine.recording import Recording

            kind = Recording
        return kind(
            saver,
            self.user_config,
            self.namespace,
            durability,
            self.plan,
            None if above is None else above.replay,
            is_nested=self.parent is not None,
        )

    @property
    def answers_by_id(self) -> dict[str, Any]:
        return self.local.answers_by_id

    @answers_by_id.setter
    def answers_by_id(self, answers: dict[str, Any]) -> None:
        self.local.answers_by_id = answers

    def null_answer(self) -> list[Any]:
        """The answer that names no question: this run's, or that of the task it runs in."""
        if self._null is None:
            own = [] if self.persistence is None else self.persistence.null_answer()
            above = self.parent.answers.null if self.parent is not None and self.parent.answers is not None else []
            self._null = own or above
        return self._null

    def wants_resume(self, input: Any) -> bool:
        """Whether this input asks to go on with a saved run; within a run that is resumed, any does."""
        if self.is_answered_above is not None:
            return self.is_answered_above
        if input is None or isinstance(input, Command):
            return True
        # The same run asked for again goes on, whatever its input.
        run_id = self.user_config["metadata"].get("run_id")
        return (
            run_id is not None
            and self.parent is None
            and self.persistence is not None
            and self.persistence.metadata.get("run_id") == run_id
        )

    @property
    def lends(self) -> bool:
        """Whether a caller that waits may perform what it called: where nothing of tasks is kept, shown, recorded or counted."""
        return (
            self.persistence is None
            and not self.plan.call_retry
            and self.scheduler.max_concurrency is None
            and self.cache is None
            and not self.streams.watched
            and self.performer.enter is None
            and self.options.get("executor") in THREADED
            and tracing.get() is None
        )

    @property
    def is_answered_above(self) -> bool | None:
        """Whether the run around this one is being resumed; None where that does not decide for this one."""
        if self.parent is None or (self.persistence is not None and self.persistence.is_replayed):
            return None
        return self.parent.facts.resuming

    def note_resuming(self, resuming: bool) -> None:
        """What the graphs within this run are told: what its root does, all the way down."""
        self.resuming = resuming if self.parent is None else self.is_answered_above

    def note_replay(self) -> None:
        """A root that goes back in time takes the graphs within it along."""
        persistence = self.persistence
        if self.parent is None and persistence is not None and persistence.is_time_travel:
            from mpflow._engine.persistence import Replay

            self.local.replay = Replay(persistence.replay_from)

    def path_text(self, task: Task) -> str:
        from mpflow.checkpoint.base import path_text  # most runs load no saver's contract

        return path_text(task.path)

    def note_written(self, written: Collection[str]) -> None:
        """A step has written these channels. Only needed while ``result_is_open``."""
        if not self.output_keys.isdisjoint(written):
            self.note_result()

    def note_result(self) -> None:
        """A step has written output keys: the run's result is their values now, should the run end here (EX-13)."""
        if self._passing:  # a channel may lose its value in a step that does not write it
            self.result = self.state.read(self.output)
        else:
            self.result_is_open = False

    def finish(self) -> None:
        if not self.result_is_open:
            self.result = self.state.read(self.output)

    def next_facts(self) -> StepFacts:
        """The facts of the step that is about to start."""
        scheduler = self.scheduler
        self.facts = facts = StepFacts(self.user_config, scheduler.step, scheduler.stop, self.local)
        if self._has_more_facts:
            self._add_facts(facts)
        return facts

    def _add_facts(self, facts: StepFacts) -> None:
        if self.context is not None:
            facts.context = self.context
        if PREVIOUS in self.state.values:
            facts.previous = self.state.values[PREVIOUS]
        if self.parent is not None:
            facts.around = self.parent.namespace
            self.parent.progress()
        if self.persistence is not None:
            facts.checkpoint_id = self.persistence.checkpoint_id
            facts.resuming = self.resuming
        if self.namespace:
            facts.depth = self.depth
            facts.checkpoint_ns = self.namespace

    def task_id(self, task: Task) -> str:
        facts = task.facts or self.facts
        assert facts is not None
        return task_id_of(facts.checkpoint_id, facts.checkpoint_ns, facts.step, task.name, task.path, task.triggers)


def _if_in_processes(node: NodePlan) -> bool:
    return bool(node.executor == "process")


def _unless_elsewhere(node: NodePlan) -> bool:
    return bool(node.executor is None or node.executor == "process")


def _chance() -> float:
    import random  # only retries need it

    return random.random()


def _keys_of(plan: Plan, reads: Reads) -> frozenset[str]:
    return plan.output_keys if reads is plan.output else plan.stream_keys if reads is plan.stream else keys_of(reads)
