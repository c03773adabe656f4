"""Which classes a graph's checkpoints may hold: those that its schemas, annotations and subgraphs lead to, and their subclasses.

A process that has the same graph finds the same classes, which is why they can be read back there. It must not import
anything, nor resolve a name that came from a checkpoint.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator
from enum import Enum
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from mpflow._wire.classes import kind_of
from mpflow.schema import callable_hints, hints_of_quietly

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan
    from mpflow.runnables.base import Callables

TASKS: weakref.WeakSet[Any] = weakref.WeakSet()
"""Every function that was made a task: its caller alone may know of it, so all of a process count."""

# Whose subclasses say nothing: everything, or every exception, is one.
_ROOTS = frozenset((object, type, BaseException, Exception, Enum, tuple, list, dict, set, str, int, float, bytes))
_ROOT_MODULES = (
    "builtins",
    "typing",
    "typing_extensions",
    "abc",
    "collections",
    "collections.abc",
    "enum",
    "pydantic.main",
)


def types_of(graph: Any, given: Iterable[type] = ()) -> frozenset[type]:
    """The classes that checkpoints of `graph` may hold, with those that were `given` to its compile."""
    found: set[type] = set()
    walked: set[int] = set()
    for root in (*given, *_roots_of(graph, set())):
        _walk(root, found, walked)
    if knows_messages(graph):
        found.update(_messages())
    for cls in tuple(found):
        _add_subclasses(cls, found)
    return frozenset(cls for cls in found if kind_of(cls) is not None)


def _roots_of(graph: Any, seen: set[int]) -> Iterator[Any]:
    if id(graph) in seen:
        return
    seen.add(id(graph))
    plan = graph._plan
    yield from graph._options.get("types") or ()
    builder = getattr(graph, "builder", None)
    if builder is not None:
        yield from builder.schemas
    for channel in plan.channels.values():
        yield channel.typ
    for node in plan.nodes.values():
        yield from _hints_of_node(node)
    for task in TASKS:
        yield from callable_hints(task.func).values()
    for _, inner in graph.get_subgraphs():
        yield from _roots_of(inner, seen)


def _hints_of_node(node: NodePlan) -> Iterator[Any]:
    yield from _hints_of(getattr(node.program, "callables", None))
    for branch in node.branches:
        yield from _hints_of(getattr(branch, "callables", None))
    if node.handler is not None:
        yield from _hints_of_node(node.handler)


def _hints_of(callables: Callables | None) -> Iterator[Any]:
    """What a callable's annotations name, and the classes that its code refers to by a global name."""
    if callables is None:
        return
    for function in (callables.func, callables.afunc, callables.source):
        if function is None:
            continue
        yield from callable_hints(function).values()
        code = getattr(function, "__code__", None)
        names = getattr(code, "co_names", ())
        scope = getattr(function, "__globals__", {})
        yield from (scope[name] for name in names if isinstance(scope.get(name), type))


def _walk(hint: Any, found: set[type], walked: set[int]) -> None:
    """Every class that an annotation leads to: through its arguments, and through the fields of classes."""
    if id(hint) in walked or isinstance(hint, (str, ModuleType)):
        return
    walked.add(id(hint))
    for argument in get_args(hint):
        _walk(argument, found, walked)
    if isinstance(hint, TypeVar):
        for bound in (*hint.__constraints__, hint.__bound__):
            _walk(bound, found, walked)
    if not isinstance(hint, type) or hint in _ROOTS:
        return
    if hint.__module__ not in _ROOT_MODULES:
        found.add(hint)
    for inner in (hints_of_quietly(hint) or {}).values():
        _walk(inner, found, walked)


def knows_messages(graph: Any) -> bool:
    """Whether langchain's messages are there, or this graph will bring them: then its checkpoints may hold them."""
    if "langchain_core.messages" in sys.modules:
        return True
    reducers = (getattr(channel, "operator", None) for channel in graph._plan.channels.values())
    return any(getattr(getattr(reducer, "func", reducer), "keeps_items", False) for reducer in reducers)


def _messages() -> Iterator[type]:
    """langchain's messages: lists of them are seldom annotated as such."""
    try:
        from langchain_core import messages
    except ImportError:  # the reducer will say so
        return
    for name in messages.__all__:  # each is loaded when it is asked for
        found = getattr(messages, name)
        if isinstance(found, type) and issubclass(found, messages.BaseMessage):
            yield found


def _add_subclasses(cls: type, found: set[type]) -> None:
    if cls in _ROOTS or cls.__module__ in _ROOT_MODULES:
        return
    subclasses: list[type] = type.__subclasses__(cls)
    for subclass in subclasses:
        if subclass not in found:
            found.add(subclass)
            _add_subclasses(subclass, found)
