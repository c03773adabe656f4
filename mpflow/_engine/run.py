"""One run of a compiled graph: what it was asked, what it needs, and where its tasks go. The loop lives in loop.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from mpflow._core.plan import EPHEMERAL, OBJECT
from mpflow._core.scheduler import Scheduler
from mpflow._core.state import ChannelState
from mpflow._engine.attempts import Performer
from mpflow._engine.local import Local
from mpflow._engine.streams import PartStreams, Streams
from mpflow._exec.mailbox import Mailbox
from mpflow._messages import EVENT, Attempt, StepFacts
from mpflow._names import PREVIOUS
from mpflow._scope import SCOPE_KEY, TaskScope, current, task_id_of
from mpflow.config import ensure_config
from mpflow.errors import GraphRecursionError
from mpflow.types import Command

if TYPE_CHECKING:
    from mpflow._core.plan import Plan, Reads
    from mpflow._core.task import Task
    from mpflow._engine.persistence import Persistence
    from mpflow._scope import Emit

PASSED_KEY = "__pregel_stream"
"""Where a nested run finds the modes that the runs around it stream from it."""
_PART_STEPS = 4
"""More steps than any part of a task has."""
MAX_DEPTH = 64
"""Graphs within graphs: beyond this a graph is taken to contain itself."""


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
        durability: str | None = None,
        pause_before: Collection[str] = (),
        pause_after: Collection[str] = (),
        owner: Any = None,
        is_part: bool = False,
    ) -> None:
        self.plan = plan
        self.options = dict(options or {})
        around = scope_around(config, None if is_part else defaults)
        # Where a run has a thread of its own it is a root, wherever it is started.
        outside = around if around is not None else current.get()
        self.is_part = is_part
        self.parent = parent = None if is_part else around
        merged: dict[str, Any]
        passed: Sequence[str]
        if is_part:
            merged, called_back, passed = _of_part(config, around), False, ()
        else:
            merged, called_back, passed = _of_run(config, defaults, outside, is_root=parent is None)
        self.depth = 0
        self.namespace = ""
        if around is None and outside is not None:
            self._go_deeper(outside)
        if around is not None:
            if not is_part:
                self._nest_in(around, lasts=checkpointer is True)
            if context is None:
                context = around.facts.context
            if store is None:
                store = around.store
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
            merged["configurable"][PASSED_KEY] = below
        self.user_config = merged
        self.context = context
        saver = saver_of(checkpointer, parent)
        if durability is not None and saver is None:
            import warnings

            warnings.warn("`durability` has no effect when no checkpointer is present.", stacklevel=4)
        if durability is None:
            durability = parent.facts.local.durability if parent is not None and parent.facts.local else "async"
        self.local = Local(store, control, saver, durability)
        self.local.around = outside
        if is_part and around is not None:
            self._be_part_of(around)
        above = None if parent is None else parent.facts.local
        if above is not None:
            if cache is None:
                cache = above.cache
            if control is None:
                self.local.control = above.drainable()
        self.cache = cache
        if not is_part:
            self.local.cache = cache
        self.persistence: Persistence | None = None
        self.resuming: bool | None = None
        self.forks = False
        self._null: list[Any] | None = None
        self.step_timeout_s = step_timeout_s
        self.stamps = plan.retries
        leaves = plan.leaves or self.options.get("executor") == "process"
        is_counted = saver is not None or leaves or bool(pause_before) or bool(pause_after)
        self.state = self.local.state = ChannelState(plan, counted=is_counted)
        self.mailbox = Mailbox()
        self.clock: Callable[[], float] = time.monotonic
        self.dice: Callable[[], float] = _chance
        self.warn = warn = _Warnings(plan)
        self.result: Any = None
        fail_fast = self.options.get("fail_fast")
        self.scheduler = Scheduler(
            plan,
            self.state,
            step=-1,
            recursion_limit=_PART_STEPS if is_part else merged["recursion_limit"],
            max_concurrency=concurrency_of(merged),
            kill_on_failure=fail_fast == "kill",
            on_error=self.options.get("on_error"),
            warn=warn,
            pause_before=pause_before,
            pause_after=pause_after,
            tells_ends=saver is not None or cache is not None or self.streams.watched,
        )
        if saver is not None:
            self.persistence = self._remembering(saver, durability)
        if not self.streams.wants_events and upward is None:
            emit_for: Callable[[Attempt], Emit] | None = None
        else:
            emit_for = _Emitters(self.mailbox, self.streams)
        self.performer = Performer(plan, self.state, copy_context(), warn, emit_for)
        if called_back or self.streams.wants("messages"):
            from mpflow._engine.messages import entrance

            self.performer.enter = entrance(self.streams.wants("messages"))
        self.facts: StepFacts | None = None
        self.output_keys = _keys(self.output)
        self.stream_keys = _keys(self.streams.output)
        self._passing = any(
            plan.kinds[key] == EPHEMERAL or (plan.kinds[key] == OBJECT and plan.channels[key].resets)
            for key in self.output_keys
        )
        self.result_is_open = True
        self._has_more_facts = (
            context is not None
            or parent is not None
            or saver is not None
            or PREVIOUS in plan.kinds
            or bool(self.namespace)
        )

    def _nest_in(self, parent: TaskScope, *, lasts: bool) -> None:
        """Take a depth and a namespace within the task around this run (SG-3). Raises GraphRecursionError."""
        self._go_deeper(parent)
        self.namespace = lasting_namespace(parent.namespace) if lasts else parent.namespace
        if parent.calls:
            self.namespace += f"|{parent.calls}"
        parent.calls += 1

    def _go_deeper(self, parent: TaskScope) -> None:
        self.depth = parent.facts.depth + 1
        if self.depth > MAX_DEPTH:
            raise GraphRecursionError(
                f"graph '{self.plan.name}' runs inside itself: it was started by node '{parent.name}', {self.depth} graphs "
                "deep. A graph must not be a node of itself, nor be invoked by one of its nodes without end"
            )

    def _be_part_of(self, task: TaskScope) -> None:
        """Let the graphs that branches in workers call be nested in `task`, like those of branches here."""
        self.depth = task.facts.depth
        self.namespace = task.namespace
        above = task.facts.local
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
        if self.parent is None and not any(configurable.get(key) for key in _SAVER_KEYS):
            raise ValueError(
                f"Checkpointer requires one or more of the following 'configurable' keys: {', '.join(_SAVER_KEYS)}. "
                "Give the run one: config={'configurable': {'thread_id': '...'}}"
            )
        above = None if self.parent is None else self.parent.facts.local
        if above is not None:
            self.local.answers_by_id = above.answers_by_id
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
            assert self.persistence is not None
            own = self.persistence.null_answer()
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
        from mpflow._engine.persistence import path_text

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


def _chance() -> float:
    import random  # only retries need it

    return random.random()


def _keys(reads: Reads) -> frozenset[str]:
    return frozenset((reads,) if isinstance(reads, str) else reads)


class _Warnings:
    """Logs each suspicion once a run; raises it under ``compile(strict=True)``. Knows no run, which so is no cycle."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._said: set[str] = set()

    def __call__(self, text: str) -> None:
        if self._plan.strict:
            from mpflow.errors import StrictGraphError

            raise StrictGraphError("unknown name", f"graph '{self._plan.name}'", text)
        if text not in self._said:
            self._said.add(text)
            import logging

            logging.getLogger("mpflow").warning("%s", text)


