"""The scope of a task in a worker: made for every task, and most tasks never ask it anything, so it holds next to nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mpflow._exec import batches
from mpflow._exec.facts import KnownFacts, LazyFacts, are_entered
from mpflow._exec.reports import Reports
from mpflow._exec.waits import Waits
from mpflow._messages import Luggage
from mpflow._scope import TaskScope, control_of

MOST_GRAPHS = 1 << 16
"""An attempt that starts more graphs than this, and fails, may leave some of them to the next."""


class Group:
    """What tasks that differ in path and input alone have in common."""

    __slots__ = (
        "columns",
        "decode",
        "emit",
        "errands",
        "facts",
        "first",
        "first_at",
        "metadata",
        "name",
        "number",
        "program",
        "run",
        "tags",
        "triggers",
        "waits",
    )

    def __init__(
        self,
        facts_data: bytes,
        program: Any,
        stint: batches.Stint,
        decode: Callable[[Any], Any],
        reports: Reports,
        waits: Waits,
    ) -> None:
        self.facts = KnownFacts(facts_data, decode)
        self.decode = decode
        self.errands = reports.errands
        self.waits = waits
        self.program = program
        self.name: str = program.name
        self.tags = getattr(program, "tags", None)
        self.metadata = getattr(program, "metadata", None)
        self.triggers = stint.triggers
        self.number = stint.number
        self.first_at = stint.first_at
        self.emit = reports.emit
        self.first = stint.first
        self.columns = stint.columns
        self.run: Callable[[Any, WorkerScope], Any] = (
            self._enter_and_run if are_entered(facts_data) else getattr(program, "returned", program.run)
        )
        """Called with the input and the scope of a task, in a context of its own in which that is the current scope."""

    def _enter_and_run(self, input: Any, scope: WorkerScope) -> Any:
        for entrance in scope.facts.local.entrances:
            entrance(scope)
        return self.program.run(input, scope)


class WorkerScope(TaskScope):
    """A `TaskScope` that fetches what it is asked for from its group."""

    # Slots, so that the rest of it takes no memory either until it is asked for.
    __slots__ = ("_group", "_task")
    _group: Group
    _task: int
    # Tasks are many, and who makes a scope gives it its group and number: a call less for each of them.
    __init__ = object.__init__

    def __getattr__(self, name: str) -> Any:
        # Reached for what is on neither the object nor its class: fetched once, then the object's own.
        if name == "facts":
            value: Any = LazyFacts(self._group.facts, self._unpack)
        elif name == "path":
            value = batches.path_at(self._group.columns, self._task - self._group.first)
        elif name in ("name", "triggers", "number"):
            value = getattr(self._group, name)
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        setattr(self, name, value)
        return value

    @property
    def is_told(self) -> bool:
        """Whether the facts say more than what step it is."""
        return self._group.facts.is_told

    def _unpack(self, luggage: Luggage) -> Any:
        from mpflow._exec.away import Away, FarTask

        errands = self._group.errands
        reach = (
            partial(errands.ask, self._task),
            partial(errands.ask_later, self._task),
            partial(self._group.waits.wait, self._task),
            partial(control_of, self),
        )
        away = Away(luggage, *reach)
        if luggage.around is not None:
            outer = Away(replace(luggage, around=None), *reach)
            away.around = FarTask(self._group.decode(luggage.around), outer, self.emit)
        return away

    def _graphs_before(self) -> int:
        # A graph as a node is started once an attempt. How many a function started is not known here: enough are skipped.
        return (self.number - 1) * (1 if getattr(self._group.program, "holds_graph", False) else MOST_GRAPHS)

    @property
    def emit(self) -> Callable[[str, Any], None]:  # type: ignore[override]
        return partial(self._group.emit, self._task)

    @property
    def started_at(self) -> float | None:  # type: ignore[override]
        return self._group.first_at

    @property
    def tags(self) -> Sequence[str] | None:  # type: ignore[override]
        tags: Sequence[str] | None = self._group.tags
        return tags

    @property
    def metadata(self) -> dict[str, Any] | None:  # type: ignore[override]
        metadata: dict[str, Any] | None = self._group.metadata
        return metadata
