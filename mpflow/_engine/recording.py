"""What a run remembers, on a saver that keeps a log: rows that say what changed, committed as durability asks.

It decides what is written and when it must be durable; how rows are made is the log's, what changed is `changes`'.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core.plan import LAST
from mpflow._engine.changes import PATCHED_BYTES, Changes
from mpflow._engine.persistence import (
    EMPTY,
    SAVER,
    SPECIAL,
    Call,
    Persistence,
    Replay,
    Writes,
    checkpoint_of,
    new_versions,
)
from mpflow._engine.suspicion import STEP, Ledger
from mpflow._exec.place import in_worker
from mpflow._names import ATTEMPTS, CHECKPOINT_ID, ERROR, INTERRUPT, SCHEDULED
from mpflow._wire.codec import EncodeError
from mpflow.checkpoint.base import LATEST_VERSION, advance_ids, get_checkpoint_metadata, now_iso
from mpflow.checkpoint.log.operations import Loaded, new_number
from mpflow.checkpoint.log.records import Op, Result, Step
from mpflow.checkpoint.log.weight import Tip

if TYPE_CHECKING:
    from mpflow._core.merge import Merge
    from mpflow._core.plan import Plan
    from mpflow._core.state import ChannelState
    from mpflow._core.task import Task
    from mpflow.checkpoint.log.driver import Row

APART_BYTES = 4096
"""Results from that size on have their large values packed one by one, so that they can be patches."""


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
        self.unsaved: list[Row] = []
        self.is_claimed = False
        self._is_eager = is_nested and durability == "sync"  # what nested runs stream goes straight up
        self._own_metadata = get_checkpoint_metadata(config, {})  # type: ignore[arg-type]
        self._loaded: Loaded | None = None
        self._tip: Tip | None = None
        self._changes = Changes(saver.coder, {})
        self._saved_seen: dict[str, dict[str, Any]] = {}
        self._numbers: dict[int, tuple[Writes, int]] = {}
        self._number = new_number()
        self._large: set[str] = set()
        self._put_off_results: list[tuple[str, str, Writes, str]] = []
        self._resumed_at = ""
        """The checkpoint that was noted to be gone on from."""

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
            self._large.update(self._changes.packed)
            self._saved_seen = {node: dict(seen) for node, seen in state.seen.items()}
            advance_ids(self.checkpoint_id)
            if loaded.notes:
                self.ledger = Ledger()
                for note in loaded.notes:
                    self.ledger.note(*note)
        self._changes.hold(state)
        return step

    def kept(self) -> dict[str, list[tuple[str, Any]]]:
        found = super().kept()
        for task_id, writes in found.items():
            result = None if self._loaded is None else self._loaded.results.get(task_id)
            if result is not None and [name for name, _ in writes] == list(result.names):
                self._numbers[id(writes)] = writes, result.number
        return found

    def note_beginning(self, input: Writes, given: Writes, *, forks: bool) -> None:
        super().note_beginning(input, given, forks=forks)
        self._changes.doubtful.update(name for name, _ in given)
        self._input = input

    _input: Writes = ()

    # -- writing ------------------------------------------------------------------------------------------------------

    def commit(self) -> Call:
        rows, self.unsaved = self.unsaved, []
        return "append" if self.durability == "sync" else "post", (self.thread_id, rows)

    def _save_step(self, state: ChannelState, merged: Merge | None, tasks: Sequence[Task]) -> Iterable[Call]:
        if self.durability == "exit":
            self._last_checkpoint = checkpoint_of(state, self.checkpoint_id, None if merged is None else merged.updated)
            self._numbers.clear()
            self._put_off_results.clear()
            return ()
        self.parent_id = self.where.get(CHECKPOINT_ID)
        self._add_step(state, self.parent_id, merged, tasks)
        return (self.commit(),) if self._is_eager else ()

    _last_checkpoint: dict[str, Any] | None = None

    def _add_step(
        self, state: ChannelState, parent_id: str | None, merged: Merge | None, tasks: Sequence[Task]
    ) -> None:
        """The row of a new checkpoint, and what the next one is compared with."""
        tip = self._tip
        changes = self._changes
        if tip is None or parent_id is None or parent_id >= self.checkpoint_id or tip.is_heavy:
            tip = None
            versions: Mapping[str, Any] = state.versions
            names: Sequence[str] | None = None
            seen: Mapping[str, Any] = state.seen
            ops = changes.whole(state)
        else:
            versions = new_versions(state, self.saved_versions)
            names = list(versions)
            seen = self._new_seen(state, tasks)
            ops = changes.of(state, names, *self._written(tasks))
        self._add_row(parent_id, tip, versions, seen, ops, None if merged is None else merged.updated)
        changes.hold(state, names)
        self._numbers.clear()
        self.saved_versions.update(versions)
        for node, one in seen.items():
            self._saved_seen[node] = dict(one)
        self.where[CHECKPOINT_ID] = self.checkpoint_id

    def _add_row(
        self,
        parent_id: str | None,
        tip: Tip | None,
        versions: Mapping[str, Any],
        seen: Mapping[str, Any],
        ops: list[Op],
        updated: Collection[str] | None,
        began: Mapping[str, Any] | None = None,
    ) -> None:
        checkpoint_id, metadata = (self.checkpoint_id, self.metadata) if began is None else (self.began_id, began)
        step = Step(
            checkpoint_id,
            parent_id,
            whole=tip is None,
            v=LATEST_VERSION,
            ts=now_iso(),
            metadata=self.saver.coder.pack_plain({**self._own_metadata, **metadata}),
            versions=dict(versions),  # the state goes on changing its own
            gone=(),
            seen={node: dict(one) for node, one in seen.items()},
            updated=None if updated is None else sorted(updated),
            ops=ops,
        )
        layout = self.saver.layout
        row = layout.dump_step(self.thread_id, self.ns, step, checkpoint_id if tip is None else tip.base)
        if tip is None:
            self._tip = Tip(checkpoint_id, layout.size_of(row))
        else:
            tip.grow(layout.size_of(row))
        self.unsaved.append(row)

    def _new_seen(self, state: ChannelState, tasks: Sequence[Task]) -> dict[str, Any]:
        """What nodes have seen since the last save: those that ran, or any where no task says which."""
        seen, before = state.seen, self._saved_seen
        names = [task.name for task in tasks if task.pulled] if tasks else list(seen)
        found = {name: seen[name] for name in names if name in seen and before.get(name) != seen[name]}
        if INTERRUPT in seen and before.get(INTERRUPT) != seen[INTERRUPT]:
            found[INTERRUPT] = seen[INTERRUPT]
        return found

    def _written(self, tasks: Sequence[Task]) -> tuple[dict[str, list[Any]], dict[str, list[int]]]:
        """By channel what was written to it since the last save, in path order; and where that has been saved, if all was."""
        written: dict[str, list[Any]] = {}
        refs: dict[str, list[int]] = {}
        for name, value in self._input:
            written.setdefault(name, []).append(value)
        self._input = ()
        untracked = self.untracked
        for task in tasks:
            known = self._numbers.get(id(task.writes))
            number = None if known is None else known[1]
            index = 0
            for name, value in task.writes:
                if name in untracked:
                    continue
                if name in written:
                    written[name].append(value)
                else:
                    written[name] = [value]
                if number is not None:
                    refs.setdefault(name, []).extend((number, index))
                index += 1
        return written, refs

    def _save_writes(self, task_id: str, path: str, saved: Writes, node: str, writes: Writes) -> Iterable[Call]:
        if saved and saved[-1][0] == ERROR:  # none that a handler is yet to be given: told by its text (ER-3)
            saved = [*saved[:-1], (ERROR, _text_of(saved[-1][1]))]
        if self.durability == "exit":
            self._put_off_results.append((task_id, path, saved, node))
            return ()
        number = self._add_result(task_id, path, saved, node)
        if saved and SPECIAL.isdisjoint(dict(saved)):
            self._numbers[id(writes)] = writes, number
        return (self.commit(),) if self._is_eager else ()

    def task_begins(self, task_id: str, path: str, number: int) -> Iterable[Call]:
        if self.durability == "exit":
            return ()
        self._add_result(task_id, path, [(SCHEDULED, number)], "")
        return (self._append(),)

    def _append(self) -> Call:
        """What is unsaved, durably whatever the mode."""
        rows, self.unsaved = self.unsaved, []
        return "append", (self.thread_id, rows)

    def step_resumes(self) -> Sequence[Call]:
        if (
            self.is_nested
            or self.repeats
            or self.durability == "exit"
            or not self.saver.outlives_process
            or in_worker()
        ):
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
        if self.durability != "exit":
            self._add_result(task_id, path, [(ATTEMPTS, note)], "")

    def forget_unsaved(self) -> None:
        self.unsaved.clear()

    def _add_result(self, task_id: str, path: str, saved: Writes, node: str) -> int:
        self._number = number = (self._number + 1) & 0x3FFFFFFFFFFFFFFF
        names = [name for name, _ in saved]
        values = [value for _, value in saved]
        packed, apart = self._packed(node, names, values)
        result = Result(self.where[CHECKPOINT_ID], number, task_id, path, names, packed, apart)
        row = self.saver.layout.dump_result(self.thread_id, self.ns, result)
        if self._tip is not None:
            self._tip.grow(self.saver.layout.size_of(row))
        self.unsaved.append(row)
        return number

    def _packed(self, node: str, names: list[str], values: list[Any]) -> tuple[Any, dict[int, tuple[int, Any]]]:
        """The values of a result packed together, but for large ones that replace a channel's: these can be patches."""
        pack = self.saver.coder.pack
        large = self._large
        apart: dict[int, tuple[int, Any]] = {}
        if large and not large.isdisjoint(names):
            self._set_apart(node, names, values, [index for index, name in enumerate(names) if name in large], apart)
        try:
            packed = pack(values, f"what node '{node}' wrote")
        except EncodeError:
            for name, value in zip(names, values, strict=True):
                pack(value, f"node '{node}', channel '{name}'")
            raise
        if type(packed) is bytes and len(packed) >= APART_BYTES:
            kinds = self.plan.kinds
            replacing = [at for at, name in enumerate(names) if kinds.get(name) == LAST and at not in apart]
            if replacing:
                self._set_apart(node, names, values, replacing, apart)
                packed = pack(values, f"what node '{node}' wrote")
        return packed, apart

    def _set_apart(
        self, node: str, names: list[str], values: list[Any], indexes: list[int], apart: dict[int, tuple[int, Any]]
    ) -> None:
        for index in indexes:
            name = names[index]
            data = self.saver.coder.pack(values[index], f"node '{node}', channel '{name}'")
            if type(data) is not bytes or len(data) < PATCHED_BYTES:
                self._large.discard(name)
                continue
            self._large.add(name)
            values[index] = None
            apart[index] = self._changes.written(name, data)

    # -- the end ------------------------------------------------------------------------------------------------------

    def at_exit(self, *, is_over: bool) -> Iterator[Call]:
        """What was put off, and for the outermost run that all of it is durable."""
        checkpoint = self._last_checkpoint
        if self.durability == "exit" and self._is_forgotten(is_over):
            return
        if checkpoint is not None:
            self._last_checkpoint = None
            self._add_at_exit(checkpoint)
        for task_id, path, saved, node in self._put_off_results:
            self._add_result(task_id, path, saved, node)
        self._put_off_results.clear()
        if self.unsaved:
            yield self.commit()
        if not self.is_nested and self.durability != "sync":
            yield "flush", (self.thread_id,)
        self._is_settled = True

    _is_settled = False

    def leave(self) -> Iterable[Call]:
        calls: list[Call] = []
        if self._resumed_at and self._resumed_at == self.where.get(CHECKPOINT_ID):
            self._add_result(STEP, "", [(ATTEMPTS, 0)], "")
        if self.unsaved:
            calls.append(self.commit())
        if self.is_claimed:
            if not self._is_settled:
                calls.append(("flush", (self.thread_id,)))
            calls.append(("release", (self.thread_id,)))
        return calls

    def _add_at_exit(self, checkpoint: Mapping[str, Any]) -> None:
        """The one checkpoint of a run that saves at its end: what is other than when it began."""
        if self._starts_empty:
            self._add_row(None, None, {}, {}, [], None, EMPTY)
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
        ops = changes.to(values, names, whole=tip is None)
        self._add_row(parent_id, tip, versions, seen, ops, checkpoint["updated_channels"])
        self.where[CHECKPOINT_ID] = self.checkpoint_id


def _text_of(error: Any) -> str:
    try:
        return repr(error)
    except Exception:  # of the user's own making
        return f"{type(error).__name__}(...)"
