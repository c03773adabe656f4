"""Rows folded into states: no graph, no reducer, no code of the user's. Values stay packed until they are asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Any

from mpflow._names import ATTEMPTS, ERROR, ERROR_SOURCE_NODE, MISSING
from mpflow.checkpoint.log.coding import Coder
from mpflow.checkpoint.log.patching import patched
from mpflow.checkpoint.log.records import (
    ADD,
    APPEND,
    DROP,
    EXTEND,
    MERGE,
    PATCH,
    SET,
    TEXT,
    UNION,
    Packed,
    Result,
    Step,
)
from mpflow.errors import CheckpointCorruptError

Piece = tuple[int, Packed, Any]
"""Operation, and its operand: packed; or a result and an index into its writes."""


class Cell:
    """A channel's value as the pieces it is made of. Cells of one line of steps share the list, each up to its count."""

    __slots__ = ("count", "pieces")

    def __init__(self, pieces: list[Piece], count: int) -> None:
        self.pieces = pieces
        self.count = count

    def grown(self, piece: Piece) -> Cell:
        pieces = self.pieces
        if len(pieces) != self.count:  # another child of the same step went on with the list
            pieces = pieces[: self.count]
        pieces.append(piece)
        return Cell(pieces, self.count + 1)


class State:
    """A step folded: its record, versions, what was seen, its channels' cells, and the results beside it."""

    __slots__ = ("cells", "results", "seen", "step", "versions")

    def __init__(
        self, step: Step, versions: dict[str, Any], seen: dict[str, dict[str, Any]], cells: dict[str, Cell]
    ) -> None:
        self.step = step
        self.versions = versions
        self.seen = seen
        self.cells = cells
        self.results: Sequence[Result] = ()


def fold(thread_id: str, ns: str, records: Iterable[Step | Result], wanted: Collection[str]) -> dict[str, State]:
    """The states of the `wanted` checkpoints of a namespace, from records that reach back to whole steps.

    Raises CheckpointCorruptError where one is missing or does not fit the others.
    """
    steps: dict[str, Step] = {}
    results: dict[str, list[Result]] = {}
    for record in records:
        if isinstance(record, Step):
            steps[record.checkpoint_id] = record
            if record.values and (parent_id := record.parent_id) is not None and parent_id in wanted:
                results.setdefault(parent_id, []).extend(record.results(ns))
        else:
            results.setdefault(record.checkpoint_id, []).append(record)
    children = _needed(thread_id, steps, wanted)
    states: dict[str, State] = {}
    found: dict[str, State] = {}
    for checkpoint_id in sorted(children):  # a parent's id is less than its children's
        step = steps[checkpoint_id]
        if step.whole:
            state = State(step, {}, {}, {})
            beside: Sequence[Result] = ()
        else:
            parent_id = step.parent_id
            assert parent_id is not None
            state = states[parent_id]
            children[parent_id] -= 1
            beside = state.results
            if children[parent_id] or parent_id in wanted:
                seen = {node: dict(one) for node, one in state.seen.items()}
                state = State(step, dict(state.versions), seen, dict(state.cells))
            else:  # nobody else needs the parent's
                del states[parent_id]
                state.step = step
        try:
            _apply(state, step, beside)
        except ValueError as error:
            raise CheckpointCorruptError(thread_id, checkpoint_id, str(error)) from None
        state.results = results.get(checkpoint_id, ())
        states[checkpoint_id] = state
        if checkpoint_id in wanted:
            found[checkpoint_id] = state
    return found


def _needed(thread_id: str, steps: dict[str, Step], wanted: Collection[str]) -> dict[str, int]:
    """The steps to be folded, and for how many others each is the parent."""
    children: dict[str, int] = {}
    for checkpoint_id in wanted:
        current = checkpoint_id
        while current not in children:
            children[current] = 0
            step = steps.get(current)
            if step is None:
                raise CheckpointCorruptError(
                    thread_id, checkpoint_id, f"the checkpoint '{current}' below it is missing"
                )
            if step.whole:
                break
            if step.parent_id is None or step.parent_id >= current:
                raise CheckpointCorruptError(thread_id, current, "it builds on no older checkpoint")
            current = step.parent_id
    for checkpoint_id in children:
        step = steps[checkpoint_id]
        if not step.whole and step.parent_id is not None:
            children[step.parent_id] += 1
    return children


def _apply(state: State, step: Step, beside: Sequence[Result]) -> None:
    frame, versions = step.frame, state.versions
    for node, triggers in frame.saw:
        state.seen.setdefault(node, {}).update({name: versions[name] for name in triggers if name in versions})
    version = step.version
    for name in frame.names:
        versions[name] = version
    versions.update(step.versions)
    for name in frame.gone:
        versions.pop(name, None)
    for node, seen in step.seen.items():
        if seen is None:
            state.seen.pop(node, None)
        else:
            state.seen.setdefault(node, {}).update(seen)
    operands = iter(step.operands)
    made_of = step.made_of({result.number: result for result in beside}) if frame.parts else ()
    cells = state.cells
    for channel, code, refs in frame.ops:
        if code == DROP:
            cells.pop(channel, None)
        elif refs is None:
            if (operand := next(operands, MISSING)) is MISSING:
                raise ValueError(f"what channel '{channel}' was changed by is missing")
            _operate(cells, channel, (code, operand, None))
        else:
            for at in range(0, len(refs), 2):
                result, index = made_of[refs[at]], refs[at + 1]
                if result is None or not 0 <= index < len(result.names):
                    raise ValueError(f"a result that channel '{channel}' was made of is missing")
                _operate(cells, channel, _piece(code, result, index))


