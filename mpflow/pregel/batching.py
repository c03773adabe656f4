"""Batches of runs of one graph: driven here, node by node, or each as a whole within a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mpflow.runnables.batching import Failure, aas_completed, as_completed, configured, failure_of, limit_of
from mpflow.types import FailureRecord

if TYPE_CHECKING:
    from mpflow.pregel.items import Items
    from mpflow.pregel.main import CompiledGraph


def _failure(graph: CompiledGraph, return_exceptions: bool) -> Failure:
    if graph._options.get("on_error") != "record":
        return failure_of(return_exceptions)

    def failure(index: int, input: Any, error: Exception) -> Any:
        return FailureRecord(node=graph.name, task_id=str(index), error=error, input=input, attempts=1)

    return failure


def _items(graph: CompiledGraph, inputs: Iterable[Any], config: Any, failure: Failure, kwargs: dict[str, Any]) -> Items:
    from mpflow.pregel.items import Items

    return Items(graph, configured(inputs, config), limit=limit_of(graph, config), failure=failure, **kwargs)


def _is_whole(parallel: str) -> bool:
    """Whether an item is a task of its own. Raises ValueError for what is no way to spread a batch."""
    if parallel not in ("items", "nodes"):
        raise ValueError(f"batch(parallel={parallel!r}): expected 'items' or 'nodes'")
    return parallel == "items"


def batch_as_completed(
    graph: CompiledGraph, inputs: Iterable[Any], config: Any, *, return_exceptions: bool, parallel: str, **kwargs: Any
) -> Iterator[tuple[int, Any]]:
    failure = _failure(graph, return_exceptions)
    if not _is_whole(parallel):
        yield from as_completed(graph, inputs, config, failure, **kwargs)
        return
    from mpflow.pregel.items import items_as_completed

    yield from items_as_completed(_items(graph, inputs, config, failure, kwargs))


async def abatch_as_completed(
    graph: CompiledGraph, inputs: Iterable[Any], config: Any, *, return_exceptions: bool, parallel: str, **kwargs: Any
) -> AsyncIterator[tuple[int, Any]]:
    from contextlib import aclosing

    failure = _failure(graph, return_exceptions)
    found: Any
    if _is_whole(parallel):
        from mpflow.pregel.items import aitems_as_completed

        found = aitems_as_completed(_items(graph, inputs, config, failure, kwargs))
    else:
        found = aas_completed(graph, inputs, config, failure, **kwargs)
    async with aclosing(found) as settled:
        async for item in settled:
            yield item
