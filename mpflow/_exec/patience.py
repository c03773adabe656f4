"""How long an async node may run and be silent, and which nodes can be held to a timeout at all (TO-1 to TO-4, D-4)."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from mpflow.errors import NodeTimeoutError
from mpflow.runnables.base import awaits_natively

if TYPE_CHECKING:
    import asyncio

    from mpflow.runnables.base import Callables
    from mpflow.types import TimeoutPolicy


class Patience:
    """The timeouts of one attempt at an async node. Signs of life may come from any thread.

    ``kind`` is None until one of them has struck. The node is then cancelled, and what it still writes is dropped.
    """

    __slots__ = ("_auto", "_cancel", "_idle_s", "_idler", "_last", "_loop", "_run_s", "_runner", "_started", "kind")

    def __init__(self, timeout: TimeoutPolicy) -> None:
        self._run_s: Any = timeout.run_timeout
        self._idle_s: Any = timeout.idle_timeout
        self._auto = timeout.refresh_on == "auto"
        self.kind: Literal["run", "idle"] | None = None
        self._runner: asyncio.TimerHandle | None = None
        self._idler: asyncio.TimerHandle | None = None

    def watch(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """Start the clocks: `task` is cancelled when one runs out."""
        self._loop = loop
        self._cancel = task.cancel
        self._started = self._last = monotonic()
        if self._run_s is not None:
            self._runner = loop.call_later(self._run_s, self._expire, "run")
        if self._idle_s is not None:
            self._idler = loop.call_later(self._idle_s, self._look)

    def _look(self) -> None:
        left_s = self._last + self._idle_s - monotonic()
        if left_s <= 0:
            self._expire("idle")
        else:
            self._idler = self._loop.call_later(left_s, self._look)

    def _expire(self, kind: Literal["run", "idle"]) -> None:
        if self.kind is None:
            self.kind = kind
            self._cancel()

    def beat(self) -> None:
        self._last = monotonic()

    def progress(self) -> bool:
        """Note that the node has done something that others see; whether it still may."""
        if self._auto:
            self._last = monotonic()
        return self.kind is None

    def end(self) -> None:
        for timer in (self._runner, self._idler):
            if timer is not None:
                timer.cancel()

    def error(self, name: str) -> NodeTimeoutError:
        assert self.kind is not None
        elapsed_s = monotonic() - self._started
        return NodeTimeoutError(name, elapsed_s, kind=self.kind, idle_timeout=self._idle_s, run_timeout=self._run_s)


def check_timeout(
    name: str, callables: Callables, executor: Any, timeout: TimeoutPolicy | None, *, awaits: bool = True
) -> None:
    """Raise ValueError for a timeout on a node that nothing can hold to it. `awaits`: async forms are used if there are any."""
    if timeout is None:
        return
    is_async = callables.afunc is not None and awaits and awaits_natively(callables.source)
    if callables.afunc is None and executor is not None and executor not in ("auto", "process"):
        place = repr(executor) if isinstance(executor, str) else type(executor).__name__
        raise ValueError(
            "Node timeouts are only supported for async nodes, and for nodes on processes, which can be killed. "
            f"Node '{name}' is sync and bound to executor={place}."
        )
    if timeout.idle_timeout is not None and (not is_async or executor == "process"):
        how = "runs on a process" if is_async else "is sync"
        raise ValueError(
            f"Node timeouts are only supported for async nodes where they are idle timeouts. Node '{name}' {how}: "
            "give it a run_timeout, which ends it on a worker process."
        )
