"""What happens in a run, as langchain's events: a Runnable of ours behind one of langchain-core's, which tells of it.

It knows langchain-core, which is imported when events are asked for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow.config import RunnableConfig
    from mpflow.runnables.runnable import Runnable


async def events_of(
    runnable: Runnable[Any, Any], input: Any, config: RunnableConfig | None, version: str, options: dict[str, Any]
) -> AsyncGenerator[Any, None]:
    """The events of a run that streams. Raises ImportError without langchain-core."""
    async with aclosing(
        _stand_in_class()(runnable).astream_events(input, config, version=version, **options)
    ) as events:
        async for event in events:
            yield event


@lru_cache(maxsize=1)
def _stand_in_class() -> Any:
    try:
        from langchain_core.runnables import Runnable as TheirRunnable
    except ImportError as missing:
        raise ImportError(
            'astream_events() needs langchain-core, which is not installed: pip install "mpflow-engine[langchain]"'
        ) from missing

    class StandIn(TheirRunnable):  # type: ignore[type-arg,misc,unused-ignore]
        """A runnable of ours, for what langchain does with its own alone."""

        def __init__(self, runnable: Runnable[Any, Any]) -> None:
            self._runnable = runnable
            self.name = runnable.get_name()

        def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            return self._runnable.invoke(input, config, **kwargs)

        async def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
            async with aclosing(self._runnable.astream(input, config, **kwargs)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    yield chunk

    return StandIn
