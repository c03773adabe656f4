"""Laws that every channel keeps, whatever is written to it (ST-11)."""

from __future__ import annotations

import operator
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpflow._names import MISSING
from mpflow.channels import (
    AnyValue,
    BaseChannel,
    BinaryOperatorAggregate,
    DeltaChannel,
    EphemeralValue,
    LastValue,
    LastValueAfterFinish,
    NamedBarrierValue,
    NamedBarrierValueAfterFinish,
    Topic,
    UntrackedValue,
)
from mpflow.errors import EmptyChannelError, InvalidUpdateError


def concat(value: list[int], writes: Any) -> list[int]:
    return [*value, *(item for write in writes for item in write)]


ints = st.integers()
lists = st.lists(ints, max_size=3)
names = st.sampled_from("abc")

Maker = Callable[[], BaseChannel[Any, Any, Any]]
KINDS: dict[str, tuple[Maker, st.SearchStrategy[list[Any]]]] = {
    "LastValue": (lambda: LastValue(int), st.lists(ints, max_size=1)),
    "LastValueAfterFinish": (lambda: LastValueAfterFinish(int), st.lists(ints, max_size=3)),
    "AnyValue": (lambda: AnyValue(int), st.lists(ints, max_size=3)),
    "EphemeralValue": (lambda: EphemeralValue(int), st.lists(ints, max_size=1)),
    "EphemeralValue unguarded": (lambda: EphemeralValue(int, guard=False), st.lists(ints, max_size=3)),
    "UntrackedValue": (lambda: UntrackedValue(int), st.lists(ints, max_size=1)),
    "Topic": (lambda: Topic(int), st.lists(st.one_of(ints, lists), max_size=3)),
    "Topic accumulating": (lambda: Topic(int, accumulate=True), st.lists(st.one_of(ints, lists), max_size=3)),
    "BinaryOperatorAggregate": (lambda: BinaryOperatorAggregate(list, operator.add), st.lists(lists, max_size=3)),
    "DeltaChannel": (lambda: DeltaChannel(concat, list).from_checkpoint(MISSING), st.lists(lists, max_size=3)),
    "NamedBarrierValue": (lambda: NamedBarrierValue(str, {"a", "b", "c"}), st.lists(names, max_size=3)),
    "NamedBarrierValueAfterFinish": (
        lambda: NamedBarrierValueAfterFinish(str, {"a", "b", "c"}),
        st.lists(names, max_size=3),
    ),
}
# A history: steps of writes, between which the channel may be consumed or the run may come to its end.
EVENTS = ("update", "update", "update", "consume", "finish")


@st.composite
def histories(draw: st.DrawFn) -> tuple[str, list[tuple[str, list[Any]]]]:
    kind = draw(st.sampled_from(sorted(KINDS)))
    writes = KINDS[kind][1]
    events = draw(st.lists(st.tuples(st.sampled_from(EVENTS), writes), max_size=6))
    return kind, events


def happen(channel: BaseChannel[Any, Any, Any], event: tuple[str, list[Any]]) -> bool:
    name, writes = event
    if name == "update":
        return channel.update(writes)
    return channel.consume() if name == "consume" else channel.finish()


def seen(channel: BaseChannel[Any, Any, Any]) -> tuple[Any, Any]:
    try:
        value = channel.get()
    except EmptyChannelError:
        value = MISSING
    return value, channel.checkpoint()


@given(histories(), st.integers(0, 6))
def test_a_channel_restored_from_its_checkpoint_goes_on_as_the_original(
    history: tuple[str, list[tuple[str, list[Any]]]], cut: int
) -> None:
    kind, events = history
    if kind == "UntrackedValue":
        return
    original = KINDS[kind][0]()
    for event in events[:cut]:
        happen(original, event)
    restored = KINDS[kind][0]().from_checkpoint(pickle.loads(pickle.dumps(original.checkpoint())))
    assert seen(restored) == seen(original)
    for event in events[cut:]:
        assert happen(restored, event) == happen(original, event)
        assert seen(restored) == seen(original)


@given(histories())
def test_a_copy_is_equal_and_independent(history: tuple[str, list[tuple[str, list[Any]]]]) -> None:
    kind, events = history
    channel = KINDS[kind][0]()
    channel.key = "k"
    for event in events:
        before = pickle.dumps(seen(channel))
        copy = channel.copy()
        assert (seen(copy), copy.key, type(copy)) == (seen(channel), "k", type(channel))
        happen(copy, event)
        assert pickle.dumps(seen(channel)) == before
        happen(channel, event)


@given(histories())
def test_availability_is_what_get_says(history: tuple[str, list[tuple[str, list[Any]]]]) -> None:
    kind, events = history
    channel = KINDS[kind][0]()
    for event in events:
        happen(channel, event)
        assert channel.is_available() == (seen(channel)[0] is not MISSING)


@given(histories())
def test_the_scheduler_may_skip_channels_that_say_so(history: tuple[str, list[tuple[str, list[Any]]]]) -> None:
    kind, events = history
    channel = KINDS[kind][0]()
    for event in events:
        happen(channel, event)
        before = seen(channel)
        if not channel.resets:
            assert not channel.update([])
            assert seen(channel) == before
        if not channel.finishes:
            assert not channel.finish()
            assert seen(channel) == before


@given(histories())
def test_update_tells_whether_the_value_may_have_changed(history: tuple[str, list[tuple[str, list[Any]]]]) -> None:
    kind, events = history
    channel = KINDS[kind][0]()
    for event in events:
        before = seen(channel)
        if not happen(channel, event):
            assert seen(channel) == before


@given(histories())
def test_a_value_once_seen_is_never_changed_in_place(history: tuple[str, list[tuple[str, list[Any]]]]) -> None:
    kind, events = history
    channel = KINDS[kind][0]()
    values: list[tuple[Any, bytes]] = []
    for event in events:
        happen(channel, event)
        value = seen(channel)
        values.append((value, pickle.dumps(value)))
        assert all(pickle.dumps(value) == data for value, data in values)


def test_a_users_channel_is_always_asked_unless_it_says_otherwise() -> None:
    class Resetting(LastValue[int]):
        def update(self, values: Any) -> bool:
            return super().update(values or [0])

        def finish(self) -> bool:
            return True

    class Quiet(Resetting):
        resets = False

        def update(self, values: Any) -> bool:
            return super().update(values)

    class Heir(Quiet):
        pass

    assert (Resetting.resets, Resetting.finishes) == (True, True)
    assert (Quiet.resets, Heir.resets, Heir.finishes) == (False, False, True)
    assert (LastValue.resets, LastValue.finishes, BaseChannel.resets) == (False, False, True)


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_a_channel_travels_to_other_processes(kind: str) -> None:
    channel = KINDS[kind][0]()
    twin = pickle.loads(pickle.dumps(channel))
    assert (type(twin), seen(twin), twin == channel) == (type(channel), seen(channel), True)


REFUSED: dict[str, list[Any]] = {
    "LastValue": [1, 2],
    "EphemeralValue": [1, 2],
    "UntrackedValue": [1, 2],
    "BinaryOperatorAggregate": [[1], 2],
    "DeltaChannel": [[1], 2],
    "NamedBarrierValue": ["a", "stranger"],
    "NamedBarrierValueAfterFinish": ["a", "stranger"],
}


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_an_update_that_is_refused_leaves_the_channel_as_it_was(kind: str) -> None:
    channel = KINDS[kind][0]()
    before = pickle.dumps(seen(channel))
    with pytest.raises((InvalidUpdateError, TypeError)):
        channel.update(REFUSED[kind])
    assert pickle.dumps(seen(channel)) == before
