"""Whole runs in worker processes: each input of a batch is one task, a run of the graph within one worker.

Owns what is under way, the window that bounds it, and what a death does to an item. It knows no scheduler: items depend
on nothing but their input. The graph's saver, store and cache stay here: runs in workers ask for them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextvars import copy_context
from copy import copy
from itertools import islice
from typing import TYPE_CHECKING, Any

from mpflow._columns import Column, Diffs, Span
from mpflow._core.retry import is_poison
from mpflow._engine.entrances import Entrance, entrances_from
from mpflow._engine.local import Local
from mpflow._exec.mailbox import Mailbox
from mpflow._exec.pools import default_pool
from mpflow._messages import DONE, DONE_MANY, EVENT, FAILED, LOST, Attempt, StepFacts, WorkerDeath
from mpflow._scope import TAKEN
from mpflow.errors import NodeCancelledError, OutcomeUnknown, PoisonTaskError
from mpflow.pregel.program import RunProgram
from mpflow.runnables.batching import close_inputs

if TYPE_CHECKING:
    from mpflow._exec.process import WorkerPool
    from mpflow.pregel.compiled import CompiledGraph
    from mpflow.pregel.finished import Finished
    from mpflow.pregel.spreading import Guard
    from mpflow.pregel.threads import Threads

Item = tuple[int, Any, Any]
"""The number of an input, the input, and its config."""

AHEAD_S = 0.1
"""Work for this long is kept queued at each worker, so that tiny items travel in batches and none waits for us."""
MOST_AT_ONCE = 256
"""Items that are looked at for finished ones at once: what bounds the memory that their threads' rows take."""
MOST_AHEAD = 1024
"""Items queued for each worker at most: what bounds the memory of a batch over a generator."""


class _Task:
    """One item; ``attempt.task`` leads back to it."""

    __slots__ = ("deaths", "index", "input")

    def __init__(self, index: int, input: Any) -> None:
        self.index = index
        self.input = input
        self.deaths: tuple[WorkerDeath, ...] = ()


class _Chunk(Column):
    """Items of consecutive numbers that share a config."""

    def __init__(self, program: RunProgram, first: int, inputs: list[Any], facts: StepFacts, outbox: Mailbox) -> None:
        super().__init__(program, inputs, facts, ())
        self.first = first
        self.outbox = outbox

    def task(self, position: int) -> _Task:
        return _Task(self.first + position, self.inputs[position])


Failure = Callable[[int, Any, Exception], Any]
"""What stands for a failed item among the results; raises its exception if nothing does."""


