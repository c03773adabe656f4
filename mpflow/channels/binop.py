"""`BinaryOperatorAggregate`: a value and a reducer that folds writes into it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence, Set
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from mpflow._names import MISSING, OVERWRITE
from mpflow.channels.base import Value, ValueChannel, at_key
from mpflow.errors import ErrorCode, InvalidUpdateError, create_error_message
from mpflow.types import Overwrite

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("BinaryOperatorAggregate",)


def concrete_type(typ: Any) -> Any:
    """The class to call for a first value: bare of Annotated and the like, abstract collections made concrete."""
    name = getattr(get_origin(typ), "_name", None)
    while get_origin(typ) is Annotated or name in ("Required", "NotRequired", "ReadOnly"):
        typ = get_args(typ)[0]
        name = getattr(get_origin(typ), "_name", None)
    origin = get_origin(typ) or typ
    if not isinstance(origin, type):
        return origin
    return _CONCRETE.get(origin, origin)


_CONCRETE: dict[type, type] = {
    Sequence: list,
    MutableSequence: list,
    Set: set,
    MutableSet: set,
    Mapping: dict,
    MutableMapping: dict,
}


def overwrite_of(value: Any) -> tuple[bool, Any]:
    """Whether a write replaces instead of being reduced (ST-6), and by what."""
    if isinstance(value, Overwrite):
        return True, value.value
    if isinstance(value, dict):
        if len(value) == 1 and OVERWRITE in value:
            return True, value[OVERWRITE]
        # The shape in which an Overwrite comes out of JSON.
        if len(value) == 2 and value.get("type") == OVERWRITE and "value" in value:
            return True, value["value"]
    return False, None


def same_reducer(one: Any, other: Any) -> bool:
    """Whether two reducers may be taken for the same. Lambdas cannot be told apart, so they pass."""
    if one is other or one == other:
        return True
    return "<lambda>" in (getattr(one, "__name__", ""), getattr(other, "__name__", ""))


Fold = Callable[[Any, Sequence[Any]], Any]


# Named functions, not lambdas: channels are pickled.
def _join_lists(old: list[Any], writes: Sequence[list[Any]]) -> list[Any]:
    if len(writes) == 1:
        return [*old, *writes[0]]
    return [*old, *chain.from_iterable(writes)]


def _join_tuples(old: tuple[Any, ...], writes: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    return old + tuple(chain.from_iterable(writes))


def _join_text(old: str, writes: Sequence[str]) -> str:
    return old + "".join(writes)


def _join_bytes(old: bytes, writes: Sequence[bytes]) -> bytes:
    return old + b"".join(writes)


def _add_ints(old: int, writes: Sequence[int]) -> int:
    return sum(writes, old)


def _join_dicts(old: dict[Any, Any], writes: Sequence[dict[Any, Any]]) -> dict[Any, Any]:
    joined = old.copy()
    for write in writes:
        joined.update(write)
    return joined


def _join_sets(old: Any, writes: Sequence[Any]) -> Any:
    return old.union(*writes)


_CONCAT: dict[type, Fold] = {list: _join_lists, tuple: _join_tuples, str: _join_text, bytes: _join_bytes}
_ADD: dict[type, Fold] = {**_CONCAT, int: _add_ints}
_OR: dict[type, Fold] = {dict: _join_dicts, set: _join_sets, frozenset: _join_sets}
# Folds that are provably the same as calling the operator write by write, when all the types are exactly these. The
# in-place operators come to the same, but for changing a value that was already seen. Floats are not here: sum()
# rounds otherwise.
_IN_ONE_GO: tuple[tuple[Any, dict[type, Fold]], ...] = (
    (operator.add, _ADD),
    (operator.iadd, _ADD),
    (operator.concat, _CONCAT),
    (operator.or_, _OR),
    (operator.ior, _OR),
)


class BinaryOperatorAggregate(ValueChannel[Value]):
    """Folds each step's writes, left to right, into its value by `operator` (ST-5, ST-6).

    It starts from ``typ()``; where that fails it starts empty and takes its first write as it is. One `Overwrite` a
    step replaces the value, and the step's other writes are then lost.
    """

    __slots__ = ("_in_one_go", "operator")

    resets = False

    def __init__(self, typ: Any, operator: Callable[[Value, Value], Value]) -> None:
        super().__init__(typ)
        self.operator = operator
        self._in_one_go = next((folds for known, folds in _IN_ONE_GO if known is operator), None)
        try:
            self.value = concrete_type(typ)()
        except Exception:
            self.value = MISSING

    def _empty(self) -> Self:
        new = self.__class__(self.typ, self.operator)
        new.key = self.key
        return new

    def copy(self) -> Self:
        if type(self) is not BinaryOperatorAggregate:  # what its class has besides is its own
            return super().copy()
        new = self.__class__.__new__(self.__class__)  # each look of a branch takes one: no type is taken apart again
        new.typ, new.key, new.operator, new._in_one_go = self.typ, self.key, self.operator, self._in_one_go
        new.value = self.value
        return new

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BinaryOperatorAggregate) and same_reducer(self.operator, other.operator)

    def grows(self, kind: type) -> bool:
        """Whether writes of exactly this type are joined to a value of it, and do nothing else to it."""
        return self._in_one_go is not None and kind in self._in_one_go

    def joins_lists(self, writes: Sequence[Any]) -> bool:
        """Whether these writes, of which there is at least one, are lists that are joined to one, and do nothing else to it."""
        return type(self.value) is list and self.grows(list) and {*map(type, writes)} == {list}

    def update(self, values: Sequence[Value]) -> bool:
        if not values:
            return False
        self.value = self.folded(values)
        return True

    def folded(self, values: Sequence[Value]) -> Any:
        """What the value would be after these writes, of which there is at least one."""
        value = self.value
        if self._in_one_go is not None:
            kind = type(value)
            fold = self._in_one_go.get(kind)
            if (
                fold is not None
                and (type(values[0]) is kind if len(values) == 1 else {*map(type, values)} == {kind})
                and not (kind is dict and any(overwrite_of(write)[0] for write in values))
            ):
                return fold(value, values)
        replaced, by = self._find_overwrite(values)
        if replaced:
            return by
        reduce = self.operator
        writes = iter(values)
        if value is MISSING:
            value = next(writes)
        for write in writes:
            value = reduce(value, write)
        return value

    def overwrites(self, values: Sequence[Any]) -> bool:
        """Whether one of a step's writes replaces the value. Raises InvalidUpdateError for a second one."""
        return self._find_overwrite(values)[0]

    def second_overwrite(self) -> InvalidUpdateError:
        """The error of a step with more than one `Overwrite`."""
        return InvalidUpdateError(
            create_error_message(
                message=at_key(self.key) + "Can receive only one Overwrite value per super-step.",
                error_code=ErrorCode.INVALID_CONCURRENT_GRAPH_UPDATE,
            )
        )

    def _find_overwrite(self, values: Sequence[Any]) -> tuple[bool, Any]:
        replaced, by = False, None
        for value in values:
            if isinstance(value, (Overwrite, dict)):
                overwrites, other = overwrite_of(value)
                if overwrites and replaced:
                    raise self.second_overwrite()
                if overwrites:
                    replaced, by = True, other
        return replaced, by
