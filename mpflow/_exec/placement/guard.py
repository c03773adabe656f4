"""A node that was moved without being asked: run in a worker under watch, so that what it returns is what a thread would.

The walk has been over the node, yet a walk cannot see everything. In the worker it is repeated, for a worker's modules may
hold something else; and around each call it is seen that the input, and all that the walk found, stay as they were.
"""

from __future__ import annotations

import resource
from time import perf_counter_ns, thread_time_ns
from typing import Any

from mpflow._exec.placement.clearance import Clearance
from mpflow._exec.placement.safety import walk
from mpflow._exec.placement.values import survey
from mpflow._exec.program import Diff, NodeProgram
from mpflow._scope import TaskScope
from mpflow._wire.codec import Codec

MEASURED = "__measured__"
"""The last write of a guarded node's diff, which the parent takes out, in nanoseconds: the call's CPU time, how long it waited for
something, and the CPU time of the guard itself."""
_LARGE_BYTES = 1 << 16


class Stays(Exception):
    """A node that was moved must run in the parent process after all. The message says why; nobody else sees it."""


class GuardedProgram:
    """A node's program, to be run where nobody asked for it to run."""

    is_moved = True
    """Its tasks were sent where nobody asked for them to run."""
    __slots__ = ("__weakref__", "_classes", "_clearance", "entries", "inner", "metadata", "name", "tags")

    def __init__(self, inner: NodeProgram, entries: dict[str, str]) -> None:
        self.inner = inner
        self.entries = entries
        self.name = inner.name
        self.tags = inner.tags
        self.metadata = inner.metadata
        self._clearance: Clearance | None = None
        self._classes: dict[type, Clearance] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return GuardedProgram, (self.inner, self.entries)

    def run(self, input: Any, scope: TaskScope) -> Diff:
        """As the node's own program, with `MEASURED` behind the diff. Raises Stays where a thread might do otherwise."""
        clearance = self._clearance or self._look_again()
        guard_ns = thread_time_ns()
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
        pauses = _pauses()
        wall_ns, cpu_ns = perf_counter_ns(), thread_time_ns()
        diff = self.inner.run(input, scope)
        wall_ns, cpu_ns = perf_counter_ns() - wall_ns, thread_time_ns() - cpu_ns
        # Without a single pause of its own, what is not CPU time is what other programs took of the processor.
        waited_ns = max(0, wall_ns - cpu_ns) if pauses is None or _pauses() != pauses else 0
        if _seal.encode(input) != before:
            raise Stays("it changes its input")
        for seen in (clearance, *self._classes.values()):
            changed = seen.changed()
            if changed is not None:
                raise Stays(f"it changes '{changed}'")
        for channel, value in diff:
            returned = survey(value, f"what it returns for '{channel}'", parts)
            if returned.odd is not None:
                raise Stays(returned.odd)
        diff.append((MEASURED, [cpu_ns, waited_ns, thread_time_ns() - guard_ns - cpu_ns]))
        return diff

    def _look_again(self) -> Clearance:
        """The walk, in this process. It must come to what it came to in the parent."""
        clearance = walk(self.inner.callables.source)
        if clearance.held is not None:
            raise Stays(f"in a worker {clearance.held}")
        different = clearance.difference(self.entries)
        if different is not None:
            raise Stays(f"{different} is another in a worker")
        self._clearance = clearance
        return clearance

    def _look_at(self, kind: type) -> None:
        """The walk over a class of the input's: its methods are the node's to call."""
        clearance = walk(kind)
        if clearance.held is not None:
            raise Stays(clearance.held)
        self._classes[kind] = clearance


def _pauses() -> int | None:
    """How often this thread gave up its processor by itself; None where nobody counts."""
    return None if _THREAD is None else resource.getrusage(_THREAD).ru_nvcsw


_THREAD = getattr(resource, "RUSAGE_THREAD", None)


class _Unshared:
    """Takes large buffers out of a message: they cannot change, or raise if they do."""

    threshold_bytes = _LARGE_BYTES

    def put(self, data: memoryview, owner: Any) -> tuple[int, int, int, int] | None:
        return (0, 0, data.nbytes, 0)


_seal = Codec(trust=True, arena=_Unshared())
