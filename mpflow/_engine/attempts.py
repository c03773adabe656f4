"""Performing one attempt in this process: the node, then its unconditional edges, then its branches (RT-1, RT-6)."""

from __future__ import annotations

from contextvars import Context
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mpflow._columns import Diffs
from mpflow._exec.program import UNKNOWN
from mpflow._messages import CLOSED, CLOSED_MANY, DONE, FAILED, Attempt, Outcome
from mpflow._scope import TaskScope, current
from mpflow.errors import StrictGraphError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpflow._core.plan import NodePlan, Plan
    from mpflow._core.state import ChannelState
    from mpflow._engine.telling import Teller
    from mpflow._scope import Emit

Diff = list[tuple[str, Any]]


class AttemptScope(TaskScope):
    """The scope of an attempt that runs here. It fetches what it is asked for from the attempt: most nodes ask nothing."""

    attempt: Attempt
    # Attempts are many, and who makes a scope gives it its attempt: a call less for each of them.
    __init__ = object.__init__

    def __getattr__(self, name: str) -> Any:
        # Reached for what is on neither the object nor its class: fetched once, then the object's own.
        if name in ("facts", "path", "triggers", "number"):
            value: Any = getattr(self.attempt, name)
        elif name == "name":
            value = self.attempt.program.name
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        setattr(self, name, value)
        return value

    @property
    def answers(self) -> Any:  # type: ignore[override]
        return self.attempt.answers

    @property
    def tags(self) -> Any:  # type: ignore[override]
        return self.attempt.program.tags

    @property
    def metadata(self) -> Any:  # type: ignore[override]
        return self.attempt.program.metadata

    @property
    def started_at(self) -> float | None:  # type: ignore[override]
        return self.attempt.first_at


