"""Rows as bytes: the layout of each record, a checksum over it and its address, and checks of all that is read.

What is read may be damaged or hostile. Every failure is a `CheckpointCorruptError` with thread and checkpoint; values
inside stay packed and are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final
from zlib import crc32

import msgpack

from mpflow._wire.errors import DecodeError
from mpflow._wire.limits import DEFAULT_LIMITS, check
from mpflow.checkpoint.log.driver import RESULT, STEP, Row, row_of
from mpflow.checkpoint.log.records import (
    DROP,
    FORMAT,
    FORMATS,
    IN_PATHS,
    NOTHING,
    OPERATIONS,
    PATCH,
    SET,
    Apart,
    Frame,
    Op,
    Part,
    Result,
    Step,
)
from mpflow.errors import CheckpointCorruptError, CheckpointVersionError

_SUM_BYTES: Final = 4
SEAL_BYTES: Final = 16
"""How long the seal is that follows, where rows are sealed."""
_KEPT_BYTES: Final = 1 << 20
_MALFORMED: Final = "its record is malformed"
_VERSIONS: Final = (str, int, float)
_TEXT: Final = frozenset({str})
_BYTES: Final = frozenset({bytes})
_NUMBERS: Final = frozenset({int})
_RECENT_BYTES: Final = 4096
"""Frames above that are not kept for the steps that may have the same."""


def size_of(row: Row) -> int:
    return len(row.data)


def dump_step(thread_id: str, ns: str, step: Step, base: str) -> Row:
    """The row of a step that folds from ``base``."""
    frame = step.frame
    versions, seen = step.versions, step.seen
    body = [
        FORMAT,
        step.parent_id,
        step.whole,
        step.ts,
        step.number,
        frame.data or _packed(frame),
        _shortened(step.version) if frame.names else None,
        _grouped(versions) if versions else (),
        {node: None if one is None else _grouped(one) for node, one in seen.items()} if seen else None,
        step.operands,
        step.values,
        step.numbers,
        {at: _listed(apart) for at, apart in step.apart.items()} if step.apart else None,
    ]
    return row_of((ns, step.checkpoint_id, STEP, base, _sealed(body, thread_id, ns, step.checkpoint_id, STEP, base)))


def dump_result(thread_id: str, ns: str, result: Result) -> Row:
    body = [FORMAT, result.number, result.task_id, result.path, list(result.names), result.values]
    if result.apart:
        body.append(_listed(result.apart))
    return Row(ns, result.checkpoint_id, RESULT, "", _sealed(body, thread_id, ns, result.checkpoint_id, RESULT, ""))


def _packed(frame: Frame) -> bytes:
    own = [op[0] for op in frame.ops]
    parts = [
        None if one is None else [one.name, one.path, one.triggers, _unless(own, one.names)] for one in frame.parts
    ]
    updated = None if frame.updated is None else _unless(sorted(own), frame.updated, True)
    body = [frame.metadata, frame.v, _unless(own, frame.names), list(frame.gone), frame.saw, updated, frame.ops, parts]
    frame.data = data = _pack(body)
    return data


def _unless(own: list[str], names: Sequence[str], mark: Any = None) -> Any:
    """The names, or a mark for those of the frame's operations."""
    return mark if own and list(names) == own else list(names)


_VERSION_DIGITS: Final = 32


def _shortened(version: Any) -> Any:
    """A version as `ids.next_version` makes them without its leading zeros, in a list; another one as it is."""
    if type(version) is str and version.find(".") == _VERSION_DIGITS:
        return [version.lstrip("0")]
    return version


def _lengthened(version: Any) -> Any:
    """The version that was shortened. Raises ValueError."""
    if type(version) is not list:
        return version
    (short,) = version
    if type(short) is not str:
        raise ValueError(_MALFORMED)
    count, dot, rest = short.partition(".")
    if not dot or len(count) > _VERSION_DIGITS:
        raise ValueError(_MALFORMED)
    return f"{count.rjust(_VERSION_DIGITS, '0')}.{rest}"


def _listed(apart: Apart) -> dict[int, list[Any]]:
    return {at: list(pair) for at, pair in apart.items()}


