"""`CompiledStateGraph`: the facade with what only a graph built from a `StateGraph` knows, its schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from mpflow.pregel.main import CompiledGraph, Pregel
from mpflow.schema import is_typed_dict
from mpflow.typing import ContextT, InputT, OutputT, StateT

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mpflow._core.plan import Plan
    from mpflow.config import RunnableConfig
    from mpflow.graph.picture import Graph
    from mpflow.graph.state import StateGraph


class CompiledStateGraph(Pregel, Generic[StateT, ContextT, InputT, OutputT]):
    """What `StateGraph.compile` returns. ``builder`` is the graph it was compiled from."""

    stream_mode = "updates"

    def __init__(
        self,
        builder: StateGraph[StateT, ContextT, InputT, OutputT],
        plan: Plan,
        *,
        store: Any,
        cache: Any = None,
        debug: bool,
        checkpointer: Any,
        interrupt_before: Any = None,
        interrupt_after: Any = None,
        **options: Any,
    ) -> None:
        # A `Pregel` by its methods; what it is made from is a plan.
        CompiledGraph.__init__(
            self,
            plan,
            store=store,
            cache=cache,
            checkpointer=checkpointer,
            interrupt_before=interrupt_before,
            interrupt_after=interrupt_after,
            options=options,
        )
        self.builder = builder
        self.debug = debug

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A graph travels without what only this process has: its pool and the user's executors.
        state = dict(self.__dict__)
        options = dict(self._options)
        options["pool"] = None
        if not isinstance(options.get("executor"), (str, type(None))):
            options["executor"] = None
        state["_options"] = options
        return _rebuild, (type(self), state)

    def _context(self, context: Any) -> Any:
        schema = self.builder.context_schema
        if schema is not None and isinstance(context, dict) and not is_typed_dict(schema):
            return schema(**context)
        return context

    def get_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> Graph:
        """The graph to draw, with the graphs within it if `xray`, that many levels deep if it is a number (DR-1)."""
        from mpflow.graph.drawing import declared_by, draw

        inner = {}
        if xray:
            deeper = xray if isinstance(xray, bool) or xray <= 0 else xray - 1
            inner = {name: graph.get_graph(config, xray=deeper) for name, graph in self.get_subgraphs()}
        return draw(self._plan, declared_by(self.builder), self.interrupt_before, self.interrupt_after, inner)

    async def aget_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> Graph:
        """As `get_graph`."""
        return self.get_graph(config, xray=xray)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """What notebooks show: the text of the drawing, and an image where one can be rendered."""
        graph = self.get_graph()
        shown: dict[str, Any] = {"text/plain": repr(self), "text/vnd.mermaid": graph.draw_mermaid()}
        try:
            shown["image/png"] = graph.draw_mermaid_png()
        except Exception:  # an image is a courtesy
            pass
        return shown

    # -- schemas ------------------------------------------------------------------------------------------------------

    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """A pydantic model of the input (DR-4)."""
        from mpflow.graph.jsonschema import model_of

        return model_of(self.builder.input_schema, self.get_name("Input"))

    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """A pydantic model of the output."""
        from mpflow.graph.jsonschema import model_of

        return model_of(self.builder.output_schema, self.get_name("Output"))

    def get_input_jsonschema(self, config: RunnableConfig | None = None) -> dict[str, Any]:
        """The JSON schema of the input."""
        from mpflow.graph.jsonschema import json_schema_of

        return json_schema_of(self.builder.input_schema, self.builder.channels, self.get_name("Input"))

    def get_output_jsonschema(self, config: RunnableConfig | None = None) -> dict[str, Any]:
        """The JSON schema of the output."""
        from mpflow.graph.jsonschema import json_schema_of

        return json_schema_of(self.builder.output_schema, self.builder.channels, self.get_name("Output"))

    def get_context_jsonschema(self) -> dict[str, Any] | None:
        """The JSON schema of ``context``, None for a graph without one."""
        from mpflow.graph.jsonschema import context_schema_of

        return context_schema_of(self.builder.context_schema)

    @property
    def _typed_output(self) -> Any:
        """What makes an instance of the output schema, for ``version="v2"``; None where a dict is one (SM-12)."""
        return self.builder.schemas[self.builder.output_schema].typed

    @property
    def _typed_state(self) -> Any:
        return self.builder.schemas[self.builder.state_schema].typed


def _rebuild(cls: type[Any], state: dict[str, Any]) -> Any:
    graph = object.__new__(cls)
    graph.__dict__.update(state)
    return graph
