"""What a run remembers: its checkpoint, the writes that no checkpoint holds yet, and when each is given to the saver.

Plain values and decisions; the loop yields the saver's calls as effects, so that one body serves both drivers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._engine.changes import checkpoint_of, new_versions
from mpflow._engine.counting import DeltaCounts
from mpflow._engine.pending import Pending, Writes
from mpflow._engine.saving import SAVER, Call, takes_path
from mpflow._names import (
    CHECKPOINT_ID,
    CHECKPOINT_MAP,
    CHECKPOINT_NS,
    CONF,
    INTERRUPT,
    NS_END,
    NULL_TASK_ID,
    RESUME,
    SCHEDULED,
)
from mpflow.channels.untracked_value import UntrackedValue
from mpflow.checkpoint.base import (
    WRITES_IDX_MAP,
    empty_checkpoint,
    get_checkpoint_metadata,
)
from mpflow.checkpoint.ids import new_checkpoint_id
from mpflow.types import Send

if TYPE_CHECKING:
    from mpflow._core.merge import Merge
    from mpflow._core.plan import Plan
    from mpflow._core.state import ChannelState
    from mpflow._core.task import Task
    from mpflow._engine.replay import Replay
    from mpflow._engine.suspicion import Ledger

EMPTY: Mapping[str, Any] = {"step": -2}
"""The metadata of a new thread's state before its first run."""


