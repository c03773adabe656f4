"""The functional API: `task` and `entrypoint`, graphs written as a function that calls others (FN-1 to FN-9).

It makes plans and facades of functions; how a call runs is the engine's.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, get_args, get_origin, overload

from mpflow._core.plan import NodePlan, Plan
from mpflow._engine.caching import namespace_of
from mpflow._engine.futures import call
from mpflow._exec.calling import CallProgram, EntrypointProgram, Final, TaskCallable
from mpflow._exec.patience import check_timeout
from mpflow._exec.place import check_executor, check_pool
from mpflow._names import PREVIOUS, PUSH
from mpflow._policies import RetryPolicy, TimeoutPolicy
from mpflow._scope import current_scope
from mpflow.channels.ephemeral_value import EphemeralValue
from mpflow.channels.last_value import LastValue
from mpflow.constants import END, START
from mpflow.pregel.compiled import CompiledGraph
from mpflow.pregel.kept import TASKS
from mpflow.pregel.main import Pregel
from mpflow.runnables.base import coerce, name_of
from mpflow.schema import callable_hints
from mpflow.types import ensure_valid_checkpointer
from mpflow.warnings import takes_former_names

if TYPE_CHECKING:
    from datetime import timedelta

    from mpflow._exec.place import Executor
    from mpflow._exec.process import WorkerPool
    from mpflow.types import CachePolicy, Checkpointer

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")

__all__ = ("entrypoint", "task")

_Retry = RetryPolicy | Sequence[RetryPolicy] | None


class _Task(TaskCallable, Generic[P, T]):
    """A function whose calls become tasks of the step that they are made in."""

    def __init__(
        self,
        function: Callable[P, Any],
        name: str | None,
        retry: Sequence[RetryPolicy],
        cache_policy: CachePolicy[Any] | None,
        timeout: TimeoutPolicy | None,
        executor: Any,
    ) -> None:
        update_wrapper(self, function)
        self.func = function
        TASKS.add(self)
        TaskCallable.exists = True
        self.name = name or _called(function)
        self.__name__ = self.name
        self.retry_policy = tuple(retry)
        self.cache_policy = cache_policy
        self.timeout = timeout
        self._plan = NodePlan(
            self.name,
            CallProgram(self.name, coerce(function, self.name)),
            (PUSH,),
            (),
            retry=retry,
            executor=executor,
            timeout=timeout,
            cache=cache_policy,
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Start the task; a future of its result, which can be awaited in async code. Raises RuntimeError outside a run."""
        return call(current_scope(), self._plan, (args, kwargs))

    def clear_cache(self, cache: Any) -> None:
        """Forget what `cache` knows of this task's results (CA-4)."""
        cache.clear([namespace_of(self.func, self.name)])

    async def aclear_cache(self, cache: Any) -> None:
        """As `clear_cache`, awaited."""
        await cache.aclear([namespace_of(self.func, self.name)])

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else partial(self, instance)

    def __reduce_ex__(self, protocol: Any) -> Any:
        from mpflow._wire.pickling import is_shared

        function = self.func
        named = getattr(inspect.getmodule(function), getattr(function, "__qualname__", ""), None)
        if named is self and is_shared(function.__module__):
            return function.__qualname__  # found by its name, like any function
        return _Task, (
            _Bare(function),
            self.name,
            self.retry_policy,
            self.cache_policy,
            self.timeout,
            self._plan.executor,
        )


class _Bare:
    """A function whose name now means its task: it travels as what it is, and cannot be looked up."""

    def __new__(cls, function: Any) -> Any:
        return function


@overload
def task(
    func: None = None,
    /,
    *,
    name: str | None = None,
    retry_policy: _Retry = None,
    cache_policy: CachePolicy[Any] | None = None,
    timeout: float | timedelta | TimeoutPolicy | None = None,
    executor: Executor | None = None,
) -> Callable[[Callable[P, Awaitable[T]] | Callable[P, T]], _Task[P, T]]: ...


@overload
def task(func: Callable[P, Awaitable[T]] | Callable[P, T], /) -> _Task[P, T]: ...


@takes_former_names(retry="retry_policy")
def task(
    func: Any = None,
    /,
    *,
    name: str | None = None,
    retry_policy: _Retry = None,
    cache_policy: CachePolicy[Any] | None = None,
    timeout: float | timedelta | TimeoutPolicy | None = None,
    executor: Executor | None = None,
) -> Any:
    """Make a function a task: calling it within a run starts it at once and returns a future of its result (FN-1).

    Tasks run side by side, each retried, timed and placed by itself: `executor` says where, as for a node. With a
    checkpointer a finished task's result is kept: when its caller is tried again or resumed, the same call gives the
    same result without running (FN-4), so the order of calls must not change.

    Raises ValueError for options that cannot be.
    """
    if func is None:
        return lambda function: task_of(function, name, retry_policy, cache_policy, timeout, executor)
    return task_of(func, name, retry_policy, cache_policy, timeout, executor)


