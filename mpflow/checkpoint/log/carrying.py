"""Rows of a saver that keeps any value in memory, as they travel to runs in worker processes and back.

Values go as they do in any frame between the parent and its workers: what is no data is pickled. None of it is ever stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from copy import deepcopy
from typing import Any

from mpflow._wire.codec import Codec
from mpflow.checkpoint.log import envelope
from mpflow.checkpoint.log.coding import AnyCoder
from mpflow.checkpoint.log.driver import STEP, Row
from mpflow.checkpoint.log.memory import Records
from mpflow.checkpoint.log.records import Apart, Frame, Packed, Result, Step

_codec = Codec(trust=True)
_any = AnyCoder()


class Carried:
    """A value as the bytes that travel; called, it gives a copy, as the values do that `AnyCoder` packed."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __call__(self) -> Any:
        return _codec.decode(self.data)


class CarriedCoder:
    """What a worker packs for a saver of its parent that keeps any value."""

    learns = False

    def told(self) -> tuple[str, Any]:
        return _any.told()

    def knowing(self, types: Collection[type]) -> CarriedCoder:
        return self

    def pack(self, value: Any, path: str) -> Carried:
        return Carried(_codec.encode(value, path=path))

    def pack_plain(self, value: dict[str, Any]) -> Packed:
        return value

    def unpack(self, packed: Packed) -> Any:
        return deepcopy(packed) if type(packed) is dict else packed()


class Carrying:
    """The layout of rows whose values are `Carried`: the envelope's."""

    size_of = staticmethod(envelope.size_of)

    @staticmethod
    def dump_step(thread_id: str, ns: str, step: Step, base: str) -> Row:
        return envelope.dump_step(thread_id, ns, _step_with(_data_of, step), base)

    @staticmethod
    def dump_result(thread_id: str, ns: str, result: Result) -> Row:
        return envelope.dump_result(thread_id, ns, _result_with(_data_of, result))

    @staticmethod
    def load_step(thread_id: str, row: Row) -> Step:
        return _step_with(Carried, envelope.load_step(thread_id, row))

    @staticmethod
    def load_result(thread_id: str, row: Row) -> Result:
        return _result_with(Carried, envelope.load_result(thread_id, row))


def kept(thread_id: str, row: Row) -> Row:
    """A row that came from a worker, as the parent keeps it in memory."""
    if row.kind == STEP:
        return Records.dump_step(thread_id, row.ns, Carrying.load_step(thread_id, row), row.base)
    return Records.dump_result(thread_id, row.ns, Carrying.load_result(thread_id, row))


def sent(thread_id: str, row: Row) -> Row:
    """A row that the parent keeps in memory, as it goes to a worker. Raises EncodeError for what cannot."""
    if row.kind == STEP:
        return Carrying.dump_step(thread_id, row.ns, row.data, row.base)
    return Carrying.dump_result(thread_id, row.ns, row.data)


def _data_of(packed: Packed) -> bytes:
    return packed.data if type(packed) is Carried else _codec.encode(_any.unpack(packed), path="what is saved")


def _step_with(change: Callable[[Packed], Packed], step: Step) -> Step:
    frame = step.frame
    if type(frame.metadata) is not dict:
        frame = Frame(
            change(frame.metadata),
            v=frame.v,
            names=frame.names,
            gone=frame.gone,
            saw=frame.saw,
            updated=frame.updated,
            ops=frame.ops,
            parts=frame.parts,
        )
    return Step(
        step.checkpoint_id,
        step.parent_id,
        frame,
        whole=step.whole,
        ts=step.ts,
        number=step.number,
        version=step.version,
        versions=step.versions,
        seen=step.seen,
        operands=[change(one) for one in step.operands],
        values=[change(one) for one in step.values],
        numbers=step.numbers,
        apart={at: _apart_with(change, one) for at, one in step.apart.items()},
    )


def _result_with(change: Callable[[Packed], Packed], result: Result) -> Result:
    apart = _apart_with(change, result.apart)
    return Result(
        result.checkpoint_id, result.number, result.task_id, result.path, result.names, change(result.values), apart
    )


def _apart_with(change: Callable[[Packed], Packed], apart: Apart) -> Apart:
    return {at: (code, change(packed)) for at, (code, packed) in apart.items()}
