"""Calling a task from a running one: the caller, on whatever thread it is, posts its call to the run and gets a future.

Where nobody could serve the call it runs in place; where nobody has begun to, a caller that waits for the result runs the
task itself. All else of a future is settled by the run's driver: calls.py.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import sys
from collections.abc import Callable, Generator
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from mpflow._core.calls import CalledTask, facts_below, path_of_call
from mpflow._core.retry import interval_s
from mpflow._engine.calls import Offer, fail, returned_in
from mpflow._exec.calling import TaskCallable
from mpflow._exec.place import THREADED
from mpflow._exec.thread import THREADS
from mpflow._messages import CLOSED, EVENT, Attempt
from mpflow.errors import GraphBubbleUp

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan
    from mpflow._messages import Outcome
    from mpflow._scope import TaskScope


MOST_LENT = 8
"""Callers that wait for one another on one thread, at most: each takes some of its stack."""


class Lent:
    """A call whose caller may perform the called task itself."""

    __slots__ = ("_index", "_input", "_node", "caller", "offer", "perform")

    def __init__(
        self, caller: Attempt, node: NodePlan, input: Any, index: int, perform: Callable[[Attempt], Outcome]
    ) -> None:
        self.caller = caller
        self.offer = Offer()
        self.perform = perform
        self._node = node
        self._input = input
        self._index = index

    def attempt(self) -> Attempt:
        """The attempt at the called task that is made in the thread of its caller."""
        caller: Any = self.caller.task
        facts = facts_below(caller, self.caller.facts)
        task = CalledTask(self._node, path_of_call(caller, self._index), self._input, caller, facts)
        attempt = Attempt(task, 1, self._node.program, self._input, facts, task.path, task.triggers)
        attempt.is_called = True
        attempt.caller = self.caller
        attempt.outbox = self.caller.outbox
        attempt.lent = self.caller.lent + 1
        return attempt


def _lent(attempt: Attempt, node: NodePlan, input: Any, index: int) -> Lent | None:
    """What lets the caller perform the task itself, if it can be performed on a thread with nothing special about it."""
    perform = attempt.facts.local.lend
    if perform is None or attempt.number > 1 or attempt.lent >= MOST_LENT:
        return None
    if node.retry or not node.plain or node.timeout is not None or node.cache is not None or node.program.is_async:
        return None
    return Lent(attempt, node, input, index, perform) if node.executor in THREADED else None


class TaskFuture(concurrent.futures.Future[Any]):
    """The result of a called task, for callers that block on it; it can be awaited as well.

    Who blocks on one that nobody performs yet performs it meanwhile, where the call was ``lent``.
    """

    lent: Lent | None = None

    def result(self, timeout: float | None = None) -> Any:
        if self.lent is not None and timeout is None:
            self._perform(self.lent)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self.lent is not None and timeout is None:
            self._perform(self.lent)
        return super().exception(timeout)

    def _perform(self, lent: Lent) -> None:
        """Perform the called task here, unless it is on its way already. Its failure is the run's to tell."""
        self.lent = None
        if not lent.offer.is_open or self.done():
            return
        attempt = lent.offer.attempt = lent.attempt()
        if not lent.offer.take():
            return
        outcome = lent.perform(attempt)
        if outcome[0] is CLOSED:
            # Before the run hears of it, which would otherwise tell us the result at the same moment.
            with contextlib.suppress(concurrent.futures.InvalidStateError):  # cancelled meanwhile
                self.set_result(returned_in(outcome[2]))
        lent.caller.outbox.post(outcome)  # type: ignore[union-attr]

    def __await__(self) -> Generator[Any, Any, Any]:
        from asyncio import wrap_future

        return wrap_future(self).__await__()


def call(scope: TaskScope, node: NodePlan, input: tuple[Any, Any]) -> Any:
    """Call a task from within `scope`: a future of its result, an asyncio one on the run's own event loop.

    Raises RuntimeError for an async task where nothing can await it.
    """
    attempt = scope.attempt
    local = scope.facts.local
    if attempt is None and local is not None and local.is_away:
        return _call_home(scope, node, input)
    if attempt is None or attempt.outbox is None:  # in the driver's own thread, say: nobody could serve it
        return _in_place(scope, node, input)
    loop = local.loop
    if node.program.is_async and loop is None:
        raise _cannot_await(node)
    future: Any = loop.create_future() if loop is not None and _running_loop() is loop else TaskFuture()
    index = scope.next_call()
    offer = None
    if loop is None and (lent := _lent(attempt, node, input, index)) is not None:
        future.lent, offer = lent, lent.offer
    _post(attempt, node, input, index, future, offer)
    return future


