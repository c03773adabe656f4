"""Deleting and copying what a log has: steps that build on a deleted one are made whole, and threads are copied row by row."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from mpflow.checkpoint.log.driver import RESULT, STEP, Drop, Row
from mpflow.checkpoint.log.folding import Opening, State
from mpflow.checkpoint.log.operations import Calls, metadata_of, opened
from mpflow.checkpoint.log.records import SET, Frame, Op, Step

if TYPE_CHECKING:
    from mpflow.checkpoint.log.saver import LogSaver


class Follower(Protocol):
    """A run under way in this process, which saves each step as what changed since the last one."""

    thread_id: str

    def start_over(self) -> None:
        """Save the next step whole: there may be nothing left that it could build on. Called from any thread."""
        ...


followers: WeakSet[Follower] = WeakSet()
os.register_at_fork(after_in_child=followers.clear)


def _start_over(thread_id: str) -> None:
    for follower in tuple(followers):
        if follower.thread_id == thread_id:
            follower.start_over()


def without(log: LogSaver, thread_id: str, ns: str, dropped: Collection[str]) -> Calls:
    """What to delete and to add so that these steps can go: those that build on them are made whole."""
    steps: Sequence[tuple[str, Row]] = yield "steps", thread_id, ns, None, None
    drops: list[Drop] = []
    heirs: list[str] = []
    rows: list[Row] = []
    for _, row in steps:
        (step,) = log.records(thread_id, (row,))
        assert isinstance(step, Step)
        if row.checkpoint_id in dropped:
            drops += [(ns, row.checkpoint_id, STEP), (ns, row.checkpoint_id, RESULT)]
            if step.parent_id not in dropped:
                rows += [log.layout.dump_result(thread_id, ns, result) for result in step.results(ns)]
        elif step.parent_id in dropped and (step.values or not step.whole):
            heirs.append(row.checkpoint_id)
    for checkpoint_id in heirs:
        chain = yield "chain", thread_id, ns, checkpoint_id
        state, _ = opened(log, thread_id, chain, checkpoint_id)
        drops.append((ns, checkpoint_id, STEP))
        rows.append(log.layout.dump_step(thread_id, ns, made_whole(log, state), checkpoint_id))
    return drops, rows


def made_whole(log: LogSaver, state: State) -> Step:
    """The step of a state as one that needs no other."""
    step, opening, coder = state.step, Opening(log.coder), log.coder
    before = step.frame
    ops: list[Op] = [(name, SET, None) for name in state.cells]
    return Step(
        step.checkpoint_id,
        step.parent_id,
        Frame(before.metadata, v=before.v, updated=before.updated, ops=ops),
        whole=True,
        ts=step.ts,
        number=step.number,
        versions=state.versions,
        seen=state.seen,
        operands=[coder.pack(opening.value(cell), f"channel '{name}'") for name, cell in state.cells.items()],
    )


def delete_steps(log: LogSaver, thread_id: str, ns: str, dropped: Collection[str]) -> Calls:
    """Delete checkpoints of a namespace; those that are left stay what they are."""
    if dropped:
        drops, rows = yield from without(log, thread_id, ns, dropped)
        yield "rewrite", thread_id, drops, rows
        log.known.clear()


def delete_for_runs(log: LogSaver, run_ids: Collection[str]) -> Calls:
    found: Sequence[tuple[str, Row]] = yield "steps", None, None, None, None
    dropped: dict[tuple[str, str], set[str]] = {}
    for thread_id, row in found:
        (step,) = log.records(thread_id, (row,))
        assert isinstance(step, Step)
        if metadata_of(log, step).get("run_id") in run_ids:
            dropped.setdefault((thread_id, row.ns), set()).add(row.checkpoint_id)
    for (thread_id, ns), ids in dropped.items():
        yield from delete_steps(log, thread_id, ns, ids)
        _start_over(thread_id)


def delete_thread(log: LogSaver, thread_id: str) -> Calls:
    yield "delete_thread", thread_id
    log.known.clear()
    _start_over(thread_id)


def deletes_all(strategy: str, keep: int) -> bool:
    """Whether whole threads are to be deleted. Raises ValueError for what is no way to prune."""
    if strategy not in ("keep_latest", "delete"):
        raise ValueError(f"strategy must be 'keep_latest' or 'delete', got {strategy!r}")
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}; strategy='delete' keeps nothing")
    return strategy == "delete"


def prune(log: LogSaver, thread_ids: Sequence[str], keep: int) -> Calls:
    """Delete all but the `keep` newest checkpoints of each namespace."""
    for thread_id in thread_ids:
        found: Sequence[tuple[str, Row]] = yield "steps", thread_id, None, None, None
        spaces: dict[str, list[str]] = {}
        for _, row in found:
            spaces.setdefault(row.ns, []).append(row.checkpoint_id)
        for ns, ids in spaces.items():
            yield from delete_steps(log, thread_id, ns, set(ids[keep:]))


def vacuum() -> Calls:
    yield ("vacuum",)


def copy_thread(log: LogSaver, source: str, target: str) -> Calls:
    """Copy a thread's rows; what the target has of the same checkpoints is replaced."""
    if source == target:
        return
    rows: Sequence[Row] = yield "rows", source
    layout = log.layout
    copies = []
    for row in rows:
        (record,) = log.records(source, (row,))
        if isinstance(record, Step):
            copies.append(layout.dump_step(target, row.ns, record, row.base))
        else:
            copies.append(layout.dump_result(target, row.ns, record))
    if not copies:
        return
    there: Sequence[tuple[str, Row]] = yield "steps", target, None, None, 1
    if there:
        drops = {(row.ns, row.checkpoint_id, kind) for row in copies for kind in (STEP, RESULT)}
        yield "rewrite", target, sorted(drops), copies
    else:
        yield "append", [(target, copies)]