def _operate(cells: dict[str, Cell], channel: str, piece: Piece) -> None:
    if piece[0] == SET:
        cells[channel] = Cell([piece], 1)
    elif channel in cells:
        cells[channel] = cells[channel].grown(piece)
    else:
        raise ValueError(f"channel '{channel}' is changed, but had no value")


def _piece(code: int, result: Result, index: int) -> Piece:
    apart = result.apart.get(index)
    if apart is None:
        return code, result, index
    own, packed = apart
    if own == PATCH and code not in (SET, PATCH):
        raise ValueError("a patch stands where a value should")
    return (PATCH if own == PATCH else code), packed, None


class Opening:
    """Unpacks cells and results, each result's values once. Values of one opening may share parts; two share nothing."""

    __slots__ = ("_coder", "_opened")

    def __init__(self, coder: Coder) -> None:
        self._coder = coder
        self._opened: dict[int, list[Any]] = {}

    def values(self, result: Result) -> list[Any]:
        """The values of a result, None for those that are packed apart."""
        found = self._opened.get(id(result))
        if found is None:
            unpacked = self._coder.unpack(result.values)
            if type(unpacked) is not list or len(unpacked) != len(result.names):
                raise ValueError("a result does not have a value for each of its writes")
            found = self._opened[id(result)] = unpacked
        return found

    def value(self, cell: Cell) -> Any:
        """The value that a cell's pieces make. Raises ValueError where they do not fit each other."""
        packed: Any = MISSING
        value: Any = MISSING
        for code, operand, index in islice(cell.pieces, cell.count):
            if index is None and code == SET:
                packed, value = operand, MISSING
                continue
            if code == PATCH:
                if packed is MISSING:
                    raise ValueError("a patch follows what has no packed form")
                packed = patched(packed, operand)
                continue
            item = self._coder.unpack(operand) if index is None else self.values(operand)[index]
            if code == SET:
                packed, value = MISSING, item
                continue
            if packed is not MISSING:
                packed, value = MISSING, self._coder.unpack(packed)
            value = _combined(code, value, item)
        return value if packed is MISSING else self._coder.unpack(packed)

    def packed(self, cell: Cell | None) -> Any:
        """The packed form of a cell's value, where its pieces are such that it has one; else MISSING."""
        packed: Any = MISSING
        for code, operand, index in () if cell is None else islice(cell.pieces, cell.count):
            if code == PATCH and packed is not MISSING:
                packed = patched(packed, operand)
            elif code == SET and index is None:
                packed = operand
            else:
                packed = MISSING
        return packed

    def writes(self, state: State | None, results: Iterable[Result]) -> list[tuple[str, str, Any]]:
        """Pending writes: of several results of a task the first, of special ones the last (CP-6). Notes are none.

        An error is told by its text (ER-3), but for one that a handler is yet to be given (EH-4).
        """
        from mpflow.checkpoint.base import WRITES_IDX_MAP

        slots: dict[tuple[str, int], tuple[str, str, Any]] = {}
        for result in results:
            if ATTEMPTS in result.names:
                continue
            values = self.values(result)
            for index, channel in enumerate(result.names):
                slot = result.task_id, WRITES_IDX_MAP.get(channel, index)
                if slot[1] < 0 or slot not in slots:
                    value = values[index]
                    if index in result.apart:
                        value = self._apart(state, channel, *result.apart[index])
                    slots[slot] = (result.task_id, channel, value)
        handled = {task_id for task_id, channel, _ in slots.values() if channel == ERROR_SOURCE_NODE}
        return [
            (task_id, channel, repr(value))
            if channel == ERROR and isinstance(value, BaseException) and task_id not in handled
            else (task_id, channel, value)
            for task_id, channel, value in slots.values()
        ]

    def _apart(self, state: State | None, channel: str, code: int, packed: Any) -> Any:
        if code == PATCH:
            base = self.packed(None if state is None else state.cells.get(channel))
            if base is MISSING:
                raise ValueError(f"a write to channel '{channel}' is a patch to what is not there")
            packed = patched(base, packed)
        return self._coder.unpack(packed)


_TAKES: dict[tuple[int, type], tuple[type, ...]] = {
    (EXTEND, list): (list,),
    (EXTEND, tuple): (tuple,),
    (TEXT, str): (str,),
    (TEXT, bytes): (bytes,),
    (MERGE, dict): (dict,),
    (UNION, set): (set, frozenset),
    (UNION, frozenset): (set, frozenset),
    (ADD, int): (int, float),
    (ADD, float): (int, float),
}


def _combined(code: int, value: Any, item: Any) -> Any:
    kind = type(value)
    if code == APPEND and kind is list:
        value.append(item)
        return value
    if type(item) not in _TAKES.get((code, kind), ()):
        raise ValueError(f"operation {code} does not fit a {kind.__name__} and a {type(item).__name__}")
    if kind is list:
        value.extend(item)
        return value
    if kind is dict or kind is set:
        value.update(item)
        return value
    return value | item if kind is frozenset else value + item
