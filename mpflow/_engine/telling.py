"""What user callbacks are told of a run and of its tasks: that they start, end or fail, and which lies within which (CF-1).

It knows langchain-core, which is imported when a run has callbacks. Of tasks in worker processes it is told here when they
leave and when their outcomes return; what models and tools do in them comes by callbacks.py.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError
from contextlib import aclosing
from inspect import Parameter, isawaitable
from typing import TYPE_CHECKING, Any, Protocol

from mpflow._engine.attempts import AttemptScope, is_told_of, performed
from mpflow._engine.messages import is_ours
from mpflow._engine.payloads import update_of
from mpflow._exec.calling import CallProgram
from mpflow._messages import CANCELLED, FAILED, LOST, one_by_one
from mpflow._names import INTERRUPT, RETURN
from mpflow.constants import END, TAG_HIDDEN
from mpflow.errors import WorkerLost
from mpflow.runnables.base import signature_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mpflow._columns import Attempts
    from mpflow._core.plan import NodePlan
    from mpflow._core.task import Task
    from mpflow._engine.run import Run
    from mpflow._exec.program import Diff
    from mpflow._messages import Attempt, Outcome

    Close = Callable[[NodePlan, Diff, AttemptScope], Diff]
    AsyncClose = Callable[[NodePlan, Diff, AttemptScope], Awaitable[Diff]]


class _Branch(Protocol):
    """A conditional edge, as far as it is told of."""

    title: str | None
    tells_itself: bool

    def run(self, value: Any, scope: AttemptScope) -> Diff: ...

    async def arun(self, value: Any, scope: AttemptScope) -> Diff: ...

    def answer(self, value: Any, scope: AttemptScope) -> Any: ...

    async def aanswer(self, value: Any, scope: AttemptScope) -> Any: ...

    def writes(self, result: Any, scope: AttemptScope) -> Diff: ...


class Teller:
    """Tells the handlers of one run. In an async run they are awaited, but for what sync nodes tell from their threads."""

    def __init__(self, run: Run, callbacks: Any) -> None:
        self._run = run
        self._callbacks = callbacks
        self._root: Any = None
        self._running: dict[Task, Any] = {}
        """The tasks that may call others, which then lie within them."""

    # -- the run ------------------------------------------------------------------------------------------------------

    def told(self, chunks: Iterator[Any], input: Any) -> Iterator[Any]:
        """The chunks of the run, which is told to begin with the first that is asked for."""
        from langchain_core.callbacks import CallbackManager

        self._begun(self._begin(CallbackManager, input))
        try:
            yield from chunks
        except BaseException as error:
            self._root.on_chain_error(error)
            raise
        self._root.on_chain_end(self._result())

    async def atold(self, chunks: Any, input: Any) -> AsyncIterator[Any]:
        """As `told`, for ``async for``."""
        from langchain_core.callbacks import AsyncCallbackManager

        self._begun(await self._begin(AsyncCallbackManager, input))
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
        except BaseException as error:
            await self._root.on_chain_error(error)
            raise
        await self._root.on_chain_end(self._result())

    def _begin(self, manager_class: Any, input: Any) -> Any:
        run = self._run
        config = run.user_config
        is_root = run.parent is None
        manager = manager_class.configure(
            inheritable_callbacks=self._callbacks,
            inheritable_tags=config.get("tags"),
            inheritable_metadata=config.get("metadata"),
        )
        if "ls_integration" not in manager.metadata:
            manager.add_metadata({"ls_integration": "langgraph"})
        name = (config.get("run_name") if is_root else None) or run.plan.name
        return manager.on_chain_start(None, input, name=name, run_id=config.get("run_id") if is_root else None)

    def _begun(self, root: Any) -> None:
        self._root = root
        self._run.user_config["callbacks"] = root.get_child()

    # -- its pauses ---------------------------------------------------------------------------------------------------

    def resumed(self) -> Any:
        """What there is to tell of a run that goes on from a saved state; None where nobody wants to know."""
        callbacks = _loaded_callbacks()
        return callbacks and callbacks.GraphResumeEvent(self._root.run_id, "pending", *self._place())

    def paused(self) -> Any:
        """What there is to tell of the run's pause, after a question or at a breakpoint."""
        callbacks = _loaded_callbacks()
        if callbacks is None:
            return None
        run = self._run
        result = run.result if isinstance(run.result, dict) else {}
        questions = tuple(result.get(INTERRUPT, ()))
        status = "pending" if questions else "interrupt_before" if run.scheduler.tasks else "interrupt_after"
        return callbacks.GraphInterruptEvent(self._root.run_id, status, *self._place(), questions)

    def _place(self) -> tuple[str, tuple[str, ...]]:
        run = self._run
        checkpoint_id = "" if run.persistence is None else run.persistence.checkpoint_id
        return checkpoint_id, tuple(run.namespace.split("|")) if run.namespace else ()

    def tell(self, event: Any) -> None:
        """Tell the handlers of graphs among the run's of a pause or a resumption."""
        callbacks = _loaded_callbacks()
        manager = callbacks.get_sync_graph_callback_manager_for_config({"callbacks": self._callbacks})
        manager.on_resume(event) if type(event) is callbacks.GraphResumeEvent else manager.on_interrupt(event)

    async def atell(self, event: Any) -> None:
        """As `tell`, awaiting."""
        callbacks = _loaded_callbacks()
        manager = callbacks.get_async_graph_callback_manager_for_config({"callbacks": self._callbacks})
        told = manager.on_resume if type(event) is callbacks.GraphResumeEvent else manager.on_interrupt
        await told(event)

    def _result(self) -> Any:
        result = self._run.result
        if isinstance(result, dict) and INTERRUPT in result:
            return {key: value for key, value in result.items() if key != INTERRUPT}
        return result

    # -- its tasks ----------------------------------------------------------------------------------------------------

    def run(self, attempt: Attempt, scope: AttemptScope, close: Close | None) -> Diff:
        """Run an attempt's program and complete its diff, telling of it. Without `close` its end is told by `afinish`."""
        running = self._within(_sync(self._around(attempt)), attempt, scope).on_chain_start(
            None, _input_of(attempt), name=scope.name
        )
        self._entered(running, attempt, scope)
        try:
            diff: Diff = attempt.program.run(attempt.input, scope)
            if close is None:
                return diff
            diff = close(attempt.task.node, diff, scope)
        except BaseException as error:
            self._running.pop(attempt.task, None)
            running.on_chain_error(error)
            raise
        self._running.pop(attempt.task, None)
        self._end(running, diff)
        return diff

    async def arun(self, attempt: Attempt, scope: AttemptScope, close: AsyncClose) -> Diff:
        """As `run`, awaiting."""
        manager = self._within(self._around(attempt), attempt, scope)
        running = await _awaited(manager.on_chain_start(None, _input_of(attempt), name=scope.name))
        self._entered(running, attempt, scope)
        return await self._aclosed(running, attempt, scope, performed(attempt, scope), close)

    def is_open(self, attempt: Attempt) -> bool:
        """Whether an attempt was told to start, and not yet to end."""
        return attempt.task in self._running

    async def afinish(self, attempt: Attempt, scope: AttemptScope, diff: Diff, close: AsyncClose) -> Diff:
        """Complete the diff of an attempt whose program has `run`, and tell of its end."""
        running = self._running[attempt.task]
        self._entered(running, attempt, scope)
        return await self._aclosed(running, attempt, scope, _given(diff), close)

    async def _aclosed(
        self, running: Any, attempt: Attempt, scope: AttemptScope, diff: Awaitable[Diff], close: AsyncClose
    ) -> Diff:
        try:
            closed = await close(attempt.task.node, await diff, scope)
        except BaseException as error:
            self._running.pop(attempt.task, None)
            await _awaited(running.on_chain_error(error))
            raise
        self._running.pop(attempt.task, None)
        output = self._output(closed)
        for handler in _tapping(running):
            async for _ in handler.tap_output_aiter(running.run_id, _only(output)):
                pass
        await _awaited(running.on_chain_end(output))
        return closed

    # -- those of its tasks that are elsewhere --------------------------------------------------------------------------

    def running(self, attempt: Attempt) -> Any:
        """By which is told what happens within a task; None if it was not told of."""
        return self._running.get(attempt.task)

    def left(self, attempts: Attempts) -> None:
        """Tell that attempts start, which are on their way to workers."""
        for attempt in attempts:
            if is_told_of(attempt.task.node) and attempt.task not in self._running:
                scope = AttemptScope()
                scope.attempt = attempt
                around = _sync(self._around(attempt))
                manager = self._within(around, attempt, scope)
                self._running[attempt.task] = manager.on_chain_start(None, _input_of(attempt), name=scope.name)

    def returned(self, outcomes: list[Outcome]) -> list[Outcome]:
        """The outcomes one by one, having told of those that say how an attempt ended."""
        singly = list(one_by_one(outcomes))
        for kind, attempt, payload, _ in singly:
            if kind is FAILED:
                self.failed(attempt, payload)
            elif kind is LOST:
                self.failed(attempt, WorkerLost(str(payload)))
            elif kind is CANCELLED:
                self.failed(attempt, payload or CancelledError())
        return singly

    def failed(self, attempt: Attempt, error: BaseException) -> None:
        """Tell that an attempt failed, if it was told to start and not yet to end."""
        running = self._running.pop(attempt.task, None)
        if running is not None:
            _sync(running).on_chain_error(error)

    def ended(self, attempt: Attempt, diff: Diff) -> None:
        """As `failed`, of one that came to a complete diff."""
        running = self._running.pop(attempt.task, None)
        if running is not None:
            self._end(_sync(running), diff)

    def _end(self, running: Any, diff: Diff) -> None:
        output = self._output(diff)
        for handler in _tapping(running):
            deque(handler.tap_output_iter(running.run_id, iter((output,))), maxlen=0)
        running.on_chain_end(output)

    # -- its conditional edges ----------------------------------------------------------------------------------------

    def ask(self, branch: _Branch, index: int, question: Any, scope: AttemptScope) -> Diff:
        """Ask a conditional edge of a task's node, telling of it within the task, if that is told of."""
        manager = self._edge(index, scope)
        if manager is None or branch.tells_itself:
            return branch.run(question, scope)
        asking = manager.on_chain_start(None, question, name=branch.title)
        scope.config["callbacks"] = asking.get_child()
        try:
            answer = branch.answer(question, scope)
        except BaseException as error:
            asking.on_chain_error(error)
            raise
        asking.on_chain_end(answer)
        return branch.writes(answer, scope)

    async def aask(self, branch: _Branch, index: int, question: Any, scope: AttemptScope) -> Diff:
        """As `ask`, awaiting."""
        manager = self._edge(index, scope)
        if manager is None or branch.tells_itself:
            return await branch.arun(question, scope)
        asking = await _awaited(manager.on_chain_start(None, question, name=branch.title))
        scope.config["callbacks"] = asking.get_child()
        try:
            answer = await branch.aanswer(question, scope)
        except BaseException as error:
            await _awaited(asking.on_chain_error(error))
            raise
        await _awaited(asking.on_chain_end(answer))
        return branch.writes(answer, scope)

    def _edge(self, index: int, scope: AttemptScope) -> Any:
        """By which a conditional edge is told of: it comes after its node and what writes the node's update."""
        running = self._running.get(scope.attempt.task)
        if running is None:
            return None
        steps_before = 1 if scope.attempt.task.node.hidden else 2
        manager = running.get_child()
        manager.tags = [f"seq:step:{steps_before + 1 + index}", *manager.tags]
        scope.config["callbacks"] = manager
        return manager

    # -- where they are told to be ------------------------------------------------------------------------------------

    def _around(self, attempt: Attempt) -> Any:
        """What a task lies within: the run, or the task that called it."""
        return self._running.get(attempt.task.caller) or self._root

    def _within(self, around: Any, attempt: Attempt, scope: AttemptScope) -> Any:
        """The manager by which a task is told to start."""
        config = scope.config
        manager = around.get_child()
        place = "seq:step:1" if attempt.task.caller in self._running else f"graph:step:{scope.facts.step}"
        manager.tags = [place, *manager.tags]
        for handler in getattr(config["callbacks"], "handlers", ()):  # with those that tell the run of the task
            if handler not in manager.handlers:
                manager.add_handler(handler, inherit=True)
        manager.add_metadata(config["metadata"], inherit=True)
        manager.add_tags([TAG_HIDDEN] if attempt.task.node.hidden else list(attempt.program.tags or ()), inherit=True)
        return manager

    def _entered(self, running: Any, attempt: Attempt, scope: AttemptScope) -> None:
        """What the task calls is told to lie within it."""
        scope.config["callbacks"] = running.get_child("seq:step:1")
        self._running[attempt.task] = running

    def _output(self, diff: Diff) -> Any:
        """What a task came to, as far as its writes say."""
        if len(diff) > 0 and diff[0][0] in (RETURN, END):
            return diff[0][1]
        return update_of(diff, self._run.plan.stream)


