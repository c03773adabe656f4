"""Rows that nobody makes, changes or moves without a key: the envelope's, each with a seal over it and its address.

It must not know what encrypts values. That rows were deleted, or put back as they were before, no seal can tell.
"""

from __future__ import annotations

import hmac
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from mpflow._wire.errors import DecodeError
from mpflow.checkpoint.log import envelope
from mpflow.checkpoint.log.driver import Row
from mpflow.checkpoint.log.envelope import SEAL_BYTES
from mpflow.checkpoint.log.records import Result, Step
from mpflow.errors import CheckpointCorruptError


class Sealed:
    """The layout of rows that are sealed with a key of up to 64 bytes.

    Reading raises DecodeError for a row that is whole, but not sealed with this key for this place.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    @staticmethod
    def size_of(row: Row) -> int:
        return envelope.size_of(row)

    def dump_step(self, thread_id: str, ns: str, step: Step, base: str) -> Row:
        return self._sealed(thread_id, envelope.dump_step(thread_id, ns, step, base))

    def dump_result(self, thread_id: str, ns: str, result: Result) -> Row:
        return self._sealed(thread_id, envelope.dump_result(thread_id, ns, result))

    def load_step(self, thread_id: str, row: Row) -> Step:
        return envelope.load_step(thread_id, self._opened(thread_id, row))

    def load_result(self, thread_id: str, row: Row) -> Result:
        return envelope.load_result(thread_id, self._opened(thread_id, row))

    def _sealed(self, thread_id: str, row: Row) -> Row:
        return row._replace(data=row.data + self._seal(thread_id, row))

    def _opened(self, thread_id: str, row: Row) -> Row:
        if type(row.data) is not bytes:
            raise CheckpointCorruptError(thread_id, row.checkpoint_id, "its row holds no bytes")
        within = row._replace(data=row.data[:-SEAL_BYTES])
        if hmac.compare_digest(self._seal(thread_id, within), row.data[-SEAL_BYTES:]):
            return within
        if envelope.is_whole(thread_id, within) or envelope.is_whole(thread_id, row):
            raise DecodeError(
                f"thread '{thread_id}', checkpoint '{row.checkpoint_id}': its row is not sealed with this key: it was saved with "
                "another or without encryption, or was changed or moved"
            )
        raise CheckpointCorruptError(thread_id, row.checkpoint_id, "its checksum is wrong")

    def _seal(self, thread_id: str, row: Row) -> bytes:
        address = repr((thread_id, row.ns, row.checkpoint_id, row.kind, row.base)).encode()
        seal = blake2b(len(address).to_bytes(8, "little"), key=self._key, digest_size=SEAL_BYTES)
        seal.update(address)
        seal.update(row.data)
        return seal.digest()


@lru_cache(maxsize=16)
def _sealed_with(key: bytes) -> Sealed:
    return Sealed(key)


def layout_of(serde: Any) -> Any:
    """The layout for values of this serializer: sealed if it has a key for that, else the envelope."""
    key = getattr(serde, "row_key", None)
    return envelope if key is None else _sealed_with(key)
