"""A node as it travels: what is called, how its input is built and how its return value becomes a diff.

The same object runs inline, in a thread, on the event loop and in a worker. It knows no executor and no engine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mpflow._exec.place import in_worker
from mpflow._names import BRANCH_TO, PULL, ROOT, TASKS
from mpflow._scope import TaskScope, set_current
from mpflow.constants import END
from mpflow.errors import ErrorCode, InvalidUpdateError, ParentCommand, create_error_message
from mpflow.schema import updates_of
from mpflow.types import Command, Send

if TYPE_CHECKING:
    from mpflow.runnables.base import Callables

UNKNOWN = "__unknown__"
"""A mark in a diff, not a channel: the dict of returned keys that no channel has (GB-18, RT-2). Marks come first."""

Diff = list[tuple[str, Any]]
Returned = Diff | dict[Any, Any]
"""What came of a call: its diff, or the dict that the node returned, of which `NodeProgram.diff` makes it."""


class NodeProgram:
    """One node. ``keys`` are the channels it may write; ``coerce`` makes its input from the values read; ``is_async`` says
    that it can only be awaited. ``memory_bytes`` is what a task is said to take, 0 if nothing was said.

    It is pickled slot by slot, after it was made: a node may name its own graph, so that its parts lead back to it.
    """

    __slots__ = (
        "__weakref__",
        "alone",
        "callables",
        "coerce",
        "holds_graph",
        "is_async",
        "keys",
        "memory_bytes",
        "metadata",
        "name",
        "rooted",
        "tags",
    )

    def __init__(
        self,
        name: str,
        callables: Callables,
        keys: Collection[str],
        *,
        coerce: Callable[[Any], Any] | None = None,
        tags: Sequence[str] | None = None,
        metadata: dict[str, Any] | None = None,
        memory_bytes: int = 0,
    ) -> None:
        self.name = name
        self.callables = callables
        self.keys = frozenset(keys)
        self.coerce = coerce
        self.tags = tags
        self.metadata = metadata
        self.memory_bytes = memory_bytes
        self.is_async = callables.func is None
        self.holds_graph = hasattr(callables.source, "get_subgraphs")
        self.rooted = ROOT in self.keys
        is_plain = type(self) is NodeProgram and not (callables.inject or coerce or self.rooted or self.holds_graph)
        self.alone = callables.func if is_plain else None
        """The function, if it is called with the input alone and a dict that it returns is its diff."""

    def run(self, input: Any, scope: TaskScope) -> Diff:
        """Call the node on what was read for it; return its diff.

        Sets the current scope, so it must be called in a context of its own. A node that is only async, or a graph with
        such a node, is run to its end on an event loop of its own: in a worker, where there is no other.
        """
        set_current(scope)
        func = self.alone
        if func is None:
            return self._run_otherwise(input, scope)
        try:
            diff = self.diff(func(input))
            return diff if scope.writes is None else _behind(scope.writes, diff)
        except ParentCommand as error:
            return self._addressed(error, scope)

    def _run_otherwise(self, input: Any, scope: TaskScope) -> Diff:
        callables = self.callables
        func = callables.func
        if func is None or (self.holds_graph and in_worker() and callables.source.is_only_async):
            import asyncio

            return asyncio.run(self.arun(input, scope))
        try:
            if self.coerce is not None and scope.path[0] == PULL:  # a Send's argument is given as it is (SN-2)
                input = self.coerce(input)
            if callables.inject:
                result = func(input, **callables.arguments(scope))
            else:
                result = func(input)
            diff = self.diff(result)
            return diff if scope.writes is None else _behind(scope.writes, diff)
        except ParentCommand as error:
            return self._addressed(error, scope)

    def returned(self, input: Any, scope: TaskScope) -> Returned:
        """As `run`, in a context whose current scope is set; a dict that the node returned is given as it is, without a look."""
        func = self.alone
        if func is None:
            return self.run(input, scope)
        try:
            result = func(input)
            if scope.writes is None:
                return result if type(result) is dict else self.diff(result)
            return _behind(scope.writes, self.diff(result))
        except ParentCommand as error:
            return self._addressed(error, scope)

    async def arun(self, input: Any, scope: TaskScope) -> Diff:
        """As `run`, awaiting the node's async form."""
        set_current(scope)
        callables = self.callables
        assert callables.afunc is not None
        try:
            if self.coerce is not None and scope.path[0] == PULL:  # a Send's argument is given as it is (SN-2)
                input = self.coerce(input)
            result = await callables.afunc(input, **callables.arguments(scope))
            diff = self.diff(result)
            return diff if scope.writes is None else _behind(scope.writes, diff)
        except ParentCommand as error:
            return self._addressed(error, scope)

    def diff(self, result: Any) -> Diff:
        """The ordered writes of a node's return value (GB-17, CM-2). Raises InvalidUpdateError for what is none."""
        if result is None:
            return []
        keys = self.keys
        if type(result) is dict and not self.rooted:
            if keys.issuperset(result):
                return [*result.items()]
            return self._known(result.items())
        if isinstance(result, Command):
            return self._command(result)
        if isinstance(result, (list, tuple)) and any(isinstance(item, Command) for item in result):
            marks: Diff = []
            writes: Diff = []
            routes: Diff = []
            for item in result:
                for write in self.diff(item):
                    name = write[0]
                    is_route = name == TASKS or name.startswith(BRANCH_TO)
                    (marks if name == UNKNOWN else routes if is_route else writes).append(write)
            return marks + writes + routes
        if self.rooted:
            return [(ROOT, result)]
        if isinstance(result, dict):
            return self._known(result.items())
        updates = updates_of(result, keys)
        if updates is None:
            raise InvalidUpdateError(
                create_error_message(
                    message=f"Expected dict, got {_short(result)} from node '{self.name}'. A node returns the keys of "
                    "the state that it changes, None, or a Command.",
                    error_code=ErrorCode.INVALID_GRAPH_NODE_RETURN_VALUE,
                )
            )
        return updates

    def _known(self, items: Any) -> Diff:
        writes: Diff = []
        unknown: dict[Any, Any] = {}
        for key, value in items:
            if key in self.keys:
                writes.append((key, value))
            else:
                unknown[key] = value
        return [(UNKNOWN, unknown), *writes] if unknown else writes

    def _command(self, command: Command[Any]) -> Diff:
        if command.graph is not None:
            raise ParentCommand(command)
        update = command.update
        if update is None:
            writes = []
        elif isinstance(update, (list, tuple)) and all(
            isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in update
        ):
            writes = self._known(update)
        else:
            writes = self.diff(update)
        return writes + routes_to(command.goto, self.name)

    def _addressed(self, error: ParentCommand, scope: TaskScope) -> Diff:
        """Take a command meant for this graph as the node's own result; send others on to the graph they name."""
        command = error.args[0]
        if command.graph == scope.namespace or command.graph == self.name:
            return self._command(replace(command, graph=None))
        around = scope.facts.around or scope.facts.checkpoint_ns
        if command.graph == Command.PARENT and around:
            raise ParentCommand(replace(command, graph=around)) from error
        raise error


def _behind(earlier: Diff, diff: Diff) -> Diff:
    """A diff with what was written before the node returned."""
    if diff and diff[0][0] == UNKNOWN:
        return [diff[0], *_behind(earlier, diff[1:])]
    return earlier + diff


def routes_to(goto: Any, node: str) -> Diff:
    """The writes that send control to `goto`: a node name, a Send, or a sequence of both."""
    if not goto:
        return []
    targets = goto if isinstance(goto, (list, tuple)) else (goto,)
    writes: Diff = []
    for target in targets:
        if isinstance(target, Send):
            if target.node == END:
                raise InvalidUpdateError(f"Cannot send a packet to the END node (node '{node}' did)")
            writes.append((TASKS, target))
        elif isinstance(target, str):
            if target != END:
                writes.append((BRANCH_TO + target, None))
        else:
            raise TypeError(
                f"In Command.goto of node '{node}', expected a node name or a Send, got {type(target).__name__}"
            )
    return writes


def _short(value: Any, limit: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
