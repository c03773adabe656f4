"""What a saver does with a log, as generators: they yield calls of the driver, ``(method, *arguments)``, and get the answers.

So each is written once, for drivers that are called and for those that are awaited.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from random import getrandbits
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from mpflow._names import ATTEMPTS, CHECKPOINT_ID, CHECKPOINT_NS, CONF, THREAD_ID
from mpflow.checkpoint.base import (
    LATEST_VERSION,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
    now_iso,
    time_of,
)
from mpflow.checkpoint.log.driver import RESULT, STEP, Drop, Row
from mpflow.checkpoint.log.folding import Opening, State, fold
from mpflow.checkpoint.log.records import DROP, SET, Frame, Op, Result, Step
from mpflow.checkpoint.log.weight import Tip
from mpflow.errors import CheckpointCorruptError

if TYPE_CHECKING:
    from mpflow.checkpoint.log.saver import LogSaver
    from mpflow.config import RunnableConfig

Calls = Generator[tuple[Any, ...], Any, Any]


def perform(calls: Calls, driver: Any) -> Any:
    """Do what an operation asks of a driver that is called; its result."""
    answer: Any = None
    try:
        while True:
            method, *arguments = calls.send(answer)
            answer = getattr(driver, method)(*arguments)
    except StopIteration as stop:
        return stop.value


async def aperform(calls: Calls, driver: Any) -> Any:
    """As `perform`, with a driver that is awaited."""
    answer: Any = None
    try:
        while True:
            method, *arguments = calls.send(answer)
            answer = await getattr(driver, method)(*arguments)
    except StopIteration as stop:
        return stop.value


PAGE = 64
"""How many checkpoints are folded at once when a thread's are listed."""


class Known(NamedTuple):
    """What a saver remembers of a checkpoint, so that its child can be written as what changed."""

    tip: Tip
    versions: dict[str, Any]
    seen: dict[str, dict[str, Any]]
    channels: frozenset[str]


class Loaded(NamedTuple):
    """A checkpoint with what it takes to go on from it: ``results`` has each task's that counts.

    ``notes`` are on the attempts so far, the oldest first: for each result its task, what it wrote to, and the note if it is
    one; empty where there is none.
    """

    saved: CheckpointTuple
    tip: Tip
    results: dict[str, Result]
    packed: dict[str, bytes]
    notes: Sequence[tuple[str, Sequence[str], Any]]


def address_of(config: RunnableConfig) -> tuple[str, str]:
    """Thread and namespace of a config. Raises ValueError for one that names no thread."""
    where = cast("Mapping[str, Any]", config.get(CONF) or {})
    thread_id = where.get(THREAD_ID)
    if thread_id is None:
        raise ValueError("the config names no thread: config={'configurable': {'thread_id': '...'}}")
    return str(thread_id), str(where.get(CHECKPOINT_NS) or "")


def config_of(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {THREAD_ID: thread_id, CHECKPOINT_NS: ns, CHECKPOINT_ID: checkpoint_id}}


def new_number() -> int:
    """A number for a result: random, so that processes need not agree on one."""
    return getrandbits(62)


# -- reading ----------------------------------------------------------------------------------------------------------


def get_tuple(log: LogSaver, config: RunnableConfig) -> Calls:
    """The checkpoint that `config` names, or None."""
    loaded = yield from load(log, config)
    return None if loaded is None else loaded.saved


