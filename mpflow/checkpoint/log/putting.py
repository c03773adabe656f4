"""Checkpoints and writes that come by LangGraph's protocol: what is put is compared with its parent, and kept as what changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._names import CHECKPOINT_ID
from mpflow.checkpoint.base import LATEST_VERSION, Checkpoint, get_checkpoint_id, get_checkpoint_metadata, now_iso
from mpflow.checkpoint.log.driver import RESULT, Row
from mpflow.checkpoint.log.operations import Calls, Known, address_of, config_of, new_number, opened
from mpflow.checkpoint.log.pruning import without
from mpflow.checkpoint.log.records import DROP, SET, Frame, Op, Result, Step
from mpflow.checkpoint.log.weight import Tip

if TYPE_CHECKING:
    from mpflow.checkpoint.log.saver import LogSaver
    from mpflow.config import RunnableConfig


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
        drops, rows = yield from without(log, thread_id, ns, {checkpoint_id})
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