class Performer:
    """How the attempts of one run are performed: against its state, in its context, telling its streams."""

    __slots__ = ("awaits", "context", "emit_for", "enter", "plan", "state", "teller", "warn")

    def __init__(
        self,
        plan: Plan,
        state: ChannelState,
        context: Context,
        warn: Callable[[str], None],
        emit_for: Callable[[Attempt], Emit] | None = None,
    ) -> None:
        self.plan = plan
        self.state = state
        self.context = context
        self.warn = warn
        self.emit_for = emit_for
        self.enter: Callable[[TaskScope], None] | None = None
        """Prepares a task's context before its node is called."""
        self.teller: Teller | None = None
        """Tells user callbacks of the tasks."""
        self.awaits = False

    def perform(self, attempt: Attempt, is_measured: bool = False) -> Outcome:
        """Run an attempt here and now, in a context of its own. Never raises: what the node raises is its outcome.

        In a run that ``awaits``, one with an async branch is only DONE: the event loop closes it.
        """
        node = attempt.task.node
        meter = node.meter
        if meter is not None and not is_measured:
            meter.left -= 1
            if meter.left < 0:
                return meter.measure(self._perform_measured, attempt)  # type: ignore[no-any-return]
        opened = self.awaits and any(branch.is_async for branch in node.branches)
        started = perf_counter()
        try:
            diff = self.context.copy().run(_run, self, attempt, not opened)
        except BaseException as error:
            return FAILED, attempt, error, perf_counter() - started
        return DONE if opened else CLOSED, attempt, diff, perf_counter() - started

    def _perform_measured(self, attempt: Attempt) -> Outcome:
        return self.perform(attempt, is_measured=True)

    def _scope_of(self, attempt: Attempt) -> AttemptScope:
        scope: AttemptScope = AttemptScope()
        scope.attempt = attempt
        if self.emit_for is not None:
            scope.emit = self.emit_for(attempt)
        return scope

    async def aperform(self, attempt: Attempt) -> Diff:
        """As `perform`, awaiting; raises what the node raises. To be run as a task in a context of its own."""
        scope = self._scope_of(attempt)
        if attempt.patience is not None:
            scope.patience = attempt.patience
        if self.enter is not None:
            self.enter(scope)
        node = attempt.task.node
        if self.teller is not None and is_told_of(node):
            return await self.teller.arun(attempt, scope, self.aclose)
        return await self.aclose(node, await performed(attempt, scope), scope)

    def close(self, node: NodePlan, diff: Diff, scope: AttemptScope) -> Diff:
        """Complete a node's diff with where control goes next."""
        unknown = None
        if diff and diff[0][0] == UNKNOWN:
            diff, unknown = self._open(node, diff)
        else:
            diff += node.writes
        for index, branch in enumerate(node.branches) if node.branches else ():
            question = self._question(branch, diff, unknown, scope)
            if self.teller is None:
                diff += branch.run(question, scope)
            else:
                diff += self.teller.ask(branch, index, question, scope)
        return diff

    def _question(self, branch: Any, diff: Diff, unknown: dict[str, Any] | None, scope: TaskScope) -> Any:
        """What a branch is asked about: the state with the diff applied, and the managed values of this step."""
        # Callbacks are shown all of the question.
        looks_at = branch.looks_at if unknown is None and self.teller is None else None
        values = self.state.read_with(branch.reads, diff, looks_at)
        if self.plan.managed and isinstance(values, dict):
            for key, manager in self.plan.managed.items():
                if key in branch.reads:
                    values[key] = manager.get(scope.facts)
        return branch.input(values, diff, unknown or {}) if branch.shapes or unknown else values

    def close_returned(self, attempt: Attempt, diff: Diff) -> Outcome:
        """Complete the diff that came back from another process. Never raises."""
        node = attempt.task.node
        started = perf_counter()
        try:
            if node.branches:
                scope = self._scope_of(attempt)
                diff = self.context.copy().run(self._close_in, node, diff, scope)
            else:
                diff, _ = self._open(node, diff)
        except BaseException as error:
            if self.teller is not None:
                self.teller.failed(attempt, error)
            return FAILED, attempt, error, perf_counter() - started
        if self.teller is not None:
            self.teller.ended(attempt, diff)
        return CLOSED, attempt, diff, perf_counter() - started

    def close_all_returned(self, outcome: Outcome) -> tuple[Outcome, list[Outcome]]:
        """As `close_returned`, for attempts of one program: those of them that it can close as they are, and the others."""
        _, attempts, diffs, seconds = outcome
        node = attempts[0].task.node
        if not node.branches and type(diffs) is Diffs and diffs.channel != UNKNOWN:
            diffs.rest = node.writes
            return (CLOSED_MANY, attempts, diffs, seconds), []
        if node.branches or any(diff[0][0] == UNKNOWN for diff in diffs if diff):
            each_s = seconds / len(attempts)
            singly = [(DONE, attempt, diff, each_s) for attempt, diff in zip(attempts, diffs, strict=True)]
            return (CLOSED_MANY, [], [], 0.0), singly
        if writes := node.writes:
            for diff in diffs:
                diff += writes
        return (CLOSED_MANY, attempts, diffs, seconds), []

    def _close_in(self, node: NodePlan, diff: Diff, scope: AttemptScope) -> Diff:
        current.set(scope)
        return self.close(node, diff, scope)

    async def aclose_returned(self, attempt: Attempt, diff: Diff) -> Diff:
        scope = self._scope_of(attempt)
        current.set(scope)
        if self.teller is not None and self.teller.is_open(attempt):
            return await self.teller.afinish(attempt, scope, diff, self.aclose)
        return await self.aclose(attempt.task.node, diff, scope)

    async def aclose(self, node: NodePlan, diff: Diff, scope: AttemptScope) -> Diff:
        """As `close`, awaiting branches that are async."""
        diff, unknown = self._open(node, diff)
        for index, branch in enumerate(node.branches):
            question = self._question(branch, diff, unknown, scope)
            if self.teller is None:
                diff += await branch.arun(question, scope)
            else:
                diff += await self.teller.aask(branch, index, question, scope)
        return diff

    def _open(self, node: NodePlan, diff: Diff) -> tuple[Diff, dict[str, Any] | None]:
        """The diff with the node's unconditional edges, and the keys it returned that no channel has (GB-18, D-10)."""
        if diff and diff[0][0] == UNKNOWN:
            unknown = self._unknown(node, diff)
            return [write for write in diff if write[0] != UNKNOWN] + node.writes, unknown
        if node.writes:
            diff += node.writes
        return diff, None

    def _unknown(self, node: NodePlan, diff: Diff) -> dict[str, Any]:
        """The keys that no channel has; they are told, or raised by a strict graph."""
        unknown: dict[str, Any] = {}
        for name, value in diff:
            if name == UNKNOWN:
                unknown.update(value)
        for key in unknown if node.subgraph is None else ():  # a graph may well have keys of its own
            text = f"returned the unknown key {key!r}, which no channel of the graph '{self.plan.name}' has"
            if self.plan.strict:
                raise StrictGraphError("unknown key", f"node '{node.name}'", text)
            if not node.hidden:
                self.warn(f"node '{node.name}' {text}; ignoring it")
        return unknown


def _run(performer: Performer, attempt: Attempt, close: bool) -> Diff:
    """What an attempt comes to, in the context that this is called in; completed, if it is to be closed."""
    if performer.emit_for is None:
        scope = AttemptScope()
        scope.attempt = attempt
    else:
        scope = performer._scope_of(attempt)
    node = attempt.task.node
    program = node.program
    if program.is_async:
        raise TypeError(
            f'No synchronous function provided to "{node.name}": it is async. Run the graph with ainvoke, astream '
            "or abatch, or place the node with executor='process'"
        )
    if performer.enter is not None:
        performer.enter(scope)
        if performer.teller is not None and is_told_of(node):
            return performer.teller.run(attempt, scope, performer.close if close else None)
    diff: Diff = program.run(attempt.input, scope)
    return performer.close(node, diff, scope) if close else diff


async def performed(attempt: Attempt, scope: AttemptScope) -> Diff:
    """What an attempt's program comes to on the event loop: one that has no async form is short, and meant for it."""
    program = attempt.program
    if program.callables.afunc is None:
        return program.run(attempt.input, scope)  # type: ignore[no-any-return]
    return await program.arun(attempt.input, scope)  # type: ignore[no-any-return]


def is_told_of(node: NodePlan) -> bool:
    """Whether callbacks are told of a node: of a hidden one only where it has conditional edges."""
    return not node.hidden or bool(node.branches)
