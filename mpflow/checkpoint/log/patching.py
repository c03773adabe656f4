"""Patches: packed bytes as changes to earlier ones, when that is shorter. Bounded effort, exact result."""

from __future__ import annotations

from typing import Any, Final

import msgpack

from mpflow._wire.errors import DecodeLimitError
from mpflow._wire.limits import DEFAULT_LIMITS

_ANCHOR_BYTES: Final = 24
"""A match shorter than this costs more than it saves."""
_MOST_PROBES: Final = 64
"""Places at which a match is looked for again, before the rest is given as it is."""
_WINDOW_BYTES: Final = 4096
"""How far from where it is expected a match is looked for."""


def patch_of(old: bytes, new: bytes) -> bytes | None:
    """How to make `new` of `old`, if that takes less than half of `new`; else None. Linear in their sizes."""
    most_bytes = len(new) // 2
    parts: list[Any] = []
    at_old = at_new = literal = 0
    start = 0
    probes = 0
    while at_new < len(new):
        length = _common(old, at_old, new, at_new)
        if length >= _ANCHOR_BYTES or (length and at_new + length == len(new)):
            if start < at_new:
                parts.append(new[start:at_new])
                literal += at_new - start
            parts += (at_old, length)
            at_old += length
            at_new += length
            start = at_new
        else:
            found = _resumed(old, at_old, new, at_new)
            probes += 1
            if found is None or probes > _MOST_PROBES:
                break
            at_old, at_new = found
        if literal > most_bytes:
            return None
    if start < len(new):
        parts.append(new[start:])
        literal += len(new) - start
    patch: bytes = msgpack.packb(parts)
    return patch if len(patch) <= most_bytes else None


def patched(old: bytes, patch: bytes) -> bytes:
    """What `patch` makes of `old`. Raises ValueError for a patch that is none, or not one to `old`."""
    try:
        parts: Any = msgpack.unpackb(patch)
    except Exception as error:
        raise ValueError(f"not a patch: {error}") from None
    if type(parts) is not list:
        raise ValueError("not a patch")
    most_bytes = DEFAULT_LIMITS.allowance_bytes(len(old) + len(patch))
    out = bytearray()
    at = 0
    while at < len(parts):
        part = parts[at]
        if type(part) is bytes:
            out += part
            at += 1
            continue
        length = parts[at + 1] if at + 1 < len(parts) else None
        if type(part) is not int or type(length) is not int or part < 0 or length < 0 or part + length > len(old):
            raise ValueError("the patch is for other bytes")
        if len(out) + length > most_bytes:
            raise DecodeLimitError(f"a patch of {len(patch)} bytes makes more than {most_bytes} bytes")
        out += old[part : part + length]
        at += 2
    return bytes(out)


def _common(old: bytes, at_old: int, new: bytes, at_new: int) -> int:
    """How many bytes are equal from there on: compared in C, in steps that double and then halve."""
    most = min(len(old) - at_old, len(new) - at_new)
    length, step = 0, _ANCHOR_BYTES
    while length < most:
        size = min(step, most - length)
        if old[at_old + length : at_old + length + size] == new[at_new + length : at_new + length + size]:
            length += size
            step *= 2
        elif size == 1:
            break
        else:
            step = size // 2
            if step < 1:
                break
            most = length + size
    return length


def _resumed(old: bytes, at_old: int, new: bytes, at_new: int) -> tuple[int, int] | None:
    """Where old and new go on alike after a difference: near by, in steps that double."""
    lowest = max(0, at_old - _WINDOW_BYTES)
    skip = 1
    while at_new + skip + _ANCHOR_BYTES <= len(new) and skip <= _WINDOW_BYTES:
        anchor = new[at_new + skip : at_new + skip + _ANCHOR_BYTES]
        found = old.find(anchor, lowest, at_old + _WINDOW_BYTES)
        if found >= 0:
            return found, at_new + skip
        skip *= 2
    return None