def load(log: LogSaver, config: RunnableConfig) -> Calls:
    """The same, with what it takes to go on from it."""
    thread_id, ns = address_of(config)
    rows: Sequence[Row] = yield "chain", thread_id, ns, get_checkpoint_id(config)
    if not rows:
        return None
    state, tip = opened(log, thread_id, rows, get_checkpoint_id(config))
    opening = Opening(log.coder)
    try:
        saved = tuple_of(log, thread_id, ns, state, opening)
        results: dict[str, Result] = {}
        for result in state.results:
            if ATTEMPTS not in result.names:
                results.setdefault(result.task_id, result)
        notes: Sequence[tuple[str, Sequence[str], Any]] = ()
        if any(ATTEMPTS in result.names for result in state.results):
            notes = [
                (result.task_id, result.names, opening.values(result)[0] if ATTEMPTS in result.names else None)
                for result in state.results
            ]
        packed = {name: data for name, cell in state.cells.items() if type(data := opening.packed(cell)) is bytes}
    except ValueError as error:
        raise CheckpointCorruptError(thread_id, state.step.checkpoint_id, str(error)) from error
    return Loaded(saved, tip, results, packed, notes)


def opened(log: LogSaver, thread_id: str, rows: Sequence[Row], checkpoint_id: str | None) -> tuple[State, Tip]:
    """The step that a chain was asked for, folded, and its tip."""
    last = next(row for row in reversed(rows) if row.kind == STEP and checkpoint_id in (None, row.checkpoint_id))
    records = log.records(thread_id, rows)
    state = fold(thread_id, last.ns, records, (last.checkpoint_id,))[last.checkpoint_id]
    tip = Tip(last.base, 0)
    for row in rows:
        size_bytes = log.layout.size_of(row)
        if row.kind == STEP and row.checkpoint_id == last.base:
            tip.whole_bytes = size_bytes
        elif row.checkpoint_id <= last.checkpoint_id:
            tip.grow(size_bytes)
    return state, tip


def tuple_of(log: LogSaver, thread_id: str, ns: str, state: State, opening: Opening | None = None) -> CheckpointTuple:
    """A state as savers give it. What `opening` does not hold is the caller's own."""
    step, frame = state.step, state.step.frame
    opening = opening or Opening(log.coder)
    checkpoint: Checkpoint = {
        "v": frame.v,
        "id": step.checkpoint_id,
        "ts": time_of(step.checkpoint_id) if step.ts is None else step.ts,
        "channel_values": {name: opening.value(cell) for name, cell in state.cells.items()},
        "channel_versions": dict(state.versions),
        "versions_seen": {node: dict(seen) for node, seen in state.seen.items()},
        "updated_channels": None if frame.updated is None else list(frame.updated),
    }
    return CheckpointTuple(
        config_of(thread_id, ns, step.checkpoint_id),
        checkpoint,
        metadata_of(log, step),
        None if step.parent_id is None else config_of(thread_id, ns, step.parent_id),
        Opening(log.coder).writes(state, state.results),  # apart from the values, which may come from the same results
    )


def metadata_of(log: LogSaver, step: Step) -> CheckpointMetadata:
    """A step's metadata, the caller's own."""
    metadata: CheckpointMetadata = log.coder.unpack(step.frame.metadata)
    if step.number is not None:
        metadata["step"] = step.number
    return metadata


def find(
    log: LogSaver,
    config: RunnableConfig | None,
    filter: Mapping[str, Any] | None,
    before: str | None,
    limit: int | None,
) -> Calls:
    """The addresses of the checkpoints that a listing asks for: pairs of thread and step row, newest first."""
    where = {} if config is None else cast("Mapping[str, Any]", config.get(CONF) or {})
    thread_id = None if where.get(THREAD_ID) is None else str(where[THREAD_ID])
    ns = where.get(CHECKPOINT_NS)
    wanted = where.get(CHECKPOINT_ID)
    if limit is not None and limit <= 0:
        return []
    most = limit if not filter and wanted is None else None
    found: Sequence[tuple[str, Row]] = yield "steps", thread_id, ns, before, most
    if wanted is not None:
        found = [(owner, row) for owner, row in found if row.checkpoint_id == wanted]
    if filter:
        found = [pair for pair in found if _matches(log, *pair, filter)]
    return found if limit is None else found[:limit]


