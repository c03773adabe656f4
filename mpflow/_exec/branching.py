"""Branches of composite runnables as programs: one call of one runnable on what the composite was given.

A branch is part of the task that the composite runs in: its code finds that task, not one of its own, wherever it runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Protocol

from mpflow._exec.program import Diff
from mpflow._names import TASKS
from mpflow._scope import PIECE, SCOPE_KEY, TaskScope, current
from mpflow.runnables.base import Callables
from mpflow.types import Send


class Chunks(Protocol):
    """One stream of chunks that each branch reads from its start."""

    def reader(self, name: str) -> Any: ...


class BranchProgram:
    """A branch: ``callables`` is called on the input, its output goes to the channel ``key``.

    The input comes boxed, as a tuple of one, so that None can be given like anything else.
    """

    __slots__ = ("__weakref__", "callables", "is_async", "key", "metadata", "name", "tags")

    def __init__(self, name: str, callables: Callables, key: str) -> None:
        self.name = name
        self.callables = callables
        self.key = key
        self.is_async = callables.func is None
        self.tags = None
        self.metadata = None

    def run(self, input: Any, scope: TaskScope) -> Diff:
        """Call the branch; its output as the one write."""
        if self.is_async:
            import asyncio

            return asyncio.run(self.arun(input, scope))
        callables = self.callables
        assert callables.func is not None
        given = _given(callables, _enter(scope), scope)
        return self.write(callables.func(input[0], **given))

    async def arun(self, input: Any, scope: TaskScope) -> Diff:
        callables = self.callables
        assert callables.afunc is not None
        given = _given(callables, _enter(scope), scope)
        return self.write(await callables.afunc(input[0], **given))

    def write(self, output: Any) -> Diff:
        return [(self.key, output)]


class ItemProgram(BranchProgram):
    """A branch that is called once for each item; its outputs are boxed too, as lists of them would be run together."""

    __slots__ = ()

    def write(self, output: Any) -> Diff:
        return [(self.key, (output,))]


class StreamingProgram(BranchProgram):
    """A branch whose output is told piece by piece: ``callables`` turn an iterator of chunks into another.

    The input is boxed, or `Chunks` that all branches read.
    """

    __slots__ = ()

    def run(self, input: Any, scope: TaskScope) -> Diff:
        if self.is_async:
            return super().run(input, scope)
        callables = self.callables
        assert callables.func is not None and scope.emit is not None
        tell = scope.emit
        given = _given(callables, _enter(scope), scope)
        chunks: Iterator[Any] = iter(input) if type(input) is tuple else input.reader(self.name)
        pieces: Iterable[Any] = callables.func(chunks, **given)
        for piece in pieces:
            tell(PIECE, (self.name, piece))
        return []

    async def arun(self, input: Any, scope: TaskScope) -> Diff:
        callables = self.callables
        assert callables.afunc is not None and scope.emit is not None
        tell = scope.emit
        given = _given(callables, _enter(scope), scope)
        chunks: AsyncIterator[Any] = _only(input) if type(input) is tuple else input.reader(self.name)
        async for piece in callables.afunc(chunks, **given):
            tell(PIECE, (self.name, piece))
        return []


class ScatterProgram:
    """Sends each item of a list to the branch ``target``."""

    __slots__ = ("__weakref__", "callables", "is_async", "metadata", "name", "tags", "target")

    def __init__(self, name: str, target: str) -> None:
        self.name = name
        self.target = target
        self.callables = Callables(self.run, None, (), name, self.run)
        self.is_async = False
        self.tags = None
        self.metadata = None

    def run(self, input: Any, scope: TaskScope) -> Diff:
        return [(TASKS, Send(self.target, (item,))) for item in input[0]]


async def _only(input: tuple[Any, ...]) -> AsyncIterator[Any]:
    for chunk in input:
        yield chunk


def _enter(scope: TaskScope) -> TaskScope | None:
    """Make the task that the composite runs in the current one.

    In a worker that is the branch itself, with all that it can reach, if the composite is not part of a task.
    """
    local = scope.facts.local
    around = scope if local is None or (local.is_away and local.around is None) else local.around
    current.set(around)
    return around


def _given(callables: Callables, around: TaskScope | None, scope: TaskScope) -> dict[str, Any]:
    """What the call is given besides its input. A config that was passed on is passed on, with its task."""
    if not callables.inject:
        return {}
    given = {} if around is None else callables.arguments(around)
    if "config" in callables.inject:
        config: Any = scope.facts.config or None
        if config is not None and around is not None and around is not scope:
            config = {**config, "configurable": {**(config.get("configurable") or {}), SCOPE_KEY: around}}
        given["config"] = config
    return given
