"""Programs of the functional API: tasks, called with arguments of their own, and entrypoints; and who may call a task."""

from __future__ import annotations

import inspect
from functools import partial
from types import CodeType
from typing import Any
from weakref import WeakKeyDictionary

from mpflow._exec.program import Diff, NodeProgram
from mpflow._names import PREVIOUS, RETURN
from mpflow._scope import TaskScope, current
from mpflow.constants import END
from mpflow.runnables.base import Callables, injected


class TaskCallable:
    """What starts a task when it is called."""

    __slots__ = ()
    exists = False
    """Whether there may be any in this process."""


class Final:
    """What an entrypoint returns when it saves something else than it gives back."""

    __slots__ = ("save", "value")

    def __init__(self, value: Any, save: Any) -> None:
        self.value = value
        self.save = save

    def __repr__(self) -> str:
        return f"entrypoint.final(value={self.value!r}, save={self.save!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Final) and (self.value, self.save) == (other.value, other.save)

    __hash__ = None  # type: ignore[assignment]


class EntrypointProgram(NodeProgram):
    """An entrypoint: what it returns is the run's output, and what the thread's next run is given as ``previous``."""

    __slots__ = ()

    def diff(self, result: Any) -> Diff:
        if isinstance(result, Final):
            return [(END, result.value), (PREVIOUS, result.save)]
        return [(END, result), (PREVIOUS, result)]


class CallProgram(NodeProgram):
    """A task: its input is the arguments of its call, its diff the one write that goes back to the caller."""

    __slots__ = ("positions",)

    def __init__(self, name: str, callables: Callables) -> None:
        super().__init__(name, callables, ())
        self.positions = injected(callables.source)

    def run(self, input: Any, scope: TaskScope) -> Diff:
        if self.is_async:
            import asyncio

            return asyncio.run(self.arun(input, scope))
        return [(RETURN, self.call(input, scope))]

    async def arun(self, input: Any, scope: TaskScope) -> Diff:
        return [(RETURN, await self.acall(input, scope))]

    def call(self, input: Any, scope: TaskScope) -> Any:
        """Call the function; its own result."""
        assert self.callables.func is not None
        current.set(scope)
        args, kwargs = input
        return self.callables.func(*args, **kwargs, **self._given(scope, args, kwargs))

    async def acall(self, input: Any, scope: TaskScope) -> Any:
        """As `call`, awaiting."""
        assert self.callables.afunc is not None
        current.set(scope)
        args, kwargs = input
        return await self.callables.afunc(*args, **kwargs, **self._given(scope, args, kwargs))

    def _given(self, scope: TaskScope, args: Any, kwargs: Any) -> dict[str, Any]:
        """What is injected, but for what the caller gave itself."""
        if not self.positions:
            return {}
        given = self.callables.arguments(scope)
        return {
            name: given[name] for name, index in self.positions.items() if name not in kwargs and index >= len(args)
        }


_known: WeakKeyDictionary[NodeProgram, bool] = WeakKeyDictionary()
_DEPTH = 3
"""How far a task is looked for in functions that functions name."""


def may_call(program: NodeProgram) -> bool:
    """Whether a node's function names a task, itself or through functions that it names."""
    if isinstance(program, (EntrypointProgram, CallProgram)):
        return True
    found = _known.get(program)
    if found is None:
        found = _known[program] = _names_a_task(program.callables.source, _DEPTH)
    return found


def _names_a_task(source: Any, depth: int) -> bool:
    while isinstance(source, partial):
        source = source.func
    source = getattr(source, "__func__", source)
    if not inspect.isfunction(source):
        source = getattr(type(source), "__call__", None)
        if not inspect.isfunction(source):
            return False
    for value in _named_by(source):
        if isinstance(value, TaskCallable):
            return True
        if depth and inspect.isfunction(value) and _names_a_task(value, depth - 1):
            return True
    return False


def _named_by(function: Any) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    names: set[str] = set()
    codes: list[CodeType] = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
    scope = function.__globals__
    return found + [scope[name] for name in names if name in scope]
