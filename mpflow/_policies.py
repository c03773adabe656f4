"""How a node is retried, timed, cached and traced: data only, and the defaults they name. `mpflow.types` shows them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from mpflow.errors import WorkerLost

if TYPE_CHECKING:
    from datetime import timedelta

KeyFuncT = TypeVar("KeyFuncT", bound=Callable[..., "str | bytes"])

_NEVER_RETRIED = (
    ValueError,
    TypeError,
    ArithmeticError,
    ImportError,
    LookupError,
    NameError,
    SyntaxError,
    RuntimeError,
    ReferenceError,
    StopIteration,
    StopAsyncIteration,
    OSError,
    WorkerLost,
)
_HTTP_ERRORS = (("httpx", "HTTPStatusError"), ("requests", "HTTPError"))


def default_retry_on(exc: BaseException) -> bool:
    """Whether a `RetryPolicy` retries `exc` if it does not say otherwise (RY-3).

    Connection errors are, HTTP errors of httpx and requests for status 5xx; the builtin exceptions that tell of a bug,
    other operating system errors and deaths of workers (counted apart) are not; all else is.
    """
    if isinstance(exc, ConnectionError):
        return True
    for library, name in _HTTP_ERRORS:
        # An error of a library that was never imported cannot be here, so nothing is imported to find out.
        kind = getattr(sys.modules.get(library), name, None)
        if kind is not None and isinstance(exc, kind):
            response = getattr(exc, "response", None)
            status = getattr(response, "status_code", None)
            return status is None or 500 <= status < 600
    return not isinstance(exc, _NEVER_RETRIED)


class RetryPolicy(NamedTuple):
    """When and how often a failed node is tried again (RY-1 to RY-4). Times are in seconds."""

    initial_interval: float = 0.5
    """The pause after the first failure."""
    backoff_factor: float = 2.0
    """How much longer each further pause is."""
    max_interval: float = 128.0
    """No pause is longer, jitter aside."""
    max_attempts: int = 3
    """Attempts in all, the first included."""
    jitter: bool = True
    """Whether to add a random part of a second to each pause."""
    retry_on: type[Exception] | Sequence[type[Exception]] | Callable[[Exception], bool] = default_retry_on
    """An exception class, several of them, or a predicate."""


def _seconds(value: float | timedelta | None, field: str) -> float | None:
    if value is None:
        return None
    total = getattr(value, "total_seconds", None)
    seconds = float(value if total is None else total())  # type: ignore[arg-type]
    if not seconds > 0:  # also refuses nan
        raise ValueError(f"{field} must be greater than 0")
    return seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeoutPolicy:
    """How long an attempt may run, and how long it may be silent (TO-1, TO-4)."""

    run_timeout: float | timedelta | None = None
    """Limit on the attempt as a whole, in seconds."""
    idle_timeout: float | timedelta | None = None
    """Limit on the time between two signs of life, in seconds."""
    refresh_on: Literal["auto", "heartbeat"] = "auto"
    """What counts as one: writes, stream chunks and the like too, or `Runtime.heartbeat` alone."""

    @classmethod
    def coerce(cls, value: float | timedelta | TimeoutPolicy | None) -> TimeoutPolicy | None:
        """Return a policy in plain seconds for what users pass as ``timeout=``.

        Raises `ValueError` for limits that are not above zero.
        """
        if value is None:
            return None
        if not isinstance(value, cls):
            return cls(run_timeout=_seconds(value, "run_timeout"))  # type: ignore[arg-type]
        if value.refresh_on not in ("auto", "heartbeat"):
            raise ValueError(f"refresh_on must be 'auto' or 'heartbeat', got {value.refresh_on!r}")
        return cls(
            run_timeout=_seconds(value.run_timeout, "run_timeout"),
            idle_timeout=_seconds(value.idle_timeout, "idle_timeout"),
            refresh_on=value.refresh_on,
        )


def _freeze(value: Any) -> Any:
    if isinstance(value, Mapping):
        items = [(key, _freeze(item)) for key, item in value.items()]
        try:
            items.sort(key=lambda pair: pair[0])
        except TypeError:  # keys of several types
            items.sort(key=lambda pair: (type(pair[0]).__qualname__, repr(pair[0])))
        return ("mapping", tuple(items))
    if isinstance(value, (list, tuple)):
        return ("sequence", tuple(_freeze(item) for item in value))
    if isinstance(value, (set, frozenset)):
        return ("set", tuple(sorted(_pickled(_freeze(item)) for item in value)))
    return value


def _pickled(value: Any) -> bytes:
    import io
    import pickle

    out = io.BytesIO()
    pickler = pickle.Pickler(out, protocol=5)
    # Without the memo, equal inputs have equal bytes whether or not their parts are the same objects.
    pickler.fast = True
    try:
        pickler.dump(value)
    except ValueError:  # what contains itself needs the memo
        return pickle.dumps(value, protocol=5)
    return out.getvalue()


def default_cache_key(*args: Any, **kwargs: Any) -> str | bytes:
    """The cache key of a node's input: equal for equal inputs, whatever the order of mappings and sets (CA-2)."""
    return _pickled(_freeze((args, kwargs)))


@dataclass(frozen=True, kw_only=True, slots=True)
class CachePolicy(Generic[KeyFuncT]):
    """That a node's writes are cached, under which key and for how long (CA-1)."""

    key_func: KeyFuncT = default_cache_key  # type: ignore[assignment]
    """Gets the node's input, or a task's arguments; returns str or bytes."""
    ttl: int | None = None
    """Seconds until the entry is stale; None means never."""


def omit_payload(_value: Any) -> dict[str, Any]:
    """A `TracePolicy` function that leaves a payload out of traces altogether."""
    return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class TracePolicy:
    """What traces show of a node's inputs and outputs; None shows them as they are."""

    process_inputs: Callable[[Any], Any] | None = None
    process_outputs: Callable[[Any], Any] | None = None