class Items:
    """The items of one batch. The driver alternates `fill`, waiting for the mailbox, and `settle`, then calls `close`.

    `limit` is the number of items that may run at a time, None for as many as there are workers.
    """

    def __init__(
        self,
        graph: CompiledGraph,
        items: Iterator[Item],
        *,
        limit: int | None,
        failure: Failure,
        guard: Guard | None = None,
        thread_id_prefix: str | None = None,
        context: Any = None,
        **kwargs: Any,
    ) -> None:
        self.local = _local(graph, kwargs.get("durability"), entrances_from(copy_context()))
        self.threads = _threads(self.local, thread_id_prefix)
        """Where the graph's saver lets workers make what it keeps."""
        self.pool: WorkerPool = graph._options.get("pool") or default_pool()
        self.mailbox = Mailbox()
        checks = None if guard is None else guard.checks
        self._finished = (
            None if self.threads is None or thread_id_prefix is None else _finished(graph, thread_id_prefix)
        )
        self._stretch = 0
        """How many items are looked at for finished ones: ever more while all of them are."""
        self._unfinished: list[Item] = []
        """Items that were looked at, beyond what the window has room for."""
        self._passed: list[tuple[int, Any]] = []
        self._program = RunProgram(_portable(graph), kwargs, checks, resumes=thread_id_prefix is not None)
        self._guard = guard
        self._reruns = all(node.rerun_on_loss for node in graph._plan.nodes.values())
        if thread_id_prefix is not None and self.threads is None:
            from mpflow.pregel.resumable import on_threads

            items = on_threads(items, thread_id_prefix)
        self._items = items
        self._failure = failure
        self._context = context
        self._limit = limit if limit is not None and limit < self.pool.max_workers else None
        self._window = self.pool.max_workers * 2 if self._limit is None else self._limit
        self._running: dict[int, _Chunk | Attempt] = {}
        """By number, what the item is under way in."""
        self._facts: dict[int, tuple[Any, StepFacts]] = {}
        self._ended: list[int] = []
        """Those that ended without an output since results were last kept."""
        self._again: list[Attempt] = []
        self._error: BaseException | None = None
        self._mean_s = 0.0

    def wanted(self) -> list[Item]:
        """The inputs that the window has room for; more of them where none may have to run."""
        room = self._window - len(self._running)
        # Little by little, each few would be a frame of their own.
        if room * 4 < self._window or self._error is not None:
            return []
        return self._unfinished or list(islice(self._items, max(room, self._stretch)))

    def submit(self, items: Sequence[Item]) -> None:
        """Give items to the workers, but for those that have `passed`. Blocks while the saver is asked for their threads."""
        if self._finished is not None:
            if items is not self._unfinished:
                self._passed, left = self._finished.among(items)
                self._stretch = 0 if left else min(2 * len(items), MOST_AT_ONCE)
                items = left
            room = self._window - len(self._running)
            items, self._unfinished = items[:room], list(items[room:])
        if self.threads is not None:
            items, refused = self.threads.given(items)
            for index, input, error in refused:
                attempt = self._attempt(_Task(index, (input, None, None)), self._facts_of(None))
                self._running[index] = attempt
                self.mailbox.post((FAILED, attempt, error, 0.0))
        self._take_in(items)

    def passed(self) -> list[tuple[int, Any]]:
        """Items of those last given that had finished before, with their outputs."""
        passed, self._passed = self._passed, []
        return passed

    def goes_on(self) -> bool:
        """False when the batch is over; raises its first failure."""
        if self._running:
            return True
        if self._error is not None:
            raise self._error
        return False

    def keep(self, settled: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
        """Have what the saver keeps of settled items durable, then tell their outputs. Blocks."""
        if self.threads is not None and (settled or self._ended):
            ended, self._ended = self._ended, []
            settled, refused = self.threads.keep(settled, ended)
            for index, input, error in refused:
                self._settle_failure(index, input, error, settled)
        if self._again:
            again, self._again = self._again, []
            self._submit_singly(again)
        return settled

    def settle(self) -> list[tuple[int, Any]]:
        """The items that ended since it was last called, with their outputs, for `keep`."""
        settled: list[tuple[int, Any]] = []
        spent_s, count = 0.0, 0
        for kind, attempt, payload, seconds in self.mailbox.take():
            if kind is DONE_MANY or kind is DONE:
                outputs = self._outputs(*((attempt, payload) if kind is DONE_MANY else ((attempt,), (payload,))))
                spent_s, count = spent_s + seconds, count + len(outputs)
                if self._error is None:
                    settled += outputs
            elif kind is EVENT:  # nobody listens to a batch
                if payload[0] == TAKEN:
                    payload[1](None)
            elif attempt.number > len(attempt.task.deaths) and self._running.pop(attempt.task.index, None) is not None:
                self._settle_ended(kind, attempt, payload, settled)
        if count:
            self._widen(spent_s / count)
        return settled

    def close(self) -> None:
        """Cancel what has not ended: what is queued is dropped, workers that run an item are killed."""
        if self._running:
            self.pool.cancel(self._under_way(), kill=True)
        if self.threads is not None:
            self.threads.leave()
        close_inputs(self._items)

    def _settle_ended(self, kind: int, attempt: Attempt, payload: Any, settled: list[tuple[int, Any]]) -> None:
        """Take in an attempt that ended without an output."""
        task: _Task = attempt.task
        input = task.input if self.threads is None else task.input[0]
        error: BaseException | None = None
        if kind is FAILED and self._guard is not None:
            self._ended.append(task.index)
            self._guard.give_back((task.index, input, attempt.facts.config), payload)
            return
        if kind is FAILED:
            error = payload
        elif kind is LOST:
            task.deaths = (*task.deaths, payload)
            error = self._given_up(task)
            if error is None and self._error is None:
                if self.threads is not None:  # it goes on from what it had saved
                    task.input = (*task.input[:2], None)
                attempt = self._attempt(task, attempt.facts)
                self._running[task.index] = attempt
                self._again.append(attempt)
                return
        elif self._error is None:
            error = NodeCancelledError(self._program.name)
        self._ended.append(task.index)
        if error is not None:
            self._settle_failure(task.index, input, error, settled)

    def _settle_failure(self, index: int, input: Any, error: BaseException, settled: list[tuple[int, Any]]) -> None:
        try:
            if not isinstance(error, Exception):
                raise error
            settled.append((index, self._failure(index, input, error)))
        except BaseException as raised:
            if self._error is None:
                self._error = raised
                # What runs may end; what is queued is dropped.
                self.pool.cancel(self._under_way())

    def _given_up(self, task: _Task) -> Exception | None:
        """The error of an item whose worker died, unless it is to be run again."""
        if not self._reruns:
            return OutcomeUnknown(self._program.name, str(task.index), task.deaths[-1])
        return PoisonTaskError(self._program.name, str(task.index), task.deaths) if is_poison(task.deaths) else None

    def _take_in(self, items: Iterable[Item]) -> None:
        """Submit items: those that follow one another and share a config in one piece."""
        chunks: list[_Chunk] = []
        config: Any = self  # nobody's
        following = -1
        for index, input, its_config in items:
            if its_config is not config or index != following:
                config = its_config
                chunks.append(_Chunk(self._program, index, [], self._facts_of(config), self.mailbox))
            chunks[-1].inputs.append(input)
            following = index + 1
        singly: list[Attempt] = []
        for chunk in chunks:
            count = len(chunk.inputs)
            if count > 1 and self._reruns:
                self._running.update(dict.fromkeys(range(chunk.first, chunk.first + count), chunk))
                self.pool.submit(Span(chunk, 0, count))
            else:
                singly += (self._attempt(chunk.task(position), chunk.facts) for position in range(count))
        if singly:
            self._submit_singly(singly)

    def _submit_singly(self, attempts: list[Attempt]) -> None:
        self._running.update((attempt.task.index, attempt) for attempt in attempts)
        self.pool.submit(attempts)

    def _outputs(self, attempts: Sequence[Attempt], diffs: Sequence[Any]) -> list[tuple[int, Any]]:
        """The outputs of attempts that are done, with their numbers. One that is told of twice has left the running."""
        pop = self._running.pop
        numbers: Sequence[int]
        if type(attempts) is Span:
            first = attempts.column.first
            numbers = range(first + attempts.start, first + attempts.stop)
        else:
            numbers = [attempt.task.index for attempt in attempts]
        outputs = diffs.values if type(diffs) is Diffs else [diff[0][1] for diff in diffs]
        return [pair for pair in zip(numbers, outputs, strict=True) if pop(pair[0], None) is not None]

    def _under_way(self) -> list[Attempt]:
        return [
            held.at(number - held.first) if isinstance(held, _Chunk) else held for number, held in self._running.items()
        ]

    def _attempt(self, task: _Task, facts: StepFacts) -> Attempt:
        deaths = len(task.deaths)
        attempt = Attempt(task, deaths + 1, self._program, task.input, facts, (task.index,), ())
        attempt.outbox = self.mailbox
        attempt.plain = self._reruns and not deaths
        if not attempt.plain:
            attempt.alone = deaths > 0
            attempt.rerun_on_loss = self._reruns
        return attempt

    def _facts_of(self, config: Any) -> StepFacts:
        """What is shipped beside an input: once for a config that many share."""
        found = self._facts.get(id(config))
        if found is None:
            if len(self._facts) > 8:  # a config for each input
                self._facts.clear()
            facts = StepFacts(dict(config or {}), 0, 0)
            facts.context = self._context
            facts.local = self.local
            found = self._facts[id(config)] = config, facts
        return found[1]

    def _widen(self, mean_s: float) -> None:
        """Fit the window to what an item takes."""
        if self._limit is not None:
            return
        self._mean_s = mean_s if not self._mean_s else self._mean_s + (mean_s - self._mean_s) * 0.3
        ahead = int(AHEAD_S / max(self._mean_s, 1e-6))
        self._window = self.pool.max_workers * min(max(ahead, 2), MOST_AHEAD)


def _local(graph: CompiledGraph, durability: str | None, entrances: Sequence[Entrance]) -> Local | None:
    """What runs in workers ask of this process and find from it; None if there is nothing of either."""
    saver = graph.checkpointer if graph.checkpointer not in (None, True, False) else None
    if saver is None and graph.store is None and graph.cache is None and not entrances:
        return None
    local = Local(graph.store, None, saver, durability or "async")
    local.cache = graph.cache
    local.entrances = tuple(entrances)
    return local


def _portable(graph: CompiledGraph) -> CompiledGraph:
    """The graph without what stays here."""
    twin = copy(graph)
    twin.store = twin.cache = None
    if graph.checkpointer not in (None, True, False):
        twin.checkpointer = None
    return twin


def _threads(local: Local | None, prefix: str | None) -> Threads | None:
    if local is None or not getattr(local.saver, "has_far_log", False):
        return None
    from mpflow.pregel.threads import Threads

    return Threads(local.saver, prefix)


def _finished(graph: CompiledGraph, prefix: str) -> Finished:
    from mpflow.pregel.finished import Finished

    return Finished(graph, graph.checkpointer, prefix)


def items_as_completed(items: Items) -> Iterator[tuple[int, Any]]:
    """The outputs with the number of their input, as they come, from the calling thread."""
    try:
        while True:
            if wanted := items.wanted():
                items.submit(wanted)
                if passed := items.passed():
                    yield from passed
                    if not items.mailbox.items:
                        continue
            if not items.goes_on():
                return
            items.pool.wait(items.mailbox)
            yield from items.keep(items.settle())
    finally:
        items.close()


async def aitems_as_completed(items: Items) -> AsyncGenerator[tuple[int, Any], None]:
    """As `items_as_completed`, on the running event loop."""
    import asyncio

    from mpflow._exec.aio import LoopBell, unwatch, watch

    bell = LoopBell(items.mailbox)
    if items.local is not None:
        items.local.loop = bell.loop

    async def blocking(call: Callable[..., Any], *arguments: Any) -> Any:
        return call(*arguments) if items.threads is None else await asyncio.to_thread(call, *arguments)

    watch(items.pool)
    try:
        while True:
            if wanted := items.wanted():
                await blocking(items.submit, wanted)
                if passed := items.passed():
                    for settled in passed:
                        yield settled
                    if not items.mailbox.items:
                        continue
            if not items.goes_on():
                return
            if not items.mailbox.items:
                await bell.wait(None)
            for settled in await blocking(items.keep, items.settle()):
                yield settled
    finally:
        await blocking(items.close)
        unwatch(items.pool)
        items.mailbox.notify = None
