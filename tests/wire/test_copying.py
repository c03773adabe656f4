from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from mpflow._wire import copying
from mpflow._wire.copying import copy

np = pytest.importorskip("numpy")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "PART_BYTES", 1000)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("size_bytes", [0, 1, 1999, 2000, 3001, 1_000_003])
@pytest.mark.parametrize("threads", [1, 2, 3, 64])
def test_every_byte_is_copied_and_none_besides(size_bytes: int, threads: int) -> None:
    source = np.random.default_rng(1).integers(0, 256, size_bytes, np.uint8).tobytes()
    target = bytearray(size_bytes + 2)
    copy(memoryview(target)[1:-1], memoryview(source), threads)
    assert target == b"\0" + source + b"\0"


@pytest.mark.usefixtures("small_parts")
def test_several_threads_copy_a_large_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    copied_by: set[int] = set()
    copyto = np.copyto

    def noting(*arguments: Any) -> None:
        copied_by.add(threading.get_ident())
        together.wait(30)
        copyto(*arguments)

    together = threading.Barrier(3)
    monkeypatch.setattr(np, "copyto", noting)
    copy(memoryview(bytearray(9000)), memoryview(b"x" * 9000), 3)
    assert len(copied_by) == 3


@pytest.mark.usefixtures("small_parts")
def test_without_more_threads_or_without_numpy_one_copies_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    first, second = bytearray(9000), bytearray(9000)
    copy(memoryview(first), memoryview(b"x" * 9000), 4)
    monkeypatch.delitem(sys.modules, "numpy")
    copy(memoryview(second), memoryview(b"x" * 9000), 4)
    assert first == second == b"x" * 9000


@pytest.mark.usefixtures("small_parts")
def test_an_interrupt_waits_for_the_threads_that_write(monkeypatch: pytest.MonkeyPatch) -> None:
    copyto, main, goes_on = np.copyto, threading.get_ident(), threading.Event()
    join = threading.Thread.join

    def interrupted(*arguments: Any) -> None:
        if threading.get_ident() == main:
            raise KeyboardInterrupt
        goes_on.wait(30)
        copyto(*arguments)

    def join_after_another(self: threading.Thread, timeout: float | None = None) -> None:
        if not goes_on.is_set():
            goes_on.set()
            raise KeyboardInterrupt
        join(self, timeout)

    monkeypatch.setattr(np, "copyto", interrupted)
    monkeypatch.setattr(threading.Thread, "join", join_after_another)
    target = bytearray(2000)
    with pytest.raises(KeyboardInterrupt):
        copy(memoryview(target), memoryview(b"x" * 2000), 2)
    assert target == b"\0" * 1000 + b"x" * 1000
