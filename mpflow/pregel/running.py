"""Runs of a compiled graph, one by one: each method makes a `Run` and hands it to a driver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from mpflow._engine.setting import Asked, Setting
from mpflow._exec.tracebacks import leave_us_out
from mpflow._scope import SCOPE_KEY
from mpflow.pregel.described import DescribedGraph
from mpflow.runnables.runnable import Runnable

if TYPE_CHECKING:
    from mpflow._engine.run import Run
    from mpflow.config import RunnableConfig
    from mpflow.runtime import RunControl
    from mpflow.types import All, Durability, StreamMode


class RunningGraph(DescribedGraph, Runnable[Any, Any]):
    """What a compiled graph does with one input."""

    stream_mode: Any = "values"
    debug: bool = False
    store: Any
    cache: Any
    step_timeout: float | None
    _options: Mapping[str, Any]
    _typed_state: Any = None
    _typed_output: Any = None
    _setting: Setting | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self.__dict__.pop("_setting", None)  # the next run finds the graph as it is then

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_setting"}

    def _run(self, config: Any, asked: Asked) -> Run:
        from mpflow._engine.run import Run  # loaded by those who run what they build

        return Run(self._known_setting(), config, asked, self)

    def _known_setting(self) -> Setting:
        """What all runs of the graph as it is now have in common."""
        setting = self._setting
        if setting is None:
            setting = Setting(
                self._plan,
                self._options,
                defaults=self.config,
                checkpointer=self.checkpointer,
                store=self.store,
                cache=self.cache,
                step_timeout_s=self.step_timeout,
            )
            self.__dict__["_setting"] = setting
        return setting

    def _asked(
        self,
        context: Any,
        stream_mode: Any,
        print_mode: StreamMode | Sequence[StreamMode],
        output_keys: str | Sequence[str] | None,
        interrupt_before: All | Sequence[str] | None,
        interrupt_after: All | Sequence[str] | None,
        durability: Durability | None,
        control: Any,
        version: str,
        *,
        subgraphs: bool = False,
        debug: bool | None = None,
        checkpoint_during: bool | None = None,
    ) -> Asked:
        if checkpoint_during is not None:
            durability = _durability_of(checkpoint_during, durability)
        if debug or (debug is None and self.debug):
            print_mode = ("updates", "values")
        before = interrupt_before or self.interrupt_before_nodes
        after = interrupt_after or self.interrupt_after_nodes
        if (
            output_keys is self._plan.output
            and not (stream_mode or print_mode or before or after or durability or subgraphs)
            and context is None
            and control is None
            and version == "v1"
        ):
            return self._known_setting().only_result
        return Asked(
            None if context is None else self._context(context),
            stream_mode,
            print_mode,
            self._output(output_keys),
            subgraphs,
            version,
            control,
            durability,
            names_of(before),
            names_of(after),
        )

    def _output(self, keys: str | Sequence[str] | None) -> Any:
        if keys is None or keys is self._plan.output:
            return keys
        for key in (keys,) if isinstance(keys, str) else keys:
            if key not in self._plan.channels:
                raise ValueError(f"output_keys: graph '{self._plan.name}' has no channel {key!r}")
        return keys if isinstance(keys, str) else tuple(keys)

    def invoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        stream_mode: StreamMode | Sequence[StreamMode] = "values",
        print_mode: StreamMode | Sequence[StreamMode] = (),
        output_keys: str | Sequence[str] | None = None,
        interrupt_before: All | Sequence[str] | None = None,
        interrupt_after: All | Sequence[str] | None = None,
        durability: Durability | None = None,
        control: RunControl | None = None,
        version: Literal["v1", "v2"] = "v1",
        **kwargs: Any,
    ) -> Any:
        """Run the graph on `input` and return its output; with another `stream_mode`, the list of its chunks.

        Blocks until the run is over. Raises what a node raised, unwrapped, and the errors of `mpflow.errors`.
        """
        try:
            from mpflow._engine.drive import drive

            asked = self._asked(
                context,
                None if stream_mode == "values" else self._mode(config, stream_mode),
                print_mode,
                self._plan.output if output_keys is None else output_keys,
                interrupt_before,
                interrupt_after,
                durability,
                control,
                version,
                **kwargs,
            )
            run = self._run(config, asked)
            chunks = list(_told(run, drive(run, input), input))
            return self._result(run, version) if stream_mode == "values" else chunks
        except KeyboardInterrupt as interrupt:
            leave_us_out(interrupt)
            raise

    async def ainvoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        stream_mode: StreamMode | Sequence[StreamMode] = "values",
        print_mode: StreamMode | Sequence[StreamMode] = (),
        output_keys: str | Sequence[str] | None = None,
        interrupt_before: All | Sequence[str] | None = None,
        interrupt_after: All | Sequence[str] | None = None,
        durability: Durability | None = None,
        control: RunControl | None = None,
        version: Literal["v1", "v2"] = "v1",
        **kwargs: Any,
    ) -> Any:
        """As `invoke`, awaited."""
        import asyncio

        try:
            from mpflow._engine.adrive import adrive

            asked = self._asked(
                context,
                None if stream_mode == "values" else self._mode(config, stream_mode),
                print_mode,
                self._plan.output if output_keys is None else output_keys,
                interrupt_before,
                interrupt_after,
                durability,
                control,
                version,
                **kwargs,
            )
            run = self._run(config, asked)
            chunks = [chunk async for chunk in _atold(run, adrive(run, input), input)]
            return self._result(run, version) if stream_mode == "values" else chunks
        except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
            leave_us_out(interrupt)
            raise

    def _result(self, run: Run, version: str) -> Any:
        if version == "v1":
            return run.result
        from mpflow._names import INTERRUPT
        from mpflow.types import GraphOutput

        value = run.result
        interrupts: tuple[Any, ...] = ()
        if isinstance(value, dict) and INTERRUPT in value:
            value = dict(value)
            interrupts = tuple(value.pop(INTERRUPT))
        make = self._typed_output
        if make is not None and isinstance(value, dict):
            value = make(value)
        return GraphOutput(value=value, interrupts=interrupts)

    def stream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        stream_mode: StreamMode | Sequence[StreamMode] | None = None,
        print_mode: StreamMode | Sequence[StreamMode] = (),
        output_keys: str | Sequence[str] | None = None,
        interrupt_before: All | Sequence[str] | None = None,
        interrupt_after: All | Sequence[str] | None = None,
        durability: Durability | None = None,
        control: RunControl | None = None,
        subgraphs: bool = False,
        debug: bool | None = None,
        version: Literal["v1", "v2"] = "v1",
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Run the graph, yielding what happens as it happens, in the shapes of `stream_mode`.

        The consumer drives the run: the next superstep starts when more is asked for. Closing the iterator early
        cancels what runs.
        """
        try:
            from mpflow._engine.drive import drive

            asked = self._asked(
                context,
                self._mode(config, stream_mode),
                print_mode,
                output_keys,
                interrupt_before,
                interrupt_after,
                durability,
                control,
                version,
                subgraphs=subgraphs,
                debug=debug,
                **kwargs,
            )
            run = self._run(config, asked)
            yield from _told(run, drive(run, input), input)
        except KeyboardInterrupt as interrupt:
            leave_us_out(interrupt)
            raise

    async def astream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        stream_mode: StreamMode | Sequence[StreamMode] | None = None,
        print_mode: StreamMode | Sequence[StreamMode] = (),
        output_keys: str | Sequence[str] | None = None,
        interrupt_before: All | Sequence[str] | None = None,
        interrupt_after: All | Sequence[str] | None = None,
        durability: Durability | None = None,
        control: RunControl | None = None,
        subgraphs: bool = False,
        debug: bool | None = None,
        version: Literal["v1", "v2"] = "v1",
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """As `stream`, for ``async for``."""
        import asyncio
        from contextlib import aclosing

        try:
            from mpflow._engine.adrive import adrive

            asked = self._asked(
                context,
                self._mode(config, stream_mode),
                print_mode,
                output_keys,
                interrupt_before,
                interrupt_after,
                durability,
                control,
                version,
                subgraphs=subgraphs,
                debug=debug,
                **kwargs,
            )
            run = self._run(config, asked)
            async with aclosing(cast("Any", _atold(run, adrive(run, input), input))) as chunks:
                async for chunk in chunks:
                    yield chunk
        except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
            leave_us_out(interrupt)
            raise

    def _mode(self, config: Any, asked: Any) -> Any:
        """The modes asked for; whole values by default for a graph that a node hands its config on to."""
        if asked is not None:
            return asked
        return "values" if config and SCOPE_KEY in (config.get("configurable") or ()) else self.stream_mode


