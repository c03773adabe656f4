"""Things that are invoked, and how they are put together: names are loaded when they are first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow.config import RunnableConfig
    from mpflow.runnables.binding import RunnableBinding, RunnableEach, RunnableRetry, RunnableWithFallbacks
    from mpflow.runnables.chunks import AddableDict
    from mpflow.runnables.function import RunnableGenerator, RunnableLambda
    from mpflow.runnables.parallel import RunnableMap, RunnableParallel
    from mpflow.runnables.passthrough import RunnableAssign, RunnablePassthrough, RunnablePick
    from mpflow.runnables.runnable import Runnable, coerce_to_runnable
    from mpflow.runnables.sequence import RunnableSequence

__all__ = (
    "AddableDict",
    "Runnable",
    "RunnableAssign",
    "RunnableBinding",
    "RunnableConfig",
    "RunnableEach",
    "RunnableGenerator",
    "RunnableLambda",
    "RunnableMap",
    "RunnableParallel",
    "RunnablePassthrough",
    "RunnablePick",
    "RunnableRetry",
    "RunnableSequence",
    "RunnableWithFallbacks",
    "coerce_to_runnable",
)

_HOMES = {
    "AddableDict": "mpflow.runnables.chunks",
    "Runnable": "mpflow.runnables.runnable",
    "RunnableAssign": "mpflow.runnables.passthrough",
    "RunnableConfig": "mpflow.config",
    "RunnableBinding": "mpflow.runnables.binding",
    "RunnableEach": "mpflow.runnables.binding",
    "RunnableGenerator": "mpflow.runnables.function",
    "RunnableLambda": "mpflow.runnables.function",
    "RunnableMap": "mpflow.runnables.parallel",
    "RunnableParallel": "mpflow.runnables.parallel",
    "RunnablePassthrough": "mpflow.runnables.passthrough",
    "RunnablePick": "mpflow.runnables.passthrough",
    "RunnableRetry": "mpflow.runnables.binding",
    "RunnableSequence": "mpflow.runnables.sequence",
    "RunnableWithFallbacks": "mpflow.runnables.binding",
    "coerce_to_runnable": "mpflow.runnables.runnable",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mpflow.runnables' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
