"""Many runs of one graph side by side: bounded, lazy over its inputs, and aligned with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextvars import copy_context
from itertools import count
from typing import TYPE_CHECKING, Any

from mpflow._engine.run import concurrency_of
from mpflow.types import FailureRecord

if TYPE_CHECKING:
    from mpflow.pregel.items import Items
    from mpflow.pregel.main import CompiledGraph

Indexed = Iterator[tuple[int, Any, Any]]


def _configured(inputs: Iterable[Any], config: Any) -> Indexed:
    """The inputs with their number and config. Raises ValueError when a list of configs is of another length."""
    if not isinstance(config, (list, tuple)):
        for index, item in enumerate(inputs):
            yield index, item, config
        return
    items = list(inputs)
    if len(items) != len(config):
        raise ValueError(f"batch got {len(items)} inputs but {len(config)} configs; give one config for each, or one")
    yield from zip(count(), items, config, strict=False)


def _limit(graph: CompiledGraph, config: Any) -> int | None:
    """How many runs may be under way at a time, None if nobody said."""
    from mpflow.config import ensure_config

    first = config[0] if isinstance(config, (list, tuple)) and config else config
    return concurrency_of(ensure_config(graph.config, first or None))


def _failure(graph: CompiledGraph, index: int, input: Any, error: Exception, return_exceptions: bool) -> Any:
    """What stands for a failed run among the results; raises the failure if nothing does."""
    if graph._options.get("on_error") == "record":
        return FailureRecord(node=graph.name, task_id=str(index), error=error, input=input, attempts=1)
    if return_exceptions:
        return error
    raise error


def _items(
    graph: CompiledGraph, inputs: Iterable[Any], config: Any, return_exceptions: bool, kwargs: dict[str, Any]
) -> Items:
    from mpflow.pregel.items import Items

    def failure(index: int, input: Any, error: Exception) -> Any:
        return _failure(graph, index, input, error, return_exceptions)

    return Items(graph, _configured(inputs, config), limit=_limit(graph, config), failure=failure, **kwargs)


def _is_whole(parallel: str) -> bool:
    """Whether an item is a task of its own. Raises ValueError for what is no way to spread a batch."""
    if parallel not in ("items", "nodes"):
        raise ValueError(f"batch(parallel={parallel!r}): expected 'items' or 'nodes'")
    return parallel == "items"


def batch(graph: CompiledGraph, inputs: Iterable[Any], config: Any, **options: Any) -> list[Any]:
    found: dict[int, Any] = {}
    for index, output in batch_as_completed(graph, inputs, config, **options):
        found[index] = output
    return [found[index] for index in range(len(found))]


def batch_as_completed(
    graph: CompiledGraph, inputs: Iterable[Any], config: Any, *, return_exceptions: bool, parallel: str, **kwargs: Any
) -> Iterator[tuple[int, Any]]:
    """Runs in threads of their own: as many as may be under way, each taking the next input when it is free."""
    if _is_whole(parallel):
        from mpflow.pregel.items import items_as_completed

        yield from items_as_completed(_items(graph, inputs, config, return_exceptions, kwargs))
        return
    from mpflow._exec.mailbox import Mailbox
    from mpflow._exec.thread import THREADS, default_threads

    limit = _limit(graph, config) or default_threads()
    mailbox = Mailbox()
    context = copy_context()
    waiting = _configured(inputs, config)
    running = 0

    def job(index: int, input: Any, own: Any) -> Callable[[], None]:
        def run() -> None:
            try:
                result = True, context.copy().run(lambda: graph.invoke(input, own, **kwargs))
            except BaseException as error:
                result = False, error
            mailbox.post((index, input, *result))

        return run

    error: BaseException | None = None
    try:
        while True:
            while running < limit and error is None:
                item = next(waiting, None)
                if item is None:
                    break
                running += 1
                THREADS.start(job(*item))
            if not running:
                break
            mailbox.wait()
            arrived: list[Any] = mailbox.take()
            for index, input, done, result in arrived:
                running -= 1
                if not done:
                    if not isinstance(result, Exception):
                        error = error or result
                        continue
                    try:
                        result = _failure(graph, index, input, result, return_exceptions)
                    except Exception as failure:
                        error = error or failure
                        continue
                if error is None:
                    yield index, result
        if error is not None:
            raise error
    finally:
        waiting.close()  # type: ignore[attr-defined]


async def abatch(graph: CompiledGraph, inputs: Iterable[Any], config: Any, **options: Any) -> list[Any]:
    found: dict[int, Any] = {}
    async for index, output in abatch_as_completed(graph, inputs, config, **options):
        found[index] = output
    return [found[index] for index in range(len(found))]


async def abatch_as_completed(
    graph: CompiledGraph, inputs: Iterable[Any], config: Any, *, return_exceptions: bool, parallel: str, **kwargs: Any
) -> AsyncIterator[tuple[int, Any]]:
    """Runs as tasks of the running loop; closing it early, or a failure, cancels those that are under way."""
    if _is_whole(parallel):
        from contextlib import aclosing

        from mpflow.pregel.items import aitems_as_completed

        async with aclosing(aitems_as_completed(_items(graph, inputs, config, return_exceptions, kwargs))) as settled:
            async for found in settled:
                yield found
        return
    import asyncio

    limit = _limit(graph, config)
    waiting = _configured(inputs, config)
    running: dict[asyncio.Task[Any], tuple[int, Any]] = {}
    try:
        while True:
            while limit is None or len(running) < limit:
                item = next(waiting, None)
                if item is None:
                    break
                index, input, own = item
                running[asyncio.ensure_future(graph.ainvoke(input, own, **kwargs))] = index, input
            if not running:
                return
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: running[task][0]):
                index, input = running.pop(task)
                error = task.exception()
                if error is None:
                    yield index, task.result()
                elif isinstance(error, Exception):
                    yield index, _failure(graph, index, input, error, return_exceptions)
                else:
                    raise error
    finally:
        waiting.close()  # type: ignore[attr-defined]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
