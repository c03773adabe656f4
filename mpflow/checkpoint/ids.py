"""The ids of checkpoints, which say when they were made and sort by that, and the versions of channels, which count."""

from __future__ import annotations

import threading
from random import getrandbits, random
from time import time_ns
from typing import Any

_id_lock = threading.Lock()
_last_tick = 0
_EPOCH_TICKS = 0x01B21DD213814000
"""From 1582 to 1970, in the 100 ns of a UUID."""


def new_checkpoint_id(step: int = -2) -> str:
    """Return an id that sorts after all ids that this process made before (a UUID of version 6).

    Sixty bits count the 100 ns since 1582 (RFC 9562); the low bits of `step` go where the clock sequence would.
    """
    global _last_tick
    with _id_lock:
        tick = time_ns() // 100 + _EPOCH_TICKS
        if tick <= _last_tick:
            tick = _last_tick + 1
        _last_tick = tick
    random_bits = getrandbits(48)
    clock = step & 0x3FFF | 0x8000
    # Each step has an id, and other ways to format it take up to twice as long.
    return "%08x-%04x-6%03x-%x-%012x" % (tick >> 28, tick >> 12 & 0xFFFF, tick & 0xFFF, clock, random_bits)  # noqa: UP031


def tick_of(checkpoint_id: str) -> int | None:
    """The time of an id that was made as `new_checkpoint_id` makes them, in its 100 ns; None for another."""
    digits = checkpoint_id.replace("-", "")
    if len(digits) != 32 or digits[12] != "6":
        return None
    try:
        return int(digits[:12] + digits[13:16], 16)
    except ValueError:
        return None


def time_of(checkpoint_id: str) -> str:
    """When an id was made, as `now_iso` tells it. Raises ValueError for one that does not say."""
    tick = tick_of(checkpoint_id)
    if tick is None:
        raise ValueError(f"'{checkpoint_id}' is no UUID of version 6")
    from datetime import datetime, timedelta, timezone

    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=(tick - _EPOCH_TICKS) // 10)).isoformat()


def advance_ids(checkpoint_id: str) -> None:
    """Let all ids that are made from now on sort after this one: another machine's clock may be ahead of ours."""
    global _last_tick
    tick = tick_of(checkpoint_id)
    if tick is not None:
        with _id_lock:
            _last_tick = max(_last_tick, tick)


def next_version(current: Any) -> str:
    """Return a version that sorts after `current`: a counter of 32 digits, a dot, and a random part (CP-4)."""
    return f"{version_count(current) + 1:032}.{random():016}"


def version_count(version: Any) -> int:
    """The counter of a version, 0 for none."""
    return 0 if version is None else version if isinstance(version, int) else int(str(version).split(".")[0])
