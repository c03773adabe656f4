"""A compiled graph as langchain takes it: a tool for its models, and a runnable with listeners. Needs langchain-core."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpflow.config import merge_configs
from mpflow.runnables.binding import RunnableBinding

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    Listener = Callable[..., Any] | None


class ListenedGraph(RunnableBinding):
    """A graph whose runs are each told to listeners, by a tracer of `make` for that run alone."""

    def __init__(self, bound: Any, make: Callable[[Any], Any], *, kwargs: Any = None, config: Any = None) -> None:
        super().__init__(bound, kwargs=kwargs, config=config)
        self._make = make

    def bind(self, **kwargs: Any) -> ListenedGraph:
        return ListenedGraph(self.bound, self._make, kwargs={**self.kwargs, **kwargs}, config=self.config)

    def with_config(self, config: Any = None, **kwargs: Any) -> ListenedGraph:
        merged = merge_configs(self.config, config, kwargs)
        return ListenedGraph(self.bound, self._make, kwargs=self.kwargs, config=merged)

    def _config(self, config: Any) -> Any:
        complete = merge_configs(self.config, config)
        return merge_configs(complete, {"callbacks": [self._make(complete)]})


class OfferedGraph:
    """What a compiled graph can become for langchain."""

    __slots__ = ()

    def with_listeners(
        self, *, on_start: Listener = None, on_end: Listener = None, on_error: Listener = None
    ) -> ListenedGraph:
        """This graph, with functions that are called when a run of it starts, ends or fails.

        Each is given langchain's record of the run and, if it takes a second argument, the run's config.
        """
        return ListenedGraph(self, _tracer_of("RootListenersTracer", on_start, on_end, on_error))

    def with_alisteners(
        self, *, on_start: Listener = None, on_end: Listener = None, on_error: Listener = None
    ) -> ListenedGraph:
        """As `with_listeners`, with async functions, for runs that are awaited."""
        return ListenedGraph(self, _tracer_of("AsyncRootListenersTracer", on_start, on_end, on_error))

    def as_tool(
        self,
        args_schema: Any = None,
        *,
        name: str | None = None,
        description: str | None = None,
        arg_types: dict[str, Any] | None = None,
    ) -> BaseTool:
        """This graph as a tool that models can call, with its input schema as the arguments unless told otherwise."""
        from langchain_core.tools.convert import convert_runnable_to_tool

        given: Any = self
        return convert_runnable_to_tool(given, args_schema, name=name, description=description, arg_types=arg_types)


def _tracer_of(kind: str, on_start: Listener, on_end: Listener, on_error: Listener) -> Callable[[Any], Any]:
    from langchain_core.tracers import root_listeners

    tracer = getattr(root_listeners, kind)
    return lambda config: tracer(config=config, on_start=on_start, on_end=on_end, on_error=on_error)