def _matches(log: LogSaver, thread_id: str, row: Row, filter: Mapping[str, Any]) -> bool:
    (step,) = log.records(thread_id, (row,))
    assert isinstance(step, Step)
    metadata = cast("Mapping[str, Any]", metadata_of(log, step))
    return all(key in metadata and metadata[key] == value for key, value in filter.items())


def page(log: LogSaver, found: Sequence[tuple[str, Row]]) -> Calls:
    """The checkpoints at the head of a listing: up to `PAGE` of one namespace, and how many they are."""
    thread_id, newest = found[0]
    covered = [
        row
        for owner, row in found[:PAGE]
        # The rows that the newest needs reach back to its base: so far its neighbours can be folded from them too.
        if owner == thread_id and row.ns == newest.ns and row.base >= newest.base
    ]
    rows: Sequence[Row] = yield "chain", thread_id, newest.ns, newest.checkpoint_id
    if not rows:  # deleted meanwhile
        return [], 1
    count = 0
    while count < len(covered) and found[count][1] is covered[count]:
        count += 1
    ids = {row.checkpoint_id for row in covered[:count]}
    ids &= {row.checkpoint_id for row in rows if row.kind == STEP}
    states = fold(thread_id, newest.ns, log.records(thread_id, rows), ids)
    return [
        (thread_id, newest.ns, states[one.checkpoint_id]) for one in covered[:count] if one.checkpoint_id in states
    ], count


# -- writing, by LangGraph's protocol ---------------------------------------------------------------------------------


def put(
    log: LogSaver, config: RunnableConfig, checkpoint: Checkpoint, metadata: Any, new_versions: Mapping[str, Any]
) -> Calls:
    """Keep a checkpoint as what changed since its parent; all of it where that is not known."""
    thread_id, ns = address_of(config)
    checkpoint_id, parent_id = checkpoint["id"], get_checkpoint_id(config)
    known: Known | None = None
    if parent_id is not None and parent_id < checkpoint_id:
        known = yield from _known(log, thread_id, ns, parent_id)
    step, tip = _step_of(log, known, checkpoint, parent_id, get_checkpoint_metadata(config, metadata), new_versions)
    row = log.layout.dump_step(thread_id, ns, step, checkpoint_id if tip is None else tip.base)
    if tip is None:
        tip = Tip(checkpoint_id, log.layout.size_of(row))
    else:
        tip.grow(log.layout.size_of(row))
    existing = yield "chain", thread_id, ns, checkpoint_id
    if existing:
        drops, rows = yield from _without(log, thread_id, ns, {checkpoint_id})
        drops = [drop for drop in drops if drop[1:] != (checkpoint_id, RESULT)]
        yield "rewrite", thread_id, drops, [row, *rows]
        log.known.clear()
    else:
        yield "append", [(thread_id, [row])]
    seen = {node: dict(one) for node, one in checkpoint["versions_seen"].items()}
    channels = frozenset(checkpoint["channel_values"])
    log.remember((thread_id, ns, checkpoint_id), Known(tip, dict(checkpoint["channel_versions"]), seen, channels))
    return config_of(thread_id, ns, checkpoint_id)


def _known(log: LogSaver, thread_id: str, ns: str, checkpoint_id: str) -> Calls:
    known = log.known.get((thread_id, ns, checkpoint_id))
    if known is None:
        rows = yield "chain", thread_id, ns, checkpoint_id
        if rows:
            state, tip = opened(log, thread_id, rows, checkpoint_id)
            known = Known(tip, state.versions, state.seen, frozenset(state.cells))
    return known


