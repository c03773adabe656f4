"""What a saver does with a log, as generators: they yield calls of the driver, ``(method, *arguments)``, and get the answers.

So each is written once, for drivers that are called and for those that are awaited.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from random import getrandbits
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from mpflow._names import ATTEMPTS, CHECKPOINT_ID, CHECKPOINT_NS, CONF, THREAD_ID
from mpflow._wire.codec import DecodeError
from mpflow.checkpoint.base import (
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
)
from mpflow.checkpoint.ids import time_of
from mpflow.checkpoint.log.driver import STEP, Row
from mpflow.checkpoint.log.folding import Opening, State, fold
from mpflow.checkpoint.log.records import Result, Step
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
BLOCK = 256
"""How many of a thread's steps are looked at in one go where some are looked for."""


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


def one(method: str, *arguments: Any) -> Calls:
    """A single call of the driver; its answer."""
    return (yield method, *arguments)


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
    metadata = metadata_of(log, step)  # first: it tells whose serializer the values went through
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
        metadata,
        None if step.parent_id is None else config_of(thread_id, ns, step.parent_id),
        Opening(log.coder).writes(state, state.results),  # apart from the values, which may come from the same results
    )


def metadata_of(log: LogSaver, step: Step) -> CheckpointMetadata:
    """A step's metadata, the caller's own. Raises DecodeError for what was saved by another serializer."""
    metadata: CheckpointMetadata = log.coder.unpack(step.frame.metadata)
    if type(metadata) is not dict:
        raise DecodeError(
            f"checkpoint '{step.checkpoint_id}' was saved through a serializer, which this saver was not given: open it "
            "with the same serde="
        )
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
    if limit is None or thread_id is None or ns is None or (wanted is None and not filter):
        most = limit if not filter and wanted is None else None
        found: Sequence[tuple[str, Row]] = yield "steps", thread_id, ns, before, most
        found = [pair for pair in found if _is_asked_for(log, *pair, wanted, filter)]
        return found if limit is None else found[:limit]
    # One line of steps: no further than to the last that is asked for.
    found = []
    while len(found) < limit:
        block: Sequence[tuple[str, Row]] = yield "steps", thread_id, ns, before, BLOCK
        found += [pair for pair in block if _is_asked_for(log, *pair, wanted, filter)]
        if len(block) < BLOCK or (wanted is not None and block[-1][1].checkpoint_id <= wanted):
            break
        before = block[-1][1].checkpoint_id
    return found[:limit]


def _is_asked_for(
    log: LogSaver, thread_id: str, row: Row, wanted: str | None, filter: Mapping[str, Any] | None
) -> bool:
    return wanted in (None, row.checkpoint_id) and (not filter or _matches(log, thread_id, row, filter))


def _matches(log: LogSaver, thread_id: str, row: Row, filter: Mapping[str, Any]) -> bool:
    (step,) = log.records(thread_id, (row,))
    assert isinstance(step, Step)
    metadata = cast("Mapping[str, Any]", metadata_of(log, step))
    return all(metadata.get(key) == value for key, value in filter.items())


def page(log: LogSaver, found: Sequence[tuple[str, Row]]) -> Calls:
    """The first `PAGE` checkpoints of a listing, but for those deleted meanwhile: thread, namespace and state of each."""
    first = found[:PAGE]
    states: dict[int, State | None] = {}
    for at, (thread_id, newest) in enumerate(first):
        if at in states:
            continue
        rows: Sequence[Row] = yield "chain", thread_id, newest.ns, newest.checkpoint_id
        covered = {
            number: row.checkpoint_id
            for number, (owner, row) in enumerate(first[at:], at)
            # The rows that the newest needs reach back to its base: so far its neighbours can be folded from them too.
            if owner == thread_id and row.ns == newest.ns and row.base >= newest.base
        }
        wanted = {row.checkpoint_id for row in rows if row.kind == STEP}.intersection(covered.values())
        folded = fold(thread_id, newest.ns, log.records(thread_id, rows), wanted)
        states.update((number, folded.get(one)) for number, one in covered.items())
    return [
        (owner, row.ns, state) for number, (owner, row) in enumerate(first) if (state := states[number]) is not None
    ]
