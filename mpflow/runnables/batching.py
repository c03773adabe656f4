"""Many calls of one runnable side by side: bounded, lazy over its inputs, and aligned with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow.runnables.calls import Call
    from mpflow.runnables.runnable import Runnable

Indexed = Iterator[tuple[int, Any, Any]]

Failure = Callable[[int, Any, Exception], Any]
"""What stands for a failed call among the results, by its number and input; raises its exception if nothing does."""


def failure_of(return_exceptions: bool) -> Failure:
    """The usual rule: failures are results if asked for."""

    def failure(index: int, input: Any, error: Exception) -> Any:
        if return_exceptions:
            return error
        raise error

    return failure


def configured(inputs: Iterable[Any], config: Any) -> Indexed:
    """The inputs with their number and config. Raises ValueError when a list of configs is of another length."""
    if not isinstance(config, (list, tuple)):
        for index, item in enumerate(inputs):
            yield index, item, config
        return
    items = list(inputs)
    if len(items) != len(config):
        raise ValueError(f"batch got {len(items)} inputs but {len(config)} configs; give one config for each, or one")
    yield from zip(count(), items, config, strict=False)


def close_inputs(items: Iterator[Any]) -> None:
    """Nobody takes more of these: end the generator that makes them, if one does."""
    close = getattr(items, "close", None)
    if close is not None:
        close()


def limit_of(runnable: Any, config: Any) -> int | None:
    """How many calls may be under way at a time, None if nobody said."""
    from mpflow._engine.nesting import concurrency_of
    from mpflow.config import ensure_config

    first = config[0] if isinstance(config, (list, tuple)) and config else config
    return concurrency_of(ensure_config(getattr(runnable, "config", None), first or None))


def in_order(found: Iterable[tuple[int, Any]]) -> list[Any]:
    """Outputs that came as they were ready, in the order of their inputs."""
    outputs = dict(found)
    return [outputs[index] for index in range(len(outputs))]


async def ain_order(found: AsyncIterator[tuple[int, Any]]) -> list[Any]:
    """As `in_order`, awaiting them."""
    return in_order([item async for item in found])


def as_completed(
    runnable: Runnable[Any, Any], waiting: Indexed, limit: int | None, failure: Failure, **kwargs: Any
) -> Iterator[tuple[int, Any]]:
    """Calls in threads: as many as may be under way, each thread taking the next input when it is free.

    Inputs are taken in the consumer's own thread, when it asks for more.
    """
    from mpflow._exec.thread import default_threads
    from mpflow.runnables.calls import Calls

    calls = Calls(runnable, limit or default_threads(), kwargs)
    error: BaseException | None = None
    try:
        while True:
            while calls.has_room and error is None:
                item = next(waiting, None)
                if item is None:
                    break
                calls.add(*item)
            if not calls.under_way:
                break
            for call in calls.take():
                try:
                    output = call.output if call.failure is None else _stands_for(call, failure)
                except BaseException as raised:
                    error = error or raised
                    calls.drop()
                if error is None:
                    yield call.index, output
        if error is not None:
            raise error
    finally:
        calls.drop()
        waiting.close()  # type: ignore[attr-defined]


def _stands_for(call: Call, failure: Failure) -> Any:
    """What stands for a failed call; raises what ends the batch."""
    assert call.failure is not None
    if not isinstance(call.failure, Exception):
        raise call.failure
    return failure(call.index, call.input, call.failure)


async def aas_completed(
    runnable: Runnable[Any, Any], waiting: Indexed, limit: int | None, failure: Failure, **kwargs: Any
) -> AsyncIterator[tuple[int, Any]]:
    """Calls as tasks of the running loop; closing it early, or a failure, cancels those that are under way."""
    import asyncio
    from contextvars import copy_context

    from mpflow._engine.crowds import Batch, batch

    running: dict[asyncio.Task[Any], tuple[int, Any]] = {}
    context = copy_context()
    mine = Batch()
    context.run(batch.set, mine)
    try:
        while True:
            while limit is None or len(running) < limit:
                item = next(waiting, None)
                if item is None:
                    break
                index, input, own = item
                call = context.run(asyncio.ensure_future, runnable.ainvoke(input, own, **kwargs))
                running[call] = index, input
            mine.under_way = len(running)
            if not running:
                return
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: running[task][0]):
                index, input = running.pop(task)
                error = task.exception()
                if error is None:
                    yield index, task.result()
                elif isinstance(error, Exception):
                    yield index, failure(index, input, error)
                else:
                    raise error
    finally:
        waiting.close()  # type: ignore[attr-defined]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