class Persistence:
    """The saved side of one run. ``durability`` is "sync", "async" or "exit" (CP-5)."""

    def __init__(
        self,
        saver: Any,
        config: Mapping[str, Any],
        ns: str,
        durability: str,
        plan: Plan,
        replay: Replay | None = None,
        *,
        is_nested: bool = False,
    ) -> None:
        configurable = dict(config.get(CONF) or {})
        self.saver = saver
        self._takes_path = takes_path(saver)
        self.durability = durability
        self.run_config = config
        self.plan = plan
        self.parents: dict[str, Any] = dict(configurable.get(CHECKPOINT_MAP) or {})
        thread_id = configurable.get("thread_id")
        where = {"thread_id": None if thread_id is None else str(thread_id), CHECKPOINT_NS: ns}
        # A config that names a checkpoint of a graph within this one says by its map which of ours belongs to it.
        wanted = configurable.get(CHECKPOINT_ID) if is_nested or not configurable.get(CHECKPOINT_NS) else None
        known = (configurable.get(CHECKPOINT_MAP) or {}).get(ns)
        if known:
            wanted = known
        if wanted:
            where[CHECKPOINT_ID] = wanted
        self.where: dict[str, Any] = where
        self.ns = ns
        self.is_nested = is_nested
        self.replay = replay
        self.is_replayed = replay is not None and not wanted
        self.addressed = bool(wanted) or self.is_replayed
        self.superseded = False
        self.in_map = bool(known)
        self.parent_id: str | None = None
        self.checkpoint_id = ""
        self.metadata: dict[str, Any] = {}
        self.saved_versions: dict[str, Any] = {}
        self.pending = Pending()
        self.known = False
        self.saved_values: Mapping[str, Any] = {}
        self.begun: set[str] = set()
        """Tasks that must not run twice, and did begin in an earlier process that did not say how they ended."""
        self._delayed: list[Call] = []
        self.untracked = frozenset(key for key, channel in plan.channels.items() if isinstance(channel, UntrackedValue))
        self.deltas = DeltaCounts(plan.channels)

    @property
    def config(self) -> dict[str, Any]:
        """The config that names the run's current checkpoint, as savers take it."""
        return {CONF: dict(self.where)}

    def find(self) -> Generator[tuple[Any, ...], Any, Any]:
        """What the saver has for this run: the checkpoint that was named, the one that a replay starts from, or the last."""
        if self.where.get(CHECKPOINT_ID):
            saved = yield from self._found(self.config)
            if saved is not None:
                where = {key: value for key, value in self.where.items() if key != CHECKPOINT_ID}
                latest = yield SAVER, "get_tuple", ({CONF: where},)
                self.superseded = latest is not None and latest.checkpoint["id"] != saved.checkpoint["id"]
            return saved
        if self.replay is not None and self.replay.is_first_visit(self.ns):
            before = {CONF: {CHECKPOINT_ID: self.replay.checkpoint_id}}
            found = yield SAVER, "list", (self.config, before, 1)
            return (yield from self._found(found[0].config)) if found else None
        return (yield from self._found(self.config))

    def _found(self, config: Any) -> Generator[tuple[Any, ...], Any, Any]:
        return (yield SAVER, "get_tuple", (config,))

    def begins_branch(self, *, resumes: bool, answers: bool) -> bool:
        """Whether this run goes back to an old checkpoint (SA-9): it then asks anew what was answered since.

        `resumes` says whether it goes on with saved work, `answers` whether it was given answers to do so.
        """
        self.is_time_travel = self.addressed and ((self.is_nested and self.in_map) or not answers)
        source = self.metadata.get("source")
        if self.is_time_travel:
            self.pending.forget(RESUME)
        forks = resumes and self.is_time_travel and (source not in ("update", "fork") or self.superseded)
        if self.deltas.any and not (resumes and not self.repeats):
            self.deltas.keep_whole([name for _, name, _ in self.pending])
        self.replay_from = self.parent_id if source in ("update", "fork") and self.parent_id else self.checkpoint_id
        return forks

    @property
    def repeats(self) -> bool:
        """Whether tasks that finished in the saved step run again: it is another branch's by now."""
        return self.is_time_travel or self.superseded

    is_time_travel = False
    replay_from = ""

    def forget_questions(self) -> None:
        self.pending.forget(INTERRUPT)

    def load(self, saved: Any, state: ChannelState) -> int:
        """Take over what the saver had; the step that comes next."""
        self.known = saved is not None
        if saved is None:
            self.checkpoint_id = self.began_id = new_checkpoint_id()
            state.next_version = self._next_version
            state.counter = None
            return -1
        checkpoint = saved.checkpoint
        state.restore(checkpoint, self._next_version)
        self.checkpoint_id = checkpoint["id"]
        self.metadata = dict(saved.metadata)
        self.deltas.load(self.metadata)
        self.parent_id = ((saved.parent_config or {}).get(CONF) or {}).get(CHECKPOINT_ID)
        self.saved_versions = dict(checkpoint["channel_versions"])
        self.saved_values = checkpoint["channel_values"]
        self.pending = Pending(saved.pending_writes or ())
        self.begun = self.pending.begun()
        self.where = {**self.where, **(saved.config.get(CONF) or {})}
        self.where[CHECKPOINT_ID] = checkpoint["id"]
        return int(saved.metadata.get("step", -2)) + 1

    def _next_version(self, current: Any) -> Any:
        return self.saver.get_next_version(current, None)

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def checkpoint(
        self, state: ChannelState, source: str, step: int, merged: Merge | None = None, tasks: Sequence[Task] = ()
    ) -> Iterable[Call]:
        """A new checkpoint of the state: the calls that save it, now or when the run ends.

        `merged` is what the step did to the channels, `tasks` are those that it was made of.
        """
        self.metadata = {"source": source, "step": step, "parents": dict(self.parents)}
        if self.deltas.any:
            self._count_step(state, merged, tasks)
        self.checkpoint_id = new_checkpoint_id(step)
        if source != "fork":
            self.pending = Pending()
        self._delayed = []
        return self._save_step(state, merged, tasks)

    def _count_step(self, state: ChannelState, merged: Merge | None, tasks: Sequence[Task]) -> None:
        deltas = self.deltas
        for task in tasks:
            deltas.keep_replaced(task.writes)
        updated = () if merged is None else merged.updated
        deltas.step(updated)
        if self.durability == "exit" and self.addressed and self.known:
            deltas.keep_whole(updated)
        self.metadata.update(deltas.told(state.versions))
        if self.durability != "exit":
            deltas.settle(state.versions)
        self._has_undue = deltas.has_undue(state.versions)

    _has_undue = False

    def _save_step(self, state: ChannelState, merged: Merge | None, tasks: Sequence[Task]) -> Iterable[Call]:
        call = self._put(state, None if merged is None else merged.updated)
        if self.durability != "exit":
            return (call,)
        self._last = call
        return ()

    _last: Call | None = None

    unsaved: Sequence[Any] = ()
    """What is saved together with more, by `commit`, at the latest before anybody hears or builds on it."""

    @property
    def comes_first(self) -> bool:
        """Whether something is to be saved, or ruled by what is, before any task starts."""
        return bool(self.unsaved) or self.ledger is not None or self.plan.begins_once

    def commit(self) -> Call:
        raise NotImplementedError

    def leave(self) -> Iterable[Call]:
        """What is still to be done when the run is left, however that came: each call, whatever became of the one before."""
        return ()

    def note_beginning(self, input: Writes, given: Writes, *, forks: bool) -> None:
        """What the run writes before its first step: its input, and what belongs to no task."""
        if self.deltas.any:
            self.deltas.keep_replaced(input)
            if self.durability != "exit" and (self.addressed or not self.known):
                self.deltas.keep_whole([name for name, _ in input])
            if forks:
                self.deltas.keep_whole([name for name, _ in given])

    def _put(self, state: ChannelState, updated: Any) -> Call:
        checkpoint = checkpoint_of(state, self.checkpoint_id, updated)
        new = new_versions(state, self.saved_versions)
        config = self.config
        if self.durability != "exit":
            self.parent_id = self.where.get(CHECKPOINT_ID)
            self.saved_versions = dict(state.versions)
            self.where[CHECKPOINT_ID] = self.checkpoint_id
        metadata = get_checkpoint_metadata(self.run_config, self.metadata)  # type: ignore[arg-type]
        return "put", (config, checkpoint, metadata, new)

    def at_exit(self, *, is_over: bool) -> Iterator[Call]:
        """What "exit" durability has put off: the last checkpoint, then the writes since (CP-6).

        `is_over` says that nothing is left to do: then a graph within, whose state nobody asks for again, saves nothing.
        """
        if self.durability != "exit" or self._is_forgotten(is_over):
            return
        if self._last is not None:
            if self._starts_empty:
                where = self.config
                self.where[CHECKPOINT_ID] = self.began_id
                metadata = get_checkpoint_metadata(self.run_config, dict(EMPTY))  # type: ignore[arg-type]
                yield "put", (where, {**empty_checkpoint(), "id": self.began_id}, metadata, {})
            method, (_, *rest) = self._last
            yield method, (self.config, *rest)
            self.where[CHECKPOINT_ID] = self.checkpoint_id
            self._last = None
        for method, (_, *rest) in self._delayed:
            yield method, (self.config, *rest)
        self._delayed = []

    @property
    def _starts_empty(self) -> bool:
        """Whether a new thread is saved as it was before its first run too, so that another can begin there (ST-12).

        Savers of LangGraph's protocol that keep the writes of a `DeltaChannel` need a checkpoint to keep them by.
        """
        return not self.known and self._has_undue

    began_id = ""

    def _is_forgotten(self, is_over: bool) -> bool:
        """Whether this is the last that is heard of a run's state: it ended, and the next call starts anew (SG-4)."""
        return is_over and self.is_nested and NS_END in self.ns

    # -- writes -------------------------------------------------------------------------------------------------------

    def task_ended(self, task_id: str, path: str, writes: Writes, node: str = "") -> Iterable[Call]:
        """Remember what a task of `node` wrote (or its error, or its questions) until the next checkpoint (CP-6)."""
        if writes[0][0] in WRITES_IDX_MAP and all(name in WRITES_IDX_MAP for name, _ in writes):
            writes = list({name: (name, value) for name, value in writes}.values())
        if task_id == NULL_TASK_ID:
            self.carry(writes)
            writes = self.pending.of(task_id)
        else:
            self.pending.put(task_id, writes)
        return self._save_writes(task_id, path, self._tracked(writes) if self.untracked else writes, node, writes)

    def answer_spent(self) -> Iterable[Call]:
        """Remember that the answer that names no question was taken: it is not that to the next question."""
        spent: Writes = [(RESUME, None)]
        self.carry(spent)
        return self._save_writes(NULL_TASK_ID, "", spent, "", spent)

    def carry(self, writes: Writes) -> None:
        """Take writes that belong to no task into the next checkpoint."""
        self.pending.carry(writes)

    def defers(self, task: Task, task_id: Callable[[Task], str]) -> bool:
        """Take a task that finished, to save its result with the step or before, as need be; whether it was taken.

        `task_id` names tasks, until the step is saved. What is deferred is `unsaved`, and never asked for as pending.
        """
        return False

    def _save_writes(self, task_id: str, path: str, saved: Writes, node: str, writes: Writes) -> Iterable[Call]:
        where = (task_id, path) if self._takes_path else (task_id,)
        call: Call = ("put_writes", (self.config, saved, *where))
        if self.durability != "exit":
            return (call,)
        self._delayed.append(call)
        return ()

    def task_begins(self, task_id: str, path: str, number: int) -> Iterable[Call]:
        """Remember durably that a task begins which must not run twice."""
        if self.durability == "exit":
            return ()
        return self._save_writes(task_id, path, [(SCHEDULED, number)], "", ())

    ledger: Ledger | None = None
    """What is known of earlier attempts at the tasks of the step that the run goes on with, if there is anything."""
    is_careful = False
    """The step's tasks are to begin one by one, on record."""

    def step_resumes(self) -> Sequence[Call]:
        """Remember durably, where the saver keeps such notes, that a step is gone on with."""
        return ()

    def task_tries(self, task_id: str, path: str, note: Any) -> Sequence[Call]:
        """As `step_resumes`, that a task begins."""
        return ()

    def task_tried(self, task_id: str, path: str, note: Any) -> None:
        """Remember, where the saver keeps such notes, that a task will be tried again."""

    def _tracked(self, writes: Writes) -> Writes:
        """The writes that are saved, as they are."""
        return [(name, self._trackable(value)) for name, value in writes if name not in self.untracked]

    def _trackable(self, value: Any) -> Any:
        """A pending Send without the values of untracked channels, which are never saved (ST-9)."""
        if isinstance(value, Send) and isinstance(value.arg, dict):
            arg = {key: item for key, item in value.arg.items() if key not in self.untracked}
            return Send(value.node, arg, timeout=value.timeout)
        return value

    def kept(self) -> dict[str, list[tuple[str, Any]]]:
        """By task, the writes of those that finished in the step the run stopped in; the error of a handled one."""
        return self.pending.kept()
