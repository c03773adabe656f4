"""`RunnableSequence`: Runnables one after the other, each given what the one before gave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from mpflow.runnables.function import for_child
from mpflow.runnables.runnable import Runnable, coerce_to_runnable

if TYPE_CHECKING:
    from mpflow.config import RunnableConfig


class RunnableSequence(Runnable[Any, Any]):
    """What ``a | b | c`` makes. Steps are Runnables or what can become one: functions, generators, dicts.

    Sequences among the steps are taken apart. Chunks flow through steps that can answer before their input is complete.
    """

    def __init__(self, *steps: Any, name: str | None = None) -> None:
        self.steps: list[Any] = []
        for step in steps:
            self.steps += step.steps if isinstance(step, RunnableSequence) else [coerce_to_runnable(step)]
        if not self.steps:
            raise ValueError("RunnableSequence needs at least one step")
        self.name = name

    @property
    def first(self) -> Any:
        """The first step."""
        return self.steps[0]

    @property
    def middle(self) -> list[Any]:
        """The steps between the first and the last."""
        return self.steps[1:-1]

    @property
    def last(self) -> Any:
        """The last step."""
        return self.steps[-1]

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Turn one input into one output; further arguments are the first step's."""
        config = for_child(config)
        value = self.steps[0].invoke(input, config, **kwargs)
        for step in self.steps[1:]:
            value = step.invoke(value, config)
        return value

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = for_child(config)
        value = await self.steps[0].ainvoke(input, config, **kwargs)
        for step in self.steps[1:]:
            value = await step.ainvoke(value, config)
        return value

    def transform(self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        config = for_child(config)
        chunks = self.steps[0].transform(input, config, **kwargs)
        for step in self.steps[1:]:
            chunks = step.transform(chunks, config)
        yield from chunks

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        config = for_child(config)
        chunks = self.steps[0].atransform(input, config, **kwargs)
        for step in self.steps[1:]:
            chunks = step.atransform(chunks, config)
        async for chunk in chunks:
            yield chunk

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.steps))
