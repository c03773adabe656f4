"""A whole run of a graph as a worker makes it, with what stays in the parent: its saver, store and cache are asked there.

It knows one run after the other, and nothing of the batch that they belong to.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from mpflow._names import CONF, THREAD_ID
from mpflow._scope import set_current
from mpflow.config import merge_configs

if TYPE_CHECKING:
    from mpflow._exec.away import Away
    from mpflow.pregel.compiled import CompiledGraph
    from mpflow.pregel.spreading import Checks


class RunProgram:
    """A run of the graph as a worker sees it: a node whose function is the graph's `invoke`.

    The graph comes without saver, store and cache; those that it has are the scope's. With `resumes` an input whose
    thread has finished is not run but gives its stored output.
    """

    __slots__ = (
        "__weakref__",
        "_far",
        "checks",
        "graph",
        "kwargs",
        "memory_bytes",
        "metadata",
        "name",
        "resumes",
        "tags",
    )

    def __init__(
        self, graph: CompiledGraph, kwargs: dict[str, Any], checks: Checks | None = None, *, resumes: bool = False
    ) -> None:
        self.graph = graph
        self.kwargs = kwargs
        self.resumes = resumes
        self._far: Far | None = None
        self.checks = checks
        """What its functions must be in the worker; None where nobody minds, or once that was seen."""
        self.name = graph.name
        self.memory_bytes = max(
            (getattr(node.program, "memory_bytes", 0) for node in graph._plan.nodes.values()), default=0
        )
        self.tags = None
        self.metadata = None

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(RunProgram, resumes=self.resumes), (self.graph, self.kwargs, self.checks)

    def run(self, input: Any, scope: Any) -> list[tuple[str, Any]]:
        """Run the graph on `input`. Its config is the scope's; the run itself is nested in nothing."""
        set_current(None)
        if self.checks is not None:
            from mpflow.pregel.spreading import check

            check(self.graph, self.checks)
            self.checks = None
        if not scope.is_told:
            return [("output", self.graph.invoke(input, **self.kwargs))]
        facts = scope.facts
        local = facts.local
        if local is None:
            return [("output", self.graph.invoke(input, facts.config, context=facts.context, **self.kwargs))]
        if self._far is None:
            self._far = Far(self.graph, resumes=self.resumes)
        return [("output", self._far.output(input, facts, local, self.kwargs))]


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
        from mpflow._exec.away import Away

        stable = self._stable = Away(local.luggage, self._ask, self._ask_later, self._wait, lambda: self._local.control)
        graph = self._graph
        graph.store, graph.cache = stable.store, stable.cache
        if stable.saver is not None:
            graph.checkpointer = stable.saver
        if local.luggage.has_far_log:
            self._log = stable.saver.driver

    def _ask(self, *what: Any) -> Any:
        return self._local.ask(*what)

    def _ask_later(self, *what: Any, **told: Any) -> Any:
        return self._local.ask_later(*what, **told)

    def _wait(self, *what: Any, **how: Any) -> None:
        self._local.wait(*what, **how)

    def _invoked(self, input: Any, config: Any, context: Any, kwargs: dict[str, Any], *, is_new: bool = False) -> Any:
        runnable: Any = self._graph
        if self._resumes and not is_new:
            from mpflow.pregel.resumable import Resumable

            runnable = Resumable(runnable)
        return runnable.invoke(input, config, context=context, **kwargs)
