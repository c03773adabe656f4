"""Outcomes on their way to the runs: decoded and posted in the order the pool came to know of them, outside its lock.

Decoding runs the user's code (`__setstate__`, constructors of unpickled classes), which may take long or call the pool.
Each function takes its items off a deque one by one, after posting: interrupted, it is called again, and at worst posts
one outcome twice, which its reader tells by the attempt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from mpflow._columns import Diffs, Span, lead
from mpflow._exec import finished, link
from mpflow._messages import DONE, DONE_MANY, EVENT, FAILED, Attempt
from mpflow._scope import TAKEN
from mpflow._wire.codec import Codec, EncodeError
from mpflow._wire.errors import WireError
from mpflow._wire.mappings import Held, Mappings

Deliveries = deque[tuple[Callable[[Any], None], Any]]


class Frame:
    """A frame of results on its way: all payloads in `whole` if no code runs at their decoding, else one by one."""

    __slots__ = (
        "_times_ns",
        "answers",
        "attempts",
        "channel",
        "codec",
        "failed",
        "held",
        "payloads",
        "position",
        "total_ns",
        "values",
        "whole",
    )

    def __init__(
        self,
        codec: Codec,
        attempts: Span | list[Attempt | None],
        times_ns: Sequence[int] | int,
        failed: frozenset[int],
        held: dict[int, Held],
    ) -> None:
        self.codec = codec
        self.attempts = attempts
        self._times_ns = times_ns
        self.total_ns = times_ns if isinstance(times_ns, int) else sum(times_ns)
        self.failed = failed
        self.held = held
        self.answers: dict[int, bytes] = {}
        self.whole = b""
        self.channel = ""
        self.payloads: list[Any] = []
        self.values: list[Any] | None = None
        self.position = 0
        """How many have been posted."""

    def took_s(self, position: int) -> float:
        """What one task took: of those that came as one, their mean."""
        times_ns = self._times_ns
        return (times_ns / len(self.attempts) if isinstance(times_ns, int) else times_ns[position]) * 1e-9

    def value(self, position: int) -> Any:
        """The diff or exception of one task. Raises DecodeError."""
        values = self._all_values()
        if values is not None:
            return values[position]
        held = self.held.get(position)
        value = self.codec.decode(self.payloads[position], held)
        if held is not None:
            held.close()
        return value

    def all_diffs(self) -> Sequence[Any] | None:
        """The diffs of all, if they are plain data and came as one."""
        values = self._all_values()
        if values is None:
            return None
        if channel := self.channel:
            return Diffs(channel, values)
        return list(map(finished.diff_of, values))

    def diff(self, position: int) -> Any:
        """The diff of one task that did not fail. Raises DecodeError."""
        value = self.value(position)
        return [(self.channel, value)] if self.channel else finished.diff_of(value)

    def _all_values(self) -> list[Any] | None:
        if self.values is None and self.whole:
            try:
                self.values = self.codec.decode(self.whole)
            except WireError:
                # One level of nesting more than each has alone.
                self.payloads = finished.cut(self.whole)
                self.whole = b""
        return self.values


def results(frame: Frame) -> None:
    """Post what a frame of results holds."""
    failed = frame.failed
    if not frame.position:
        _at_once(frame)
    for position in range(frame.position, len(frame.attempts)):
        attempt = frame.attempts[position]
        if attempt is not None and attempt.outbox is not None:
            try:
                value = frame.value(position) if position in failed else frame.diff(position)
                if position in frame.answers:
                    # The task took answers from its own copy; the run goes by the attempt's.
                    given, left = frame.codec.decode(frame.answers[position])
                    attempt.answers.given[:] = given
                    del attempt.answers.null[left:]
                if position in failed:
                    kind = FAILED
                else:
                    kind = DONE
            except WireError as error:
                kind = FAILED
                error.args = (
                    f"the result of node '{attempt.program.name}' cannot be decoded: {error}",
                    *error.args[1:],
                )
                value = error
            attempt.outbox.post((kind, attempt, value, frame.took_s(position)))
        frame.position = position + 1
    for held in frame.held.values():
        held.close()


def _at_once(frame: Frame) -> None:
    """Post plain results as one outcome, unless there is something special about one of them."""
    attempts = frame.attempts
    if frame.answers or (type(attempts) is not Span and None in attempts):
        return
    diffs = frame.all_diffs()
    first = lead(attempts)  # type: ignore[arg-type]  # none is None
    if diffs is not None and first is not None and first.outbox is not None:
        first.outbox.post((DONE_MANY, attempts, diffs, frame.total_ns * 1e-9))
        frame.position = len(attempts)


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


def errand(what: tuple[Codec, Attempt | None, str, bytes, Callable[[bytes], None]]) -> None:
    """Have a task's run asked something: ``(codec, attempt, whom, arguments, answer)``. It does not wait for the answer."""
    codec, attempt, target, data, answer = what

    def done(value: Any, error: BaseException | None = None) -> None:
        told = [True, value] if error is None else [False, error]
        try:
            answer(codec.encode(told, path=f"the answer of the run's {target}"))
        except EncodeError as refusal:
            answer(codec.encode([False, RuntimeError(str(refusal))]))

    if target == link.CONSUMER:
        if attempt is None or attempt.outbox is None:
            done(None)
        else:  # behind all that the task has said
            attempt.outbox.post((EVENT, attempt, (TAKEN, done), 0.0))
        return
    try:
        if attempt is None:
            raise RuntimeError(f"a task that has ended asked for its run's {target}")
        attempt.facts.local.serve(attempt, target, codec.decode(data), done)
    except Exception as error:
        done(None, error)


def close(mappings: Mappings) -> None:
    """Close a dead worker's shared files, now that what it sent has been decoded."""
    mappings.close()
