"""What is particular to each channel (ST-4, ST-7 to ST-12)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import pytest

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
from mpflow.types import Overwrite


def keyed(channel: BaseChannel[Any, Any, Any], key: str = "x") -> Any:
    channel.key = key
    return channel


def test_st4_last_value_refuses_a_second_write_even_an_equal_one() -> None:
    channel = keyed(LastValue(int))
    with pytest.raises(InvalidUpdateError) as caught:
        channel.update([1, 1])
    assert str(caught.value).startswith(
        "At key 'x': Can receive only one value per step. Use an Annotated key to handle multiple values."
    )
    assert "INVALID_CONCURRENT_GRAPH_UPDATE" in str(caught.value)


def test_st4_last_value_keeps_its_value_over_steps_without_a_write() -> None:
    channel = LastValue(int)
    channel.update([0])
    assert not channel.update([])
    assert channel.get() == 0


@pytest.mark.parametrize("kind", [EphemeralValue, UntrackedValue])
def test_st7_st9_a_guard_refuses_a_second_write(kind: Any) -> None:
    with pytest.raises(InvalidUpdateError, match=r"At key 'x': .*only one value per step"):
        keyed(kind(int)).update([1, 2])
    unguarded = kind(int, guard=False)
    unguarded.update([1, 2])
    assert unguarded.get() == 2


@pytest.mark.parametrize("kind", [EphemeralValue, AnyValue])
def test_st7_st9_the_value_goes_with_the_next_step(kind: Any) -> None:
    channel = kind(int)
    channel.update([1])
    assert channel.update([])
    assert not channel.update([])
    with pytest.raises(EmptyChannelError):
        channel.get()


def test_st9_an_untracked_value_outlives_steps_but_no_checkpoint() -> None:
    channel = UntrackedValue(int)
    channel.update([1])
    channel.update([])
    assert (channel.get(), channel.copy().get(), channel.checkpoint()) == (1, 1, MISSING)
    assert not channel.from_checkpoint(channel.checkpoint()).is_available()


def test_st8_a_topic_flattens_lists_and_forgets_at_each_step() -> None:
    topic: Topic[int] = Topic(int)
    topic.update([1, [2, 3]])
    assert topic.get() == [1, 2, 3]
    topic.update([4])
    assert topic.get() == [4]
    assert topic.update([])
    assert not topic.update([])
    assert not topic.is_available()


def test_st8_an_accumulating_topic_keeps_all() -> None:
    topic: Topic[int] = Topic(int, accumulate=True)
    topic.update([1])
    topic.update([])
    topic.update([[2]])
    assert topic.get() == [1, 2]
    assert (topic.resets, Topic(int).resets) == (False, True)


def test_st10_a_barrier_opens_when_every_name_came_and_closes_when_consumed() -> None:
    barrier = NamedBarrierValue(str, {"a", "b"})
    assert barrier.update(["a"])
    assert not barrier.update(["a"])
    assert not barrier.consume()
    assert barrier.update(["b"])
    assert barrier.get() is None
    assert barrier.consume()
    assert not barrier.is_available()


@pytest.mark.parametrize("kind", [NamedBarrierValue, NamedBarrierValueAfterFinish])
def test_st10_a_barrier_refuses_a_stranger_by_name(kind: Any) -> None:
    with pytest.raises(InvalidUpdateError, match=r"At key 'x': 'c' .*'a', 'b'"):
        keyed(kind(str, {"a", "b"})).update(["c"])


def test_st10_the_after_finish_variants_wait_for_the_end_of_the_run() -> None:
    value, barrier = LastValueAfterFinish(int), NamedBarrierValueAfterFinish(str, {"a"})
    assert not value.finish()
    assert not barrier.finish()
    value.update([1])
    barrier.update(["a"])
    assert not value.is_available()
    assert not barrier.is_available()
    assert value.finish()
    assert barrier.finish()
    assert (value.get(), barrier.get()) == (1, None)
    assert value.consume()
    assert barrier.consume()
    assert not value.is_available()
    assert not barrier.is_available()


def test_st10_a_write_after_the_finish_hides_the_value_until_the_next_one() -> None:
    channel = LastValueAfterFinish(int)
    channel.update([1])
    channel.finish()
    channel.update([2])
    assert not channel.is_available()
    channel.finish()
    assert channel.get() == 2


@pytest.mark.parametrize(
    ("channel", "value_type", "update_type"),
    [
        (LastValue(int), int, int),
        (Topic(int), Sequence[int], int | list[int]),
        (BinaryOperatorAggregate(list, operator.add), list, list),
        (NamedBarrierValue(str, {"a"}), str, str),
    ],
)
def test_st11_channels_tell_their_types(channel: Any, value_type: Any, update_type: Any) -> None:
    assert (channel.ValueType, channel.UpdateType) == (value_type, update_type)


def test_st11_a_minimal_users_channel_gets_the_rest_from_the_base() -> None:
    class Last(BaseChannel[int, int, int]):
        held: Any = MISSING
        ValueType = UpdateType = int

        def get(self) -> int:
            if self.held is MISSING:
                raise EmptyChannelError
            return int(self.held)

        def update(self, values: Sequence[int]) -> bool:
            self.held = [*values, self.held][0]
            return bool(values)

        def from_checkpoint(self, checkpoint: Any) -> Last:
            new = Last(self.typ, self.key)
            new.held = checkpoint
            return new

    channel = Last(int, "k")
    assert (channel.checkpoint(), channel.is_available()) == (MISSING, False)
    channel.update([3])
    assert (channel.copy().get(), channel.copy().key, channel.is_available()) == (3, "k", True)
    assert (channel.consume(), channel.finish()) == (False, False)


def total(value: int, writes: Sequence[int]) -> int:
    return value + sum(writes)


def test_st12_a_delta_channel_reduces_all_writes_of_a_step_at_once() -> None:
    calls: list[Sequence[int]] = []

    def note(value: int, writes: Sequence[int]) -> int:
        calls.append(writes)
        return total(value, writes)

    channel = DeltaChannel(note, int, snapshot_frequency=2)
    channel.update([1, 2])
    assert (channel.get(), calls) == (3, [[1, 2]])


def test_st12_replaying_saved_writes_comes_to_the_same_value() -> None:
    channel = DeltaChannel(total, int).from_checkpoint(5)
    channel.replay_writes([("t", "x", 1), ("t", "x", Overwrite(10)), ("u", "x", 2), ("u", "x", 3)])
    assert channel.get() == 15


def test_st12_a_delta_channel_keeps_the_rules_of_overwrite() -> None:
    channel = keyed(DeltaChannel(total, int))
    channel.update([4, Overwrite(7)])
    assert channel.get() == 7
    with pytest.raises(InvalidUpdateError, match="only one Overwrite"):
        channel.update([Overwrite(1), Overwrite(2)])


@pytest.mark.parametrize("frequency", [0, -1, True, 1.5])
def test_st12_the_snapshot_frequency_is_a_positive_int(frequency: Any) -> None:
    with pytest.raises(ValueError, match="positive int"):
        DeltaChannel(total, int, snapshot_frequency=frequency)
