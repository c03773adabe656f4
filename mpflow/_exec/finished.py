"""What workers have finished, and how a frame of it is laid out: the way back of a batch.

Owns the layout on both sides. Must not know what is done with results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any

import msgpack

from mpflow._exec.batches import WHOLE_BYTES, join, pack, split

# A frame: (rss, releases, skipped numbers, run of numbers, nanoseconds of each or in all, channel, payloads or all of them,
# positions failed, tickets, answers, bytes copied into shared memory, (CPU time, delays) in nanoseconds, figures of tasks that were
# moved); with a channel, what came back is that channel's values. run: (first, count, ()) without a gap, else (0, 0, numbers)


def run_of(numbers: Sequence[int]) -> tuple[int, int, Sequence[int]]:
    """Ascending numbers as they travel."""
    if numbers and numbers[-1] - numbers[0] == len(numbers) - 1:
        return numbers[0], len(numbers), ()
    return 0, 0, numbers


def numbers_in(run: tuple[int, int, Sequence[int]]) -> Sequence[int]:
    """Undo `run_of`."""
    first, count, numbers = run
    return range(first, first + count) if count else numbers


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
        "failed",
        "figures",
        "flags",
        "numbers",
        "payloads",
        "size_bytes",
        "skipped",
        "spent_ns",
        "tickets",
        "times_ns",
    )

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode
        self.numbers: list[int] = []
        """Of those that have finished; `times_ns` has what each took, `payloads` what came of it."""
        self.times_ns: list[int] = []
        self.payloads: list[Any] = []
        """Bytes; with a channel also small values that wait to be encoded with others."""
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
        return len(self.numbers)

    def clear(self) -> None:
        """Begin anew, with the same lists: the worker's loop has them at hand."""
        lists: tuple[list[Any], ...] = (
            self.numbers,
            self.times_ns,
            self.payloads,
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
        self.payloads[:] = [error] * self.count
        self.failed[:] = range(self.count)
        self.flags = -1

    def begins_with(self, channel: str) -> bool:
        """Whether nothing has been written so far, and this is now the one channel."""
        if self.channel == "" and not self.numbers and type(channel) is str:
            self.channel = channel
            return True
        return False

    def open_up(self) -> None:
        """Make whole diffs of the values collected so far."""
        if self.channel:
            # What the codec puts before a value in a list of two.
            begin = b"\x92" + pack(self.channel)
            self.payloads[:] = [begin + each for each in self._encoded()]
        self.channel = None

    def parts(self, rss_bytes: int, releases: list[int], shared_bytes: int) -> list[bytes]:
        """The parts of a frame."""
        if self.channel and self.size_bytes > WHOLE_BYTES:
            self.open_up()
        payloads: list[Any] = []
        large: list[bytes] = []
        whole = b""
        times_ns: list[int] | int = self.times_ns
        if self.channel or (not self.flags and not self.failed and self.size_bytes <= WHOLE_BYTES):
            whole = self._array()
            times_ns = self.times_ns if self.answers else sum(self.times_ns)
        else:
            payloads, large = split(self.payloads)
        head = (
            rss_bytes, releases, self.skipped, run_of(self.numbers), times_ns, self.channel or "", payloads, whole,
            self.failed, self.tickets, self.answers, shared_bytes, self.spent_ns, self.figures,
        )  # fmt: skip
        return join(head, large)

    def _array(self) -> bytes:
        """The payloads as one array of them: each is encoded, or waits for that."""
        payloads = self.payloads
        if payloads and type(payloads[0]) is not bytes and (whole := plain(payloads)) is not None:
            return whole
        each = self._encoded()
        return b"\xdd" + len(each).to_bytes(4, "big") + b"".join(each)

    def _encoded(self) -> list[bytes]:
        return [it if type(it) is bytes else plain(it) or self._encode(it) for it in self.payloads]
