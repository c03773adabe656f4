"""What may be called as a node, a branch or a task, and what it wants besides its input (GB-16).

It turns functions, methods, callable objects and anything with ``invoke`` into one `Callables` record; it runs nothing.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

_INJECTED = ("config", "writer", "store", "previous", "runtime", "error")
_HINTS = {"config": "RunnableConfig", "writer": "StreamWriter", "store": "BaseStore", "error": "NodeError"}


@runtime_checkable
class Invokable(Protocol):
    """Anything with ``invoke(input, config)``: compiled graphs, LangChain's runnables, one's own classes."""

    def invoke(self, input: Any, config: Any = None) -> Any: ...


class Callables:
    """A callable as the engine uses it: its sync and its async form, one of which may be missing.

    ``inject`` names the keyword arguments it is given besides its input, ``config_only`` is True for objects with
    ``invoke``, which take the config as their second argument. ``source`` is what the user gave.
    """

    __slots__ = ("afunc", "func", "inject", "name", "source")

    def __init__(
        self,
        func: Callable[..., Any] | None,
        afunc: Callable[..., Any] | None,
        inject: tuple[str, ...],
        name: str,
        source: Any,
    ) -> None:
        self.func = func
        self.afunc = afunc
        self.inject = inject
        self.name = name
        self.source = source

    def arguments(self, scope: Any) -> dict[str, Any]:
        """The keyword arguments to inject, from the running task's scope."""
        given: dict[str, Any] = {}
        for name in self.inject:
            if name == "config":
                given[name] = scope.config
            elif name == "writer":
                given[name] = scope.write_custom
            elif name == "store":
                given[name] = scope.store
            elif name == "previous":
                given[name] = scope.facts.previous
            elif name == "runtime":
                given[name] = scope.runtime
            else:
                given[name] = scope.extras
        return given


def coerce(source: Any, name: str | None = None) -> Callables:
    """Turn what the user gave into `Callables`. Raises TypeError for what cannot be called."""
    found = name or name_of(source)
    if isinstance(source, type):
        return Callables(source, None, wants(source), found, source)
    if is_invokable(source):
        afunc = getattr(source, "ainvoke", None)
        func = None if is_only_async(source) else source.invoke
        return Callables(func, afunc, invoke_wants(source.invoke), found, source)
    if not callable(source):
        raise TypeError(
            f"Expected a Runnable, callable or dict. Instead got an unsupported type: {type(source)}. "
            f"A node is a function, a callable object, a compiled graph or an object with .invoke"
        )
    if is_async(source):
        return Callables(None, source, wants(source), found, source)
    return Callables(source, None, wants(source), found, source)


def is_invokable(source: Any) -> bool:
    if isinstance(source, type) or not callable(getattr(source, "invoke", None)):
        return False
    # A callable that answers to any name, as a mock does, is called.
    return hasattr(type(source), "invoke") or not callable(source) or "invoke" in getattr(source, "__dict__", ())


def is_async(source: Any) -> bool:
    """Whether calling it gives an awaitable: coroutine functions, partials of them, objects with an async call."""
    while isinstance(source, partial):
        source = source.func
    if inspect.iscoroutinefunction(source):
        return True
    call = getattr(type(source), "__call__", None)
    return not inspect.isroutine(source) and inspect.iscoroutinefunction(call)


def awaits_natively(source: Any) -> bool:
    """Whether awaiting `source` keeps no thread busy: all of it is async, not only the outermost of its runnables."""
    if not is_invokable(source):
        return is_async(source)
    source = _unbound(source)
    steps = _steps_of(source)
    if steps:
        return all(map(awaits_natively, steps))
    if hasattr(source, "func") or hasattr(source, "afunc"):  # made of a function
        return getattr(source, "afunc", None) is not None
    base = next((kind for kind in type(source).__mro__ if kind.__name__ == "Runnable"), object)
    return getattr(type(source), "ainvoke", None) not in (None, getattr(base, "ainvoke", None))


def is_only_async(source: Any) -> bool:
    """Whether `invoke` of a runnable of functions cannot run all of them, since one can only be awaited."""
    if not is_invokable(source):
        return is_async(source)
    source = _unbound(source)
    steps = _steps_of(source)
    if steps:
        return any(map(is_only_async, steps))
    return getattr(source, "afunc", None) is not None and getattr(source, "func", None) is None


def _unbound(source: Any) -> Any:
    """The runnable that bindings were put around."""
    while (bound := getattr(source, "bound", None)) is not None and is_invokable(bound):
        source = bound
    return source


def _steps_of(source: Any) -> list[Any]:
    for name in ("steps", "steps__", "mapper"):  # of a sequence, of langchain's parallels, of an assignment
        steps = getattr(source, name, None)
        if isinstance(steps, (list, tuple)):
            return list(steps)
        if isinstance(steps, dict):
            return list(steps.values())
        if steps is not None and is_invokable(steps):
            return [steps]
    return []


def name_of(source: Any) -> str:
    """The node name of a callable: its own ``get_name``, else ``__name__``, else the name of its class (GB-2)."""
    get_name = getattr(source, "get_name", None)
    if callable(get_name) and not isinstance(source, type):
        return str(get_name())
    return str(getattr(source, "__name__", type(source).__name__))


def signature_of(source: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(source)
    except (TypeError, ValueError):  # builtins may have none
        return None


def wants(source: Any) -> tuple[str, ...]:
    """The names of what is injected into a call of `source`, by parameter name and hint."""
    signature = signature_of(source)
    if signature is None:
        return ()
    found = []
    parameters = list(signature.parameters.values())
    for position, parameter in enumerate(parameters):
        if parameter.name not in _INJECTED or parameter.kind in (
            parameter.POSITIONAL_ONLY,
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        if position == 0 and parameter.kind is not parameter.KEYWORD_ONLY:
            continue  # the first is the input, whatever its name
        if _hint_fits(parameter.name, parameter.annotation):
            found.append(parameter.name)
    return tuple(found)


def injected(source: Any) -> dict[str, int]:
    """The same for a callable that has no input but its arguments: with each name, its position among them."""
    signature = signature_of(source)
    if signature is None:
        return {}
    found = {}
    for position, parameter in enumerate(signature.parameters.values()):
        if parameter.kind is parameter.KEYWORD_ONLY:
            position = sys.maxsize
        elif parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            continue
        if (
            parameter.name in _INJECTED
            and parameter.name != "error"
            and _hint_fits(parameter.name, parameter.annotation)
        ):
            found[parameter.name] = position
    return found


def invoke_wants(invoke: Any) -> tuple[str, ...]:
    """Whether an ``invoke`` takes a config. One whose signature cannot be read is taken to follow the protocol."""
    signature = signature_of(invoke)
    if signature is None:
        return ("config",)
    parameters = signature.parameters
    if "config" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return ("config",)
    return ()


def _hint_fits(name: str, hint: Any) -> bool:
    if hint is inspect.Parameter.empty or name in ("previous", "runtime"):
        return True
    wanted = _HINTS[name]
    if isinstance(hint, str):
        return wanted in hint
    if hint is Any:
        return False
    return (
        wanted in getattr(hint, "__name__", "") or wanted in str(hint) or (name == "writer" and "Callable" in str(hint))
    )
