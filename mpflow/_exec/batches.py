"""How many attempts travel in one frame, and how a frame of tasks or of results is laid out.

Owns the layout on both sides and the rule of thumb behind it: a batch aims at some milliseconds of work, so that its
cost is shared and nobody waits long behind it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from operator import attrgetter
from typing import Any

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


# -- results: (rss, releases, skipped numbers, numbers, nanoseconds, channel, payloads or all of them, positions failed, tickets,
# answers, bytes copied into shared memory, (CPU time, delays) in nanoseconds, figures of tasks that were moved); with a channel, what came back is that channel's values


def flat(diff: Sequence[tuple[str, Any]]) -> list[Any]:
    """A diff as it travels: channel, value, channel, value, ... A tuple costs the codec as much as the rest of it."""
    return list(diff[0] if len(diff) == 1 else chain.from_iterable(diff))


_ATOMS = frozenset({int, float, str, bool, type(None)})
PLAIN = _ATOMS | {list, dict}
"""What may be plain data by its type."""
SMALL = _ATOMS - {str}
"""Values that cannot change, and mostly take next to nothing, wait to be encoded with others."""
_KEPT_BYTES = 1 << 16
_packer = msgpack.Packer(strict_types=True)


def plain(value: Any) -> bytes | None:
    """As the codec encodes an atom, or a list or dict of them; None for what only it can. For who has a worker's books."""
    global _packer
    kind = type(value)
    if kind is dict:
        if not (_ATOMS.issuperset(map(type, value)) and _ATOMS.issuperset(map(type, value.values()))):
            return None
    elif kind is list and not _ATOMS.issuperset(map(type, value)):
        return None
    try:
        data: bytes = _packer.pack(value)
    except (UnicodeEncodeError, OverflowError):  # a lone surrogate, more than 64 bits
        data = b""
    if len(data) > _KEPT_BYTES or not data:  # a packer keeps the largest buffer it ever had
        _packer = msgpack.Packer(strict_types=True)
        return data or None
    return data


def diff_of(items: list[Any]) -> list[tuple[str, Any]]:
    """Undo `flat`."""
    if len(items) == 2:
        return [(items[0], items[1])]
    each = iter(items)
    return list(zip(each, each, strict=True))


def cut(whole: bytes) -> list[bytes]:
    """The messages that an array of them consists of."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(whole))
    unpacker.feed(whole)
    count = unpacker.read_array_header()
    ends = [unpacker.tell()]
    for _ in range(count):
        unpacker.skip()
        ends.append(unpacker.tell())
    return [whole[begin:end] for begin, end in pairwise(ends)]


class Results:
    """What a worker has finished and not yet sent."""

    __slots__ = (
        "_encode",
        "answers",
        "channel",
        "done",
        "failed",
        "figures",
        "flags",
        "size_bytes",
        "skipped",
        "spent_ns",
        "tickets",
    )

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode
        self.done: list[Any] = []
        """Number, nanoseconds, payload, number, nanoseconds, payload, ... A payload is bytes; with a channel also a small value
        that waits to be encoded with others."""
        self.failed: list[int] = []
        self.skipped: list[int] = []
        self.tickets: list[tuple[int, int]] = []
        self.answers: list[tuple[int, bytes]] = []
        """By position, for tasks that took an answer: those given by now, and how many unaddressed ones are left."""
        self.spent_ns = 0, 0
        """The CPU time of the process, and how long it could have run and another did, since results last said so."""
        self.figures: tuple[int, int, int, int] | None = None
        """What was measured of tasks that nobody asked to be run here."""
        self.size_bytes = 0
        """Of what is encoded."""
        self.flags = 0
        """Of all payloads together: 0 if they are plain data."""
        self.channel: str | None = ""
        """The one channel that all have written one value to, an atom or a list or dict of them: then payloads hold the values alone.
        "" as long as there are none, None if they differ."""

    @property
    def count(self) -> int:
        """How many tasks have finished."""
        return len(self.done) // 3

    def clear(self) -> None:
        """Begin anew, with the same lists: the worker's loop has them at hand."""
        lists: tuple[list[Any], ...] = (
            self.done,
            self.failed,
            self.skipped,
            self.tickets,
            self.answers,
        )
        for each in lists:
            each.clear()
        self.size_bytes = self.flags = 0
        self.figures = None
        self.spent_ns = 0, 0
        self.channel = ""

    def refuse(self, error: bytes) -> None:
        """Let all that are finished have failed with an error, which is encoded."""
        self.open_up()
        self.done[2::3] = [error] * self.count
        self.failed[:] = range(self.count)
        self.flags = -1

    def begins_with(self, channel: str) -> bool:
        """Whether nothing has been written so far, and this is now the one channel."""
        if self.channel == "" and not self.done and type(channel) is str:
            self.channel = channel
            return True
        return False

    def open_up(self) -> None:
        """Make whole diffs of the values collected so far."""
        if self.channel:
            # What the codec puts before a value in a list of two.
            begin = b"\x92" + pack(self.channel)
            self.done[2::3] = [begin + each for each in self._encoded()]
        self.channel = None

    def parts(self, rss_bytes: int, releases: list[int], shared_bytes: int) -> list[bytes]:
        """The parts of a frame."""
        if self.channel and self.size_bytes > WHOLE_BYTES:
            self.open_up()
        done = self.done
        payloads, whole = done[2::3], b""
        large: list[bytes] = []
        if self.channel or (not self.flags and not self.failed and self.size_bytes <= WHOLE_BYTES):
            whole = self._array(payloads)
            payloads = []
        else:
            payloads, large = split(payloads)
        head = (
            rss_bytes, releases, self.skipped, done[0::3], done[1::3], self.channel or "", payloads, whole,
            self.failed, self.tickets, self.answers, shared_bytes, self.spent_ns, self.figures,
        )  # fmt: skip
        return join(head, large)

    def _array(self, payloads: list[Any]) -> bytes:
        """Values as one array of them: each is encoded, or waits for that."""
        if payloads and type(payloads[0]) is not bytes and (whole := plain(payloads)) is not None:
            return whole
        each = self._encoded()
        return b"\xdd" + len(each).to_bytes(4, "big") + b"".join(each)

    def _encoded(self) -> list[bytes]:
        return [it if type(it) is bytes else plain(it) or self._encode(it) for it in self.done[2::3]]
