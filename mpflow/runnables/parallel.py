"""`RunnableParallel`: runnables side by side on the same input, on the engine's threads, event loop or worker processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mpflow._core.plan import Plan
from mpflow._exec.place import check_executor
from mpflow.runnables.chunks import AddableDict, AsyncSharedChunks, SharedChunks, awhole, whole
from mpflow.runnables.composite import AINVOKE, INVOKE, Composite, plan_of
from mpflow.runnables.runnable import coerce_to_runnable

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan
    from mpflow._exec.place import Executor
    from mpflow._exec.process import WorkerPool
    from mpflow.config import RunnableConfig

_HERE = ("auto", "thread", "inline")


class RunnableParallel(Composite):
    """A dict of outputs, one for each branch, all given the same input at the same time.

    Branches come as a mapping, by keyword, or both: Runnables, functions, generators or dicts of them. ``executor`` says
    where they run, as for a node of a graph: "thread" (what "auto" comes to, and the event loop for async functions),
    "process", "inline" or a ``concurrent.futures.Executor``; or a dict that says so for some of the branches. ``pool`` is
    a `WorkerPool` to use in place of the default one. Branches named "executor" or "pool" are given in a mapping.

    The first branch to fail decides the error, which says in a note which branch it was; branches that run by then are
    waited for. The calling thread performs branches too, one and whatever no other thread has begun by then. `stream` yields ``{branch: chunk}`` as chunks come. ``max_concurrency`` in the config bounds the branches.
    """

    _helps = True

    def __init__(
        self,
        steps: Mapping[str, Any] | None = None,
        /,
        *,
        executor: Executor | Mapping[str, Executor] | None = None,
        pool: WorkerPool | None = None,
        **kwargs: Any,
    ) -> None:
        given = {**(steps or {}), **kwargs}
        for key in given:
            if not isinstance(key, str):
                raise TypeError(f"RunnableParallel: a branch is named by a string, got {key!r}")
        self.steps: dict[str, Any] = {}
        for key, step in given.items():
            try:
                self.steps[key] = coerce_to_runnable(step)
            except TypeError as error:
                raise TypeError(f"RunnableParallel, branch '{key}': {error}") from None
        self.name: str | None = None
        self._executors = _executors_of(executor, self.steps)
        super().__init__(None, pool)

    @property
    def steps__(self) -> dict[str, Any]:
        """The branches, under the name that langchain-core has for them."""
        return self.steps

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        return super().get_name(suffix, name=name or self.name or f"RunnableParallel<{','.join(self.steps)}>")

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> dict[str, Any]:
        """Call all branches on `input`. Blocks until the last is done."""
        return dict(self._performed(input, config)) if self.steps else {}

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> dict[str, Any]:
        return dict(await self._aperformed(input, config)) if self.steps else {}

    def transform(self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        given: Any = SharedChunks(input, self.steps) if self._stays else (whole(input),)
        for key, chunk in self._pieces(given, config) if self.steps else ():
            yield AddableDict({key: chunk})

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        given: Any = AsyncSharedChunks(input, self.steps) if self._stays else (await awhole(input),)
        if self.steps:
            async for key, chunk in self._apieces(given, config):
                yield AddableDict({key: chunk})

    @property
    def _stays(self) -> bool:
        """Whether all branches run in this process, where they can share an input that is still coming."""
        return all(place is None or place in _HERE for place in self._executors.values())

    def _make_plan(self, way: str) -> Plan:
        plan = plan_of(self.get_name(), self.steps, way, self._executors.get)
        if way == INVOKE:
            _use_the_calling_thread(
                [node for node in plan.nodes.values() if self._goes_anywhere(node.name)], self.steps
            )
        elif way == AINVOKE:
            for key, step in self.steps.items():
                if self._goes_anywhere(key) and getattr(step, "is_quick", False):
                    plan.nodes[key].executor = "inline"
        return plan

    def _goes_anywhere(self, key: str) -> bool:
        return self._executors.get(key) in (None, "auto", "thread")

    def __getstate__(self) -> dict[str, Any]:
        kept = {key: place for key, place in self._executors.items() if isinstance(place, str)}
        return {**super().__getstate__(), "_executors": kept}

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{key}: {step!r}" for key, step in self.steps.items()) + "}"


RunnableMap = RunnableParallel


def _executors_of(executor: Any, steps: Mapping[str, Any]) -> dict[str, Any]:
    """The place of each branch, as far as it was said. Raises ValueError for what is none."""
    if not isinstance(executor, Mapping):
        place = check_executor(executor, "RunnableParallel")
        return {} if place is None else dict.fromkeys(steps, place)
    for key in executor:
        if key not in steps:
            raise ValueError(
                f"RunnableParallel: executor names the branch {key!r}, which there is not: {', '.join(steps)}"
            )
    return {key: check_executor(place, f"RunnableParallel, branch '{key}'") for key, place in executor.items()}


def _use_the_calling_thread(nodes: list[NodePlan], steps: Mapping[str, Any]) -> None:
    """Leave one branch that may take long to the thread that would wait for it, and to it those that take no time."""
    slow = [node for node in nodes if not getattr(steps[node.name], "is_quick", False)]
    last = slow[-1:]
    for node in nodes:
        if node not in slow or node in last:
            node.executor = "inline"


__all__ = ("RunnableMap", "RunnableParallel")