class _Emitters:
    """What the tasks of a run are given to say something with while they run."""

    def __init__(self, mailbox: Mailbox, streams: Streams) -> None:
        self._mailbox = mailbox
        self._streams = streams

    def __call__(self, attempt: Attempt) -> Emit:
        post = self._mailbox.post
        streams = self._streams
        upward = streams.upward

        def emit(kind: str, data: Any) -> None:
            # A custom chunk that this run does not stream is the surrounding run's: its writer is inherited.
            if kind == "custom" and not streams.wants("custom"):
                if upward is not None:
                    upward(kind, data)
                return
            post((EVENT, attempt, (kind, data), 0.0))

        return emit


def _of_run(
    config: Any, defaults: Any, outside: TaskScope | None, *, is_root: bool
) -> tuple[dict[str, Any], bool, Sequence[str]]:
    """The config of a run; whether it has callbacks of the user's; the modes that the runs around it stream from it."""
    base: Any = None
    if outside is not None and not passes_on(
        config, outside
    ):  # a config that was passed on has all that the task's has
        base = outside.config
        if is_root:
            base = {key: value for key, value in base.items() if key != "configurable"}
    merged: dict[str, Any] = dict(ensure_config(base, defaults, config))
    if merged["recursion_limit"] < 1:
        raise ValueError(f"'recursion_limit' must be at least 1, got {merged['recursion_limit']}")
    called_back = merged.get("callbacks") is not None
    if outside is not None and called_back:
        from mpflow._engine.messages import without_ours

        merged["callbacks"] = without_ours(merged["callbacks"])
    configurable = dict(merged.get("configurable") or {})
    configurable.pop(SCOPE_KEY, None)
    passed = configurable.pop(PASSED_KEY, ())
    merged["configurable"] = configurable
    return merged, called_back, passed


