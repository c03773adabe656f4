"""`StateGraph`: what users write. It collects nodes and edges, checks them as they come, and compiles them to a plan."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from inspect import isasyncgenfunction, isgeneratorfunction
from typing import TYPE_CHECKING, Any, Generic

from mpflow._exec.place import check_executor, check_pool
from mpflow._names import DEFAULT_HANDLER, HANDLER_PREFIX
from mpflow.constants import END, START
from mpflow.graph.branch import BranchSpec, PathMap
from mpflow.graph.compiled import CompiledStateGraph
from mpflow.graph.node import NodeDefaults, NodeSpec, check_name, destinations_of
from mpflow.graph.planning import plan_of
from mpflow.graph.validate import check_edges, lint
from mpflow.runnables.base import coerce, name_of
from mpflow.runnables.function import RunnableLambda
from mpflow.runnables.runnable import coerce_to_runnable
from mpflow.schema import Schema, input_hint
from mpflow.types import ensure_valid_checkpointer
from mpflow.typing import ContextT, InputT, OutputT, StateT
from mpflow.warnings import takes_former_names

if TYPE_CHECKING:
    from datetime import timedelta

    from typing_extensions import Self

    from mpflow._exec.place import Executor
    from mpflow._exec.process import WorkerPool
    from mpflow.types import All, CachePolicy, Checkpointer, RetryPolicy, TimeoutPolicy


__all__ = ("CompiledStateGraph", "StateGraph")


class StateGraph(Generic[StateT, ContextT, InputT, OutputT]):
    """A graph whose nodes read a shared state and return what they change of it.

    `state_schema` is a TypedDict, dataclass or pydantic model, or any type for a state without keys. A key annotated
    ``Annotated[T, reducer]`` merges several writes of one step by ``reducer(old, new)``; others take one write a step.
    Nothing runs until `compile`.

    Raises ValueError for a schema that cannot be read.
    """

    @takes_former_names(config_schema="context_schema", input="input_schema", output="output_schema")
    def __init__(
        self,
        state_schema: type[StateT],
        context_schema: type[ContextT] | None = None,
        *,
        input_schema: type[InputT] | None = None,
        output_schema: type[OutputT] | None = None,
    ) -> None:
        self.nodes: dict[str, NodeSpec] = {}
        self.edges: set[tuple[str, str]] = set()
        self.waiting_edges: set[tuple[tuple[str, ...], str]] = set()
        self.branches: dict[str, dict[str, BranchSpec]] = {}
        self.channels: dict[str, Any] = {}
        self.managed: dict[str, Any] = {}
        self.schemas: dict[Any, Schema] = {}
        self.state_schema = state_schema
        self.input_schema: Any = input_schema or state_schema
        self.output_schema: Any = output_schema or state_schema
        self.context_schema = context_schema
        self.compiled = False
        self.defaults = NodeDefaults()
        self._add_schema(state_schema)
        self._add_schema(self.input_schema, allow_managed=False)
        self._add_schema(self.output_schema, allow_managed=False)

    def __class_getitem__(cls, parameters: Any) -> Any:
        # One parameter is enough: the others have defaults, which Python before 3.13 knows only to type checkers.
        given = parameters if isinstance(parameters, tuple) else (parameters,)
        missing = len(cls.__parameters__) - len(given)  # type: ignore[attr-defined]
        return super().__class_getitem__((*given, *(Any for _ in range(missing))))  # type: ignore[misc]

    def _add_schema(self, source: Any, *, allow_managed: bool = True) -> Schema:
        if source is None or isinstance(source, (str, bytes, int, float, dict, list, tuple, set)):
            raise ValueError(
                f"A state schema is a TypedDict, a dataclass, a pydantic model or, for a state of one value, its type; "
                f"got {source!r}, which is no type"
            )
        known = self.schemas.get(source)
        if known is not None:
            return known
        schema = Schema(source)
        if schema.managed and not allow_managed:
            names = ", ".join(schema.managed)
            raise ValueError(
                f"Invalid managed channels detected in {getattr(source, '__name__', source)}: {names}. "
                "Managed channels are not permitted in Input/Output schema."
            )
        for key, channel in schema.channels.items():
            mine = self.channels.get(key)
            if mine is None:
                self.channels[key] = channel
            elif mine != channel:
                from mpflow.channels.last_value import LastValue

                if isinstance(channel, LastValue):
                    continue  # a schema that only reads the key need not repeat its reducer
                if not isinstance(mine, LastValue):
                    raise ValueError(f"Channel '{key}' already exists with a different type")
                self.channels[key] = channel
        self.managed.update(schema.managed)
        self.schemas[source] = schema
        return schema

    # -- nodes --------------------------------------------------------------------------------------------------------

    @takes_former_names(retry="retry_policy", input="input_schema")
    def add_node(
        self,
        node: str | Callable[..., Any] | Any,
        action: Callable[..., Any] | Any | None = None,
        *,
        defer: bool = False,
        metadata: dict[str, Any] | None = None,
        input_schema: type[Any] | None = None,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
        cache_policy: CachePolicy[Any] | None = None,
        error_handler: Callable[..., Any] | None = None,
        destinations: dict[str, str] | tuple[str, ...] | None = None,
        timeout: float | timedelta | TimeoutPolicy | None = None,
        trace_policy: Any | None = None,
        executor: Executor | None = None,
        max_concurrency: int | None = None,
        memory: int | str | None = None,
        rerun_on_loss: bool = True,
        on_error: str | None = None,
    ) -> Self:
        """Add a node: a function, async function, callable object, compiled graph or object with ``invoke``.

        `node` is its name, with `action` what runs; or the callable itself, named after itself. `executor` says where
        it runs: ``"auto"``, ``"process"``, ``"thread"``, ``"inline"`` or a ``concurrent.futures.Executor``; None takes
        the graph's. `max_concurrency` bounds how many of its tasks run at once. `memory` is what one task of it takes at
        its peak, in bytes or as text such as ``"500MB"``: in processes as many run side by side as fit into the memory
        there is; what is measured counts where it is more. ``rerun_on_loss=False`` forbids a second start after its
        worker died. ``on_error="record"`` turns a failed Send to it into a `FailureRecord`.

        Raises ValueError for a name that is taken, reserved or malformed, and for options that cannot be.
        """
        if not isinstance(node, str):
            node, action = name_of(node), node
        if action is None:
            raise RuntimeError(f"add_node('{node}') needs what to run: add_node('{node}', action)")
        if isinstance(action, Mapping):  # of branches that run side by side
            action = coerce_to_runnable(action)
        elif isgeneratorfunction(action) or isasyncgenfunction(action):  # what it yields adds up to its update
            action = RunnableLambda(action, name=node)
        check_name(node, self.nodes)
        handler_name = HANDLER_PREFIX + node
        if error_handler is not None and handler_name in self.nodes:
            raise ValueError(f"Auto-generated error handler node `{handler_name}` already exists.")
        if any(spec.error_handler and node == HANDLER_PREFIX + name for name, spec in self.nodes.items()):
            raise ValueError(f"Node `{node}` already present.")
        self._note_compiled("node")
        if input_schema is None:
            input_schema = input_hint(getattr(action, "func", action)) or input_hint(action)
        spec = NodeSpec(
            node,
            coerce(action, node),
            input_schema or self.state_schema,
            defer=defer,
            metadata=metadata,
            retry_policy=retry_policy,
            destinations=destinations_of(action, destinations),
            timeout=timeout,
            executor=check_executor(executor, f"node '{node}'"),
            max_concurrency=max_concurrency,
            memory=memory,
            rerun_on_loss=rerun_on_loss,
            on_error=on_error,
            error_handler=None if error_handler is None else coerce(error_handler, handler_name),
            cache_policy=cache_policy,
        )
        self._add_schema(spec.input_schema)
        self.nodes[node] = spec
        return self

    def set_node_defaults(
        self,
        *,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
        cache_policy: CachePolicy[Any] | None = None,
        error_handler: Callable[..., Any] | None = None,
        timeout: float | timedelta | TimeoutPolicy | None = None,
        memory: int | str | None = None,
    ) -> Self:
        """Set what nodes get that do not say otherwise, whether added before or after (GB-11).

        Retries and timeouts cover error handlers too. Graphs within this one inherit nothing. A further call changes
        only what it passes. Raises ValueError for a timeout or a memory that is not above zero, TypeError for a handler
        that cannot be called.
        """
        self.defaults = self.defaults.changed(retry_policy, cache_policy, error_handler, timeout, memory)
        return self

    def add_sequence(self, nodes: Sequence[Callable[..., Any] | tuple[str, Callable[..., Any]]]) -> Self:
        """Add nodes that run one after the other, with the edges between them. Raises ValueError if there are none."""
        if len(nodes) < 1:
            raise ValueError("Sequence requires at least one node.")
        previous: str | None = None
        for item in nodes:
            name, action = item if isinstance(item, tuple) and len(item) == 2 else (name_of(item), item)
            if name in self.nodes:
                raise ValueError(
                    f"Node names must be unique: node with the name '{name}' already exists. If you need to use two "
                    "different runnables/callables with the same name (for example, using `lambda`), please provide "
                    "them as tuples (name, runnable/callable)."
                )
            self.add_node(name, action)
            if previous is not None:
                self.add_edge(previous, name)
            previous = name
        return self

    # -- edges --------------------------------------------------------------------------------------------------------

    def add_edge(self, start_key: str | list[str], end_key: str) -> Self:
        """Run `end_key` after `start_key`; after all of them have run, if it is a list. Raises ValueError."""
        self._note_compiled("edge")
        if isinstance(start_key, str):
            if start_key == END:
                raise ValueError("END cannot be a start node")
            if end_key == START:
                raise ValueError("START cannot be an end node")
            self.edges.add((start_key, end_key))
            return self
        for start in start_key:
            if start == END:
                raise ValueError("END cannot be a start node")
            if start not in self.nodes:
                raise ValueError(f"Need to add_node `{start}` first")
        if end_key == START:
            raise ValueError("START cannot be an end node")
        if end_key != END and end_key not in self.nodes:
            raise ValueError(f"Need to add_node `{end_key}` first")
        self.waiting_edges.add((tuple(start_key), end_key))
        return self

    def add_conditional_edges(
        self,
        source: str,
        path: Callable[..., Hashable | Sequence[Hashable]] | Any,
        path_map: PathMap = None,
    ) -> Self:
        """Ask `path` where to go after `source`: it returns a node's name, a Send, or a sequence of both.

        `path_map` maps its answers to nodes (or lists the nodes); absent one, a ``Literal`` return annotation serves.
        Raises ValueError if the source already has a conditional edge of that name.
        """
        self._note_compiled("edge")
        branch = BranchSpec(path, path_map)
        mine = self.branches.setdefault(source, {})
        if branch.name in mine:
            raise ValueError(f"Branch with name `{branch.name}` already exists for node `{source}`")
        mine[branch.name] = branch
        if branch.input_schema is not None:
            self._add_schema(branch.input_schema)
        return self

    def set_entry_point(self, key: str) -> Self:
        """As ``add_edge(START, key)``."""
        return self.add_edge(START, key)

    def set_conditional_entry_point(self, path: Callable[..., Any] | Any, path_map: PathMap = None) -> Self:
        """As ``add_conditional_edges(START, path, path_map)``."""
        return self.add_conditional_edges(START, path, path_map)

    def set_finish_point(self, key: str) -> Self:
        """As ``add_edge(key, END)``."""
        return self.add_edge(key, END)

    def _note_compiled(self, what: str) -> None:
        if self.compiled:
            import logging

            logging.getLogger(__name__).warning(
                "Adding a %s to a graph that has already been compiled. This will not be reflected in the compiled graph.",
                what,
            )

    # -- compiling ----------------------------------------------------------------------------------------------------

    def validate(self, interrupt: Sequence[str] | None = None) -> Self:
        """Check that edges join nodes that exist and one leaves START. Raises ValueError."""
        check_edges(self.nodes, self.edges, self.waiting_edges, self.branches, interrupt)
        return self

    def compile(
        self,
        checkpointer: Checkpointer = None,
        *,
        cache: Any | None = None,
        store: Any | None = None,
        interrupt_before: All | list[str] | None = None,
        interrupt_after: All | list[str] | None = None,
        debug: bool = False,
        name: str | None = None,
        transformers: Any | None = None,
        executor: Executor | None = None,
        pool: WorkerPool | None = None,
        strict: bool = False,
        fail_fast: str | None = None,
        on_error: str | None = None,
        types: Sequence[type] = (),
    ) -> CompiledStateGraph[StateT, ContextT, InputT, OutputT]:
        """Check the graph and return it in a form that runs. Later changes to the builder do not change it.

        `executor` is the default place of its nodes and `pool` the worker processes they use (the shared default pool
        if None). ``strict=True`` makes errors of what is otherwise one logged warning each: unknown keys and targets,
        unreachable nodes, dead ends. ``fail_fast="kill"`` ends running siblings of a failed task instead of waiting
        for them. ``on_error="record"`` keeps failed Sends, and failed inputs of `batch`, as `FailureRecord`s.
        `types` are classes whose objects checkpoints may hold besides those that the schemas and annotations lead to.

        Raises ValueError for a malformed graph, TypeError for a checkpointer that is none, StrictGraphError.
        """
        ensure_valid_checkpointer(checkpointer)
        if fail_fast not in (None, "kill"):
            raise ValueError(f"compile(fail_fast=) takes None or 'kill', got {fail_fast!r}")
        if on_error not in (None, "raise", "record"):
            raise ValueError(f"compile(on_error=) takes None, 'raise' or 'record', got {on_error!r}")
        handlers = {HANDLER_PREFIX + name for name, spec in self.nodes.items() if spec.error_handler is not None}
        known = {"*", DEFAULT_HANDLER, *handlers}
        self.validate([name for name in (*(interrupt_before or ()), *(interrupt_after or ())) if name not in known])
        lint(self.nodes, self.edges, self.waiting_edges, self.branches, strict=strict)
        check_executor(executor, "compile")
        check_pool(pool, "compile")
        plan = plan_of(self, name or "LangGraph", strict=strict, executor=executor)
        self.compiled = True
        return CompiledStateGraph(
            self,
            plan,
            executor=executor,
            pool=pool,
            store=store,
            cache=cache,
            fail_fast=fail_fast,
            on_error=on_error,
            types=tuple(types),
            debug=debug,
            checkpointer=checkpointer,
            interrupt_before=interrupt_before,
            interrupt_after=interrupt_after,
        )
