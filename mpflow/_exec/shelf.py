"""Values that many tasks are given: encoded once, sent to each worker once, and from then on named by a number.

Owns which values those are: channels' values by their version, what Sends of one step have in common, and, for wide
states, all small values together. Must not know which worker has which. A value changed in place is not seen as another.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from operator import eq, is_
from typing import Any, NamedTuple

from mpflow._columns import Piece
from mpflow._messages import StepFacts
from mpflow._names import MISSING, PULL
from mpflow._wire.codec import REFERS
from mpflow._wire.shm import Arena, Lease

LEAST_BYTES = 1024
"""Smaller values travel with each task: a number and its upkeep would cost as much."""
_LONG = 256
_WIDE = 64
"""From so many small values on, a state travels as what differs from the last time."""
_KEPT_STEPS = 16
_ATOMS = frozenset({int, float, bool, type(None)})

Encode = Callable[[Any], tuple[bytes, int]]


class Kept:
    """An encoded value. Without a number it is small, and goes along. ``lease`` has its blocks of shared memory."""

    __slots__ = ("data", "lease", "number", "value", "version")

    def __init__(self, number: int, version: Any, data: bytes, lease: Lease | None, value: Any) -> None:
        self.number = number
        self.version = version
        self.data = data
        self.lease = lease
        self.value = value
        """Held where its identity is what it is known by, or what to compare with."""


class Sheet(NamedTuple):
    """The input of a task as it travels: a dict in `light`, over that of `base` if there is one, over which come `refs`.

    A ref without a key is the whole input.
    """

    light: bytes
    flags: int
    """The codec's, of `light`."""
    refs: list[tuple[str | None, Kept]]
    base: Kept | None = None

    def numbered(self) -> list[Kept]:
        """What the worker must have been sent before."""
        found = [kept for _, kept in self.refs if kept.number]
        return [*found, self.base] if self.base is not None else found

    def packed(self) -> list[Any]:
        refs = [(key, kept.number or kept.data) for key, kept in self.refs]
        return [self.light, refs, self.base.number if self.base is not None else 0]


class _Run:
    """What is kept for a run: by channel, and by width the small values of a state."""

    __slots__ = ("bases", "by_channel", "holder", "seen")

    def __init__(self, holder: weakref.ref[Any]) -> None:
        self.holder = holder
        self.seen = -1
        """The step for which outdated versions were last thrown out."""
        self.by_channel: dict[str, Kept] = {}
        self.bases: dict[int, Kept] = {}

    def everything(self) -> list[Kept]:
        return [*self.by_channel.values(), *self.bases.values()]


