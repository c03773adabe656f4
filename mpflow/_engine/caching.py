"""Nodes whose writes are cached: what a task is known by, and when the cache is asked and told (CA-1 to CA-4).

Plain values and generators that yield the cache's calls as effects, so that one body serves both drivers.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core.task import FINISHED
from mpflow._messages import CLOSED
from mpflow._names import CACHE_NS_WRITES, PULL

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan
    from mpflow._core.task import Task
    from mpflow._engine.run import Run
    from mpflow._messages import Attempt, Outcome
    from mpflow.cache.base import FullKey, Namespace

CACHE = "cache"
"""The effect ``(CACHE, method, arguments)``: call the cache; what it returns."""


def namespace_of(function: Any, name: str) -> Namespace:
    """Where the writes of a node or a task are cached: by what runs, and under which name (CA-2)."""
    kind = function if hasattr(function, "__qualname__") else type(function)
    return (CACHE_NS_WRITES, f"{kind.__module__}.{kind.__qualname__}", name)


def digest(key: str | bytes) -> str:
    """What a key function returned, as short as every key of a cache is."""
    from hashlib import blake2b

    data = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    return blake2b(data, digest_size=16).hexdigest()


def key_of(task: Task) -> FullKey:
    """The key of a task's writes. Raises what the policy's key function raises."""
    node = task.node
    program = node.program
    input = task.input
    coerce = getattr(program, "coerce", None)
    if coerce is not None and task.path[0] == PULL:
        input = coerce(input)
    assert node.cache is not None
    args, kwargs = ((input,), {}) if task.caller is None else input
    return namespace_of(program.callables.source, node.name), digest(node.cache.key_func(*args, **kwargs))


def namespaces(nodes: Sequence[NodePlan]) -> list[Namespace]:
    return [namespace_of(node.program.callables.source, node.name) for node in nodes]


def take_cached(
    run: Run, attempts: Sequence[Attempt]
) -> Generator[tuple[Any, ...], Any, tuple[Sequence[Attempt], list[Outcome]]]:
    """Of the attempts to be started, those that must run, and the outcomes of those whose writes are cached."""
    asked: dict[FullKey, list[Attempt]] = {}
    for attempt in attempts:
        task = attempt.task
        if task.node.cache is not None and task.cache_key is None:  # a second attempt has been looked up before
            task.cache_key = key_of(task)
            asked.setdefault(task.cache_key, []).append(attempt)
    if not asked:
        return attempts, []
    found = yield CACHE, "get", (list(asked),)
    hits: list[Outcome] = []
    for key, writes in found.items():
        for attempt in asked[key]:
            attempt.task.cached = attempt.task.from_cache = True
            hits.append((CLOSED, attempt, [(channel, value) for channel, value in writes], 0.0))
    known = {outcome[1] for outcome in hits}
    return [attempt for attempt in attempts if attempt not in known], hits


def put_cached(task: Task) -> Generator[tuple[Any, ...], Any, None]:
    """Cache the writes of a task that ran and finished."""
    if task.cache_key is None or task.cached or task.state != FINISHED or task.record is not None:
        return
    assert task.node.cache is not None
    pair = list(task.writes), task.node.cache.ttl
    yield CACHE, "set", ({task.cache_key: pair},)


def call_cache(run: Run, method: str, arguments: tuple[Any, ...]) -> Any:
    """Call the run's cache. What it cannot keep is no failure of the run, which has its result already."""
    try:
        return getattr(run.cache, method)(*arguments)
    except Exception as error:
        return _forgive(run, method, arguments, error)


async def acall_cache(run: Run, method: str, arguments: tuple[Any, ...]) -> Any:
    """As `call_cache`, by the cache's async methods."""
    try:
        return await getattr(run.cache, "a" + method)(*arguments)
    except Exception as error:
        return _forgive(run, method, arguments, error)


def _forgive(run: Run, method: str, arguments: tuple[Any, ...], error: Exception) -> None:
    if method != "set":
        raise error
    names = ", ".join(f"'{namespace[-1]}'" for namespace, _ in arguments[0])
    run.warn(f"the writes of node {names} could not be cached: {type(error).__name__}: {error}")
