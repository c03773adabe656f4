"""Composite runnables: those that hand their branches to the engine, as the nodes of a small graph without a state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core.plan import NodePlan, Plan
from mpflow._engine.setting import Asked, Setting
from mpflow._exec.branching import BranchProgram, StreamingProgram
from mpflow._exec.tracebacks import leave_us_out
from mpflow.channels.ephemeral_value import EphemeralValue
from mpflow.channels.last_value import LastValue
from mpflow.runnables.base import Callables, coerce
from mpflow.runnables.function import RunnableLambda, for_child
from mpflow.runnables.runnable import Runnable

if TYPE_CHECKING:
    from mpflow._engine.run import Run
    from mpflow._policies import RetryPolicy
    from mpflow.config import RunnableConfig

INVOKE, AINVOKE, STREAM, ASTREAM = "invoke", "ainvoke", "transform", "atransform"
"""The ways to run a composite, by the method of a branch that each calls. Every way has a plan of its own."""
_PIECES = Asked(stream_mode="custom")


class Composite(Runnable[Any, Any]):
    """A runnable whose work is done by the engine. ``executor`` and ``pool`` are those of a compiled graph."""

    _helps = False
    """Whether the thread that invokes it performs what no other has begun, rather than wait."""

    def __init__(self, executor: Any, pool: Any) -> None:
        self._options = {"executor": executor, "pool": pool}
        self._settings: dict[str, Setting] = {}

    def _setting_for(self, way: str) -> Setting:
        """The plan of one way to run this, and what goes with it; made once."""
        setting = self._settings.get(way)
        if setting is None:
            helps = self._helps and way == INVOKE
            setting = Setting(self._make_plan(way), self._options, checkpointer=False, is_part=True, helps=helps)
            self._settings[way] = setting
        return setting

    def _make_plan(self, way: str) -> Plan:
        raise NotImplementedError

    def _run(self, way: str, config: RunnableConfig | None, asked: Asked | None = None) -> Run:
        from mpflow._engine.run import Run  # loaded by those who run what they build

        setting = self._setting_for(way)
        return Run(setting, for_child(config), setting.only_result if asked is None else asked)

    def _performed(self, input: Any, config: RunnableConfig | None) -> Any:
        """Run on the engine, from the calling thread; the plan's output."""
        try:
            from mpflow._engine.drive import drive

            run = self._run(INVOKE, config)
            for _ in drive(run, (input,)):
                pass
            return run.result
        except KeyboardInterrupt as interrupt:
            leave_us_out(interrupt)
            raise

    async def _aperformed(self, input: Any, config: RunnableConfig | None) -> Any:
        import asyncio

        try:
            from mpflow._engine.adrive import adrive

            run = self._run(AINVOKE, config)
            async for _ in adrive(run, (input,)):
                pass
            return run.result
        except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
            leave_us_out(interrupt)
            raise

    def _pieces(self, input: Any, config: RunnableConfig | None) -> Iterator[tuple[str, Any]]:
        """Run on the engine, yielding what each branch tells, with its key."""
        try:
            from mpflow._engine.drive import drive

            yield from drive(self._run(STREAM, config, _PIECES), input)
        except KeyboardInterrupt as interrupt:
            leave_us_out(interrupt)
            raise

    async def _apieces(self, input: Any, config: RunnableConfig | None) -> AsyncIterator[tuple[str, Any]]:
        import asyncio
        from contextlib import aclosing

        try:
            from mpflow._engine.adrive import adrive

            pieces: Any = adrive(self._run(ASTREAM, config, _PIECES), input)
            async with aclosing(pieces) as told:
                async for piece in told:
                    yield piece
        except (KeyboardInterrupt, asyncio.CancelledError) as interrupt:
            leave_us_out(interrupt)
            raise

    def __getstate__(self) -> dict[str, Any]:
        # It travels without what only this process has: plans, its pool and the user's executors.
        executor = self._options["executor"]
        kept = executor if isinstance(executor, (str, type(None))) else None
        return {**self.__dict__, "_settings": {}, "_options": {"executor": kept, "pool": None}}


def callables_of(runnable: Any, way: str) -> Callables:
    """How a branch is called. Of functions the engine must know which are async: the others have threads of their own."""
    name = runnable.get_name()
    if way in (INVOKE, AINVOKE):
        found = coerce(runnable, name)
        if isinstance(runnable, RunnableLambda):
            if runnable.callables.func is None:
                found.func = None
            elif runnable.callables.afunc is None:
                found.afunc = None
    else:
        found = Callables(runnable.transform, runnable.atransform, ("config",), name, runnable)
    if way in (INVOKE, STREAM):
        found.afunc = None
    return found


def plan_of(
    name: str,
    branches: Mapping[str, Any],
    way: str,
    place_of: Callable[[str], Any],
    *,
    retry: Sequence[RetryPolicy] = (),
) -> Plan:
    """A plan in which all branches run side by side on the same input, each writing its own key."""
    entry = "__input__"
    while entry in branches:
        entry += "_"
    program = BranchProgram if way in (INVOKE, AINVOKE) else StreamingProgram
    nodes = {
        key: NodePlan(
            key, program(key, callables_of(branch, way), key), (entry,), entry, executor=place_of(key), retry=retry
        )
        for key, branch in branches.items()
    }
    channels: dict[str, Any] = {entry: EphemeralValue(Any), **{key: LastValue(Any) for key in branches}}
    for key, channel in channels.items():
        channel.key = key
    return Plan(name, nodes, channels, input=entry, output=tuple(branches), stream=tuple(branches))
