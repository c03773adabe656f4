"""What a run tells its consumer: chunks of the modes asked for, as they happen (SM-1 to SM-12).

It decides who is told what and in which order; payloads.py says it, parts.py wraps it.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core.task import FAILED, FINISHED, INTERRUPTED
from mpflow._engine.parts import Make, Shape, printed, shape_of
from mpflow._engine.payloads import (
    checkpoint_saved,
    debug_of,
    questions_of,
    result_of,
    task_ended,
    task_started,
    update_of,
)
from mpflow._names import INTERRUPT, METADATA, NS_SEP, RETURN
from mpflow._scope import PIECE, TaskScope
from mpflow.constants import TAG_HIDDEN
from mpflow.errors import ParentCommand

if TYPE_CHECKING:
    from mpflow._core.plan import Reads
    from mpflow._core.state import ChannelState
    from mpflow._core.task import Task
    from mpflow._engine.run import Run

__all__ = ("MODES", "Streams", "result_of", "update_of")

MODES = ("values", "updates", "custom", "messages", "tools", "tasks", "checkpoints", "debug")
TYPED = "typed"
"""Among the modes that a nested run is asked for: whether states are to come with their schemas (SM-12)."""


Upward = Callable[[str, Any], None]


class Streams:
    """The chunks of one run. ``queue`` holds those that its consumer has not taken yet.

    ``output`` are the keys asked for, ``channels`` all that can be shown. ``owner`` is the graph, which knows its
    schemas and the graphs within it.

    ``upward`` hands events to the run around this one, which streams the modes in ``passed`` with their namespaces.
    """

    is_part = False

    __slots__ = (
        "_emit",
        "_seen",
        "_typed",
        "channels",
        "heard",
        "modes",
        "ns",
        "output",
        "owner",
        "passed",
        "printing",
        "queue",
        "shape",
        "subgraphs",
        "upward",
        "wants_events",
        "watched",
    )

    def __init__(
        self,
        modes: str | Sequence[str] | None,
        *,
        output: Reads,
        channels: Reads,
        ns: tuple[str, ...] = (),
        subgraphs: bool = False,
        version: str = "v1",
        passed: Sequence[str] = (),
        upward: Upward | None = None,
        print_modes: str | Sequence[str] = (),
        owner: Any = None,
    ) -> None:
        self.modes = _known(modes, "stream_mode")
        self.printing = _known(print_modes, "print_mode")
        self.output = output
        self.channels = channels
        self.ns = ns
        self.subgraphs = subgraphs
        self.owner = owner
        self.queue: deque[Any] = deque()
        self.passed = frozenset(passed) if upward is not None else frozenset()
        self.upward = upward
        self.shape: Shape = shape_of(modes, subgraphs, version)
        self._emit = self.modes | self.passed | self.printing
        self.watched = bool(self._emit)
        """Whether anyone is told anything."""
        self.heard = tuple(mode for mode in ("messages", "tools") if mode in self._emit) if self._emit else ()
        """The modes that langchain's models and tools tell of."""
        self._seen: set[str] = set()
        self._typed = version == "v2" or TYPED in self.passed
        self.wants_events = self._hears_tasks()
        """Whether tasks must tell what happens while they run."""

    def wants(self, mode: str) -> bool:
        return mode in self._emit

    def _hears_tasks(self) -> bool:
        return "custom" in self._emit or bool(self.heard) or bool(self.passed) or (self.subgraphs and bool(self.modes))

    @property
    def wanted_below(self) -> tuple[str, ...]:
        """The modes that nested runs are to hand up."""
        if not self.subgraphs:
            return tuple(self.passed)
        typed = (TYPED,) if self._typed else ()
        return tuple(self.modes | self.passed | self.printing.union(typed))

    def put(self, mode: str, data: Any, make: Make | None = None) -> None:
        self._deliver(self.ns, mode, data, make)

    def _deliver(self, ns: tuple[str, ...], mode: str, data: Any, make: Make | None, *, is_own: bool = False) -> None:
        if mode in self.printing:
            sys.stdout.write(printed(ns if self.subgraphs else (), mode, data))
        if mode in self.modes:
            self.queue.append(self.shape(ns, mode, data, make))
        if mode in self.passed and self.upward is not None and not is_own:
            self.upward("stream", (ns, mode, data, make))

    def event(self, kind: str, data: Any, caller_ns: str | None = None) -> None:
        """Take what a running task said: a custom chunk, or a chunk of a nested run.

        Custom chunks of a task that another called have the namespace of that other, all else that of the graph. Who
        asked for those of a nested run has them to himself, to hand on or not.
        """
        if kind == "custom":
            ns = self.ns if caller_ns is None else tuple(caller_ns.split(NS_SEP))
            self._deliver(ns, "custom", data, None, is_own="custom" in self.modes)
        elif kind == "stream":
            ns, mode, chunk, make = data
            if self.subgraphs:
                if mode == "messages":
                    self._seen.add(chunk[0].id)
                self._deliver(tuple(ns), mode, chunk, make)
            elif mode in self.passed and self.upward is not None:
                self.upward("stream", data)
        elif kind == "tool":
            if self.wants("tools"):
                self.put("tools", data)
        elif self.wants("messages"):  # pieces of one message have its id; the whole is not told after its pieces
            if kind == "message" or data[0].id not in self._seen:
                self._seen.add(data[0].id)
                self.put("messages", data)

    # -- what the loop reports ----------------------------------------------------------------------------------------

    def checkpointed(self, run: Run) -> None:
        """The state that the next step starts from is saved; tell of it, with the tasks that are due (SM-8, SM-10)."""
        if run.persistence is None or not (self.wants("checkpoints") or self.wants("debug")):
            return
        from mpflow._core.steps import due_tasks

        scheduler = run.scheduler
        run.next_facts(scheduler.step, scheduler.stop)
        tasks = due_tasks(run.plan, run.state, scheduler.step, scheduler.stop, scheduler.started, _ignore)
        tasks.sort(key=_is_pulled)
        subgraphs = {} if self.owner is None else dict(self.owner.get_subgraphs())
        payload = checkpoint_saved(run, tasks, subgraphs)
        make = self.owner._typed_state if self._typed and self.owner is not None else None
        self._detail("checkpoints", payload, scheduler.step - 1, make)

    def started(self, run: Run) -> None:
        if self.wants("messages"):
            from mpflow._engine.messages import given_to

            for task in run.scheduler.tasks:
                if not task.node.hidden:
                    self._seen.update(given_to(task))
        if not (self.wants("tasks") or self.wants("debug")):
            return
        # Sends are told first, as LangGraph does, though their writes are merged last.
        for task in sorted(run.scheduler.tasks, key=_is_pulled):
            if not task.node.hidden:
                self._started(run, task)

    def called(self, run: Run, task: Task) -> None:
        """A task was called by one that runs (FN-6)."""
        if self.wants("tasks") or self.wants("debug"):
            self._started(run, task)

    def _started(self, run: Run, task: Task) -> None:
        self._detail("tasks", task_started(task, run.task_id(task), run.user_config), run.scheduler.step)

    def values_now(self, state: ChannelState) -> None:
        if self.wants("values"):
            self._values(state.read(self.output))

    def ended(self, run: Run, task: Task) -> None:
        if task.node.hidden or isinstance(task.error, ParentCommand):
            return
        is_called = task.caller is not None
        if is_called and task.state == INTERRUPTED:
            return  # its caller asks in its place (FN-7)
        if task.state == FINISHED and not task.cached and self.wants("messages"):
            self._returned(run, task)
        if task.state == INTERRUPTED:
            self._asked(questions_of(task), run.state)
        elif task.state == FINISHED and self.wants("updates") and TAG_HIDDEN not in (task.node.program.tags or ()):
            update: dict[str, Any] = {task.name: update_of(task.writes, RETURN if is_called else self.output)}
            if task.cached:
                update[METADATA] = {"cached": True}
            self.put("updates", update)
        if task.cached or not (self.wants("tasks") or self.wants("debug")):
            return
        if task.state in (FINISHED, FAILED, INTERRUPTED):
            assert run.facts is not None  # the scheduler's step may be the next one by now
            self._detail("tasks", task_ended(task, run.task_id(task), self.channels), run.facts.step)

    def _asked(self, interrupts: tuple[Any, ...], state: ChannelState) -> None:
        """A task asked questions: they are an update, and show in the values as they are now (IN-4)."""
        if not interrupts:
            return
        if self.wants("updates"):
            self.put("updates", {INTERRUPT: interrupts})
        if self.wants("values"):
            values = state.read(self.output)
            shown = values if isinstance(values, dict) else {}
            self._values({**shown, INTERRUPT: interrupts})

    def _returned(self, run: Run, task: Task) -> None:
        """Tell of the messages that a task returned, unless a model or an earlier task said them."""
        from mpflow._engine.messages import named, returned_by

        program = task.node.program
        if TAG_HIDDEN in (program.tags or ()):
            return
        metadata: dict[str, Any] | None = None
        for message in returned_by(task):
            if message.id is None or message.id not in self._seen:
                if metadata is None:
                    metadata = {"ls_integration": "langgraph", **_scope_of(run, task).config["metadata"]}
                self.event("whole message", (named(message), metadata))

    def _values(self, values: Any) -> None:
        make = self.owner._typed_output if self._typed and self.owner is not None else None
        self.put("values", values, make)

    def _detail(self, mode: str, payload: dict[str, Any], step: int, make: Make | None = None) -> None:
        if self.wants(mode):
            self.put(mode, payload, make)
        if self.wants("debug"):
            self.put("debug", debug_of(mode, payload, step), make)


class PartStreams(Streams):
    """The chunks of a part of a task. What is said in it is that task's word; its own are the pieces of its output."""

    is_part = True

    __slots__ = ()

    def _hears_tasks(self) -> bool:
        return bool(self.modes)

    def event(self, kind: str, data: Any, caller_ns: str | None = None) -> None:
        if kind == PIECE:
            self.queue.append(data)
        elif self.upward is not None:
            self.upward(kind, data)


def _scope_of(run: Run, task: Task) -> TaskScope:
    assert run.facts is not None
    program = task.node.program
    return TaskScope(run.facts, task.name, task.path, task.triggers, tags=program.tags, metadata=program.metadata)


def _known(modes: str | Sequence[str] | None, option: str) -> frozenset[str]:
    asked = () if modes is None else (modes,) if isinstance(modes, str) else tuple(modes)
    for mode in asked:
        if mode not in MODES:
            raise ValueError(f"{option}={mode!r} is none of {', '.join(MODES)}")
    return frozenset(asked)


def _is_pulled(task: Task) -> bool:
    return task.pulled


def _ignore(text: str) -> None:
    return None
