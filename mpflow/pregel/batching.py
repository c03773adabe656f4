"""Batches of runs of one graph: driven here, node by node, or each as a whole within a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, Literal, cast

from mpflow._exec.tracebacks import leave_us_out
from mpflow.runnables.batching import (
    Failure,
    aas_completed,
    ain_order,
    as_completed,
    configured,
    failure_of,
    in_order,
    limit_of,
)
from mpflow.types import FailureRecord

if TYPE_CHECKING:
    from mpflow.config import RunnableConfig
    from mpflow.pregel.compiled import CompiledGraph
    from mpflow.pregel.spreading import Part
    from mpflow.runnables.batching import Indexed

    Parallel = Literal["auto", "items", "nodes"]


def _failure(graph: CompiledGraph, return_exceptions: bool) -> Failure:
    if graph._options.get("on_error") != "record":
        return failure_of(return_exceptions)

    def failure(index: int, input: Any, error: Exception) -> Any:
        return FailureRecord(node=graph.name, task_id=str(index), error=error, input=input, attempts=1)

    return failure


def _parts(
    graph: CompiledGraph, items: Indexed, limit: int | None, parallel: str, prefix: str | None, kwargs: dict[str, Any]
) -> Iterator[Part]:
    """One part of the batch after the other, with the way to run it. Raises ValueError for what is no way."""
    if parallel not in ("auto", "items", "nodes"):
        raise ValueError(f"batch(parallel={parallel!r}): expected 'auto', 'items' or 'nodes'")
    if parallel != "auto":
        return iter([(parallel, items, None)])
    from mpflow.pregel.spreading import parts_of

    return parts_of(graph, items, limit, prefix, kwargs)


def _indexed(graph: CompiledGraph, inputs: Iterable[Any], config: Any, prefix: str | None) -> Indexed:
    """The inputs with their number and config. Raises ValueError for a prefix that makes no sense here."""
    if prefix is not None:
        from mpflow.pregel.resumable import check_is_saved

        check_is_saved(graph)
        if isinstance(config, (list, tuple)):
            raise ValueError("batch(thread_id_prefix=...) takes one config; a list of configs names its threads itself")
    return configured(inputs, config)


def _driven(graph: CompiledGraph, items: Indexed, prefix: str | None) -> tuple[Any, Indexed]:
    """What is called here for each item, and the items as it takes them."""
    if prefix is None:
        return graph, items
    from mpflow.pregel.resumable import Resumable, on_threads

    return Resumable(graph), on_threads(items, prefix)


def _batch_as_completed(
    graph: CompiledGraph,
    inputs: Iterable[Any],
    config: Any,
    *,
    return_exceptions: bool,
    parallel: str,
    thread_id_prefix: str | None = None,
    **kwargs: Any,
) -> Iterator[tuple[int, Any]]:
    try:
        failure, limit, prefix = _failure(graph, return_exceptions), limit_of(graph, config), thread_id_prefix
        indexed = _indexed(graph, inputs, config, prefix)
        for way, items, guard in _parts(graph, indexed, limit, parallel, prefix, kwargs):
            if way == "nodes":
                runnable, numbered = _driven(graph, items, prefix)
                yield from as_completed(runnable, numbered, limit, failure, **kwargs)
            else:
                from mpflow.pregel.items import Items, items_as_completed

                within: Any = {"limit": limit, "failure": failure, "guard": guard, "thread_id_prefix": prefix}
                yield from items_as_completed(Items(graph, items, **within, **kwargs))
    except KeyboardInterrupt as interrupt:
        leave_us_out(interrupt)
        raise


async def _abatch_as_completed(
    graph: CompiledGraph,
    inputs: Iterable[Any],
    config: Any,
    *,
    return_exceptions: bool,
    parallel: str,
    thread_id_prefix: str | None = None,
    **kwargs: Any,
) -> AsyncIterator[tuple[int, Any]]:
    import asyncio
    from contextlib import aclosing

    try:
        failure, limit, prefix = _failure(graph, return_exceptions), limit_of(graph, config), thread_id_prefix
        found: Any
        indexed = _indexed(graph, inputs, config, prefix)
        for way, items, guard in _parts(graph, indexed, limit, parallel, prefix, kwargs):
            if way == "nodes":
                runnable, numbered = _driven(graph, items, prefix)
                found = aas_completed(runnable, numbered, limit, failure, **kwargs)
            else:
                from mpflow.pregel.items import Items, aitems_as_completed

                within: Any = {"limit": limit, "failure": failure, "guard": guard, "thread_id_prefix": prefix}
                found = aitems_as_completed(Items(graph, items, **within, **kwargs))
            async with aclosing(found) as settled:
                async for item in settled:
                    yield item
    except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
        leave_us_out(interrupt)
        raise


def _shown(name: str, inputs: Iterable[Any], found: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """The results of a batch, each counted on a bar as it comes."""
    from contextlib import closing

    from mpflow.observe.progress import Progress

    with closing(cast("Any", found)), Progress(name) as bar:
        bar.expect(len(inputs) if isinstance(inputs, Sized) else None)
        for item in found:
            bar.advance()
            yield item


async def _ashown(
    name: str, inputs: Iterable[Any], found: AsyncIterator[tuple[int, Any]]
) -> AsyncIterator[tuple[int, Any]]:
    """As `_shown`, for ``async for``."""
    from contextlib import aclosing

    from mpflow.observe.progress import Progress

    async with aclosing(cast("Any", found)):
        with Progress(name) as bar:
            bar.expect(len(inputs) if isinstance(inputs, Sized) else None)
            async for item in found:
                bar.advance()
                yield item


class BatchedGraph:
    """What a compiled graph does with many inputs."""

    def batch(
        self,
        inputs: Iterable[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        parallel: Parallel = "auto",
        **kwargs: Any,
    ) -> list[Any]:
        """Run the graph on every input and return the outputs in the order of the inputs (AS-3).

        ``max_concurrency`` in the config bounds how many runs are under way. The first failure is raised when the runs
        that had started are over; with `return_exceptions` failures are results; under ``on_error="record"`` they are
        `FailureRecord`s.

        ``parallel="auto"`` runs the first inputs here and measures them; the rest go whole to workers if that is sooner
        and nothing could tell. ``parallel="nodes"`` drives every run here and places its nodes one by one. ``parallel="items"`` runs each input
        as a whole within one worker process, where its nodes run in place: the best way for very many short runs. The
        graph must be able to travel (NodeNotPicklableError); its checkpointer, store and cache stay here and are asked. What
        our own savers keep is made in the workers and written here, many runs in one commit, before their outputs are told.

        ``thread_id_prefix="job/"`` gives each input a thread of its own, ``job/0`` and so on: a batch that was cut short
        goes on when it is given the same inputs again. What has finished is not run again but gives its stored output. A
        thread that another process runs fails its input alone (RunOwnedElsewhere).

        ``progress=True`` draws a bar of finished runs on stderr, if that is a terminal.
        """
        found = self.batch_as_completed(
            inputs, config, return_exceptions=return_exceptions, parallel=parallel, **kwargs
        )
        try:
            return in_order(found)
        except KeyboardInterrupt as interrupt:
            leave_us_out(interrupt)
            raise

    async def abatch(
        self,
        inputs: Iterable[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        parallel: Parallel = "auto",
        **kwargs: Any,
    ) -> list[Any]:
        """As `batch`, awaited."""
        import asyncio

        found = self.abatch_as_completed(
            inputs, config, return_exceptions=return_exceptions, parallel=parallel, **kwargs
        )
        try:
            return await ain_order(found)
        except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
            leave_us_out(interrupt)
            raise

    def batch_as_completed(
        self,
        inputs: Iterable[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        parallel: Parallel = "auto",
        progress: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """As `batch`, yielding ``(index, output)`` as runs finish. Inputs are taken as there is room for them."""
        graph = cast("CompiledGraph", self)
        found = _batch_as_completed(
            graph, inputs, config, return_exceptions=return_exceptions, parallel=parallel, **kwargs
        )
        return _shown(graph.name, inputs, found) if progress else found

    def abatch_as_completed(
        self,
        inputs: Iterable[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        parallel: Parallel = "auto",
        progress: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Any]]:
        """As `batch_as_completed`, for ``async for``."""
        graph = cast("CompiledGraph", self)
        found = _abatch_as_completed(
            graph, inputs, config, return_exceptions=return_exceptions, parallel=parallel, **kwargs
        )
        return _ashown(graph.name, inputs, found) if progress else found
