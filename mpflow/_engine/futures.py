"""Calling a task from a running one: the caller, on whatever thread it is, posts its call to the run and gets a future.

Where nobody could serve the call it runs in place. Only the run's driver settles futures: calls.py.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Generator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from mpflow._core.retry import interval_s
from mpflow._engine.calls import fail
from mpflow._messages import EVENT
from mpflow.errors import GraphBubbleUp

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan
    from mpflow._scope import TaskScope


class TaskFuture(concurrent.futures.Future[Any]):
    """The result of a called task, for callers that block on it; it can be awaited as well."""

    def __await__(self) -> Generator[Any, Any, Any]:
        from asyncio import wrap_future

        return wrap_future(self).__await__()


def call(scope: TaskScope, node: NodePlan, input: tuple[Any, Any]) -> Any:
    """Call a task from within `scope`: a future of its result, an asyncio one on the run's own event loop.

    Raises RuntimeError for an async task where nothing can await it.
    """
    attempt = scope.attempt
    if attempt is None or attempt.outbox is None:  # in a worker, or in the driver's own thread: nobody could serve it
        return _in_place(scope, node, input)
    local = scope.facts.local
    loop = local.loop
    if node.program.is_async and loop is None:
        raise _cannot_await(node)
    future: Any = loop.create_future() if loop is not None and _running_loop() is loop else TaskFuture()
    outbox = attempt.outbox
    local.calls.add(future)

    def settled(_: Any) -> None:
        local.calls.discard(future)
        if future.cancelled() and not local.over:
            outbox.post((EVENT, attempt, ("drop", (future,)), 0.0))

    future.add_done_callback(settled)
    outbox.post((EVENT, attempt, ("call", (node, input, scope.next_call(), future)), 0.0))
    if local.over:  # whoever ended the run may have looked before this future was there
        future.cancel()
    return future


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
