"""A node that was moved without being asked: run in a worker under watch, so that what it returns is what a thread would.

The walk has been over the node, yet a walk cannot see everything. In the worker it is repeated, for a worker's modules may
hold something else; around each call it is seen that the input stays as it was, and before results are sent that all
that the walk found did.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from time import perf_counter_ns, thread_time_ns
from typing import Any

import msgpack

from mpflow._exec.placement import surroundings
from mpflow._exec.placement.clearance import Clearance
from mpflow._exec.placement.pauses import Stretches
from mpflow._exec.placement.safety import walk
from mpflow._exec.placement.values import ATOMS, survey
from mpflow._exec.program import Diff, NodeProgram, Returned
from mpflow._scope import TaskScope, set_current
from mpflow._wire.codec import Codec

_LARGE_BYTES = 1 << 16
_LIGHT_NS = 200_000
_EVERY = 16
"""Of calls that take less than that, one in so many is measured by itself; a power of two."""


class Stays(Exception):
    """A node that was moved must run in the parent process after all. The message says why; nobody else sees it."""


class GuardedProgram:
    """A node's program, to be run where nobody asked for it to run."""

    is_moved = True
    """Its tasks were sent where nobody asked for them to run."""
    __slots__ = (
        "__weakref__",
        "_call",
        "_calls",
        "_classes",
        "_clearance",
        "_given",
        "_given_data",
        "_is_changed",
        "_is_light",
        "_is_new",
        "_own_ns",
        "_stretches",
        "_unmeasured",
        "_watched",
        "entries",
        "imports",
        "inner",
        "metadata",
        "name",
        "settings",
        "tags",
    )

    def __init__(
        self,
        inner: NodeProgram,
        entries: dict[str, str],
        imports: Iterable[str] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.inner = inner
        self.settings = settings or {}
        """Those of the parent, which must be the same here as far as the code goes by them."""
        self.entries = entries
        self.imports = tuple(imports)
        """The modules that its code imports while it runs, which are loaded in the parent."""
        self.name = inner.name
        self.tags = inner.tags
        self.metadata = inner.metadata
        self._call = inner.returned
        self._watched: set[str] = set()
        """Of what a call might do outside its own values: what is seen to be left alone."""
        self._clearance: Clearance | None = None
        self._classes: dict[type, Clearance] = {}
        self._given: list[Any] | None = None
        self._given_data = b""
        """What they were at first."""
        self._is_changed = False
        self._stretches: Stretches | None = None
        self._is_new = True
        """No call of it has ended in this worker."""
        self._calls = 0
        """Those since `figures` were last asked for."""
        self._unmeasured = 0
        """Calls whose number has one of these bits are not measured by themselves."""
        self._own_ns = 0.0
        """The CPU time of a call, as those that were measured had it."""
        self._is_light = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.inner, self.entries, self.imports, self.settings)

    def given(self, inputs: list[Any] | None) -> None:
        """The calls to come are of these inputs, which are plain data: that they stay as they are is seen of all together,
        when results are sent. None: of inputs that are to be looked at one by one."""
        self._is_changed = self._is_changed or self._have_changed()
        self._given = None
        if inputs is None:
            return
        try:
            self._given_data = _packer.pack(inputs)
        except (TypeError, ValueError, OverflowError):  # not plain data after all, or too large or too deep for it
            return
        if len(self._given_data) <= _LARGE_BYTES:
            self._given = inputs

    def _have_changed(self) -> bool:
        return self._given is not None and not _is_still(self._given, self._given_data)

    @property
    def returned(self) -> Callable[[Any, TaskScope], Returned]:
        """As the node's own program. Raises Stays where a thread might do otherwise."""
        return self._run_singly if self._given is None else self._run_given

    def run(self, input: Any, scope: TaskScope) -> Diff:
        """As `returned`, with the diff made of it."""
        set_current(scope)
        returned = self.returned(input, scope)
        return self.diff(returned) if isinstance(returned, dict) else returned

    def diff(self, result: Any) -> Diff:
        """The ordered writes of the node's return value."""
        return self.inner.diff(result)

    def _run_given(self, input: Any, scope: TaskScope) -> Returned:
        """A tiny call pays for each line here."""
        calls = self._calls
        if calls & self._unmeasured:
            returned = self._call(input, scope)
        elif calls:
            returned = self._measured(input, scope)
        else:
            return self._run_singly(input, scope)
        for value in returned.values() if type(returned) is dict else [value for _, value in returned]:
            if type(value) not in ATOMS:
                self._check_results(returned, input)
                break
        self._calls = calls + 1
        return returned

    def _run_singly(self, input: Any, scope: TaskScope) -> Returned:
        """A call that begins a batch, or whose input is to be looked at by itself."""
        if self._clearance is None:
            self._look_again()
        if not self._calls:
            self._begin()
        try:
            before = _packer.pack(input)
        except (TypeError, ValueError, OverflowError):  # not plain data, or too large or too deep for it
            return self._run_surveyed(input, scope)
        returned = self._call(input, scope) if self._calls & self._unmeasured else self._measured(input, scope)
        if not _is_still(input, before):
            raise Stays("it changes its input")
        if len(before) > _LARGE_BYTES:
            _forget_buffer()
        self._check_results(returned, input)
        self._end_call()
        return returned

    def _check_results(self, returned: Returned, input: Any, parts: dict[int, Any] | None = None) -> None:
        """`parts`: those of the input, if it was surveyed."""
        for channel, value in returned.items() if type(returned) is dict else returned:
            if type(value) not in ATOMS:
                if parts is None:
                    parts = {}
                    survey(input, "its input", parts)
                self._check_result(channel, value, parts)

    def _run_surveyed(self, input: Any, scope: TaskScope) -> Returned:
        parts: dict[int, Any] = {}
        given = survey(input, "its input", parts)
        if given.odd is not None:
            raise Stays(given.odd)
        for array in given.arrays:
            if array.nbytes >= _LARGE_BYTES:
                array.flags.writeable = False  # changing it raises, and then a thread runs the task again
        for kind in given.classes.difference(self._classes):
            self._look_at(kind)
        before = _seal.encode(input)
        returned = self._measured(input, scope)
        if _seal.encode(input) != before:
            raise Stays("it changes its input")
        self._check_results(returned, input, parts)
        self._end_call()
        return returned

    def _measured(self, input: Any, scope: TaskScope) -> Returned:
        if self._is_light:
            return self._glanced_at(input, scope)
        cpu_ns = thread_time_ns()
        returned = self._call(input, scope)
        cpu_ns = thread_time_ns() - cpu_ns
        self._own_ns = cpu_ns if cpu_ns > 4 * self._own_ns else self._own_ns + (cpu_ns - self._own_ns) * 0.25
        self._is_light = self._own_ns < _LIGHT_NS
        self._unmeasured = _EVERY - 1 if self._is_light else 0
        return returned

    def _glanced_at(self, input: Any, scope: TaskScope) -> Returned:
        """A call that is measured by the clock on the wall: the thread's own costs more than it."""
        began_ns = perf_counter_ns()
        returned = self._call(input, scope)
        own_ns = perf_counter_ns() - began_ns
        if own_ns < _LIGHT_NS:
            self._own_ns += (own_ns - self._own_ns) * 0.25
        else:  # it has become heavier, or something else ran meanwhile: the next one tells
            self._is_light = False
            self._unmeasured = 0
        return returned

    def _run_watched(self, input: Any, scope: TaskScope) -> Returned:
        """As the node's own program, if it neither warns where that is heard nor draws from the generator that all share."""
        before = surroundings.drawn() if surroundings.CHANCE in self._watched else None
        with (
            warnings.catch_warnings(record=True) if surroundings.WARNINGS in self._watched else nullcontext() as issued
        ):
            hears = None if issued is None else surroundings.hear_all_warnings()
            returned = self.inner.returned(input, scope)
            if hears is not None and surroundings.who_hears_warnings() != hears:
                raise Stays(f"it changes '{surroundings.WARNINGS}'")
        if issued:
            raise Stays(f"it warns ({issued[0].category.__name__}: {issued[0].message}), which this program listens to")
        if before is not None and surroundings.drawn() != before:
            raise Stays("it draws from numpy's shared generator")
        return returned

    def _end_call(self) -> None:
        if self._is_new:
            # The first one here loads and fills what those after it find: it says nothing of them.
            self._is_new = False
            self._own_ns = 0.0
            self._is_light = False
            self._unmeasured = 0
        else:
            self._calls += 1

    def _check_result(self, channel: str, value: Any, parts: dict[int, Any]) -> None:
        returned = survey(value, f"what it returns for '{channel}'", parts)
        if returned.odd is not None:
            raise Stays(returned.odd)

    # -- before results are sent ---------------------------------------------------------------------------------------

    def objection(self) -> Stays | None:
        """Why what was run since the last results were sent must not count; None if it may."""
        if self._is_changed or self._have_changed():
            return Stays("it changes its input")
        for seen in (self._clearance, *self._classes.values()):
            changed = None if seen is None else seen.changed()
            if changed is not None:
                return Stays(f"it changes '{changed}'")
        return None

    def figures(self) -> tuple[int, int, int, int] | None:
        """Of the calls since this was last asked, the very first one apart: how many, and in nanoseconds their own CPU time, that of all that the
        worker did for them, and how long they waited for something. None if there were none. For the thread that runs them."""
        calls, self._calls = self._calls, 0
        if not calls or self._stretches is None:
            return None
        cpu_ns, waited_ns = self._stretches.end(calls)
        return calls, min(round(self._own_ns * calls), cpu_ns), cpu_ns, waited_ns

    def _begin(self) -> None:
        if self._stretches is None:
            self._stretches = Stretches()
        self._stretches.begin(is_light=self._is_light)

    # -- what the parent saw must be so here -----------------------------------------------------------------------------

    def _look_again(self) -> None:
        """The walk, in this process. It must come to what it came to in the parent."""
        for module in self.imports:
            try:
                importlib.import_module(module)
            except Exception as error:
                raise Stays(f"'{module}' cannot be imported in a worker: {type(error).__name__}") from None
        clearance = walk(self.inner.callables.source)
        if clearance.held is not None:
            raise Stays(f"in a worker {clearance.held}")
        different = clearance.difference(self.entries)
        if different is not None:
            raise Stays(f"{different} is another in a worker")
        self._check_settings(clearance)
        self._clearance = clearance

    def _look_at(self, kind: type) -> None:
        """The walk over a class of the input's: its methods are the node's to call."""
        clearance = walk(kind)
        if clearance.held is not None:
            raise Stays(clearance.held)
        self._check_settings(clearance)
        self._classes[kind] = clearance

    def _check_settings(self, clearance: Clearance) -> None:
        for name, value in tuple(clearance.settings.items()):
            if name in surroundings.WATCHED:
                if name == surroundings.CHANCE or self.settings.get(name) == repr(True):
                    self._watched.add(name)
                    self._call = self._run_watched
                    # Each call is watched by itself: while one runs, this is other than it was, and results are sent.
                    del clearance.settings[name]
            elif self.settings.get(name, value) != value:
                raise Stays(f"what it goes by, {name}, is not the same in a worker")


class _Unshared:
    """Takes large buffers out of a message: they cannot change, or raise if they do."""

    threshold_bytes = _LARGE_BYTES

    def put(self, data: memoryview, owner: Any) -> tuple[int, int, int, int] | None:
        return (0, 0, data.nbytes, 0)


_seal = Codec(trust=True, arena=_Unshared())
_packer = msgpack.Packer(strict_types=True)
"""What it takes is plain data: a copy cannot be told from it."""


def _is_still(value: Any, data: bytes) -> bool:
    """Whether plain data is what it was when it was packed."""
    try:
        return bool(_packer.pack(value) == data)
    except Exception:  # it became what cannot be packed, or a call that has not ended changes it at this moment
        return False


def _forget_buffer() -> None:
    """A packer keeps the largest buffer it ever had."""
    global _packer
    _packer = msgpack.Packer(strict_types=True)
