"""mpflow runs LangGraph-style graphs on every core of the machine.

Names are loaded when they are first asked for: importing mpflow costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow._engine.profiles import profile
    from mpflow._exec.process import WorkerPool
    from mpflow._wire.variables import carry
    from mpflow.comparison.measure import compare
    from mpflow.constants import END, START
    from mpflow.graph.state import StateGraph
    from mpflow.observe.trace import Trace
    from mpflow.types import Command, FailureRecord, Send

__version__ = "0.1.0"

__all__ = (
    "END",
    "START",
    "Command",
    "FailureRecord",
    "Send",
    "StateGraph",
    "Trace",
    "WorkerPool",
    "__version__",
    "from_langgraph",
    "carry",
    "compare",
    "profile",
)

_HOMES = {
    "END": "mpflow.constants",
    "START": "mpflow.constants",
    "Command": "mpflow.types",
    "FailureRecord": "mpflow.types",
    "Send": "mpflow.types",
    "profile": "mpflow._engine.profiles",
    "StateGraph": "mpflow.graph.state",
    "from_langgraph": "mpflow.interop.langgraph",
    "Trace": "mpflow.observe.trace",
    "WorkerPool": "mpflow._exec.process",
    "carry": "mpflow._wire.variables",
    "compare": "mpflow.comparison.measure",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mpflow' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
