"""A graph of which whole runs are made in a worker, with its saver, store and cache, which stay in the parent and are asked.

Made once for a graph, so that what its runs have in common is found once. A worker makes one run after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpflow._exec.away import Away
from mpflow._names import CONF, THREAD_ID
from mpflow.config import merge_configs
from mpflow.pregel.resumable import Resumable

if TYPE_CHECKING:
    from mpflow.pregel.compiled import CompiledGraph


class Far:
    """`graph` is the worker's own copy, and is given what the first run brings along.

    With `resumes` an input whose thread has finished gives its stored output.
    """

    def __init__(self, graph: CompiledGraph, *, resumes: bool) -> None:
        self._graph = graph
        self._resumes = resumes
        self._local: Any = None
        """What the run under way reaches."""
        self._stable: Away | None = None
        """What the graph has for all its runs: it reaches what the run under way does."""
        self._log: Any = None

    def output(self, input: Any, facts: Any, local: Away, kwargs: dict[str, Any]) -> Any:
        """The output of a run, with the rows that it made if the saver keeps a log."""
        self._local = local
        if self._stable is None:
            self._begin(local)
        config = facts.config
        if self._log is None:
            return self._invoked(input, config, facts.context, kwargs)
        input, thread_id, chain = input
        if thread_id is not None:
            config = merge_configs(config, {CONF: {THREAD_ID: thread_id}})
            self._log.begin(thread_id, chain)
        is_new = chain is not None and not chain
        try:
            output = self._invoked(input, config, facts.context, kwargs, is_new=is_new)
        except BaseException:
            self._log.send()
            raise
        return output, self._log.end()

    def _begin(self, local: Away) -> None:
        stable = self._stable = Away(local.luggage, self._ask, self._ask_later, lambda: self._local.control)
        graph = self._graph
        graph.store, graph.cache = stable.store, stable.cache
        if stable.saver is not None:
            graph.checkpointer = stable.saver
        if local.luggage.log_types is not None:
            self._log = stable.saver.driver

    def _ask(self, *what: Any) -> Any:
        return self._local.ask(*what)

    def _ask_later(self, *what: Any, **told: Any) -> Any:
        return self._local.ask_later(*what, **told)

    def _invoked(self, input: Any, config: Any, context: Any, kwargs: dict[str, Any], *, is_new: bool = False) -> Any:
        runnable: Any = self._graph
        if self._resumes and not is_new:
            runnable = Resumable(runnable)
        return runnable.invoke(input, config, context=context, **kwargs)
