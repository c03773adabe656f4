"""Reducer channels: folding, quick folds, Overwrite (ST-5, ST-6)."""

from __future__ import annotations

import operator
from collections.abc import Mapping, MutableSequence, Sequence, Set
from functools import reduce
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpflow.channels.binop import BinaryOperatorAggregate
from mpflow.errors import EmptyChannelError, InvalidUpdateError
from mpflow.types import Overwrite

scalars = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans())
values = {
    operator.add: [
        (list, st.lists(scalars, max_size=3)),
        (int, st.integers()),
        (int, st.one_of(st.integers(), st.booleans())),
        (float, st.floats(allow_nan=False, allow_infinity=False)),
        (str, st.text(max_size=3)),
        (bytes, st.binary(max_size=3)),
        (tuple, st.lists(scalars, max_size=3).map(tuple)),
    ],
    operator.or_: [
        (dict, st.dictionaries(st.text(max_size=1), scalars, max_size=3)),
        (set, st.sets(st.integers(0, 5))),
        (frozenset, st.frozensets(st.integers(0, 5))),
        (set, st.one_of(st.sets(st.integers(0, 5)), st.frozensets(st.integers(0, 5)))),
        (int, st.integers()),
    ],
}
cases = [(op, typ, writes) for op, kinds in values.items() for typ, writes in kinds]


@given(st.data())
def test_st5_an_update_equals_the_fold_of_its_writes(data: st.DataObject) -> None:
    op, typ, writes = data.draw(st.sampled_from(cases))
    batch = data.draw(st.lists(writes, min_size=1, max_size=5))
    start = data.draw(writes)
    channel = BinaryOperatorAggregate(typ, op).from_checkpoint(start)
    assert channel.update(batch)
    expected = reduce(op, batch, start)
    assert channel.get() == expected
    assert type(channel.get()) is type(expected)
    assert repr(channel.get()) == repr(expected)  # the order of a dict, and True against 1


@given(st.data())
def test_st5_any_grouping_of_writes_into_steps_comes_to_the_same(data: st.DataObject) -> None:
    op, typ, writes = data.draw(st.sampled_from([case for case in cases if case[1] is not float]))
    batch = data.draw(st.lists(writes, max_size=6))
    cut = data.draw(st.integers(0, len(batch)))
    whole, parts = BinaryOperatorAggregate(typ, op), BinaryOperatorAggregate(typ, op)
    whole.update(batch)
    parts.update(batch[:cut])
    parts.update(batch[cut:])
    assert whole.get() == parts.get()


@pytest.mark.parametrize("op", [operator.add, operator.iadd])
def test_a_merge_changes_neither_the_old_value_nor_the_writes(op: Any) -> None:
    channel = BinaryOperatorAggregate(list, op)
    first: list[int] = [1]
    channel.update([first])
    old = channel.get()
    channel.update([[2], [3]])
    assert (first, old, channel.get()) == ([1], [1], [1, 2, 3])


def test_a_subclass_of_list_is_folded_by_the_operator_itself() -> None:
    class Loud(list):  # type: ignore[type-arg]
        def __radd__(self, other: Any) -> Any:
            return ["radd", *other, *self]

        def __add__(self, other: Any) -> Any:
            return Loud([*self, "add", *other])

    channel = BinaryOperatorAggregate(list, operator.add)
    channel.update([[1], Loud([2])])
    assert channel.get() == ["radd", 1, 2]


@pytest.mark.parametrize(
    ("typ", "first"),
    [
        (list[int], []),
        (Annotated[list, "note"], []),
        (Sequence[int], []),
        (MutableSequence, []),
        (Set[int], set()),
        (Mapping[str, int], {}),
        (int, 0),
    ],
)
def test_st5_a_channel_starts_from_its_type(typ: Any, first: Any) -> None:
    value = BinaryOperatorAggregate(typ, operator.add).get()
    assert (value, type(value)) == (first, type(first))


@pytest.mark.parametrize("typ", [int | None, int | str, lambda: 1 / 0, Any])
def test_st5_without_a_first_value_the_first_write_is_taken_as_it_is(typ: Any) -> None:
    channel = BinaryOperatorAggregate(typ, operator.sub)
    with pytest.raises(EmptyChannelError):
        channel.get()
    channel.update([10, 3])
    assert channel.get() == 7


@pytest.mark.parametrize(
    "replacement", [Overwrite([9]), {"__overwrite__": [9]}, {"type": "__overwrite__", "value": [9]}]
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_st6_an_overwrite_wins_wherever_it_sorts(replacement: Any, place: int) -> None:
    writes: list[Any] = [[1], [2]]
    writes.insert(place, replacement)
    channel = BinaryOperatorAggregate(list, operator.add).from_checkpoint([0])
    channel.update(writes)
    assert channel.get() == [9]


def test_st6_an_overwrite_in_the_shape_of_a_dict_is_seen_among_dicts() -> None:
    channel = BinaryOperatorAggregate(dict, operator.or_)
    channel.update([{"a": 1}, {"__overwrite__": {"b": 2}}])
    assert channel.get() == {"b": 2}


def test_st6_two_overwrites_in_a_step_are_refused_and_nothing_changes() -> None:
    channel = BinaryOperatorAggregate(list, operator.add).from_checkpoint([0])
    channel.key = "xs"
    with pytest.raises(InvalidUpdateError, match=r"'xs'.*only one Overwrite value per super-step\."):
        channel.update([Overwrite([1]), Overwrite([2])])
    assert channel.get() == [0]


def test_reducers_are_compared_but_lambdas_cannot_be() -> None:
    def channel(op: Any) -> BinaryOperatorAggregate[Any]:
        return BinaryOperatorAggregate(list, op)

    assert channel(operator.add) == channel(operator.add)
    assert channel(operator.add) != channel(operator.or_)
    assert channel(lambda a, b: a) == channel(lambda a, b: b)
