"""A node written for LangGraph, run by us: in it LangGraph's own functions find our task, and its types become ours.

It travels to workers, where LangGraph is imported only if the node's code does so itself. It builds no graph.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import CodeType
from typing import Any

from mpflow._scope import NO_ANSWER, TaskScope, current
from mpflow.errors import GraphInterrupt, NodeError, ParentCommand
from mpflow.runnables.base import Callables, coerce
from mpflow.types import Command, Interrupt, Overwrite, Send

_THEIRS = "langgraph"


def bridged(node: Any, name: str | None = None) -> Any:
    """A node for our graphs in which LangGraph's `interrupt`, `get_config`, `get_store` and `get_stream_writer` work.

    What it returns or raises may be LangGraph's too: `Command`, `Send`, `Overwrite`. Graphs made by `from_langgraph` need
    none of this. Raises TypeError for what cannot be a node.
    """
    callables = bridged_callables(coerce(node, name))
    return BridgedNode(callables)


def bridged_callables(callables: Callables, convert: Callable[[Any], Any] | None = None) -> Callables:
    """The same for callables as a graph holds them; `convert` makes ours of what they return."""
    convert = convert or ours
    code = needs_theirs(callables.source)
    return Callables(
        None if callables.func is None else Bridge(callables.func, convert, code),
        None if callables.afunc is None else AsyncBridge(callables.afunc, convert, code),
        callables.inject,
        callables.name,
        callables.source,
    )


class BridgedNode:
    """An object that the builder takes for a node, sync, async or both."""

    def __init__(self, callables: Callables) -> None:
        self.callables = callables
        self.name = callables.name

    def get_name(self) -> str:
        return self.name

    def invoke(self, input: Any, config: Any = None) -> Any:
        if self.callables.func is None:
            raise TypeError(
                f'No synchronous function provided to "{self.name}": it is async. Run the graph with ainvoke'
            )
        return self.callables.func(input, **self.callables.arguments(current.get()))

    async def ainvoke(self, input: Any, config: Any = None) -> Any:
        if self.callables.afunc is None:
            import asyncio

            return await asyncio.to_thread(self.invoke, input, config)
        return await self.callables.afunc(input, **self.callables.arguments(current.get()))


class Bridge:
    """A function of a node. ``needs_theirs`` says that its code imports LangGraph by itself."""

    __slots__ = ("convert", "func", "needs_theirs")

    def __init__(self, func: Callable[..., Any], convert: Callable[[Any], Any], needs_theirs: bool) -> None:
        self.func = func
        self.convert = convert
        self.needs_theirs = needs_theirs

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.func, self.convert, self.needs_theirs)

    def __call__(self, *input: Any, **given: Any) -> Any:
        task = _enter(given, self.needs_theirs)
        try:
            return self.convert(self.func(*input, **given))
        except Exception as error:
            if (other := _our_error(error, task)) is error:
                raise
            raise other from error


class AsyncBridge(Bridge):
    """An async function of a node."""

    __slots__ = ()

    async def __call__(self, *input: Any, **given: Any) -> Any:
        task = _enter(given, self.needs_theirs)
        try:
            return self.convert(await self.func(*input, **given))
        except Exception as error:
            if (other := _our_error(error, task)) is error:
                raise
            raise other from error


def needs_theirs(source: Any) -> bool:
    """Whether the code of a function imports LangGraph when it runs."""
    while isinstance(source, partial):
        source = source.func
    code = getattr(getattr(source, "__func__", source), "__code__", None)
    return isinstance(code, CodeType) and any(name.partition(".")[0] == _THEIRS for name in code.co_names)


# -- what the node finds -----------------------------------------------------------------------------------------------


class _Scratchpad:
    """What LangGraph's `interrupt` asks about its task: how many questions it asked, and what it was answered."""

    def __init__(self, scope: TaskScope) -> None:
        self._scope = scope
        self._answer: Any = None
        self._count = 0
        self.step = scope.facts.step
        self.stop = scope.facts.stop
        self.resume: list[Any] = [] if scope.answers is None else scope.answers.given

    def interrupt_counter(self) -> int:
        """The number of this question. The answer that it may have by now is taken, for `get_null_resume` to give."""
        scope, answers = self._scope, self._scope.answers
        index = scope.asked
        scope.asked += 1
        if answers is not None and index >= len(answers.given):
            question = Interrupt.from_ns(None, scope.question_namespace(index)).id
            answer = answers.take(question, lambda: Interrupt.from_ns(None, scope.namespace).id)
            self._answer = None if answer is NO_ANSWER else answer
        return index

    def _next(self) -> int:
        self._count += 1
        return self._count - 1

    call_counter = subgraph_counter = _next

    def get_null_resume(self, consume: bool = False) -> Any:
        answer = self._answer
        if consume:
            self._answer = None
        return answer


