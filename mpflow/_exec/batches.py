"""How many attempts travel in one frame, and how a frame of tasks is laid out; `finished` is the way back.

Owns the layout on both sides and the rule of thumb behind it: a batch aims at some milliseconds of work, so that its
cost is shared and nobody waits long behind it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgpack

from mpflow._columns import Attempts, Span
from mpflow._messages import Attempt

TARGET_S = 0.04
"""What a batch aims to take, of one run alone. A frame costs some 100 us on both sides together, more where the code for it
has left the caches: below one percent."""
WINDOW_S = 0.2
"""Work for this long lies ready at each worker while there is plenty, so that none waits for us when we are busy, nor we
need to listen all the time."""
SHARED_TARGET_S = 0.003
SHARED_WINDOW_S = 0.03
"""The same while several runs have work queued: none of them waits long behind another."""
LEAST_WINDOW_S = 0.003
"""The same while there is little work."""
UNEVEN_S = 0.003
"""What waits at a busy worker for longer than this is worth the way to an idle one."""
LEAST_S = 0.0005
"""Less work than this is not split further: its frames would cost more than an uneven end."""
LIMIT = 1024
GROWTH = 8
"""A batch is at most this many times what was measured of its program so far: one quick task proves little."""

_LARGE_BYTES = 1 << 15
WHOLE_BYTES = 1 << 18
"""Plain data of a whole batch travels as one message up to this size: one call decodes it all."""
_PICKLED = 42
_SEND_PATH = 3
"""How many parts the path of a Send has."""
_pathof = attrgetter("path")


def size(seen: int, mean_s: float, waiting: int, workers: int, *, is_shared: bool = False) -> int:
    """How many tasks of a program go into its next batch; near the end of a fan-out less, so that all end together, and if
    several runs share the workers."""
    if not seen:
        return 1
    fitting = int((SHARED_TARGET_S if is_shared else TARGET_S) / mean_s) if mean_s > 0 else LIMIT
    least = int(LEAST_S / mean_s) if mean_s > 0 else LIMIT
    share = max(-(-waiting // (2 * workers)), least)
    return max(1, min(fitting, seen * GROWTH, share, waiting, LIMIT))


def window_s(backlog_s: float, workers: int, *, is_shared: bool = False) -> float:
    """How much work may lie ready at a busy worker while there is so much in the queue."""
    return min(SHARED_WINDOW_S if is_shared else WINDOW_S, max(LEAST_WINDOW_S, backlog_s / (2 * workers)))


# -- tasks: [forward output, log level, ticket, all inputs, [group, ...]], then the large inputs -----------------------------------
# group: [first number, program, facts, triggers, timeout, attempt, answers, paths, inputs]; its tasks are numbered on. attempt: its
# number, or that and when the first one began. input: encoded, or the size of a large one, or a packed `shelf.Sheet`


class Stint(NamedTuple):
    """A group as a worker finds it."""

    first: int
    program: int
    facts: int
    triggers: tuple[str, ...]
    timeout_s: float | None
    attempt: Any
    answers: bytes | None
    columns: tuple[Any, ...]
    inputs: tuple[Any, ...]

    @property
    def number(self) -> int:
        """Which attempt at their tasks these are."""
        attempt = self.attempt
        number: int = attempt if type(attempt) is int else attempt[0]
        return number

    @property
    def first_at(self) -> float | None:
        """When the first attempt began, if this is another one."""
        attempt = self.attempt
        return None if type(attempt) is int else attempt[1]


def groups_of(
    attempts: Attempts,
    first: int,
    program: int,
    facts_number: Callable[[Any], int],
    inputs: Sequence[Any],
    encode: Callable[[Any], bytes],
) -> list[list[Any]]:
    """The groups of a batch of one program: runs of attempts that differ in path and input alone."""
    if type(attempts) is Span:
        facts, paths = facts_number(attempts.facts), _columns_of(attempts)
        return [[first, program, facts, list(attempts.triggers), None, 1, None, paths, inputs]]
    groups = []
    begin = 0
    head = attempts[0]
    for index in range(1, len(attempts) + 1):
        if index < len(attempts):
            other = attempts[index]
            if other.plain and head.plain and other.facts is head.facts and other.triggers is head.triggers:
                continue
            if (
                other.facts is head.facts
                and other.number == head.number
                and other.first_at == head.first_at
                and other.timeout_s == head.timeout_s
                and (other.triggers is head.triggers or list(other.triggers) == list(head.triggers))
                and (other.answers is head.answers or (_has_none(other) and _has_none(head)))
            ):
                continue
        groups.append(
            [
                first + begin,
                program,
                facts_number(head.facts),
                list(head.triggers),
                head.timeout_s,
                head.number if head.first_at is None else [head.number, head.first_at],
                _answers(head, encode),
                columns(list(map(_pathof, attempts[begin:index]))),
                inputs[begin:index],
            ]
        )
        if index < len(attempts):
            begin, head = index, attempts[index]
    return groups


def _has_none(attempt: Attempt) -> bool:
    """Whether its task may be asked, but was given no answer so far."""
    answers = attempt.answers
    return answers is not None and not (answers.given or answers.null or answers.by_id)


def _answers(attempt: Attempt, encode: Callable[[Any], bytes]) -> bytes | None:
    answers = attempt.answers
    if answers is None:
        return None
    return b"" if _has_none(attempt) else encode([answers.given, answers.null, answers.by_id])


def columns(paths: list[tuple[Any, ...]]) -> list[Any]:
    """Paths that differ in one place, as Sends' do, by what they share and what they do not: [count, head, middles, tail].

    Of a span's middles, which are whole numbers without a gap, the first. Others as they are.
    """
    first = paths[0]
    if len(paths) > 1 and len(first) == _SEND_PATH == len(paths[-1]) and set(map(len, paths)) == {_SEND_PATH}:
        heads, middles, tails = zip(*paths, strict=True)
        if heads.count(first[0]) == tails.count(first[2]) == len(paths):
            return [len(paths), first[0], middles, first[2]]
    return [0, *paths]


def _columns_of(span: Span) -> list[Any]:
    head, first, tail = span.path
    return [len(span), head, first, tail]


def count_of(columns: Sequence[Any]) -> int:
    """How many paths these are."""
    return columns[0] or len(columns) - 1


def path_at(columns: Sequence[Any], position: int) -> tuple[Any, ...]:
    """One of the paths that `columns` was given."""
    if not columns[0]:
        path: tuple[Any, ...] = columns[1 + position]
        return path
    _, head, middles, tail = columns
    return (head, middles + position if type(middles) is int else middles[position], tail)


def numbers_of(groups: Sequence[Sequence[Any]]) -> range:
    """The numbers of the tasks of a batch, by its groups."""
    last = groups[-1]
    return range(groups[0][0], last[0] + count_of(last[7]))


def split(blobs: Any) -> tuple[list[Any], list[bytes]]:
    """Put the size in the place of each large one, and all large ones behind the head, where nobody copies them."""
    if blobs and type(blobs[0]) is not bytes:
        return [sheet.packed() for sheet in blobs], []
    large = [blob for blob in blobs if len(blob) >= _LARGE_BYTES]
    if not large:
        return blobs, large
    return [len(blob) if len(blob) >= _LARGE_BYTES else blob for blob in blobs], large


def join(head: Any, large: Sequence[bytes]) -> list[bytes]:
    """The parts of a frame."""
    data = pack(head)
    return [len(data).to_bytes(4, "little"), data, *large]


class Tail:
    """The large ones of a frame, in order."""

    __slots__ = ("_at", "_view")

    def __init__(self, view: memoryview, at: int) -> None:
        self._view = view
        self._at = at

    def of(self, blob: Any) -> Any:
        """What `split` put a size in the place of; other things are returned as they are."""
        if type(blob) is not int:
            return blob
        begin = self._at
        self._at = begin + blob
        return self._view[begin : self._at]


def part(body: Any) -> tuple[Any, Tail]:
    """Undo `join`."""
    view = memoryview(body)
    end = 4 + int.from_bytes(view[:4], "little")
    return unpack(view[4:end]), Tail(view, end)


def _odd(value: Any) -> Any:
    return msgpack.ExtType(_PICKLED, pickle.dumps(value))


def _even(code: int, data: bytes) -> Any:
    return pickle.loads(data) if code == _PICKLED else msgpack.ExtType(code, data)


def pack(value: Any) -> bytes:
    """Bytes of our own structures; a task's path may hold anything a user's Send key was made of."""
    data: bytes = msgpack.packb(value, default=_odd, unicode_errors="surrogatepass")
    return data


def unpack(data: Any) -> Any:
    """Undo `pack`; sequences become tuples."""
    return msgpack.unpackb(data, use_list=False, ext_hook=_even, strict_map_key=False, unicode_errors="surrogatepass")
