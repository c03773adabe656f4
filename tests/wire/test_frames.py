from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpflow._wire.errors import ProtocolError
from mpflow._wire.frames import HEADER_BYTES, FrameReader, frame, rest_of

MESSAGES = [(1, b""), (2, b"a"), (255, bytes(range(256)) * 3), (0, b"z" * 70_000)]
STREAM = b"".join(b"".join(frame(kind, payload)) for kind, payload in MESSAGES)


def plain(frames: list[tuple[int, memoryview]]) -> list[tuple[int, bytes]]:
    return [(kind, bytes(payload)) for kind, payload in frames]


def test_frames_survive_every_split_point() -> None:
    small = STREAM[: len(STREAM) - 70_000 - HEADER_BYTES]
    points = [*range(len(small) + HEADER_BYTES + 2), len(STREAM) - 1, len(STREAM)]
    for point in points:
        reader = FrameReader()
        assert plain(reader.feed(STREAM[:point]) + reader.feed(STREAM[point:])) == MESSAGES
        assert reader.is_between_frames


@given(st.lists(st.integers(1, 5_000), max_size=200))
def test_frames_survive_any_splits(sizes: list[int]) -> None:
    reader, found, at = FrameReader(), [], 0
    for size in [*sizes, len(STREAM)]:
        found += plain(reader.feed(STREAM[at : at + size]))
        at += size
    assert found == MESSAGES


@given(st.lists(st.tuples(st.integers(0, 255), st.sampled_from([0, 1, 65_535, 65_536, 65_537, 262_144, 300_000]))))
def test_frames_received_into_the_readers_own_buffers(wanted: list[tuple[int, int]]) -> None:
    stream = memoryview(b"".join(b"".join(frame(kind, bytes(size))) for kind, size in wanted))
    reader, found, at = FrameReader(), [], 0
    while at < len(stream):
        room = reader.buffer()
        count = min(len(room), len(stream) - at, 100_003)
        room[:count] = stream[at : at + count]
        del room
        found += reader.received(count)
        at += count
    assert [(kind, len(payload)) for kind, payload in found] == wanted


def test_large_frame_is_received_in_place() -> None:
    payload = bytes(3_000_000)
    reader = FrameReader()
    head, body = frame(7, payload)
    assert reader.feed(head) == []
    assert reader.missing_bytes == len(payload)
    room = reader.buffer()
    assert len(room) == len(payload)
    room[:] = body
    ((kind, got),) = reader.received(len(payload))
    assert kind == 7 and got.obj is room.obj


def test_payload_is_not_touched_by_later_frames() -> None:
    reader = FrameReader()
    ((_, first),) = reader.feed(b"".join(frame(1, b"first")))
    reader.feed(b"".join(frame(1, b"other")))
    assert bytes(first) == b"first" and not first.readonly


@pytest.mark.parametrize(
    "junk", [b"Traceback (most recent call last):", bytes(64), b"mpf1\0\1\0\0" + bytes(8), b"\xff" * 20]
)
@pytest.mark.parametrize("before", [b"", b"".join(frame(1, b"fine"))])
def test_foreign_bytes_are_a_protocol_error(junk: bytes, before: bytes) -> None:
    reader = FrameReader()
    with pytest.raises(ProtocolError):
        reader.feed(before + junk)


def test_announced_size_is_capped_before_anything_is_allocated() -> None:
    head = b"".join(frame(1, b""))[:-8]
    with pytest.raises(ProtocolError, match="limit"):
        FrameReader(max_bytes=1_000).feed(head + (1_001).to_bytes(8, "big"))
    with pytest.raises(ProtocolError):
        FrameReader().feed(head + b"\xff" * 8)


def test_header_takes_sizes_above_2_gib() -> None:
    reader = FrameReader(max_bytes=1 << 62)
    head = b"".join(frame(1, b""))[:-8]
    with pytest.raises(ProtocolError, match="no memory"):
        reader.feed(head + (1 << 60).to_bytes(8, "big"))


def test_end_of_file_in_mid_frame_is_visible() -> None:
    reader = FrameReader()
    assert reader.is_between_frames
    reader.feed(STREAM[:5])
    assert not reader.is_between_frames


def test_frame_copies_no_part_and_sums_their_lengths() -> None:
    part = bytearray(b"abc")
    view = memoryview(bytes(16)).cast("I")
    head, first, second = frame(3, part, b"", view)
    assert first is part and second is view
    (got,) = FrameReader().feed(b"".join([bytes(head), bytes(first), bytes(second)]))
    assert (got[0], bytes(got[1])) == (3, b"abc" + bytes(16))


@given(st.lists(st.binary(max_size=5), min_size=1), st.data())
def test_rest_after_a_short_write(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    sent = data.draw(st.integers(0, len(whole)))
    assert b"".join(map(bytes, rest_of(list(parts), sent))) == whole[sent:]


def test_sendmsg_takes_a_frame_as_it_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendmsg(frame(9, b"ab", memoryview(b"cd")))
        assert plain(FrameReader().feed(theirs.recv(100))) == [(9, b"abcd")]
