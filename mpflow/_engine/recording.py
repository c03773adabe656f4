"""What a run remembers, on a saver that keeps a log: rows that say what changed, committed as durability asks.

It decides what is written and when it must be durable; how rows are made is the log's, what changed is `changes`'.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from random import random
from typing import TYPE_CHECKING, Any

from mpflow._engine.changes import Changes, checkpoint_of, new_versions
from mpflow._engine.framing import frames_of, newly_seen
from mpflow._engine.making import MOST_CARRIED, Made, Making
from mpflow._engine.packing import Packing
from mpflow._engine.pending import SPECIAL, Writes
from mpflow._engine.persistence import EMPTY, Persistence
from mpflow._engine.rounds import Rounds
from mpflow._engine.saving import SAVER, Call
from mpflow._engine.suspicion import STEP, Ledger
from mpflow._exec.place import in_worker
from mpflow._names import ATTEMPTS, CHECKPOINT_ID, ERROR, SCHEDULED
from mpflow._wire.codec import EncodeError
from mpflow.checkpoint.base import (
    get_checkpoint_metadata,
    path_text,
)
from mpflow.checkpoint.ids import advance_ids, version_count
from mpflow.checkpoint.log.operations import Loaded, new_number
from mpflow.checkpoint.log.pruning import followers
from mpflow.checkpoint.log.records import IN_PATHS, NOTHING, Apart, Frame, Op, Result, Step
from mpflow.checkpoint.log.weight import Tip

if TYPE_CHECKING:
    from mpflow._core.merge import Merge
    from mpflow._core.plan import Plan
    from mpflow._core.state import ChannelState
    from mpflow._core.task import Task
    from mpflow._engine.replay import Replay
    from mpflow.checkpoint.log.driver import Row


class Recording(Persistence):
    """The saved side of one run on a `LogSaver`."""

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
        super().__init__(saver, config, ns, durability, plan, replay, is_nested=is_nested)
        self.thread_id = str(self.where["thread_id"])
        self.is_claimed = False
        self._puts_off = durability == "exit"
        self._is_eager = is_nested and durability == "sync"  # what nested runs stream goes straight up
        self._rows: list[Row] = []
        self._task_id: Callable[[Task], str]
        self._loaded: Loaded | None = None
        self._tip: Tip | None = None
        self._changes = Changes(saver.coder, {})
        self._making = Making(Packing(self._changes, plan.kinds), self.untracked, self._tracked)
        own = get_checkpoint_metadata(config, {})  # type: ignore[arg-type]
        # Counters of deltas are part of the metadata.
        self._frames = frames_of(saver.coder, own, self.parents, keeps=not self.deltas.any)
        self._rounds = None if self.deltas.any or self.untracked else Rounds()
        self._saved_seen: dict[str, dict[str, Any]] = {}
        self._number = new_number()
        self._put_off_results: list[tuple[str, str, Writes, str]] = []
        self._resumed_at = ""
        """The checkpoint that was noted to be gone on from."""
        self._version: Any = None
        self._version_count = 0
        self._versions_made = 0
        self._mark = f".{random():016}"
        self._follows_latest = False

    # -- loading ------------------------------------------------------------------------------------------------------

    def find(self) -> Generator[tuple[Any, ...], Any, Any]:
        if not self.is_nested:
            yield SAVER, "claim", (self.thread_id,)
            self.is_claimed = True
        return (yield from super().find())

    def _found(self, config: Any) -> Generator[tuple[Any, ...], Any, Any]:
        loaded: Loaded | None = yield SAVER, "load", (config,)
        if loaded is None:
            return None
        if self._loaded is None:  # a second look is for the latest, to know whether the first is
            self._loaded = loaded
        return loaded.saved

    def load(self, saved: Any, state: ChannelState) -> int:
        step = super().load(saved, state)
        loaded = self._loaded
        if saved is not None and loaded is not None:
            self._tip = loaded.tip
            self._changes = Changes(self.saver.coder, loaded.packed)
            self._making.packing = Packing(self._changes, self.plan.kinds)
            self._saved_seen = {node: dict(seen) for node, seen in state.seen.items()}
            self._follows_latest = not self.addressed
            advance_ids(self.checkpoint_id)
            if loaded.notes:
                self.ledger = Ledger()
                for note in loaded.notes:
                    self.ledger.note(*note)
        self._changes.hold(state)
        followers.add(self)
        return step

    def start_over(self) -> None:
        """Save the next step whole: what it would build on may have been deleted."""
        self._tip = None

    def _next_version(self, current: Any) -> Any:
        if current is not self._version:
            self._version_count = version_count(current)
        self._versions_made += 1
        self._version_count += 1
        # One random part for all of a run's: it tells branches apart.
        self._version = version = f"{self._version_count:032}{self._mark}"
        return version

    def kept(self) -> dict[str, list[tuple[str, Any]]]:
        found = super().kept()
        for task_id, writes in found.items():
            result = None if self._loaded is None else self._loaded.results.get(task_id)
            if result is not None and result.number and [name for name, _ in writes] == list(result.names):
                self._making.numbers[id(writes)] = writes, result.number
        return found

    def note_beginning(self, input: Writes, given: Writes, *, forks: bool) -> None:
        super().note_beginning(input, given, forks=forks)
        self._changes.doubtful.update(name for name, _ in given)
        self._making.input = input

    # -- writing ------------------------------------------------------------------------------------------------------

    @property
    def unsaved(self) -> Sequence[Any]:  # type: ignore[override]
        return self._rows or (() if self._puts_off else self._making.ended)

    @property
    def comes_first(self) -> bool:
        return bool(self._rows or self._making.ended or self.ledger is not None or self.plan.begins_once)

    def commit(self) -> Call:
        if self._making.ended:
            self._add_ended()
        rows, self._rows = self._rows, []
        return "append" if self.durability == "sync" else "post", (self.thread_id, rows)

    def _save_step(self, state: ChannelState, merged: Merge | None, tasks: Sequence[Task]) -> Iterable[Call]:
        updated = None if merged is None else merged.updated
        if self._puts_off:
            self._last_checkpoint = checkpoint_of(state, self.checkpoint_id, updated)
            self._making.numbers.clear()
            self._making.ended.clear()
            self._put_off_results.clear()
            return ()
        self.parent_id = self.where.get(CHECKPOINT_ID)
        if not self._add_round(state, self.parent_id, updated, tasks):
            self._add_step(state, self.parent_id, updated, tasks)
        return (self.commit(),) if self._is_eager else ()

    _last_checkpoint: dict[str, Any] | None = None

    def _add_round(
        self, state: ChannelState, parent_id: str | None, updated: Collection[str] | None, tasks: Sequence[Task]
    ) -> bool:
        """As `_add_step`, for a step like one before; whether it is."""
        making, changes, tip = self._making, self._changes, self._tip
        if self._rounds is None or len(tasks) != 1 or len(making.ended) != 1 or self._versions_made != 1:
            return False
        (task,) = tasks
        if making.ended[0] is not task:
            return False
        found = self._rounds.like(task)
        if found is None or tip is None or tip.is_heavy or not self._follows_latest or not changes.are_plain:
            return False
        if parent_id is None or parent_id >= self.checkpoint_id or self.metadata["source"] != "loop" or making.input:
            return False
        version, written = state.counter, dict(task.writes)
        if len(written) != len(task.writes):
            return False
        if not found.is_again(state, task, written, updated, changes, self.saved_versions):
            return False
        values, apart = making.packed_of(task, found.writes, [*written.values()])
        if apart:
            return False
        making.ended.clear()
        number = self.metadata["step"]
        step = Step(
            self.checkpoint_id, parent_id, found.frame, whole=False, number=number, version=version, values=(values,)
        )
        self._add_row_of_step(step, tip)
        if found.grown:
            changes.hold(state, found.grown)
        self._note_saved(dict.fromkeys(found.names, version))
        return True

    def _add_step(
        self, state: ChannelState, parent_id: str | None, updated: Collection[str] | None, tasks: Sequence[Task]
    ) -> None:
        """The row of a new checkpoint, and what the next one is compared with."""
        changes = self._changes
        tip = self._tip
        if parent_id is None or parent_id >= self.checkpoint_id:
            tip = None
        if self._making.ended and (tip is None or not self._follows_latest or len(self._making.ended) > MOST_CARRIED):
            self._add_ended()
        made = self._making.take(tasks)
        if tip is None or tip.is_heavy:
            names: Sequence[str] | None = None
            versions: Mapping[str, Any] = dict(state.versions)  # the state goes on changing its own
            seen: Mapping[str, Any] = {node: dict(one) for node, one in state.seen.items()}
            ops, operands = changes.whole(state)
            self._add_row(parent_id, None, made, ops, operands, updated, (), (), None, versions, seen)
        elif self._versions_made == 1:
            version = state.counter
            names = [name for name, one in state.versions.items() if one is version]
            saw, seen = newly_seen(state, tasks, self.saved_versions, self._saved_seen)
            ops, operands = changes.of(state, names, made.written, made.places)
            frame = self._add_row(parent_id, tip, made, ops, operands, updated, names, saw, version, NOTHING, seen)
            versions = dict.fromkeys(names, version)
            if self._rounds is not None and not operands and not seen:
                self._rounds.note(state, tasks, updated, frame)
        else:
            versions = new_versions(state, self.saved_versions)
            names = list(versions)
            saw, seen = newly_seen(state, tasks, self.saved_versions, self._saved_seen)
            ops, operands = changes.of(state, names, made.written, made.places)
            self._add_row(parent_id, tip, made, ops, operands, updated, (), saw, None, versions, seen)
        changes.hold(state, names)
        self._saved_seen.update(seen)
        self._note_saved(versions)

    def _note_saved(self, versions: Mapping[str, Any]) -> None:
        """The state is saved, with these new versions."""
        self._making.numbers.clear()
        self._versions_made = 0
        self._follows_latest = True
        self.saved_versions.update(versions)
        self.where[CHECKPOINT_ID] = self.checkpoint_id

    def _add_row(
        self,
        parent_id: str | None,
        tip: Tip | None,
        made: Made,
        ops: list[Op],
        operands: list[Any],
        updated: Collection[str] | None,
        names: Sequence[str],
        saw: Sequence[tuple[str, Sequence[str]]],
        version: Any,
        versions: Mapping[str, Any],
        seen: Mapping[str, Any],
        about: Mapping[str, Any] | None = None,
    ) -> Frame:
        checkpoint_id, about = (self.checkpoint_id, self.metadata) if about is None else (self.began_id, about)
        now = None if updated is None else tuple(updated)
        frame = self._frames.of(about, tuple(names), tuple(saw), now, tuple(ops), made.parts)
        step = Step(
            checkpoint_id,
            parent_id,
            frame,
            whole=tip is None,
            number=about["step"],
            version=version,
            versions=versions,
            seen=seen,
            operands=operands or (),
            values=made.values,
            numbers=made.numbers,
            apart=made.apart,
        )
        self._add_row_of_step(step, tip)
        return frame

    def _add_row_of_step(self, step: Step, tip: Tip | None) -> None:
        layout = self.saver.layout
        row = layout.dump_step(self.thread_id, self.ns, step, step.checkpoint_id if tip is None else tip.base)
        if tip is None:
            self._tip = Tip(step.checkpoint_id, layout.size_of(row))
        else:
            tip.grow(layout.size_of(row))
        self._rows.append(row)

    def defers(self, task: Task, task_id: Callable[[Task], str]) -> bool:
        if self._is_eager or task.facts is not None:
            return False
        if not task.pulled and not IN_PATHS.issuperset(map(type, task.path)):
            return False
        self._making.ended.append(task)
        self._task_id = task_id
        return True

    def _add_ended(self) -> None:
        """Rows for the results that wait for the step's end: it has not come, or does not carry them."""
        while self._making.ended:
            task = self._making.ended[0]
            saved = self._making.saved_writes(task)
            names = [name for name, _ in saved]
            packed, apart = self._making.packed_of(task, names, [value for _, value in saved])
            number = self._add_row_of(self._task_id(task), path_text(task.path), names, packed, apart)
            if not task.flows:  # else its writes are folded before the step is saved
                self._making.numbers[id(task.writes)] = task.writes, number
            del self._making.ended[0]

    def _save_writes(self, task_id: str, path: str, saved: Writes, node: str, writes: Writes) -> Iterable[Call]:
        if saved and saved[-1][0] == ERROR:  # none that a handler is yet to be given: told by its text (ER-3)
            saved = [*saved[:-1], (ERROR, _text_of(saved[-1][1]))]
        if self._puts_off:
            self._put_off_results.append((task_id, path, saved, node))
            return ()
        number = self._add_result(task_id, path, saved, node)
        if saved and SPECIAL.isdisjoint(dict(saved)):
            self._making.numbers[id(writes)] = writes, number
        return (self.commit(),) if self._is_eager else ()

    def task_begins(self, task_id: str, path: str, number: int) -> Iterable[Call]:
        if self._puts_off:
            return ()
        self._add_result(task_id, path, [(SCHEDULED, number)], "")
        return (self._append(),)

    def _append(self) -> Call:
        """What is unsaved, durably whatever the mode."""
        return "append", self.commit()[1]

    def step_resumes(self) -> Sequence[Call]:
        if self.is_nested or self.repeats or self._puts_off or not self.saver.outlives_process or in_worker():
            return ()
        resumes = 0
        if self.ledger is not None:
            resumes = self.ledger.resumes
            self.is_careful = self.ledger.asks_for_care
        self._resumed_at = self.checkpoint_id
        self._add_result(STEP, "", [(ATTEMPTS, resumes + 1)], "")
        return (self._append(),)

    def task_tries(self, task_id: str, path: str, note: Any) -> Sequence[Call]:
        self._add_result(task_id, path, [(ATTEMPTS, note)], "")
        return (self._append(),)

    def task_tried(self, task_id: str, path: str, note: Any) -> None:
        if not self._puts_off:
            self._add_result(task_id, path, [(ATTEMPTS, note)], "")

    def _add_result(self, task_id: str, path: str, saved: Writes, node: str) -> int:
        names = [name for name, _ in saved]
        packed, apart = self._making.packing.packed(node, names, [value for _, value in saved])
        return self._add_row_of(task_id, path, names, packed, apart)

    def _add_row_of(self, task_id: str, path: str, names: Sequence[str], packed: Any, apart: Apart) -> int:
        self._number = number = (self._number + 1) & 0x3FFFFFFFFFFFFFFF
        result = Result(self.where[CHECKPOINT_ID], number, task_id, path, names, packed, apart or NOTHING)
        row = self.saver.layout.dump_result(self.thread_id, self.ns, result)
        if self._tip is not None:
            self._tip.grow(self.saver.layout.size_of(row))
        self._rows.append(row)
        return number

    # -- the end ------------------------------------------------------------------------------------------------------

    def at_exit(self, *, is_over: bool) -> Iterator[Call]:
        """What was put off, and for the outermost run that all of it is durable."""
        checkpoint = self._last_checkpoint
        if self._puts_off and self._is_forgotten(is_over):
            return
        if checkpoint is not None:
            self._last_checkpoint = None
            self._add_at_exit(checkpoint)
        for task_id, path, saved, node in self._put_off_results:
            self._add_result(task_id, path, saved, node)
        self._put_off_results.clear()
        if self._rows or self._making.ended:
            yield self.commit()
        if not self.is_nested and self.durability != "sync":
            yield "flush", (self.thread_id,)
        self._is_settled = True

    _is_settled = False

    def leave(self) -> Iterable[Call]:
        calls: list[Call] = []
        if self._resumed_at and self._resumed_at == self.where.get(CHECKPOINT_ID):
            self._add_result(STEP, "", [(ATTEMPTS, 0)], "")
        while self.unsaved:
            try:
                calls.append(self.commit())
            except EncodeError:  # the run has ended with this one; what is left of the step goes in without it
                continue
        if self.is_claimed:
            if not self._is_settled:
                calls.append(("flush", (self.thread_id,)))
            calls.append(("release", (self.thread_id,)))
        return calls

    def _add_at_exit(self, checkpoint: Mapping[str, Any]) -> None:
        """The one checkpoint of a run that saves at its end: what is other than when it began."""
        if self._starts_empty:
            self._add_row(None, None, Made(), [], [], None, (), (), None, NOTHING, NOTHING, EMPTY)
            self.where[CHECKPOINT_ID] = self.began_id
        parent_id = self.where.get(CHECKPOINT_ID)
        tip, changes = self._tip, self._changes
        values: Mapping[str, Any] = checkpoint["channel_values"]
        versions: Mapping[str, Any] = checkpoint["channel_versions"]
        seen: Mapping[str, Any] = checkpoint["versions_seen"]
        if tip is None or parent_id is None or parent_id >= self.checkpoint_id or tip.is_heavy:
            tip = None
            names: Iterable[str] = values
        else:
            versions = {name: one for name, one in versions.items() if self.saved_versions.get(name) != one}
            seen = {node: one for node, one in seen.items() if self._saved_seen.get(node) != one}
            names = versions
        ops, operands = changes.to(values, names, whole=tip is None)
        updated = checkpoint["updated_channels"]
        self._add_row(parent_id, tip, Made(), ops, operands, updated, (), (), None, versions, seen)
        self.where[CHECKPOINT_ID] = self.checkpoint_id


def _text_of(error: Any) -> str:
    try:
        return repr(error)
    except Exception:  # of the user's own making
        return f"{type(error).__name__}(...)"
