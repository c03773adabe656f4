"""What a compiled graph says of itself: its nodes and channels, the schemas of its input and output, its drawing.

It reads the plan and changes nothing. Schemas and drawings are made by their own modules, loaded when asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow.pregel.state import StatefulGraph
from mpflow.schema import is_typed_dict

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mpflow._core.plan import Reads
    from mpflow.channels.base import BaseChannel
    from mpflow.config import RunnableConfig
    from mpflow.pregel.nodes import PregelNode
    from mpflow.pregel.picture import Graph
    from mpflow.types import All


class DescribedGraph(StatefulGraph):
    """What can be asked about a graph without running it."""

    context_schema: Any = None
    interrupt_before_nodes: All | Sequence[str]
    interrupt_after_nodes: All | Sequence[str]

    # -- parts --------------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> dict[str, PregelNode]:
        """The nodes by name, each of which can be called by itself, without the graph: ``graph.nodes["a"].invoke(x)``."""
        from mpflow.pregel.planning import node_of

        return {name: node_of(node) for name, node in self._plan.nodes.items()}

    @property
    def channels(self) -> dict[str, BaseChannel[Any, Any, Any] | Any]:
        """The channels by name, as each run copies them, and the managed values."""
        return {**self._plan.channels, **self._plan.managed}

    @property
    def input_channels(self) -> str | list[str]:
        return _listed(self._plan.input)

    @property
    def output_channels(self) -> str | list[str]:
        return _listed(self._plan.output)

    @property
    def stream_channels_asis(self) -> str | list[str]:
        """What streams of values and saved states show: one channel's bare value, or a dict of several."""
        return _listed(self._plan.stream)

    @property
    def stream_channels_list(self) -> list[str]:
        """The same as a list in either case."""
        shown = self._plan.stream
        return [shown] if isinstance(shown, str) else list(shown)

    @property
    def stream_channels(self) -> str | list[str] | None:
        return self.stream_channels_asis

    @property
    def trigger_to_nodes(self) -> dict[str, list[str]]:
        """For each channel whose changes start nodes, their names."""
        return {channel: list(names) for channel, names in self._plan.trigger_to_nodes.items()}

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """The graph's name, or `name`, with a suffix in the style of that name."""
        found = name or self._plan.name
        if not suffix:
            return found
        return found + suffix.title() if found[0].isupper() else f"{found}_{suffix.lower()}"

    # -- schemas ------------------------------------------------------------------------------------------------------

    @property
    def InputType(self) -> Any:
        """The type of the input, None for a graph with several input channels."""
        return self._type_of(self._plan.input, "UpdateType")

    @property
    def OutputType(self) -> Any:
        """The type of the output, None for a graph with several output channels."""
        return self._type_of(self._plan.output, "ValueType")

    def _type_of(self, keys: Reads, kind: str) -> Any:
        return getattr(self._plan.channels[keys], kind) if isinstance(keys, str) else None

    @property
    def input_schema(self) -> type[BaseModel]:
        return self.get_input_schema()

    @property
    def output_schema(self) -> type[BaseModel]:
        return self.get_output_schema()

    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """A pydantic model of the input (DR-4)."""
        return self._model("Input", self._plan.input, "UpdateType")

    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """A pydantic model of the output."""
        return self._model("Output", self._plan.output, "ValueType")

    def _model(self, suffix: str, keys: Reads, kind: str) -> type[BaseModel]:
        from mpflow.pregel.jsonschema import model_of_fields, model_of_root

        name = self.get_name(suffix)
        if isinstance(keys, str):
            return model_of_root(name, self._type_of(keys, kind))
        channels = self._plan.channels
        return model_of_fields(name, {key: getattr(channels[key], kind) for key in keys})

    def get_input_jsonschema(self, config: RunnableConfig | None = None) -> dict[str, Any]:
        """The JSON schema of the input."""
        return self.get_input_schema(config).model_json_schema()

    def get_output_jsonschema(self, config: RunnableConfig | None = None) -> dict[str, Any]:
        """The JSON schema of the output."""
        return self.get_output_schema(config).model_json_schema()

    def get_context_jsonschema(self) -> dict[str, Any] | None:
        """The JSON schema of ``context``, None for a graph without one. Raises ValueError for one of another kind."""
        from mpflow.pregel.jsonschema import context_schema_of

        return context_schema_of(self.context_schema)

    def config_schema(self, *, include: Sequence[str] | None = None) -> type[BaseModel]:
        """Deprecated: a pydantic model of the config, with the context under ``configurable``."""
        warnings.warn(_going("config_schema"), stacklevel=2)
        return self._config_model(include)

    def get_config_jsonschema(self, *, include: Sequence[str] | None = None) -> dict[str, Any]:
        """Deprecated: the same as a JSON schema."""
        warnings.warn(_going("get_config_jsonschema"), stacklevel=2)
        return self._config_model(include).model_json_schema()

    def _config_model(self, include: Sequence[str] | None) -> type[BaseModel]:
        from mpflow.pregel.jsonschema import model_of_config

        return model_of_config(self.get_name("Config"), self.context_schema, include or ())

    def _context(self, context: Any) -> Any:
        """The run's context, as an instance of its schema where it was given as a dict (CF-4)."""
        schema = self.context_schema
        if schema is not None and isinstance(context, dict) and not is_typed_dict(schema):
            return schema(**context)
        return context

    # -- drawing ------------------------------------------------------------------------------------------------------

    def get_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> Graph:
        """The graph to draw, with the graphs within it if `xray`, that many levels deep if it is a number (DR-1)."""
        from mpflow.pregel.drawing import draw

        inner = {}
        if xray:
            deeper = xray if isinstance(xray, bool) or xray <= 0 else xray - 1
            inner = {name: graph.get_graph(config, xray=deeper) for name, graph in self.get_subgraphs()}
        return draw(self._plan, self._declared(), self.interrupt_before_nodes, self.interrupt_after_nodes, inner)

    async def aget_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> Graph:
        """As `get_graph`."""
        return self.get_graph(config, xray=xray)

    def _declared(self) -> Mapping[str, Any]:
        """Where nodes say that they may lead, besides their edges."""
        return {}

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """What notebooks show: the text of the drawing, and an image where one can be rendered."""
        graph = self.get_graph()
        shown: dict[str, Any] = {"text/plain": repr(self), "text/vnd.mermaid": graph.draw_mermaid()}
        try:
            shown["image/png"] = graph.draw_mermaid_png()
        except Exception:  # an image is a courtesy
            pass
        return shown


def _going(name: str) -> Warning:
    from mpflow.warnings import LangGraphDeprecatedSinceV10

    return LangGraphDeprecatedSinceV10(
        f"{name} is deprecated: a run takes its context as `context=`, whose schema get_context_jsonschema() gives"
    )


def _listed(keys: Reads) -> str | list[str]:
    return keys if isinstance(keys, str) else list(keys)