def task_of(function: Any, name: Any, retry_policy: Any, cache_policy: Any, timeout: Any, executor: Any) -> Any:
    policy = TimeoutPolicy.coerce(timeout)
    found = name or _called(function)
    executor = check_executor(executor, f"task '{found}'")
    check_timeout(found, coerce(function, found), executor, policy)
    return _Task(function, name, _policies(retry_policy), cache_policy, policy, executor)


def _called(function: Any) -> str:
    """What a task or an entrypoint is called after: the function, however many of its arguments are filled in."""
    while isinstance(function, partial):
        function = function.func
    return name_of(function)


def _policies(given: _Retry) -> tuple[RetryPolicy, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, RetryPolicy) else tuple(given)


class _Entrypoint(Pregel):
    """A graph of one node: the function of an entrypoint."""

    stream_mode = "updates"
    stream_eager = True

    def __init__(self, plan: Plan, *, context_schema: Any, **given: Any) -> None:
        # A `Pregel` by its methods; what it is made from is a plan.
        CompiledGraph.__init__(self, plan, **given)
        self.context_schema = context_schema


class entrypoint:
    """Make a function a graph that calls tasks (FN-2). It takes one input, and may ask for more by keyword.

    ``previous`` is what the last run on the same thread returned, or saved by `entrypoint.final`; ``config``,
    ``runtime``, ``store`` and ``writer`` are the run's. `executor` is the default place of the tasks it calls, and `pool`
    their worker processes; the function itself runs in a thread or, if it is async, on the event loop. `types` are
    classes whose objects checkpoints may hold besides those that annotations lead to.
    """

    @takes_former_names(config_schema="context_schema", retry="retry_policy")
    def __init__(
        self,
        checkpointer: Checkpointer = None,
        store: Any = None,
        cache: Any = None,
        context_schema: type[Any] | None = None,
        cache_policy: CachePolicy[Any] | None = None,
        retry_policy: _Retry = None,
        timeout: float | timedelta | TimeoutPolicy | None = None,
        *,
        executor: Executor | None = None,
        pool: WorkerPool | None = None,
        types: Sequence[type] = (),
    ) -> None:
        self.types = tuple(types)
        self.checkpointer = ensure_valid_checkpointer(checkpointer)
        self.store = store
        self.cache = cache
        self.context_schema = context_schema
        self.cache_policy = cache_policy
        self.retry_policy = _policies(retry_policy)
        self.timeout = TimeoutPolicy.coerce(timeout)
        self.executor = check_executor(executor, "entrypoint")
        self.pool = check_pool(pool, "entrypoint")

    class final(Final, Generic[R, S]):
        """Returned by an entrypoint: `value` is its output, `save` what the next run gets as ``previous`` (FN-5)."""

        __slots__ = ()

        def __init__(self, *, value: R, save: S) -> None:
            super().__init__(value, save)

    def __call__(self, func: Callable[..., Any]) -> Pregel:
        """The graph. Raises ValueError for a function without input, NotImplementedError for a generator."""
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise NotImplementedError("Generators are not supported in the Functional API.")
        parameters = inspect.signature(func).parameters
        if not parameters:
            raise ValueError("Entrypoint function must have at least one parameter")
        name = _called(func)
        check_timeout(name, coerce(func, name), "thread", self.timeout)
        hints = callable_hints(func)
        output, saved = _returned(hints.get("return", Any))
        channels: dict[str, Any] = {
            START: EphemeralValue(hints.get(next(iter(parameters)), Any)),
            END: LastValue(output),
            PREVIOUS: LastValue(saved),
        }
        for key, channel in channels.items():
            channel.key = key
        program = EntrypointProgram(name, coerce(func, name), (END, PREVIOUS))
        node = NodePlan(
            name,
            program,
            (START,),
            START,
            retry=self.retry_policy,
            executor="thread",
            timeout=self.timeout,
            cache=self.cache_policy,
        )
        graph = _Entrypoint(
            Plan(
                "LangGraph",
                {name: node},
                channels,
                input=START,
                output=END,
                stream=END,
                call_retry=self.retry_policy,
            ),
            context_schema=self.context_schema,
            store=self.store,
            cache=self.cache,
            checkpointer=self.checkpointer,
            options={"executor": self.executor, "pool": self.pool, "types": self.types},
        )
        return graph


def _returned(hint: Any) -> tuple[Any, Any]:
    """What a return annotation says of an entrypoint's output, and of what it saves."""
    if hint is entrypoint.final:
        return Any, Any
    if get_origin(hint) is entrypoint.final:
        output, saved = get_args(hint)
        return output, saved
    return hint, hint
