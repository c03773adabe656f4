"""`CompiledStateGraph`: the facade with what only a graph built from a `StateGraph` knows, its schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from mpflow.pregel.compiled import CompiledGraph
from mpflow.pregel.main import Pregel
from mpflow.typing import ContextT, InputT, OutputT, StateT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from mpflow._core.plan import Plan
    from mpflow.config import RunnableConfig
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
            interrupt_before_nodes=interrupt_before,
            interrupt_after_nodes=interrupt_after,
            options=options,
        )
        self.builder = builder
        self.debug = debug
        self.context_schema = builder.context_schema

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A graph travels without what only this process has: its pool and the user's executors.
        state = self.__getstate__()
        options = dict(self._options)
        options["pool"] = None
        if not isinstance(options.get("executor"), (str, type(None))):
            options["executor"] = None
        state["_options"] = options
        state["_kept_types"] = None
        return _rebuild, (type(self), state)

    def _declared(self) -> Mapping[str, Any]:
        from mpflow.pregel.drawing import declared_by

        return declared_by(self.builder)

    # -- schemas ------------------------------------------------------------------------------------------------------

    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """A pydantic model of the input (DR-4)."""
        from mpflow.pregel.jsonschema import model_of

        return model_of(self.builder.input_schema, self.get_name("Input"))

    def get_input_jsonschema(self, config: RunnableConfig | None = None) -> dict[str, Any]:
        """The JSON schema of the input."""
        from mpflow.pregel.jsonschema import json_schema_of

        return json_schema_of(self.builder.input_schema, self.builder.channels, self.get_name("Input"))

    def get_output_jsonschema(self, config: RunnableConfig | None = None) -> dict[str, Any]:
        """The JSON schema of the output."""
        from mpflow.pregel.jsonschema import json_schema_of

        return json_schema_of(self.builder.output_schema, self.builder.channels, self.get_name("Output"))

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
