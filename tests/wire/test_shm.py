from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from mpflow._wire import memory, shm
from mpflow._wire.codec import REFERS, DecodeError
from mpflow._wire.mappings import Mappings
from mpflow._wire.shm import Arena
from tests.wire.wires import BIG, Wire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared memory arenas are for Linux")
np = pytest.importorskip("numpy")


def test_large_buffers_leave_the_message(wire: Wire) -> None:
    value = {"a": np.arange(10_000.0), "b": b"x" * 10_000, "c": [bytearray(b"y" * 10_000), memoryview(b"z" * 10_000)]}
    data, held = wire.send(value)
    back = wire.codec.decode(data, held)
    assert len(data) < 300
    assert (back["a"] == value["a"]).all()
    assert (back["b"], back["c"]) == (value["b"], value["c"])
    assert [type(item) for item in (back["b"], *back["c"])] == [bytes, bytearray, memoryview]
    assert back["a"].flags.writeable and back["a"].ctypes.data % 64 == 0


def test_small_buffers_stay_in_the_message(wire: Wire) -> None:
    data, flags = wire.codec.encode_flagged([np.arange(10), b"x" * 4095])
    assert not flags & REFERS and len(data) > 4095


def test_first_task_changes_all_it_was_given_and_the_second_sees_it_pristine(wire: Wire) -> None:
    array = np.arange(BIG // 8)
    data, held = wire.send([array, bytearray(b"x" * BIG)])
    first = wire.codec.decode(data, held)
    first[0][:] = -1
    first[1][:] = b"y" * BIG
    second = wire.codec.decode(data, held)
    assert (second[0] == array).all() and second[1] == b"x" * BIG
    assert (array == np.arange(BIG // 8)).all() and (first[0] == -1).all()


def test_array_kept_by_the_reader_stays_right_while_the_arena_recycles() -> None:
    wire = Wire(budget_bytes=2 << 20)
    kept = wire.across(np.arange(5_000))
    sometimes = []
    for number in range(10_000):
        fresh = wire.across(np.full(1_000, number))
        assert fresh[0] == fresh[-1] == number
        if number % 1_000 == 0:
            sometimes.append(fresh)
        del fresh
        wire.arena.release("worker", wire.mappings.take_releases())
    assert (kept == np.arange(5_000)).all()
    assert [array[5] for array in sometimes] == list(range(0, 10_000, 1_000))
    assert wire.arena.reserved_bytes <= 2 << 20
    wire.close()


def test_block_is_held_until_lease_and_readers_are_done(wire: Wire) -> None:
    array = np.arange(BIG)
    with wire.arena.scope() as lease:
        data, _ = wire.codec.encode_flagged(array)
    first, files = lease.send_to("a")
    second, none = lease.send_to("a")
    assert (len(files), none) == (1, [])
    assert len(lease.send_to("b")[1]) == 1  # another peer needs the file too
    lease.close()
    wire.arena.release("a", [first, 99])
    wire.arena.forget("b")
    assert wire.arena.used_bytes > 0
    wire.arena.release("a", [second])
    assert wire.arena.used_bytes == 0
    with pytest.raises(ValueError, match="closed"):
        lease.send_to("a")


def test_ticket_comes_back_when_message_is_closed_and_last_view_is_gone(wire: Wire) -> None:
    data, held = wire.send({"a": np.arange(BIG), "b": np.arange(BIG)})
    value = wire.codec.decode(data, held)
    slice_of_one = value["a"][5:7]
    del value
    held.close()
    assert wire.mappings.take_releases() == []
    assert slice_of_one.tolist() == [5, 6]
    del slice_of_one
    assert wire.mappings.take_releases() == [held.ticket]
    assert wire.mappings.take_releases() == []


def test_message_that_was_never_decoded_gives_its_ticket_back(wire: Wire) -> None:
    _, held = wire.send(np.arange(BIG))
    held.close()
    held.close()
    assert wire.mappings.take_releases() == [held.ticket]


def test_lease_that_is_forgotten_is_released(wire: Wire) -> None:
    with wire.arena.scope() as lease:
        wire.codec.encode(np.arange(BIG))
    assert wire.arena.used_bytes > 0
    del lease
    gc.collect()
    assert wire.arena.used_bytes == 0


def test_failed_encoding_leaves_no_block(wire: Wire) -> None:
    import threading

    with pytest.raises(Exception, match="lock"), wire.arena.scope():
        wire.codec.encode([np.arange(BIG), threading.Lock()])
    assert wire.arena.used_bytes == 0


def test_object_is_copied_once_in_a_scope_and_anew_in_the_next(wire: Wire) -> None:
    array = np.arange(BIG)
    with wire.arena.scope():
        first = wire.codec.encode(array)
        used = wire.arena.used_bytes
        assert wire.codec.encode([array, array]).count(first[first.index(b"\xc7\x00e") :]) == 2
        assert wire.arena.used_bytes == used
    array[0] = 77
    assert wire.across(array)[0] == 77


def test_two_arrays_of_one_message_are_one_block_and_two_private_views(wire: Wire) -> None:
    array = np.arange(BIG)
    a, b = wire.across([array, array])
    a[:] = 0
    assert (b == array).all()


def test_over_budget_bytes_stay_in_the_message() -> None:
    wire = Wire(budget_bytes=1 << 20)
    array = np.arange(BIG)
    data, flags = wire.codec.encode_flagged(array)
    with wire.arena.scope():
        data, flags = wire.codec.encode_flagged([np.arange(1_000), array])
    assert flags & REFERS and len(data) > array.nbytes
    assert wire.arena.reserved_bytes <= 1 << 20
    wire.close()


def test_file_that_is_all_free_makes_room_for_a_larger_one() -> None:
    wire = Wire(budget_bytes=32 << 20)
    for size in (1 << 20, 20 << 20, 30 << 20, 1 << 20):
        back = wire.across(np.zeros(size, "u1"))
        assert len(back) == size
        del back
        wire.settle()
        assert wire.arena.reserved_bytes <= 32 << 20
    wire.close()


@pytest.mark.parametrize(
    "problem", ["disabled", "no budget", "no headroom", "no memfd", "fallocate fails", "another process"]
)
def test_without_shared_memory_everything_still_travels(problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    options: dict[str, Any] = {}
    if problem == "disabled":
        options["enabled"] = False
    elif problem == "no budget":
        options["budget_bytes"] = 0
    elif problem == "no headroom":
        monkeypatch.setattr(shm, "headroom_bytes", lambda: 0)
    elif problem == "no memfd":
        monkeypatch.setattr(os, "memfd_create", fail)
    elif problem == "fallocate fails":
        monkeypatch.setattr(os, "posix_fallocate", fail)
    wire = Wire(**options)
    if problem == "another process":
        wire.arena._pid += 1
    array = np.arange(BIG)
    with wire.arena.scope():
        data, flags = wire.codec.encode_flagged(array)
    assert not flags & REFERS
    assert (wire.codec.decode(data) == array).all()
    wire.close()


def test_no_scope_no_reference(wire: Wire) -> None:
    assert not wire.codec.encode_flagged(np.arange(BIG))[1] & REFERS


def test_stale_reference_is_seen_not_read(wire: Wire) -> None:
    data, held = wire.send(np.arange(BIG))
    with held:
        wire.codec.decode(data, held)
    wire.settle()
    with pytest.raises(DecodeError, match="generation"):
        wire.codec.decode(data, wire.mappings.hold(99))
    wire.across(np.zeros(BIG))  # in the same place
    with pytest.raises(DecodeError, match="generation"):
        wire.codec.decode(data, wire.mappings.hold(99))


@pytest.mark.parametrize(
    "ref", [(5, 0, 8, 1), (0, 4096, 1 << 40, 1), (0, -4096, 8, 1), (0, 1, 8, 1), (0, 0, -1, 1), ("a", 0, 8, 1)]
)
def test_damaged_reference_is_a_decode_error(wire: Wire, ref: Any) -> None:
    import msgpack

    wire.send(np.arange(BIG))
    data = msgpack.packb([msgpack.ExtType(101, b""), *ref])
    with pytest.raises(DecodeError):
        wire.codec.decode(data, wire.mappings.hold(1))


def test_reference_without_its_mappings_or_after_closing_is_a_decode_error(wire: Wire) -> None:
    data, held = wire.send(np.arange(BIG))
    with pytest.raises(DecodeError, match=r"Mappings\.hold"):
        wire.codec.decode(data)
    held.close()
    with pytest.raises(DecodeError, match="closed"):
        wire.codec.decode(data, held)


def test_file_that_could_shrink_is_refused() -> None:
    mappings = Mappings()
    fd = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 8192)
    with pytest.raises(DecodeError, match="sealed"):
        mappings.add_file(0, fd)


def test_beyond_the_most_mappings_blocks_are_copied(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpflow._wire.mappings._MAX_MAPPINGS", 3)
    data, held = wire.send([np.full(1_000, n) for n in range(6)])
    back = wire.codec.decode(data, held)
    assert [array[-1] for array in back] == list(range(6))
    back[5][:] = 9
    assert wire.codec.decode(data, held)[5][0] == 5


def test_mapped_arrays_outlive_both_ends() -> None:
    wire = Wire()
    array = wire.across(np.arange(BIG))
    wire.close()
    assert (array == np.arange(BIG)).all()
    array[0] = 1


def test_pickled_objects_hand_their_buffers_to_the_arena(wire: Wire) -> None:
    array = np.ma.masked_array(np.arange(BIG), False)
    data, held = wire.send(array)
    assert len(data) < 1_000
    assert (wire.codec.decode(data, held) == array).all()


def test_arrow_and_pandas_buffers_go_to_the_arena(wire: Wire) -> None:
    pa, pd = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    table = pa.table({"a": np.arange(BIG)})
    frame = pd.DataFrame({"a": np.arange(100_000), "b": np.arange(100_000.0)})
    data, held = wire.send([table, frame])
    assert len(data) < 1_000
    back_table, back_frame = wire.codec.decode(data, held)
    assert back_table.equals(table)
    back_frame.loc[0, "a"] = 5
    pd.testing.assert_frame_equal(wire.codec.decode(data, held)[1], frame)


_WORKER = textwrap.dedent(
    """
    import socket, sys
    import numpy as np
    from mpflow._wire.codec import Codec
    from mpflow._wire.mappings import Mappings
    from mpflow._wire.shm import Arena
    sock = socket.socket(fileno=int(sys.argv[1]))
    arena, mappings = Arena(budget_bytes=64 << 20), Mappings()
    codec = Codec(trust=True, arena=arena)
    data, fds, _, _ = socket.recv_fds(sock, 4096, 4)
    mappings.add_file(0, fds[0])
    with mappings.hold(1) as held:
        array = codec.decode(data, held)
        array += 1
        again = codec.decode(data, held)
        assert again[0] == 0
        with arena.scope() as lease:
            reply = codec.encode(array)
    ticket, files = lease.send_to("parent")
    socket.send_fds(sock, [reply], [fd for _, fd in files])
    assert sock.recv(1) == b"."
    """
)


def test_arrays_go_to_another_process_and_back(wire: Wire) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    array = np.arange(BIG)
    with ours, theirs:
        child = subprocess.Popen([sys.executable, "-c", _WORKER, str(theirs.fileno())], pass_fds=[theirs.fileno()])
        try:
            with wire.arena.scope() as lease:
                data = wire.codec.encode(array)
            ((_, fd),) = lease.send_to("child")[1]
            socket.send_fds(ours, [data], [fd])
            reply, fds, _, _ = socket.recv_fds(ours, 4096, 4)
            mappings = Mappings()
            mappings.add_file(0, fds[0])
            back = wire.codec.decode(reply, mappings.hold(1))
            ours.send(b".")
            assert child.wait(60) == 0
        finally:
            child.kill()
            child.wait()
    assert (back == array + 1).all() and (array == np.arange(BIG)).all()
    mappings.close()


def test_forked_child_changes_nothing_of_its_parents(wire: Wire) -> None:
    data, held = wire.send(np.arange(BIG))
    back = wire.codec.decode(data, held)
    held.close()
    child = os.fork()
    if not child:
        status = 1
        try:
            back[:] = 0
            del back
            with wire.arena.scope():
                refers = wire.codec.encode_flagged(np.zeros(BIG))[1] & REFERS
            status = int(bool(refers or wire.mappings.take_releases()))
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert (back == np.arange(BIG)).all() and wire.arena.used_bytes > 0


def test_default_budget_lies_within_the_machine() -> None:
    assert 0 < memory.limit_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory.headroom_bytes() <= memory.limit_bytes()
    arena = Arena()
    assert arena.budget_bytes == memory.limit_bytes() // 4 and arena.reserved_bytes == 0


# -- passed on from one process to the next ------------------------------------------------------------------------------


@pytest.fixture
def onward() -> Iterator[tuple[Wire, Wire]]:
    """From one worker to the parent, and from the parent to another worker."""
    wires = Wire(), Wire()
    yield wires
    for wire in wires:
        wire.close()
    gc.collect()


def test_what_came_from_elsewhere_is_passed_on_without_a_copy(onward: tuple[Wire, Wire]) -> None:
    first, second = onward
    passing = first.across({"a": np.arange(100_000.0)})
    back = second.across(passing)
    assert (back["a"] == np.arange(100_000.0)).all() and back["a"].flags.writeable
    assert second.arena.used_bytes == second.arena.reserved_bytes == 0


def test_a_block_passed_on_is_held_until_the_last_receiver_is_done(onward: tuple[Wire, Wire]) -> None:
    first, second = onward
    back = second.across(first.across(np.ones(BIG, np.uint8)))
    first.settle()
    assert first.arena.used_bytes >= BIG, "whoever it was passed on to still reads it"
    del back
    second.settle()
    first.settle()
    assert first.arena.used_bytes == 0


def test_what_was_written_to_meanwhile_is_copied(onward: tuple[Wire, Wire]) -> None:
    first, second = onward
    passing = first.across(np.zeros(BIG, np.uint8))
    passing[BIG // 2] = 7
    back = second.across(passing)
    assert back[BIG // 2] == 7 and back.sum() == 7
    assert second.arena.used_bytes >= BIG


def test_a_part_of_a_block_is_copied(onward: tuple[Wire, Wire]) -> None:
    first, second = onward
    part = first.across(np.arange(BIG, dtype=np.uint8))[4096 : BIG // 2]
    assert (second.across(part) == part).all()
    assert second.arena.used_bytes >= part.nbytes


def test_what_the_dead_sent_is_copied_once_their_files_are_closed(onward: tuple[Wire, Wire]) -> None:
    first, second = onward
    passing = first.across(np.ones(BIG, np.uint8))
    first.mappings.close()
    assert second.across(passing).sum() == BIG
    assert second.arena.used_bytes >= BIG


def test_receivers_are_told_of_files_that_hold_nothing_any_more() -> None:
    wire = Wire(budget_bytes=16 << 20)
    try:
        first = wire.across(np.ones(12 << 20, np.uint8))
        del first
        wire.settle()
        second = wire.across(np.ones(14 << 20, np.uint8))  # does not fit beside the first file
        assert len(second) == 14 << 20
        [gone] = wire.arena.take_gone("worker")
        wire.mappings.drop_files([gone])
        assert wire.arena.take_gone("worker") == [] and list(wire.mappings._files) == [gone + 1]
    finally:
        wire.close()