def _of_part(config: Any, around: TaskScope | None) -> dict[str, Any]:
    """The config of a part of a task: as it was given, else the task's; without the task itself, which does not travel."""
    given: Any = config or (around.facts.config if around is not None else None) or {}
    merged = dict(given)
    configurable = merged.get("configurable")
    if configurable and SCOPE_KEY in configurable:
        merged["configurable"] = {key: value for key, value in configurable.items() if key != SCOPE_KEY}
    return merged


_ADDRESS_KEYS = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
_SAVER_KEYS = ("thread_id", "checkpoint_ns", "checkpoint_id")


def saver_of(asked: Any, parent: TaskScope | None) -> Any:
    """The saver of a run: its graph's own, or within another run that one's (SG-4). Raises RuntimeError."""
    if asked is False:
        return None
    if parent is not None:
        local = parent.facts.local
        if local is not None and local.saver is not None:
            return local.saver
        return None if asked is True else asked
    if asked is True:
        raise RuntimeError("checkpointer=True cannot be used for root graphs.")
    return asked


def without_ids(namespace: str) -> str:
    """A namespace without the ids of tasks and the counts of calls: the path of nodes that leads to a graph (SG-3)."""
    return "|".join(part.split(":")[0] for part in namespace.split("|") if not part.isdigit())


def lasting_namespace(namespace: str) -> str:
    """A namespace without the ids of tasks, which is where a graph with ``checkpointer=True`` keeps its state."""
    return "|".join(part.split(":")[0] for part in namespace.split("|"))


def scope_around(config: Any, defaults: Any = None) -> TaskScope | None:
    """The task this run is started from: named by the config that was passed on, else by the context.

    None for a run whose config, or its graph's, addresses checkpoints of its own: that is a root wherever it is started.
    """
    if config:
        configurable = config.get("configurable")
        if configurable:
            scope = configurable.get(SCOPE_KEY)
            if isinstance(scope, TaskScope):
                return scope
    found = current.get()
    return None if found is not None and (_has_address(config) or _has_address(defaults)) else found


def _has_address(config: Any) -> bool:
    configurable = (config or {}).get("configurable") or {}
    return any(configurable.get(key) for key in _ADDRESS_KEYS)


def passes_on(config: Any, scope: TaskScope) -> bool:
    """Whether a config was made from that of the task in `scope`."""
    return bool(config) and (config.get("configurable") or {}).get(SCOPE_KEY) is scope


def concurrency_of(config: Mapping[str, Any]) -> int | None:
    """The run's ``max_concurrency``, at the top of a config or under ``configurable``. Raises ValueError."""
    limit = config.get("max_concurrency")
    if limit is None:
        limit = (config.get("configurable") or {}).get("max_concurrency")
    if limit is None:
        return None
    if not isinstance(limit, int) or limit < 1:
        raise ValueError(f"'max_concurrency' must be a count of at least 1, got {limit!r}")
    return limit
