"""The records of the log, and the operations by which a step changes a channel. Plain structs; values in them are packed.

``Packed`` is what a `coding.Coder` made of a value: bytes, but for the saver in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from mpflow._scope import task_id_of
from mpflow.checkpoint.base import path_text

Packed = Any

# Operations. The numbers are on disk: they keep their meaning for ever. Each is applied to the channel's value so far; one
# that takes a value takes it packed, or as references to the results of the parent, applied one by one.
SET: Final = 0  # the value is this one
EXTEND: Final = 1  # a list grows by the items of a list, a tuple by those of a tuple
APPEND: Final = 2  # a list grows by one item
TEXT: Final = 3  # text or bytes grow by a tail
MERGE: Final = 4  # a dict is updated by a dict
UNION: Final = 5  # a set takes in the items of a set
ADD: Final = 6  # a number grows by a number
PATCH: Final = 7  # the packed value is changed as `patching` says: the operand is no value but a patch
DROP: Final = 8  # the channel has no value; no operand

OPERATIONS: Final = range(9)

NOTHING: Final[Mapping[Any, Any]] = {}
Apart = Mapping[int, tuple[int, Packed]]

FORMAT: Final = 3
"""The version of the records' layout that is written."""
FORMATS: Final = frozenset({2, 3})
"""Those that are read. A thread may have rows of each. From 3 on a frame leaves out names that are those of its operations, and
a version its leading zeros."""

Refs = Sequence[int]
"""Places in the results that a step is made of: a result's position in the frame and an index into its writes, in turns."""
Op = tuple[str, int, "Refs | None"]
"""An operation: channel, code, and where its operands are; None where it has one of its own, or none."""


IN_PATHS: Final = frozenset({str, int, bool})
"""What the path of a task that a step carries along may be made of."""


class Part(NamedTuple):
    """A task whose result a step carries along: what names it, and the channels that it wrote."""

    name: str
    path: tuple[Any, ...]
    triggers: tuple[str, ...]
    names: Sequence[str]


class Frame:
    """What steps of one kind have in common, such as all rounds of a loop: everything but times, versions and values.

    ``metadata`` is packed, and lacks the step's number where the step has it. ``names`` are the channels whose version is
    the step's new one, ``gone`` those that lost theirs. ``saw`` are nodes with the triggers whose versions at the parent
    they have seen. ``parts`` are the results that the step is made of: None for one that has a row of its own. ``data``
    is the frame's packed form, once it was made.
    """

    __slots__ = ("data", "gone", "metadata", "names", "ops", "parts", "saw", "updated", "v")

    def __init__(
        self,
        metadata: Packed,
        *,
        v: int,
        names: Sequence[str] = (),
        gone: Sequence[str] = (),
        saw: Sequence[tuple[str, Sequence[str]]] = (),
        updated: Sequence[str] | None = None,
        ops: Sequence[Op] = (),
        parts: Sequence[Part | None] = (),
    ) -> None:
        self.metadata = metadata
        self.v = v
        self.names = names
        self.gone = gone
        self.saw = saw
        self.updated = updated
        self.ops = ops
        self.parts = parts
        self.data: bytes | None = None


class Step:
    """A checkpoint as what changed since ``parent_id``, or all of it if it is ``whole``; and what its tasks wrote.

    ``ts`` is None where the id tells it, ``number`` where the metadata has it. ``version`` is that of the frame's names;
    ``versions`` and ``seen`` hold what else became new of either, a node whose value is None having been forgotten.
    ``operands`` are those of the frame's operations that have their own, in order. Of the frame's parts ``values`` has
    the packed values of those that are here, as a list each, ``numbers`` those of the others; ``apart`` is theirs by
    position.
    """

    __slots__ = (
        "apart",
        "checkpoint_id",
        "frame",
        "number",
        "numbers",
        "operands",
        "parent_id",
        "seen",
        "ts",
        "values",
        "version",
        "versions",
        "whole",
    )

    def __init__(
        self,
        checkpoint_id: str,
        parent_id: str | None,
        frame: Frame,
        *,
        whole: bool,
        ts: str | None = None,
        number: int | None = None,
        version: Any = None,
        versions: Mapping[str, Any] = NOTHING,
        seen: Mapping[str, Mapping[str, Any] | None] = NOTHING,
        operands: Sequence[Packed] = (),
        values: Sequence[Packed] = (),
        numbers: Sequence[int] = (),
        apart: Mapping[int, Apart] = NOTHING,
    ) -> None:
        self.checkpoint_id = checkpoint_id
        self.parent_id = parent_id
        self.frame = frame
        self.whole = whole
        self.ts = ts
        self.number = number
        self.version = version
        self.versions = versions
        self.seen = seen
        self.operands = operands
        self.values = values
        self.numbers = numbers
        self.apart = apart

    def results(self, ns: str) -> list[Result]:
        """The results that the step carries along: beside its parent, each under the id that the run gave its task."""
        parent_id, number = self.parent_id, self.number
        if parent_id is None or number is None:
            return []
        found = []
        parts = [part for part in self.frame.parts if part is not None]
        for at, (part, values) in enumerate(zip(parts, self.values, strict=True)):
            task_id = task_id_of(parent_id, ns, number, part.name, part.path, part.triggers)
            apart = self.apart.get(at, NOTHING)
            found.append(Result(parent_id, 0, task_id, path_text(part.path), part.names, values, apart))
        return found

    def made_of(self, beside: Mapping[int, Result]) -> list[Result | None]:
        """The results of the frame's parts, as operations refer to them: those that are here, and of those `beside`."""
        values, numbers, at = iter(self.values), iter(self.numbers), 0
        found: list[Result | None] = []
        for part in self.frame.parts:
            if part is None:
                found.append(beside.get(next(numbers, 0)))
            else:
                packed, apart = next(values, None), self.apart.get(at, NOTHING)
                found.append(Result("", 0, "", "", part.names, packed, apart))
                at += 1
        return found


class Result:
    """What a task wrote: the channels' names, and all the values packed as one list.

    ``number`` tells results of one checkpoint apart for the step that refers to them. ``apart`` has, by index, the
    writes that are packed on their own, with None for them in ``values``: as (SET, packed), or as (PATCH, patch) to what
    the channel held at the checkpoint.
    """

    __slots__ = ("apart", "checkpoint_id", "names", "number", "path", "task_id", "values")

    def __init__(
        self,
        checkpoint_id: str,
        number: int,
        task_id: str,
        path: str,
        names: Sequence[str],
        values: Packed,
        apart: Apart = NOTHING,
    ) -> None:
        self.checkpoint_id = checkpoint_id
        self.number = number
        self.task_id = task_id
        self.path = path
        self.names = names
        self.values = values
        self.apart = apart
