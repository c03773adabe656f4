"""What belongs to a run in the process that drives it, and how its tasks in workers get at it: told before, or served when they ask."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mpflow._exec.thread import THREADS
from mpflow._messages import Luggage

if TYPE_CHECKING:
    from mpflow._engine.nesting import Nest
    from mpflow._engine.replay import Replay
    from mpflow._engine.setting import Asked, Setting
    from mpflow._messages import Attempt, Outcome
    from mpflow._scope import TaskScope

Done = Callable[..., None]
"""``done(value)`` or ``done(None, error)``: gives the answer."""


class Local:
    """What a run's tasks can reach in this process only; those in workers are given `luggage`, and `serve` is asked."""

    cache: Any = None
    around: TaskScope | None = None
    is_part = False
    """The run is a part of the task around it."""
    shows_tasks = False
    """A stream is to show all tasks of a step before they run."""
    replay: Replay | None = None
    loop: Any = None
    """The event loop that the run is driven on, if it is on one."""
    lend: Callable[[Attempt], Outcome] | None = None
    """Performs a called task in the thread of its caller, which waits for it; None where that would show."""
    over = False
    state: Any = None
    """The channels' values and versions, which are those of the step that runs."""
    entrances: tuple[Callable[[Any], None], ...] = ()
    """What comes before a node in a worker."""
    _luggage: Luggage | None = None

    def __init__(self, store: Any, control: Any, saver: Any, durability: str) -> None:
        self.store = store
        self.control = control
        self.saver = saver
        self.durability = durability
        self.answers_by_id: dict[str, Any] = {}
        self.calls: set[Any] = set()
        """The futures of called tasks that somebody may be waiting for."""
        self._first: dict[str, Any] = {}

    @property
    def is_away(self) -> bool:
        """Whether the run is in another process, and this only stands for what it has."""
        return False

    @property
    def sees_all(self) -> bool:
        """Whether all sends of a step must be there when it starts: to be saved, or to be shown."""
        return self.saver is not None or self.shows_tasks

    def drainable(self) -> Any:
        """The run's `RunControl`; made when the first task asks for it, if the run was given none."""
        if self.control is None:
            from mpflow.runtime import RunControl

            # Tasks may ask at the same time: one of theirs becomes that of all.
            self.control = self._first.setdefault("control", RunControl())
        return self.control

    def luggage(self) -> Luggage:
        """What tasks in workers are told of this; made once a run."""
        if self._luggage is None:
            self._luggage = Luggage(
                durability=self.durability,
                has_saver=self.saver is not None,
                counts_versions=self.saver is None or _counts_versions(self.saver),
                has_far_log=getattr(self.saver, "has_far_log", False),
                has_store=self.store is not None,
                has_cache=self.cache is not None,
                answers_by_id=self.answers_by_id,
                replay=None if self.replay is None else self.replay.checkpoint_id,
                entrances=self.entrances,
                around=self.around if self.is_part else None,
            )
        return self._luggage

    def serve(self, attempt: Attempt, target: str, request: tuple[Any, ...], done: Done) -> None:
        """Do what a task in a worker asked for, on the run's event loop or in a thread, then call `done`. Never blocks."""
        loop = self.loop
        if target == "call":
            from mpflow._engine.futures import serve_call

            serve_call(attempt, *request, done=done)
            return
        if loop is None or target in ("replay", "around"):
            THREADS.start(partial(_serve, self, target, request, done))
            return
        asyncio = sys.modules["asyncio"]
        work = _aserve(self, target, request, done)
        try:
            asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # the loop is closed, and nobody will read the answer
            work.close()


def local_of(setting: Setting, nest: Nest, asked: Asked, saver: Any) -> Local:
    """What a run has in this process: given to it, or had by the run around it."""
    if asked.durability is not None and saver is None:
        import warnings

        warnings.warn("`durability` has no effect when no checkpointer is present.", stacklevel=5)
    local = Local(setting.store, asked.control, saver, asked.durability or "async")
    local.cache = setting.cache
    local.around = nest.outside
    local.is_part = setting.is_part
    if nest.around is not None:
        if local.store is None:
            local.store = nest.around.store
        above = nest.around.facts.local
        if above is not None:
            _take_over(local, above, setting, asked)
    return local


def _take_over(local: Local, above: Any, setting: Setting, asked: Asked) -> None:
    local.answers_by_id = above.answers_by_id
    if local.cache is None:
        local.cache = above.cache
    if asked.durability is None:
        local.durability = above.durability
    if setting.is_part:  # graphs that its branches call are nested in its task, like those of other code there
        local.saver = above.saver
        local.replay = above.replay
    elif asked.control is None:
        local.control = above.drainable()


def _serve(local: Local, target: str, request: tuple[Any, ...], done: Done) -> None:
    method, *arguments = request
    try:
        if target == "saver":
            # Only runs with a saver load what saving takes.
            from mpflow._engine.saving import call_saver

            value = call_saver(local.saver, method, _taken(local.saver, method, arguments))
        elif target == "log":
            from mpflow.checkpoint.log import far

            value = far.serve(local.saver, method, arguments)
        else:
            value = getattr(getattr(local, target), method)(*arguments)
    except Exception as error:
        done(None, error)
    else:
        done(value)


async def _aserve(local: Local, target: str, request: tuple[Any, ...], done: Done) -> None:
    method, *arguments = request
    try:
        if method == "get_next_version":
            value = local.saver.get_next_version(*arguments)
        elif target == "saver":
            from mpflow._engine.saving import acall_saver

            value = await acall_saver(local.saver, method, _taken(local.saver, method, arguments))
        elif target == "log":
            from mpflow.checkpoint.log import far

            value = await far.aserve(local.saver, method, arguments)
        else:
            value = await getattr(getattr(local, target), "a" + method)(*arguments)
    except Exception as error:
        done(None, error)
    else:
        done(value)


def _taken(saver: Any, method: str, arguments: list[Any]) -> tuple[Any, ...]:
    """The arguments that this saver's method takes: those written before there were task paths take none (D-9)."""
    from mpflow._engine.saving import takes_path

    if method == "put_writes" and not takes_path(saver):
        arguments = arguments[:3]
    return tuple(arguments)


def _counts_versions(saver: Any) -> bool:
    """Whether the saver numbers versions as the contract does unless it is overridden: with nobody asked."""
    from mpflow.checkpoint.base import BaseCheckpointSaver

    return getattr(type(saver), "get_next_version", None) is BaseCheckpointSaver.get_next_version
