"""Conditional edges: a path function of the user's, and the writes that its answer stands for (RT-1 to RT-6)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from mpflow._names import BRANCH_TO, TASKS
from mpflow._scope import TaskScope
from mpflow._sends import ReplayableSends, SendIterator, bundle_of, made_of, packets_of
from mpflow.constants import END, START
from mpflow.errors import InvalidUpdateError
from mpflow.graph.looking import keys_looked_at
from mpflow.runnables.base import Callables, coerce, is_invokable, name_of
from mpflow.schema import callable_hints, input_hint
from mpflow.types import Send

if TYPE_CHECKING:
    from mpflow._core.plan import Reads

PathMap = Mapping[Any, str] | Sequence[str] | None


class BranchSpec:
    """A conditional edge as it was added. ``ends`` maps what the path returns to nodes; None lets it name any node."""

    __slots__ = ("callables", "ends", "input_schema", "name", "title")

    def __init__(self, path: Any, path_map: PathMap, name: str | None = None) -> None:
        self.callables: Callables = coerce(path)
        own = _name_of(path)
        self.name = name or own or "condition"
        self.title = own
        self.ends = _ends_of(path, path_map)
        self.input_schema = input_hint(path)

    def bind(self, source: str, reads: Reads, make: Callable[[Any], Any] | None, keys: Collection[str]) -> Branch:
        """The branch of a graph whose state has `keys`."""
        return Branch(self, source, reads, make, keys)


class Branch:
    """A conditional edge of a compiled graph: what it reads and how it is asked.

    ``beyond`` are the keys of the state that it does not read, but is shown if its node wrote them. ``shapes`` says whether
    it is given anything else than the values that it reads, where its node returned no unknown key. Callbacks are told of it
    by its ``title``, which may be None, unless it ``tells_itself``.
    """

    __slots__ = (
        "_named",
        "beyond",
        "callables",
        "ends",
        "is_async",
        "looks_at",
        "make",
        "name",
        "plain",
        "reads",
        "shapes",
        "source",
        "tells_itself",
        "title",
    )

    def __init__(
        self,
        spec: BranchSpec,
        source: str,
        reads: Reads,
        make: Callable[[Any], Any] | None,
        keys: Collection[str],
    ) -> None:
        self.name = spec.name
        self.title = spec.title
        self.callables = spec.callables
        self.tells_itself = is_invokable(spec.callables.source)
        self.ends = spec.ends
        self.source = source
        self.reads = reads
        self.make = make
        self.plain = spec.input_schema is None and make is None and not isinstance(reads, str)
        self.beyond = frozenset(keys).difference(reads) if self.plain else frozenset()
        self.shapes = make is not None or bool(self.beyond)
        self.is_async = self.callables.func is None
        self.looks_at = None if self.shapes else keys_looked_at(self.callables.func or self.callables.afunc)
        self._named: dict[str, list[tuple[str, Any]]] = {}
        """The writes of the answers that were names, as far as they have been given."""

    def input(self, values: Any, diff: Sequence[tuple[str, Any]], unknown: dict[str, Any]) -> Any:
        """What the path is given: the state with its node's writes, and what else the node returned (RT-2)."""
        if self.make is not None:
            return self.make(values)
        if self.plain and (unknown or self.beyond):
            written = {key: value for key, value in diff if key in self.beyond}
            return {**unknown, **written, **values}
        return values

    def run(self, value: Any, scope: TaskScope) -> list[tuple[str, Any]]:
        return self.writes(self.answer(value, scope), scope)

    async def arun(self, value: Any, scope: TaskScope) -> list[tuple[str, Any]]:
        return self.writes(await self.aanswer(value, scope), scope)

    def answer(self, value: Any, scope: TaskScope) -> Any:
        """What the path returns."""
        func = self.callables.func
        if func is None:
            raise TypeError(
                f"No synchronous function provided to \"{self.name}\", the conditional edge of node '{self.source}'. "
                "Run the graph with ainvoke or astream"
            )
        return func(value, **self.callables.arguments(scope)) if self.callables.inject else func(value)

    async def aanswer(self, value: Any, scope: TaskScope) -> Any:
        """As `answer`, awaiting a path that is async."""
        func = self.callables.afunc
        if func is None:
            return self.answer(value, scope)
        return await func(value, **self.callables.arguments(scope))

    def writes(self, result: Any, scope: TaskScope) -> list[tuple[str, Any]]:
        """The writes that send control where the path's answer says. They may be the same list each time."""
        if type(result) is str:
            named = self._named.get(result)
            if named is None:
                named = self._named[result] = self._writes([result])
            return named
        if isinstance(result, (list, tuple)):
            bundle = bundle_of(result, scope)
            return self._writes(made_of(result, scope)) if bundle is None else [(TASKS, bundle)]
        if isinstance(result, ReplayableSends):
            return self._writes(made_of([result], scope))
        return self._writes(packets_of(result, scope) if isinstance(result, Iterator) else [result])

    def _writes(self, answers: Sequence[Any]) -> list[tuple[str, Any]]:
        ends = self.ends
        found: list[tuple[str, Any]] = []
        for answer in answers:
            if isinstance(answer, (SendIterator, ReplayableSends)):
                found.append((TASKS, answer))
                continue
            if isinstance(answer, Send):
                if answer.node == END:
                    raise InvalidUpdateError(
                        f"Cannot send a packet to the END node (conditional edge '{self.name}' of '{self.source}' did)"
                    )
                found.append((TASKS, answer))
                continue
            target = answer if ends is None else ends[answer]
            if target is None or target == START:
                raise ValueError(
                    f"Branch did not return a valid destination: '{self.name}' of node '{self.source}' "
                    f"returned {answer!r}, expected a node's name, END or a Send"
                )
            if isinstance(target, Send):
                found.append((TASKS, target))
            elif target != END:
                found.append((f"{BRANCH_TO}{target}", None))
        return found


def _name_of(path: Any) -> str | None:
    """The name that a path has of its own; lambdas, partials and bare objects have none."""
    found = name_of(path) if is_invokable(path) else getattr(path, "__name__", None)
    return None if found == "<lambda>" else found


def _ends_of(path: Any, path_map: PathMap) -> dict[Any, str] | None:
    if path_map is not None:
        if isinstance(path_map, Mapping):
            return dict(path_map)
        return {name: name for name in path_map}
    function = path
    if is_invokable(path):
        function = getattr(path, "func", None) or getattr(path, "afunc", None)
    elif not hasattr(path, "__annotations__"):
        function = getattr(type(path), "__call__", None)
    if function is None:
        return None
    hint = callable_hints(function).get("return")
    if hint is None:
        return None
    literals = _literals(hint)
    return {name: name for name in literals} if literals else None


def _literals(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) is Literal:
        return get_args(hint)
    return ()