def _loaded_callbacks() -> Any:
    """The module whose handlers are told of pauses, if anybody has imported it: else no handler is one of these."""
    return sys.modules.get("mpflow.callbacks")


def _tapping(running: Any) -> list[Any]:
    """The handlers that want to see what a task gives out, as those of event streams do."""
    return [handler for handler in running.handlers if hasattr(handler, "tap_output_iter") and not is_ours(handler)]


def _sync(manager: Any) -> Any:
    """The manager for who cannot await: its handlers are waited for."""
    return manager.get_sync() if hasattr(manager, "get_sync") else manager


def _input_of(attempt: Attempt) -> Any:
    """What an attempt is told to be given: a called task its arguments, by name."""
    program = attempt.program
    if attempt.task.caller is None or not isinstance(program, CallProgram):
        return attempt.input
    args, kwargs = attempt.input
    signature = signature_of(program.callables.source)
    if signature is None:
        return attempt.input
    try:
        bound = signature.bind_partial(*args, **kwargs)
    except TypeError:  # arguments that do not fit, as the call is about to tell
        return attempt.input
    bound.apply_defaults()
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if signature.parameters[name].kind is Parameter.VAR_KEYWORD:
            named.update(value)
        elif name not in ("self", "cls"):
            named[name] = value
    return named


async def _given(diff: Diff) -> Diff:
    return diff


async def _only(output: Any) -> AsyncIterator[Any]:
    yield output


async def _awaited(told: Any) -> Any:
    """What a manager of either colour answers: that of a task that was called from a thread is sync."""
    return await told if isawaitable(told) else told


def teller_of(run: Run) -> Teller | None:
    """Who tells the handlers of a run, if it has any and langchain is there to be told."""
    callbacks = run.user_config.get("callbacks")
    if not (callbacks if isinstance(callbacks, list) else getattr(callbacks, "handlers", None)):
        return None
    try:
        import langchain_core.callbacks  # noqa: F401 - asks whether it is there
    except ImportError:
        return None
    return Teller(run, callbacks)
