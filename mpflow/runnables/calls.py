"""The calls of one batch that are under way, and the threads that make them: as many as have something to do."""

from __future__ import annotations

from contextvars import copy_context
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

from mpflow._engine.crowds import Batch, batch
from mpflow._exec.mailbox import Mailbox
from mpflow._exec.thread import ThreadPlace

if TYPE_CHECKING:
    from mpflow.runnables.runnable import Runnable

PATIENCE_S = 0.001
"""How long a consumer waits for a first call to end before further threads begin what is queued."""
IDLE_SHARE = 3.0
"""Threads that wait so many times longer than they compute leave room for more of them."""


class Call:
    """One call: its number, input and config; then its output or failure.

    ``cpu_s`` is the time that its thread had a processor, ``waited_s`` the time that it had none.
    """

    __slots__ = ("config", "cpu_s", "failure", "index", "input", "outbox", "output", "waited_s")

    def __init__(self, index: int, input: Any, config: Any, outbox: Any) -> None:
        self.index = index
        self.input = input
        self.config = config
        self.outbox = outbox
        self.output: Any = None
        self.failure: BaseException | None = None
        self.cpu_s = self.waited_s = 0.0


class Calls:
    """At most `limit` calls of a runnable at a time. For one consumer, which adds calls and takes them back made.

    One thread makes call after call while they are short and keep it busy, since more would only pass the interpreter to
    and fro. Threads are added, twice as many each time, when a call takes long or when calls mostly wait.
    """

    def __init__(self, runnable: Runnable[Any, Any], limit: int, kwargs: dict[str, Any]) -> None:
        self._runnable = runnable
        self._kwargs = kwargs
        self._limit = limit
        self._context = copy_context()
        self._batch = Batch()
        self._context.run(batch.set, self._batch)
        self._mailbox: Any = Mailbox()  # of this batch's own: what arrives are calls
        self._threads: ThreadPlace[Call] = ThreadPlace(self._make, 1)
        self._cpu_s = self._waited_s = 0.0
        self._fresh: list[Call] = []

    @property
    def under_way(self) -> int:
        return self._batch.under_way

    @property
    def has_room(self) -> bool:
        return self.under_way < self._limit

    def add(self, index: int, input: Any, config: Any) -> None:
        self._batch.under_way += 1
        self._fresh.append(Call(index, input, config, self._mailbox))

    def take(self) -> list[Call]:
        """The calls that have been made since; blocks until there is one."""
        fresh, self._fresh = self._fresh, []
        if self._limit == 1:  # nothing else could come meanwhile, so the consumer's own thread makes it
            made = [self._make(call) for call in fresh]
        else:
            self._threads.submit(fresh)
            self._wait()
            made = self._mailbox.take()
        self._batch.under_way -= len(made)
        for call in made:
            self._cpu_s += call.cpu_s
            self._waited_s += call.waited_s
        return made

    def drop(self) -> None:
        """Forget the calls that no thread has begun."""
        self._batch.under_way -= self._threads.drop() + len(self._fresh)
        self._fresh = []

    def _wait(self) -> None:
        threads = self._threads
        if self._waited_s > IDLE_SHARE * self._cpu_s:
            self._widen()
        while threads.limit < self._limit and threads.has_queued:
            if self._mailbox.wait(PATIENCE_S):
                return
            self._widen()
        self._mailbox.wait()

    def _widen(self) -> None:
        threads = self._threads
        more = min(threads.limit, self._limit - threads.limit)
        threads.limit += more
        threads.grow(more)
        self._cpu_s = self._waited_s = 0.0

    def _make(self, call: Call) -> Call:
        started_s, cpu_s = perf_counter(), thread_time()
        try:
            invoke = self._context.copy().run
            call.output = invoke(self._runnable.invoke, call.input, call.config, **self._kwargs)
        except BaseException as error:
            call.failure = error
        call.cpu_s = thread_time() - cpu_s
        call.waited_s = perf_counter() - started_s - call.cpu_s
        return call
