"""Shared memory without processes: an arena, its receiver, and what goes from one to the other."""

from __future__ import annotations

import gc
import os
from typing import Any

from mpflow._wire.codec import Codec
from mpflow._wire.mappings import Mappings
from mpflow._wire.shm import Arena

BIG = 1 << 20


class Wire:
    """An arena, its receiver and a codec, with the socket between them left out."""

    def __init__(self, **options: Any) -> None:
        self.arena = Arena(**{"budget_bytes": 64 << 20, "threshold_bytes": 4096, **options})
        self.codec = Codec(trust=True, arena=self.arena)
        self.mappings = Mappings()

    def send(self, value: Any, peer: str = "worker", *, is_lasting: bool = False) -> tuple[bytes, Any]:
        with self.arena.scope() as lease:
            data, _ = self.codec.encode_flagged(value)
        ticket, files = lease.send_to(peer)
        for file_id, fd in files:
            self.mappings.add_file(file_id, os.dup(fd))
        lease.close()
        return data, self.mappings.hold(ticket, is_lasting=is_lasting)

    def across(self, value: Any) -> Any:
        data, held = self.send(value)
        with held:
            return self.codec.decode(data, held)

    def settle(self) -> None:
        gc.collect()
        self.arena.release("worker", self.mappings.take_releases())

    def close(self) -> None:
        self.mappings.close()
        self.arena.close()