class Shelf:
    """The values kept by one pool's parent. Used under the pool's lock; the ends of runs come in at any time.

    ``rang`` is called when a run has ended, from wherever that was noticed: `tidy` is to be called soon.
    """

    def __init__(self, encode: Encode, arena: Arena, rang: Callable[[], None]) -> None:
        self._encode = encode
        self._arena = arena
        self._rang = rang
        self._numbers = count(1)
        self._runs: dict[int, _Run] = {}
        self._ended: deque[int] = deque()
        self._steps: dict[int, tuple[StepFacts, dict[int, Kept]]] = {}
        self._latest: tuple[StepFacts, dict[Any, Any], Sheet] | None = None
        self.dropped: list[int] = []
        """Numbers that mean nothing any more; the workers are to be told."""

    def sheets(self, head: Piece, inputs: Sequence[Any], next_one: Piece | None) -> list[Sheet] | None:
        """The inputs of a batch of one program, if any refers to something kept; None if they travel as they are.

        `head` stands for the attempts of the batch, `next_one` for what will be sent after it, as far as is known. Raises
        EncodeError.
        """
        kind = type(inputs[0])
        if kind in _ATOMS or kind is str:
            return None
        if kind is dict and len(inputs) == 1 and self._is_as_latest(head.facts, inputs[0]):
            assert self._latest is not None
            return [self._latest[2]]
        run = self._run_of(head.facts)
        other = None
        if len(inputs) > 1:
            other = inputs[-1]
        elif next_one is not None and next_one.facts is head.facts:
            other = next_one.input
        keeper = _Keeper(self, head.facts, run, other)
        if kind is not dict:
            return self._bare(inputs, keeper)
        first = inputs[0]
        if len(first) >= _WIDE and run is not None and head.path[0] == PULL:
            return self._remembered(head, inputs, self._wide(first, run, keeper))
        candidates = [key for key, value in first.items() if type(value) not in _ATOMS and keeper.has(key, value)]
        if not any(keeper.kept(key, first[key]).number for key in candidates):
            return None
        return self._remembered(head, inputs, [self._sheet(input, keeper) for input in inputs])

    def _remembered(self, head: Piece, inputs: Sequence[Any], sheets: list[Sheet]) -> list[Sheet]:
        # What refers to blocks of its own is good for one message.
        if not sheets[-1].flags & REFERS:
            self._latest = head.facts, inputs[-1], sheets[-1]
        return sheets

    def _is_as_latest(self, facts: StepFacts, given: dict[Any, Any]) -> bool:
        """Whether a task's input has the values of the one before it: nodes that read the same state, side by side."""
        if self._latest is None or self._latest[0] is not facts:
            return False
        input = self._latest[1]
        return len(given) == len(input) and all(map(is_, given.values(), input.values())) and all(map(eq, given, input))

    def _bare(self, inputs: Sequence[Any], keeper: _Keeper) -> list[Sheet] | None:
        first = inputs[0]
        if not keeper.has(None, first) or any(input is not first for input in inputs):
            return None
        kept = keeper.kept(None, first)
        return [Sheet(b"", 0, [(None, kept)])] * len(inputs) if kept.number else None

    def _sheet(self, input: Any, keeper: _Keeper) -> Sheet:
        refs: list[tuple[str | None, Kept]] = []
        light = input
        if type(input) is dict:
            for key, value in input.items():
                if type(value) not in _ATOMS and keeper.has(key, value):
                    if light is input:
                        light = dict(input)
                    light[key] = None  # which keeps its place
                    refs.append((key, keeper.kept(key, value)))
        return Sheet(*self._encode(light), refs)

    def _wide(self, input: Mapping[str, Any], run: _Run, keeper: _Keeper) -> list[Sheet]:
        """As the changes since the values of the same keys were last sent, if they are few."""
        light: dict[str, Any] = dict(input)
        refs: list[tuple[str | None, Kept]] = []
        for key, value in input.items():
            if type(value) not in _ATOMS and keeper.has(key, value):
                light[key] = None
                refs.append((key, keeper.kept(key, value)))
        base = run.bases.get(len(light))
        if base is not None:
            before = base.value
            changed = {key: value for key, value in light.items() if before.get(key, MISSING) is not value}
            if len(changed) <= len(light) // 4 and before.keys() == light.keys():
                return [Sheet(*self._encode(changed), refs, base)]
            self._drop(base)
            del run.bases[len(light)]
        if not all(type(value) in _ATOMS or type(value) is str for value in light.values()):
            return [Sheet(*self._encode(light), refs)]
        run.bases[len(light)] = base = self._keep(None, light, light)
        return [Sheet(*self._encode({}), refs, base)] if base.number else [Sheet(base.data, 0, refs)]

    def tidy(self) -> None:
        """Drop what was kept for runs that have ended."""
        while self._ended:
            run = self._runs.pop(self._ended.popleft(), None)
            if run is not None:
                for kept in run.everything():
                    self._drop(kept)

    def rest(self) -> None:
        """Nothing is under way: no step is."""
        self._latest = None
        while self._steps:
            self._end_step(next(iter(self._steps)))

    # -- inside --------------------------------------------------------------------------------------------------------

    def _run_of(self, facts: StepFacts) -> _Run | None:
        self.tidy()
        local = facts.local
        state = getattr(local, "state", None)
        if state is None:
            return None
        key = id(local)
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = _Run(weakref.ref(local, lambda _: self._end_run(key)))
        if run.seen != facts.step:
            run.seen = facts.step
            versions = state.versions
            for channel, kept in tuple(run.by_channel.items()):
                if versions.get(channel, facts.step) != kept.version:
                    self._drop(run.by_channel.pop(channel))
        return run

    def _end_run(self, key: int) -> None:
        self._ended.append(key)
        self._rang()

    def _step_of(self, facts: StepFacts) -> dict[int, Kept]:
        known = self._steps.get(id(facts))
        if known is None:
            while len(self._steps) >= _KEPT_STEPS:
                self._end_step(next(iter(self._steps)))
            known = self._steps[id(facts)] = (facts, {})
        return known[1]

    def _end_step(self, key: int) -> None:
        for kept in self._steps.pop(key)[1].values():
            self._drop(kept)

    def _keep(self, version: Any, value: Any, held: Any) -> Kept:
        with self._arena.scope() as lease:
            data, flags = self._encode(value)
        if flags & REFERS:
            return Kept(next(self._numbers), version, data, lease, held)
        lease.close()
        return Kept(next(self._numbers) if len(data) >= LEAST_BYTES else 0, version, data, None, held)

    def _drop(self, kept: Kept) -> None:
        self._latest = None
        if kept.lease is not None:
            kept.lease.close()
        if kept.number:
            self.dropped.append(kept.number)


class _Keeper:
    """Which values of one batch are kept: a channel's at its version, and those that another task of the step is given."""

    __slots__ = ("_run", "_shared", "_shelf", "_step", "_values", "_versions")

    def __init__(self, shelf: Shelf, facts: StepFacts, run: _Run | None, other: Any) -> None:
        self._shelf = shelf
        self._run = run
        self._step = shelf._step_of(facts)
        state = facts.local.state if run is not None else None
        self._values: Any = state.values if state is not None else {}
        self._versions: Any = state.versions if state is not None else {}
        given = [*other.values(), other] if type(other) is dict else [other]
        self._shared = {id(value) for value in given if type(value) not in _ATOMS}

    def has(self, key: Any, value: Any) -> bool:
        """Whether a value that is no atom may be kept."""
        if type(value) is str and len(value) < _LONG:
            return False
        if self._is_channel(key, value):
            return True
        return id(value) in self._shared or id(value) in self._step

    def kept(self, key: Any, value: Any) -> Kept:
        """What is kept of a value that may be."""
        if self._is_channel(key, value):
            assert self._run is not None
            mine = self._run.by_channel
            # Without versions a channel is known to be the same for as long as the step lasts.
            version = self._versions.get(key, self._run.seen)
            kept = mine.get(key)
            if kept is None or kept.version != version:
                if kept is not None:
                    self._shelf._drop(kept)
                kept = mine[key] = self._shelf._keep(version, value, None)
            return kept
        found = self._step.get(id(value))
        if found is None:
            found = self._step[id(value)] = self._shelf._keep(None, value, value)
        return found

    def _is_channel(self, key: Any, value: Any) -> bool:
        return key is not None and self._values.get(key) is value
