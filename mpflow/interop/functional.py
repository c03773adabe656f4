"""LangGraph's entrypoints as ours: the function unchanged, its calls of LangGraph's tasks made within our run."""

from __future__ import annotations

from typing import Any

from mpflow._exec.calling import EntrypointProgram
from mpflow._names import PREVIOUS
from mpflow.constants import END, START
from mpflow.func import _Entrypoint, entrypoint
from mpflow.interop.bridge import bridged_callables, is_theirs, ours
from mpflow.interop.policies import caching, retries, timeout_policy
from mpflow.interop.taking import TakesTheirs
from mpflow.runnables.base import coerce


class TranslatedEntrypoint(TakesTheirs, _Entrypoint):
    """An entrypoint that takes LangGraph's `Command` and the like as input."""


def function_of(graph: Any) -> Any:
    """The function of what LangGraph's `entrypoint` made; None for any other graph."""
    nodes, channels = getattr(graph, "nodes", None), getattr(graph, "channels", None)
    if not isinstance(nodes, dict) or len(nodes) != 1 or not {START, END, PREVIOUS} <= set(channels or ()):
        return None
    bound = next(iter(nodes.values())).bound
    func = getattr(bound, "func", None)
    return getattr(bound, "afunc", None) if func is None else func


def kept_by(graph: Any) -> dict[str, Any]:
    """What an entrypoint of LangGraph's was made with that may be otherwise in ours."""
    return {"checkpointer": graph.checkpointer, "store": graph.store, "cache": graph.cache}


def translated(graph: Any, function: Any, options: dict[str, Any]) -> TranslatedEntrypoint:
    """What LangGraph's `entrypoint` made of `function`, with `options` of our `entrypoint` in the place of its own."""
    ((name, node),) = graph.nodes.items()
    made = entrypoint(
        context_schema=graph.context_schema,
        cache_policy=caching(graph.cache_policy),
        retry_policy=retries(graph.retry_policy),
        timeout=timeout_policy(node.timeout),
        **options,
    )(function)
    callables = bridged_callables(coerce(function, name), _output)
    for key in (START, END, PREVIOUS):
        if not isinstance(
            graph.channels[key].typ, str
        ):  # else LangGraph has read annotations that nobody has evaluated
            made._plan.channels[key].typ = graph.channels[key].typ
    (plan,) = made._plan.nodes.values()
    plan.program = EntrypointProgram(name, callables, (END, PREVIOUS))
    twin = object.__new__(TranslatedEntrypoint)
    twin.__dict__.update(made.__dict__)
    twin.step_timeout = graph.step_timeout
    twin.config = graph.config
    return twin


def _output(result: Any) -> Any:
    """What the function returned: LangGraph's ``entrypoint.final`` as ours."""
    if is_theirs(result, "final"):
        return entrypoint.final(value=result.value, save=result.save)
    return ours(result)
