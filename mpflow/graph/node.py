"""One node as it was added to a builder, and the checks that need nothing but the node itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from mpflow._exec.patience import check_timeout
from mpflow._names import DEFAULT_HANDLER
from mpflow.constants import END, START
from mpflow.runnables.base import coerce
from mpflow.schema import callable_hints
from mpflow.types import Command

if TYPE_CHECKING:
    from mpflow.runnables.base import Callables
    from mpflow.types import CachePolicy, RetryPolicy, TimeoutPolicy

_RESERVED_CHARACTERS = "|:"


class NodeSpec:
    """A node of a builder. ``destinations`` are where a Command of it may go, as far as it says."""

    __slots__ = (
        "cache_policy",
        "callables",
        "defer",
        "destinations",
        "error_handler",
        "executor",
        "input_schema",
        "max_concurrency",
        "memory_bytes",
        "metadata",
        "name",
        "on_error",
        "rerun_on_loss",
        "retry",
        "timeout",
    )

    def __init__(
        self,
        name: str,
        callables: Callables,
        input_schema: Any,
        *,
        defer: bool,
        metadata: dict[str, Any] | None,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] | None,
        destinations: tuple[str, ...] | dict[str, str] | None,
        timeout: Any,
        executor: Any,
        max_concurrency: int | None,
        memory: int | str | None,
        rerun_on_loss: bool,
        on_error: str | None,
        error_handler: Callables | None = None,
        cache_policy: CachePolicy[Any] | None = None,
    ) -> None:
        if max_concurrency is not None and (not isinstance(max_concurrency, int) or max_concurrency < 1):
            raise ValueError(f"node '{name}': max_concurrency takes a count of at least 1, got {max_concurrency!r}")
        if on_error not in (None, "raise", "record"):
            raise ValueError(f"node '{name}': on_error takes 'raise' or 'record', got {on_error!r}")
        self.name = name
        self.callables = callables
        self.input_schema = input_schema
        self.defer = defer
        self.metadata = metadata
        self.retry = () if retry_policy is None else _several(retry_policy)
        self.destinations = destinations
        self.timeout = None if timeout is None else _limits(timeout)
        self.executor = executor
        self.max_concurrency = max_concurrency
        self.memory_bytes = 0 if memory is None else size_bytes(memory, f"node '{name}'")
        self.rerun_on_loss = rerun_on_loss
        self.on_error = on_error
        self.error_handler = error_handler
        self.cache_policy = cache_policy
        check_timeout(name, callables, executor, self.timeout)

    @property
    def runnable(self) -> Any:
        """What the node runs, as something with ``invoke``."""
        from mpflow.pregel.bound import runnable_of

        return runnable_of(self.callables)


class NodeDefaults:
    """What `StateGraph.set_node_defaults` has set."""

    __slots__ = ("cache_policy", "error_handler", "memory_bytes", "retry", "timeout")

    def __init__(self) -> None:
        self.retry: tuple[RetryPolicy, ...] = ()
        self.cache_policy: CachePolicy[Any] | None = None
        self.error_handler: Callables | None = None
        self.timeout: TimeoutPolicy | None = None
        self.memory_bytes = 0

    def changed(
        self, retry_policy: Any, cache_policy: Any, error_handler: Any, timeout: Any, memory: Any
    ) -> NodeDefaults:
        """These with what is given in their place; None leaves a default as it is."""
        twin = copy(self)
        if retry_policy is not None:
            twin.retry = _several(retry_policy)
        if cache_policy is not None:
            twin.cache_policy = cache_policy
        if error_handler is not None:
            twin.error_handler = coerce(error_handler, DEFAULT_HANDLER)
        if timeout is not None:
            twin.timeout = _limits(timeout)
        if memory is not None:
            twin.memory_bytes = size_bytes(memory, "the node defaults")
        return twin


_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip


def size_bytes(memory: int | str, where: str) -> int:
    """Bytes of a size given as a count or as text: ``"500MB"``, ``"1.5 GiB"``. Raises ValueError, naming `where`."""
    size = 0
    if isinstance(memory, str):
        number = memory.strip().rstrip("bBiIkKmMgGtT ")
        unit = memory.strip()[len(number) :].strip().lower()
        if unit in _UNITS and number.replace(".", "", 1).isdecimal():
            size = int(float(number) * _UNITS[unit])
    elif isinstance(memory, int) and not isinstance(memory, bool):
        size = memory
    if size < 1:
        raise ValueError(
            f"{where}: memory takes bytes or a size such as '500MB' or '1.5GiB', above zero, got {memory!r}"
        )
    return size


def _several(policy: RetryPolicy | Sequence[RetryPolicy]) -> tuple[RetryPolicy, ...]:
    from mpflow.types import RetryPolicy  # policies are loaded by those who set one

    return (policy,) if isinstance(policy, RetryPolicy) else tuple(policy)


def _limits(timeout: Any) -> TimeoutPolicy | None:
    from mpflow.types import TimeoutPolicy

    return TimeoutPolicy.coerce(timeout)


def check_name(name: str, taken: Collection[str]) -> None:
    """Raise ValueError for a node name that is taken or cannot be one (GB-3)."""
    if name in taken:
        raise ValueError(f"Node `{name}` already present.")
    if name in (START, END):
        raise ValueError(f"Node `{name}` is reserved.")
    for character in _RESERVED_CHARACTERS:
        if character in name:
            raise ValueError(f"'{character}' is a reserved character and is not allowed in the node names: '{name}'")


def destinations_of(
    action: Any, given: tuple[str, ...] | dict[str, str] | None
) -> tuple[str, ...] | dict[str, str] | None:
    """Where a node's Command may go: as given, else as its return annotation ``Command[Literal[...]]`` says (GB-5)."""
    if given is not None:
        return given
    function = action if hasattr(action, "__annotations__") else getattr(type(action), "__call__", None)
    if function is None or isinstance(action, type):
        return None
    hint = callable_hints(function).get("return")
    for candidate in (hint, *get_args(hint)):
        if get_origin(candidate) is Command:
            (names,) = get_args(candidate)
            if get_origin(names) is Literal:
                return tuple(get_args(names))
    return None