def _enter(given: dict[str, Any], needs_theirs: bool) -> TaskScope | None:
    """Let LangGraph's functions, called in this context, find the running task; the task."""
    scope = current.get()
    if scope is None:
        return None
    if f"{_THEIRS}.types" not in sys.modules:
        if not needs_theirs:
            return scope
        import_module(f"{_THEIRS}.types")
    config = _their_config(scope)
    import_module("langchain_core.runnables.config").var_child_runnable_config.set(config)
    if "config" in given:
        given["config"] = config
    if isinstance(given.get("error"), NodeError):
        given["error"] = import_module(f"{_THEIRS}.errors").NodeError(given["error"].node, given["error"].error)
    return scope


def _their_config(scope: TaskScope) -> dict[str, Any]:
    runtime = scope.runtime
    theirs = import_module(f"{_THEIRS}.runtime").Runtime(
        context=runtime.context,
        store=runtime.store,
        stream_writer=runtime.stream_writer,
        heartbeat=runtime.heartbeat,
        previous=runtime.previous,
        execution_info=runtime.execution_info,
        control=runtime.control,
    )
    configurable = {
        **scope.config["configurable"],
        "__pregel_runtime": theirs,
        "__pregel_scratchpad": _Scratchpad(scope),
        "__pregel_send": _keep_nothing,
        "__pregel_call": partial(_start_task, scope),
    }
    return {"callbacks": None, **scope.config, "configurable": configurable}


def _start_task(scope: TaskScope, *given: Any, **options: Any) -> Any:
    from mpflow.interop.calling import start_task

    return start_task(scope, *given, **options)


def _keep_nothing(writes: Any) -> None:
    """Answers are kept where they were taken."""


# -- what the node gives back ------------------------------------------------------------------------------------------


def is_theirs(value: Any, name: str) -> bool:
    """Whether it is an instance of LangGraph's class of that name, which need not be loaded here."""
    cls = type(value)
    return cls.__name__ == name and cls.__module__.partition(".")[0] == _THEIRS


def ours(result: Any) -> Any:
    """What a node returned, with our types in the place of LangGraph's."""
    if result is None or type(result) in (str, int, bool, float):
        return result
    if type(result) is dict:
        if any(is_theirs(value, "Overwrite") for value in result.values()):
            return {key: ours(value) for key, value in result.items()}
        return result
    if is_theirs(result, "Overwrite"):
        return Overwrite(result.value)
    if is_theirs(result, "Send"):
        return Send(result.node, result.arg, timeout=getattr(result, "timeout", None))
    if is_theirs(result, "Command"):
        goto = result.goto
        return Command(
            graph=result.graph,
            update=ours(result.update),
            resume=result.resume,
            goto=[ours(target) for target in goto] if isinstance(goto, (list, tuple)) else ours(goto),
        )
    if isinstance(result, (list, tuple)) and any(
        is_theirs(item, "Command") or is_theirs(item, "Send") for item in result
    ):
        return [ours(item) for item in result]
    return result


def _our_error(error: Exception, scope: TaskScope | None) -> Exception:
    """What LangGraph raises to stop a task, as what we do; other errors as they are."""
    cls = type(error)
    if cls.__module__.partition(".")[0] != _THEIRS:
        return error
    if scope is not None and any(base.__name__ == "GraphInterrupt" for base in cls.__mro__):
        first = max(scope.asked - 1, 0)
        return GraphInterrupt(
            tuple(
                Interrupt.from_ns(
                    question.value,
                    scope.question_namespace(first + number),
                    response_schema=getattr(question, "response_schema", None),
                )
                for number, question in enumerate(error.args[0] if error.args else ())
            )
        )
    if cls.__name__ == "ParentCommand":
        return ParentCommand(ours(error.args[0]))
    return error
