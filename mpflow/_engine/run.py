"""One run of a compiled graph: what it was asked, what it needs, and where its tasks go. The loop lives in loop.py."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from mpflow._core.plan import keys_of
from mpflow._core.scheduler import Scheduler
from mpflow._core.state import ChannelState
from mpflow._engine.attempts import Performer
from mpflow._engine.local import local_of
from mpflow._engine.nesting import PASSED_KEY, SAVER_KEYS, concurrency_of, nest_of, saver_of
from mpflow._engine.setting import NOTHING, Asked, Setting
from mpflow._engine.voices import Emitters, Warnings
from mpflow._exec.mailbox import Mailbox
from mpflow._messages import StepFacts
from mpflow._names import PREVIOUS
from mpflow._scope import task_id_of
from mpflow.observe.trace import tracing
from mpflow.types import Command

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpflow._core.plan import Plan, Reads
    from mpflow._core.task import Task
    from mpflow._engine.nesting import Nest
    from mpflow._engine.persistence import Persistence
    from mpflow._engine.streams import Streams
    from mpflow._scope import TaskScope

_PART_STEPS = 4
"""More steps than any part of a task has."""


def _chance() -> float:
    import random  # only retries need it

    return random.random()


class Run:
    """One run. Made by the compiled graph, obeyed by a driver, forgotten when it is over.

    If its setting says that it is part of a task, it is no run of its own but belongs to the task it is started from, if
    any: it has no namespace, no saver and no streams, and what is done in it is done by that task. ``owner`` is the graph.

    What few runs have is an attribute of the class until they have it.
    """

    parent: TaskScope | None = None
    """The task that this run is nested in."""
    context: Any = None
    persistence: Persistence | None = None
    facts: StepFacts | None = None
    """Those of the step under way."""
    resuming: bool | None = None
    forks = False
    may_be_answered = False
    """Whether its tasks may find answers: saved ones, those it is resumed with, or those to the task around it."""
    result: Any = None
    result_is_open = True
    clock: Callable[[], float] = staticmethod(time.monotonic)
    dice: Callable[[], float] = staticmethod(_chance)
    _null: list[Any] | None = None
    has_null_answer = False
    """It was resumed with an answer that names no question, and saved it, so that it must be known when that is taken."""

    def __init__(self, setting: Setting, config: Any = None, asked: Asked = NOTHING, owner: Any = None) -> None:
        self.setting = setting
        self.plan = plan = setting.plan
        self.options = setting.options
        self.is_part = setting.is_part
        self.step_timeout_s = setting.step_timeout_s
        nest = nest_of(setting, config)
        self.user_config = nest.config
        self.depth = nest.depth
        self.namespace = nest.namespace
        around = nest.around
        if around is not None:
            self._be_within(around)
        if asked.context is not None:
            self.context = asked.context
        silent = around is None and (asked is setting.only_result or not asked.tells)
        self.streams = setting.quiet if silent else self._streams(setting, nest, asked, owner)
        saver = None if setting.checkpointer is None and around is None else self._saver(setting, owner)
        self.local = local = local_of(setting, nest, asked, saver)
        self.cache = None if setting.is_part else local.cache
        self.mailbox = Mailbox()
        self.warn = Warnings(plan)
        self.stamps = plan.retries
        is_counted = saver is not None or setting.leaves or bool(asked.pause_before or asked.pause_after)
        self.state = local.state = ChannelState(plan, is_counted)
        self._has_more_facts = bool(
            self.context is not None or self.parent is not None or saver or setting.has_previous or self.namespace
        )
        self.scheduler = self._schedule(setting, asked, tells_ends=saver is not None or self.cache is not None)
        if saver is not None:
            self.persistence = self._remembering(saver, local.durability)
        self.performer = Performer(plan, self.state, copy_context(), self.warn)
        if not silent or nest.called_back:
            self._let_tell(nest)
        if asked.output is None or asked.output is plan.output:
            self.output, self.output_keys, self._passing = plan.output, plan.output_keys, setting.passing
        else:
            self.output = asked.output
            self.output_keys = _keys_of(plan, self.output)
            self._passing = not plan.fleeting.isdisjoint(self.output_keys)
        self.stream_keys = plan.stream_keys if silent else _keys_of(plan, self.streams.output)

    def _be_within(self, around: TaskScope) -> None:
        """Take over from the task around this run what is not the run's own."""
        self.context = around.facts.context
        if not self.is_part:
            self.parent = around
            answers = around.answers
            self.may_be_answered = answers is not None and bool(answers.null or answers.by_id)

    def _streams(self, setting: Setting, nest: Nest, asked: Asked, owner: Any) -> Streams:
        streams = setting.streams(
            asked,
            owner=owner,
            ns=tuple(self.namespace.split("|")) if self.namespace else (),
            passed=nest.passed,
            upward=None if nest.around is None else nest.around.emit,
        )
        if below := streams.wanted_below:
            self.user_config["configurable"][PASSED_KEY] = below
        return streams

    def _saver(self, setting: Setting, owner: Any) -> Any:
        saver = saver_of(setting.checkpointer, self.parent)
        if owner is not None and hasattr(saver, "for_types"):
            saver = saver.for_types(owner._types)
        return saver

    def _schedule(self, setting: Setting, asked: Asked, *, tells_ends: bool) -> Scheduler:
        return Scheduler(
            self.plan,
            self.state,
            -1,
            _PART_STEPS if setting.is_part else self.user_config["recursion_limit"],
            concurrency_of(self.user_config),
            setting.kills_on_failure,
            setting.on_error,
            self.warn,
            asked.pause_before,
            asked.pause_after,
            tells_ends or self.streams.watched,
            setting.keeps_columns,
            self.step_timeout_s is None and not self._has_more_facts,
        )

    def _let_tell(self, nest: Nest) -> None:
        """Let tasks say what happens in them while they run, to the streams and to callbacks of the user's."""
        streams, performer = self.streams, self.performer
        self.local.shows_tasks = streams.wants("tasks") or streams.wants("debug")
        if streams.upward is not None or streams.wants_events:
            performer.emit_for = Emitters(self.mailbox, streams)
        if nest.called_back or streams.heard:
            from mpflow._engine.messages import entrance

            performer.enter = entrance(streams.heard)
        if nest.called_back:
            from mpflow._engine.telling import teller_of

            performer.teller = teller_of(self)

    def _remembering(self, saver: Any, durability: str) -> Persistence:
        """The saved side of this run. Raises ValueError for a root whose config names no thread (CP-1)."""
        from mpflow._engine.persistence import Persistence

        configurable = self.user_config["configurable"]
        if self.parent is None and all(configurable.get(key) is None for key in SAVER_KEYS):
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
            own = [] if self.persistence is None else self.persistence.pending.null_answer()
            self.has_null_answer = bool(own)
            above = self.parent.answers.null if self.parent is not None and self.parent.answers is not None else []
            self._null = own or above
        return self._null

    def note_step(self) -> None:
        """A step is over: what is called in a later one starts anew, and its questions have not been answered yet."""
        self.resuming = None
        self._null = None
        self.has_null_answer = False

    def has_spent_answer(self) -> bool:
        """Whether a question has taken the answer that names none, and was this run's own; says so once."""
        is_spent = self.has_null_answer and not self._null
        if is_spent:
            self.has_null_answer = False
        return is_spent

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
        """Whether, if its setting lends, a caller that waits may perform what it called: where nothing of tasks is kept,
        shown, recorded or counted."""
        return (
            self.persistence is None
            and self.scheduler.max_concurrency is None
            and self.cache is None
            and not self.streams.watched
            and self.performer.enter is None
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
            from mpflow._engine.replay import Replay

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
            self.result = self.state.read_last(self.output)

    def next_facts(self, step: int, stop: int) -> StepFacts:
        """The facts of the step that is about to start."""
        self.facts = facts = StepFacts(self.user_config, step, stop, self.local)
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
        if self.scheduler.goes_on:
            return self.scheduler.task_id(task)
        facts = task.facts or self.facts
        assert facts is not None
        return task_id_of(facts.checkpoint_id, facts.checkpoint_ns, facts.step, task.name, task.path, task.triggers)


def _keys_of(plan: Plan, reads: Reads) -> frozenset[str]:
    return plan.output_keys if reads is plan.output else plan.stream_keys if reads is plan.stream else keys_of(reads)