def _step_of(
    log: LogSaver,
    known: Known | None,
    checkpoint: Checkpoint,
    parent_id: str | None,
    metadata: Any,
    new_versions: Mapping[str, Any],
) -> tuple[Step, Tip | None]:
    values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
    seen: Mapping[str, Mapping[str, Any] | None] = checkpoint["versions_seen"]
    whole = known is None or known.tip.is_heavy
    if known is None or whole:
        changed: Collection[str] = values
        gone: list[str] = []
        fresh: Mapping[str, Any] = versions
    else:
        fresh = {name: version for name, version in versions.items() if known.versions.get(name) != version}
        changed = {
            *fresh,
            *new_versions,
            *(name for name in values if name not in versions or name not in known.channels),
            *(name for name in known.channels if name not in versions),
        }
        gone = [name for name in known.versions if name not in versions]
        seen = {
            **{node: one for node, one in seen.items() if known.seen.get(node) != one},
            **{node: None for node in known.seen if node not in seen},
        }
    ops: list[Op] = [(name, SET if name in values else DROP, None) for name in changed]
    frame = Frame(
        log.coder.pack(metadata, "the metadata"),
        v=checkpoint.get("v", LATEST_VERSION),
        gone=gone,
        updated=checkpoint.get("updated_channels"),
        ops=ops,
    )
    step = Step(
        checkpoint["id"],
        parent_id,
        frame,
        whole=whole,
        ts=checkpoint.get("ts") or now_iso(),
        versions=fresh,
        seen=seen,
        operands=[log.coder.pack(values[name], f"channel '{name}'") for name in changed if name in values],
    )
    tip = None if known is None or whole else Tip(known.tip.base, known.tip.whole_bytes, known.tip.weight_bytes)
    return step, tip


def put_writes(
    log: LogSaver, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
) -> Calls:
    """Keep what a task wrote, beside its checkpoint."""
    thread_id, ns = address_of(config)
    row = result_row(log, thread_id, ns, config["configurable"][CHECKPOINT_ID], writes, task_id, task_path)
    yield "append", [(thread_id, [row])]


def result_row(
    log: LogSaver,
    thread_id: str,
    ns: str,
    checkpoint_id: str,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> Row:
    values = [value for _, value in writes]
    packed = log.coder.pack(values, f"what task '{task_id}' wrote")
    result = Result(checkpoint_id, new_number(), task_id, task_path, [name for name, _ in writes], packed)
    return log.layout.dump_result(thread_id, ns, result)  # type: ignore[no-any-return]


# -- deleting and copying ---------------------------------------------------------------------------------------------


def _without(log: LogSaver, thread_id: str, ns: str, dropped: Collection[str]) -> Calls:
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
        drops, rows = yield from _without(log, thread_id, ns, dropped)
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


def delete_thread(log: LogSaver, thread_id: str) -> Calls:
    yield "delete_thread", thread_id
    log.known.clear()


def prune(log: LogSaver, thread_ids: Sequence[str], strategy: str, keep: int) -> Calls:
    """Delete all but the `keep` newest checkpoints of each namespace, or all. Raises ValueError."""
    if strategy not in ("keep_latest", "delete"):
        raise ValueError(f"strategy must be 'keep_latest' or 'delete', got {strategy!r}")
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}; strategy='delete' keeps nothing")
    for thread_id in thread_ids:
        if strategy == "delete":
            yield from delete_thread(log, thread_id)
            continue
        found: Sequence[tuple[str, Row]] = yield "steps", thread_id, None, None, None
        spaces: dict[str, list[str]] = {}
        for _, row in found:
            spaces.setdefault(row.ns, []).append(row.checkpoint_id)
        for ns, ids in spaces.items():
            yield from delete_steps(log, thread_id, ns, set(ids[keep:]))


def vacuum() -> Calls:
    yield ("vacuum",)


def copy_thread(log: LogSaver, source: str, target: str) -> Calls:
    rows: Sequence[Row] = yield "rows", source
    layout = log.layout
    copies = []
    for row in rows:
        (record,) = log.records(source, (row,))
        if isinstance(record, Step):
            copies.append(layout.dump_step(target, row.ns, record, row.base))
        else:
            copies.append(layout.dump_result(target, row.ns, record))
    if copies:
        yield "append", [(target, copies)]