def _grouped(versions: Any) -> list[Any]:
    """Versions and who has them, in turns: a step gives most of what it changes one version."""
    groups: dict[Any, list[str]] = {}
    for name, version in versions.items():
        groups.setdefault(version, []).append(name)
    return [item for pair in groups.items() for item in pair]


# Packers are no safe company for several threads, and making one takes longer than a row. A list's pop is atomic.
_packers: list[msgpack.Packer] = []


def _pack(body: list[Any]) -> bytes:
    packer = _packers.pop() if _packers else msgpack.Packer(unicode_errors="surrogatepass", buf_size=4096)
    data: bytes = packer.pack(body)
    if len(data) <= _KEPT_BYTES:
        _packers.append(packer)
    return data


def _sealed(body: list[Any], thread_id: str, ns: str, checkpoint_id: str, kind: int, base: str) -> bytes:
    data = _pack(body)
    return data + _sum(data, thread_id, ns, checkpoint_id, kind, base)


def _sum(data: bytes | memoryview, thread_id: str, ns: str, checkpoint_id: str, kind: int, base: str) -> bytes:
    rest = f"{checkpoint_id}\x1f{kind}\x1f{base}".encode("utf-8", "surrogatepass")
    return crc32(data, crc32(rest, _sum_of_space(thread_id, ns))).to_bytes(_SUM_BYTES, "little")


@lru_cache(maxsize=256)
def _sum_of_space(thread_id: str, ns: str) -> int:
    return crc32(f"{thread_id}\x1f{ns}\x1f".encode("utf-8", "surrogatepass"))


def load_step(thread_id: str, row: Row) -> Step:
    """The step in a row. Raises CheckpointCorruptError, CheckpointVersionError for a later format."""
    body = _opened(thread_id, row, 13)
    try:
        _, parent_id, whole, ts, number, framed, version, versions, seen, operands, values, numbers, apart = body
        if (
            (parent_id is not None and type(parent_id) is not str)
            or type(whole) is not bool
            or (ts is not None and type(ts) is not str)
            or (number is not None and type(number) is not int)
            or type(framed) is not bytes
            or not {*map(type, operands)} <= _BYTES
            or not {*map(type, values)} <= _BYTES
            or not {*map(type, numbers)} <= _NUMBERS
        ):
            raise ValueError(_MALFORMED)
        version = _lengthened(version)
        frame = _recent_frame(framed) if len(framed) <= _RECENT_BYTES else _frame(framed)
        if (
            len(values) + len(numbers) != len(frame.parts)
            or frame.parts.count(None) != len(numbers)
            or (values and (parent_id is None or number is None))
            or (frame.names and type(version) not in _VERSIONS)
            or (number is not None and type(frame.metadata) is dict and "step" in frame.metadata)
        ):
            raise ValueError(_MALFORMED)
        return Step(
            row.checkpoint_id,
            parent_id,
            frame,
            whole=whole,
            ts=ts,
            number=number,
            version=version,
            versions=_ungrouped(versions) if versions else NOTHING,
            seen=NOTHING if seen is None else _seen(seen),
            operands=operands,
            values=values,
            numbers=numbers,
            apart=NOTHING if apart is None else {at: _apart(one) for at, one in apart.items()},
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise _corrupt(thread_id, row, str(error)) from None


def _frame(data: bytes) -> Frame:
    """A frame read back. Raises ValueError, TypeError."""
    try:
        body = _unpacked(data)
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    metadata, v, names, gone, saw, updated, ops, parts = body
    ops = [_op(len(parts), *op) for op in ops]
    own = [op[0] for op in ops]
    names = own if names is None else names
    updated = sorted(own) if updated is True else updated
    if (
        type(metadata) not in (bytes, dict)
        or type(v) is not int
        or not _are_names(names)
        or not _are_names(gone)
        or (updated is not None and not _are_names(updated))
    ):
        raise ValueError(_MALFORMED)
    for node, triggers in saw:
        if type(node) is not str or not _are_names(triggers):
            raise ValueError(_MALFORMED)
    frame = Frame(
        metadata,
        v=v,
        names=names,
        gone=gone,
        saw=saw,
        updated=updated,
        ops=ops,
        parts=[None if part is None else _part(own, *part) for part in parts],
    )
    frame.data = data
    return frame


# The rounds of a loop have the same frame. Nobody changes one, or gives anything of it away.
_recent_frame = lru_cache(maxsize=64)(_frame)


def _part(own: list[str], name: Any, path: Any, triggers: Any, names: Any) -> Part:
    names = own if names is None else names
    if type(name) is not str or type(path) is not list or not _are_names(triggers) or not _are_names(names):
        raise ValueError(_MALFORMED)
    if not {*map(type, path)} <= IN_PATHS:
        raise ValueError(_MALFORMED)
    return Part(name, tuple(path), tuple(triggers), names)


def _seen(seen: Any) -> dict[str, Any]:
    if type(seen) is not dict or not _are_names(seen):
        raise ValueError(_MALFORMED)
    return {node: None if one is None else _ungrouped(one) for node, one in seen.items()}


def _apart(apart: Any) -> dict[int, tuple[int, bytes]]:
    if type(apart) is not dict:
        raise ValueError(_MALFORMED)
    found = {}
    for at, (code, packed) in apart.items():
        if type(at) is not int or code not in (SET, PATCH) or type(packed) is not bytes:
            raise ValueError(_MALFORMED)
        found[at] = (code, packed)
    return found


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
        ):
            raise ValueError(_MALFORMED)
        return Result(row.checkpoint_id, number, task_id, path, names, values, _apart(apart))
    except (TypeError, ValueError) as error:
        raise _corrupt(thread_id, row, str(error)) from None


