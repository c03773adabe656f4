"""Rows as bytes: the layout of each record, a checksum over it and its address, and checks of all that is read.

What is read may be damaged or hostile. Every failure is a `CheckpointCorruptError` with thread and checkpoint; values
inside stay packed and are not looked at.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final
from zlib import crc32

import msgpack

from mpflow._wire.limits import DEFAULT_LIMITS, check
from mpflow.checkpoint.log.driver import RESULT, STEP, Row
from mpflow.checkpoint.log.records import DROP, FORMAT, OPERATIONS, PATCH, SET, Op, Result, Step
from mpflow.errors import CheckpointCorruptError, CheckpointVersionError

_SUM_BYTES: Final = 4
_KEPT_BYTES: Final = 1 << 20
_MALFORMED: Final = "its record is malformed"
_VERSIONS: Final = (str, int, float)
_TEXT: Final = frozenset({str})


def size_of(row: Row) -> int:
    return len(row.data)


def dump_step(thread_id: str, ns: str, step: Step, base: str) -> Row:
    """The row of a step that folds from ``base``."""
    body = [
        FORMAT,
        step.parent_id,
        step.whole,
        step.v,
        step.ts,
        step.metadata,
        _grouped(step.versions),
        list(step.gone),
        {node: None if seen is None else _grouped(seen) for node, seen in step.seen.items()},
        None if step.updated is None else list(step.updated),
        [[op.channel, op.code, op.operand if op.refs is None else list(op.refs)] for op in step.ops],
    ]
    return Row(ns, step.checkpoint_id, STEP, base, _sealed(body, thread_id, ns, step.checkpoint_id, STEP, base))


def dump_result(thread_id: str, ns: str, result: Result) -> Row:
    body = [FORMAT, result.number, result.task_id, result.path, list(result.names), result.values]
    if result.apart:
        body.append({at: list(pair) for at, pair in result.apart.items()})
    return Row(ns, result.checkpoint_id, RESULT, "", _sealed(body, thread_id, ns, result.checkpoint_id, RESULT, ""))


def _grouped(versions: Any) -> list[Any]:
    """Versions and who has them, in turns: a step gives most of what it changes one version."""
    groups: dict[Any, list[str]] = {}
    for name, version in versions.items():
        groups.setdefault(version, []).append(name)
    return [item for pair in groups.items() for item in pair]


# Packers are no safe company for several threads, and making one takes longer than a row. A list's pop is atomic.
_packers: list[msgpack.Packer] = []


def _sealed(body: list[Any], thread_id: str, ns: str, checkpoint_id: str, kind: int, base: str) -> bytes:
    packer = _packers.pop() if _packers else msgpack.Packer(unicode_errors="surrogatepass", buf_size=4096)
    data: bytes = packer.pack(body)
    if len(data) <= _KEPT_BYTES:
        _packers.append(packer)
    return data + _sum(data, thread_id, ns, checkpoint_id, kind, base)


def _sum(data: bytes | memoryview, thread_id: str, ns: str, checkpoint_id: str, kind: int, base: str) -> bytes:
    rest = f"{checkpoint_id}\x1f{kind}\x1f{base}".encode("utf-8", "surrogatepass")
    return crc32(data, crc32(rest, _sum_of_space(thread_id, ns))).to_bytes(_SUM_BYTES, "little")


@lru_cache(maxsize=256)
def _sum_of_space(thread_id: str, ns: str) -> int:
    return crc32(f"{thread_id}\x1f{ns}\x1f".encode("utf-8", "surrogatepass"))


def load_step(thread_id: str, row: Row) -> Step:
    """The step in a row. Raises CheckpointCorruptError, CheckpointVersionError for a later format."""
    body = _opened(thread_id, row, 11)
    try:
        _, parent_id, whole, v, ts, metadata, versions, gone, seen, updated, ops = body
        if (
            (parent_id is not None and type(parent_id) is not str)
            or type(whole) is not bool
            or type(v) is not int
            or type(ts) is not str
            or type(metadata) not in (bytes, dict)
            or not _are_names(gone)
            or (updated is not None and not _are_names(updated))
            or type(seen) is not dict
            or not _are_names(seen)
            or type(ops) is not list
        ):
            raise ValueError(_MALFORMED)
        return Step(
            row.checkpoint_id,
            parent_id,
            whole=whole,
            v=v,
            ts=ts,
            metadata=metadata,
            versions=_ungrouped(versions),
            gone=gone,
            seen={node: None if one is None else _ungrouped(one) for node, one in seen.items()},
            updated=updated,
            ops=[_op(*op) for op in ops],
        )
    except (TypeError, ValueError) as error:
        raise _corrupt(thread_id, row, str(error)) from None


def load_result(thread_id: str, row: Row) -> Result:
    """The result in a row. Raises CheckpointCorruptError, CheckpointVersionError for a later format."""
    body = _opened(thread_id, row, 6, 7)
    try:
        _, number, task_id, path, names, values = body[:6]
        apart = body[6] if len(body) == 7 else {}
        if (
            type(number) is not int
            or type(task_id) is not str
            or type(path) is not str
            or not _are_names(names)
            or type(values) is not bytes
            or type(apart) is not dict
        ):
            raise ValueError(_MALFORMED)
        for at, (code, packed) in apart.items():
            if type(at) is not int or code not in (SET, PATCH) or type(packed) is not bytes:
                raise ValueError(_MALFORMED)
        return Result(row.checkpoint_id, number, task_id, path, names, values, apart)
    except (TypeError, ValueError) as error:
        raise _corrupt(thread_id, row, str(error)) from None


def _opened(thread_id: str, row: Row, *lengths: int) -> list[Any]:
    data = row.data
    if type(data) is not bytes or len(data) < _SUM_BYTES:
        raise _corrupt(thread_id, row, "its row is too short")
    view = memoryview(data)[:-_SUM_BYTES]
    if _sum(view, thread_id, row.ns, row.checkpoint_id, row.kind, row.base) != data[-_SUM_BYTES:]:
        raise _corrupt(thread_id, row, "its checksum is wrong")
    try:
        if not DEFAULT_LIMITS.always_hold(len(view)):
            check(view, DEFAULT_LIMITS)
        body: Any = msgpack.unpackb(view, strict_map_key=False, unicode_errors="surrogatepass")
    except Exception as error:
        raise _corrupt(thread_id, row, f"{type(error).__name__}: {error}") from None
    if type(body) is not list or not body or type(body[0]) is not int:
        raise _corrupt(thread_id, row, "it is no record")
    if body[0] != FORMAT:
        raise CheckpointVersionError(f"thread '{thread_id}', checkpoint '{row.checkpoint_id}'", body[0], FORMAT)
    if len(body) not in lengths:
        raise _corrupt(thread_id, row, f"its record has {len(body)} parts")
    return body


def _op(channel: Any, code: Any, operand: Any) -> Op:
    if type(channel) is not str or code not in OPERATIONS:
        raise ValueError(_MALFORMED)
    if type(operand) is list:
        if len(operand) % 2 or code == DROP or any(type(item) is not int for item in operand):
            raise ValueError(_MALFORMED)
        return Op(channel, code, None, operand)
    if type(operand) is not bytes and (operand is not None or code != DROP):
        raise ValueError(_MALFORMED)
    return Op(channel, code, operand)


def _ungrouped(groups: Any) -> dict[str, Any]:
    if type(groups) is not list or len(groups) % 2:
        raise ValueError(_MALFORMED)
    found: dict[str, Any] = {}
    for at in range(0, len(groups), 2):
        version, names = groups[at], groups[at + 1]
        if type(version) not in _VERSIONS or not _are_names(names):
            raise ValueError(_MALFORMED)
        for name in names:
            found[name] = version
    return found


def _are_names(names: Any) -> bool:
    return type(names) in (list, dict) and {*map(type, names)} <= _TEXT


def _corrupt(thread_id: str, row: Row, detail: str) -> CheckpointCorruptError:
    return CheckpointCorruptError(thread_id, row.checkpoint_id, detail)
