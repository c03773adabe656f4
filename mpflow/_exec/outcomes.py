"""Outcomes on their way to the runs: decoded and posted in the order the pool came to know of them, outside its lock.

Decoding runs the user's code (`__setstate__`, constructors of unpickled classes), which may take long or call the pool.
Each function takes its items off a deque one by one, after posting: interrupted, it is called again, and at worst posts
one outcome twice, which its reader tells by the attempt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from mpflow._messages import DONE, EVENT, FAILED, Attempt
from mpflow._wire.codec import Codec
from mpflow._wire.errors import WireError
from mpflow._wire.mappings import Held, Mappings

Deliveries = deque[tuple[Callable[[Any], None], Any]]


Items = deque[tuple["Attempt | None", Any, int]]


def results(what: tuple[Codec, Items, frozenset[int], dict[int, Held], list[int]]) -> None:
    """Post what a frame of results holds.

    ``(codec, (attempt, payload, nanoseconds) ..., positions failed, shared memory held by position, [position])``
    """
    codec, items, failed, holds, position = what
    decode = codec.decode
    while items:
        attempt, payload, time_ns = items[0]
        held = holds.get(position[0]) if holds else None
        if attempt is not None and attempt.outbox is not None:
            kind = FAILED if position[0] in failed else DONE
            try:
                value = decode(payload, held)
            except WireError as error:
                kind = FAILED
                error.args = (
                    f"the result of node '{attempt.program.name}' cannot be decoded: {error}",
                    *error.args[1:],
                )
                value = error
            attempt.outbox.post((kind, attempt, value, time_ns * 1e-9))
            del value
        if held is not None:
            held.close()
        position[0] += 1
        items.popleft()


def endings(what: tuple[int, deque[Attempt], Any]) -> None:
    """Post the same ending for several attempts: ``(kind, attempts, payload)``."""
    kind, attempts, payload = what
    while attempts:
        attempt = attempts[0]
        if attempt.outbox is not None:
            attempt.outbox.post((kind, attempt, payload, 0.0))
        attempts.popleft()


def event(what: tuple[Codec, Attempt, str, bytes]) -> None:
    """Post something said while an attempt runs: ``(codec, attempt, kind, data)``."""
    codec, attempt, kind, data = what
    if attempt.outbox is not None:
        try:
            chunk = codec.decode(data)
        except WireError as error:
            chunk = error
        attempt.outbox.post((EVENT, attempt, (kind, chunk), 0.0))


def close(mappings: Mappings) -> None:
    """Close a dead worker's shared files, now that what it sent has been decoded."""
    mappings.close()