def _opened(thread_id: str, row: Row, *lengths: int) -> list[Any]:
    data = row.data
    if type(data) is not bytes or len(data) < _SUM_BYTES:
        raise _corrupt(thread_id, row, "its row is too short")
    view = memoryview(data)[:-_SUM_BYTES]
    if _sum(view, thread_id, row.ns, row.checkpoint_id, row.kind, row.base) != data[-_SUM_BYTES:]:
        if is_whole(thread_id, row._replace(data=data[:-SEAL_BYTES])):
            raise DecodeError(
                f"thread '{thread_id}', checkpoint '{row.checkpoint_id}': its row is sealed: open the saver with the serde= that it "
                "was saved with"
            )
        raise _corrupt(thread_id, row, "its checksum is wrong")
    try:
        body = _unpacked(view)
    except Exception as error:
        raise _corrupt(thread_id, row, f"{type(error).__name__}: {error}") from None
    if type(body) is not list or not body or type(body[0]) is not int:
        raise _corrupt(thread_id, row, "it is no record")
    if body[0] not in FORMATS:
        raise CheckpointVersionError(f"thread '{thread_id}', checkpoint '{row.checkpoint_id}'", body[0], FORMAT)
    if len(body) not in lengths:
        raise _corrupt(thread_id, row, f"its record has {len(body)} parts")
    return body


def is_whole(thread_id: str, row: Row) -> bool:
    """Whether a row's checksum is right, for this address."""
    data = row.data[:-_SUM_BYTES]
    return _sum(data, thread_id, row.ns, row.checkpoint_id, row.kind, row.base) == row.data[-_SUM_BYTES:]  # type: ignore[no-any-return]


def _unpacked(data: bytes | memoryview) -> Any:
    if not DEFAULT_LIMITS.always_hold(len(data)):
        check(data, DEFAULT_LIMITS)
    return msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogatepass")


def _op(parts: int, channel: Any, code: Any, refs: Any) -> Op:
    if type(channel) is not str or type(code) is not int or code not in OPERATIONS:
        raise ValueError(_MALFORMED)
    if refs is not None and (
        type(refs) is not list
        or len(refs) % 2
        or code == DROP
        or not {*map(type, refs)} <= _NUMBERS
        or any(not 0 <= at < parts for at in refs[::2])
    ):
        raise ValueError(_MALFORMED)
    return channel, code, refs


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
