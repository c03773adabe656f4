from __future__ import annotations

import sys
from typing import Any

import pytest

from mpflow._wire import mappings, origins
from tests.wire.wires import BIG, Wire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared memory arenas are for Linux")
np = pytest.importorskip("numpy")


class Tasks:
    """What tasks are given one after another in a worker that keeps one message for them."""

    def __init__(self, wire: Wire, value: Any) -> None:
        self._wire = wire
        self._data, self.held = wire.send(value, is_lasting=True)

    def given(self) -> Any:
        return self._wire.codec.decode(self._data, self.held)


def address(array: Any) -> int:
    return int(array.ctypes.data)


def can_glance() -> bool:
    """Whether this kernel finds written pages without reading every entry."""
    import mmap

    with mmap.mmap(-1, BIG, flags=mmap.MAP_PRIVATE) as mapping, memoryview(mapping) as view:
        return origins.is_untouched(view, at_a_glance=True)


needs_glance = pytest.mark.skipif(
    sys.platform == "linux" and not can_glance(), reason="needs PAGEMAP_SCAN, of Linux 6.7"
)


@needs_glance
def test_a_mapping_that_was_only_read_is_lent_to_the_next_task(wire: Wire) -> None:
    tasks = Tasks(wire, np.arange(BIG))
    first = tasks.given()
    at, total = address(first), first.sum()
    del first
    tasks.held.settle()
    second = tasks.given()
    assert address(second) == at and second.sum() == total


@needs_glance
def test_a_mapping_is_lent_again_within_one_batch(wire: Wire) -> None:
    tasks = Tasks(wire, np.arange(BIG))
    assert len({address(tasks.given()) for _ in range(5)}) == 1
    assert len(wire.mappings._live) == 1


@pytest.mark.parametrize("at", [0, BIG // 2, -1])
@pytest.mark.parametrize("settles", [True, False])
def test_a_mapping_that_was_written_to_is_not_lent(wire: Wire, at: int, settles: bool) -> None:
    tasks = Tasks(wire, np.arange(BIG))
    first = tasks.given()
    assert first.sum() == np.arange(BIG).sum()
    first[at] = -7
    del first
    if settles:
        tasks.held.settle()
        assert not tasks.held.loans and not wire.mappings.take_releases()
    assert (tasks.given() == np.arange(BIG)).all()


def test_a_mapping_that_a_task_keeps_is_its_own(wire: Wire) -> None:
    tasks = Tasks(wire, np.arange(BIG))
    kept = tasks.given()[5:7]
    tasks.held.settle()
    second = tasks.given()
    kept[:] = -1
    assert second[5:7].tolist() == [5, 6] and address(second) + 5 * 8 != address(kept)


def test_two_places_of_one_block_are_not_lent_the_same_mapping(wire: Wire) -> None:
    array = np.arange(BIG)
    tasks = Tasks(wire, [array, array])
    for _ in range(2):
        one, other = tasks.given()
        one[0] = 9
        assert other[0] == 0
        del one, other
        tasks.held.settle()


def test_the_ticket_of_a_lent_mapping_comes_back_at_its_closing(wire: Wire) -> None:
    tasks = Tasks(wire, np.arange(BIG))
    tasks.given()
    tasks.held.settle()
    assert wire.mappings.take_releases() == []
    tasks.held.close()
    assert wire.mappings.take_releases() == [tasks.held.ticket]
    assert not wire.mappings._live


def test_mappings_are_not_kept_when_there_are_many(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mappings, "_MAX_MAPPINGS", 6)
    tasks = [Tasks(wire, np.full(BIG, number, np.uint8)) for number in range(8)]
    for number, task in enumerate(tasks):
        assert task.given()[0] == number
        task.held.settle()
    assert 0 < len(wire.mappings._live) <= 3


@needs_glance
def test_a_lent_mapping_is_still_passed_on_without_a_copy(wire: Wire) -> None:
    tasks, onward = Tasks(wire, np.arange(BIG)), Wire()
    try:
        for _ in range(2):
            assert (onward.across(tasks.given()) == np.arange(BIG)).all()
        assert onward.arena.copied_bytes == 0
    finally:
        onward.close()