def _told(run: Run, chunks: Iterator[Any], input: Any) -> Iterator[Any]:
    """The chunks of a run, of which its callbacks are told, if it has any."""
    teller = run.performer.teller
    return chunks if teller is None else teller.told(chunks, input)


def _atold(run: Run, chunks: AsyncIterator[Any], input: Any) -> AsyncIterator[Any]:
    teller = run.performer.teller
    return chunks if teller is None else teller.atold(chunks, input)


def _durability_of(checkpoint_during: bool, durability: Durability | None) -> Durability:
    """What LangGraph's parameter of old comes to. Raises ValueError beside the one that replaced it."""
    from warnings import warn

    from mpflow.warnings import LangGraphDeprecatedSinceV10

    if durability is not None:
        raise ValueError("checkpoint_during and durability say the same: pass durability alone")
    text = "`checkpoint_during` is deprecated: pass durability='async' for True, durability='exit' for False"
    warn(LangGraphDeprecatedSinceV10(text), stacklevel=4)
    return "async" if checkpoint_during else "exit"


def names_of(asked: All | Sequence[str] | None) -> frozenset[str]:
    """The names of breakpoints: given as a sequence, or "*" for all."""
    if not asked:
        return frozenset()
    return frozenset((asked,) if isinstance(asked, str) else asked)