def _post(
    attempt: Attempt, node: NodePlan, input: tuple[Any, Any], index: int, future: Any, offer: Offer | None = None
) -> None:
    """Let the run of `attempt` know that it calls a task, and who is to be told the result."""
    local = attempt.facts.local
    outbox: Any = attempt.outbox
    local.calls.add(future)

    def settled(_: Any) -> None:
        local.calls.discard(future)
        if future.cancelled() and not local.over:
            outbox.post((EVENT, attempt, ("drop", (future,)), 0.0))

    future.add_done_callback(settled)
    outbox.post((EVENT, attempt, ("call", (node, input, index, future, offer)), 0.0))
    if local.over:  # whoever ended the run may have looked before this future was there
        future.cancel()


class FarFuture(TaskFuture):
    """The result of a task that was called in a worker: while its caller waits, the worker runs what it is lent."""

    question = 0

    def __init__(self, away: Any) -> None:
        super().__init__()
        self._away = away

    def result(self, timeout: float | None = None) -> Any:
        self._wait(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._wait(timeout)
        return super().exception(timeout)

    def _wait(self, timeout: float | None) -> None:
        if not self.done():
            self._away.wait(self.question, self.done, lends=timeout is None)


def _call_home(scope: TaskScope, node: NodePlan, input: tuple[Any, Any]) -> Any:
    """Call a task from a worker: it is the run's, which the parent drives, and its result comes back here."""
    away = scope.facts.local
    future = FarFuture(away)

    def told(is_value: bool, answer: Any) -> None:
        if future.cancelled():
            return
        if is_value:
            future.set_result(answer)
        elif isinstance(answer, concurrent.futures.CancelledError):
            future.cancel()
        else:
            fail(future, answer)

    is_awaited = _running_loop() is not None
    future.question = away.ask_later("call", _named(node), input, scope.next_call(), told=told, is_eager=is_awaited)
    if not is_awaited:
        return future
    away.wait(future.question, future.done, lends=False)
    from asyncio import wrap_future

    return wrap_future(future)


def _named(node: NodePlan) -> Any:
    """The task by the name under which its module holds it; by value if it does not."""
    source = node.program.callables.source
    module, name = getattr(source, "__module__", ""), getattr(source, "__qualname__", "")
    return (module, name) if _found(module, name) is node else node


def _found(module: str, name: str) -> NodePlan | None:
    held = getattr(sys.modules.get(module), name, None)
    return getattr(held, "_plan", None) if isinstance(held, TaskCallable) else None


def serve_call(attempt: Attempt, named: Any, input: tuple[Any, Any], index: int, *, done: Callable[..., None]) -> None:
    """Have the run of `attempt`, whose node calls a task in a worker, run that; `done` is told what comes of it.

    If that run is a part of a task, it is this that calls.
    """
    node = _found(*named) if isinstance(named, tuple) else named
    if node is None:
        raise RuntimeError(f"the task {'.'.join(named)}, called in a worker, is not to be found in the parent process")
    local = attempt.facts.local
    if local.is_part and local.around is not None:
        caller = local.around
        attempt, index = caller.attempt, caller.next_call()
        if attempt.outbox is None:
            THREADS.start(partial(_serve_in_place, caller, node, input, done))
            return
    if node.program.is_async and attempt.facts.local.loop is None:
        raise _cannot_await(node)
    future = TaskFuture()
    future.add_done_callback(partial(_answer, done))
    _post(attempt, node, input, index, future)


def _serve_in_place(caller: TaskScope, node: NodePlan, input: tuple[Any, Any], done: Callable[..., None]) -> None:
    try:
        future = _in_place(caller, node, input)
    except Exception as error:
        done(None, error)
    else:
        _answer(done, future)


def _answer(done: Callable[..., None], future: Any) -> None:
    if future.cancelled():
        done(None, concurrent.futures.CancelledError())
    elif (error := future.exception()) is not None:
        done(None, error)
    else:
        done(future.result())


def _running_loop() -> Any:
    from asyncio import get_running_loop

    try:
        return get_running_loop()
    except RuntimeError:
        return None


def _cannot_await(node: NodePlan) -> RuntimeError:
    return RuntimeError(
        f"task '{node.name}' is async and was called in a run that is not: an async task cannot be called in a sync "
        "context. Run the graph with ainvoke or astream"
    )


def _in_place(scope: TaskScope, node: NodePlan, input: tuple[Any, Any]) -> Any:
    """Run a called task here and now, as part of the attempt that calls it."""
    loop = _running_loop()
    if node.program.is_async:
        if loop is None:
            raise _cannot_await(node)
        return copy_context().run(loop.create_task, node.program.acall(input, scope))
    future: Any = TaskFuture() if loop is None else loop.create_future()
    failures = 0
    while True:
        try:
            future.set_result(copy_context().run(node.program.call, input, scope))
            return future
        except Exception as error:
            failures += 1
            wait_s = _wait_s(node, error, failures)
            if wait_s is None:
                fail(future, error)
                return future
        import time

        time.sleep(wait_s)


def _wait_s(node: NodePlan, error: Exception, failures: int) -> float | None:
    if not node.retry or isinstance(error, GraphBubbleUp):
        return None
    from random import random

    return interval_s(node.retry, error, failures, random())
