"""Items of a batch that each have a thread of their own: what is finished is not run again, what was begun goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpflow._names import CONF
from mpflow.config import merge_configs
from mpflow.runnables.batching import close_inputs

if TYPE_CHECKING:
    from mpflow.pregel.compiled import CompiledGraph
    from mpflow.runnables.batching import Indexed


def on_threads(items: Indexed, prefix: str) -> Indexed:
    """Numbered inputs with their configs, each of which names a thread: number 7 runs on ``<prefix>7``."""
    try:
        for number, input, config in items:
            yield number, input, merge_configs(config, {CONF: {"thread_id": f"{prefix}{number}"}})
    finally:
        close_inputs(items)


def check_is_saved(graph: CompiledGraph) -> None:
    """Raises ValueError for a graph without a saver of its own."""
    if graph.checkpointer in (None, False, True):
        raise ValueError(
            f"batch(thread_id_prefix=...) resumes what was saved, but graph '{graph.name}' has no checkpointer: "
            "compile(checkpointer=SqliteSaver(...))"
        )


class Resumable:
    """A graph as batches call it: an input whose thread has finished gives its stored output."""

    def __init__(self, graph: CompiledGraph) -> None:
        self._graph = graph
        self.config = graph.config

    def invoke(self, input: Any, config: Any, **kwargs: Any) -> Any:
        graph = self._graph
        found = graph.get_state(config)
        if found.metadata is None:
            return graph.invoke(input, config, **kwargs)
        if found.next:
            return graph.invoke(None, config, **kwargs)
        return self._output(found.values)

    async def ainvoke(self, input: Any, config: Any, **kwargs: Any) -> Any:
        graph = self._graph
        found = await graph.aget_state(config)
        if found.metadata is None:
            return await graph.ainvoke(input, config, **kwargs)
        if found.next:
            return await graph.ainvoke(None, config, **kwargs)
        return self._output(found.values)

    def _output(self, values: Any) -> Any:
        output = self._graph._plan.output
        if isinstance(output, str) or not isinstance(values, dict):
            return values
        return {key: values[key] for key in output if key in values}
