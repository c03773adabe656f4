"""What a run tells its consumer: chunks of the modes asked for, in LangGraph's shapes (SM-1 to SM-12)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._core.task import FAILED, FINISHED, INTERRUPTED
from mpflow._names import INTERRUPT, METADATA, WRITES
from mpflow.constants import TAG_HIDDEN
from mpflow.errors import ParentCommand

if TYPE_CHECKING:
    from mpflow._core.plan import Reads
    from mpflow._core.state import ChannelState
    from mpflow._core.task import Task

MODES = ("values", "updates", "custom", "messages", "tasks", "checkpoints", "debug")
SUPPORTED = ("values", "updates", "custom", "tasks")

Upward = Callable[[str, Any], None]


class Streams:
    """The chunks of one run. ``queue`` holds those that its consumer has not taken yet.

    ``output`` are the keys asked for, ``channels`` all that can be shown.

    ``upward`` hands events to the run around this one, which streams the modes in ``passed`` with their namespaces.
    """

    __slots__ = ("_emit", "channels", "modes", "ns", "output", "passed", "queue", "shape", "subgraphs", "upward")

    def __init__(
        self,
        modes: str | Sequence[str] | None,
        *,
        output: Reads,
        channels: Reads,
        ns: tuple[str, ...] = (),
        subgraphs: bool = False,
        version: str = "v1",
        passed: Sequence[str] = (),
        upward: Upward | None = None,
    ) -> None:
        asked = () if modes is None else (modes,) if isinstance(modes, str) else tuple(modes)
        for mode in asked:
            if mode not in MODES:
                raise ValueError(f"stream_mode={mode!r} is none of {', '.join(MODES)}")
            if mode not in SUPPORTED:
                raise NotImplementedError(
                    f"stream_mode={mode!r} is not supported yet; there are {', '.join(SUPPORTED)}"
                )
        self.modes = frozenset(asked)
        self.output = output
        self.channels = channels
        self.ns = ns
        self.subgraphs = subgraphs
        self.queue: deque[Any] = deque()
        self.passed = frozenset(passed) if upward is not None else frozenset()
        self.upward = upward
        self.shape: Callable[[tuple[str, ...], str, Any], Any] = _shape(modes, subgraphs, version)
        self._emit = self.modes | self.passed

    def wants(self, mode: str) -> bool:
        return mode in self._emit

    @property
    def wants_events(self) -> bool:
        """Whether tasks must tell what happens while they run."""
        return "custom" in self._emit or bool(self.passed) or (self.subgraphs and bool(self.modes))

    @property
    def wanted_below(self) -> tuple[str, ...]:
        """The modes that nested runs are to hand up."""
        return tuple(self.modes | self.passed) if self.subgraphs else tuple(self.passed)

    def put(self, mode: str, data: Any) -> None:
        if mode in self.modes:
            self.queue.append(self.shape((), mode, data))
        if mode in self.passed and self.upward is not None:
            self.upward("stream", (self.ns, mode, data))

    def event(self, kind: str, data: Any) -> None:
        """Take what a running task said: a custom chunk, or a chunk of a nested run."""
        if kind == "custom":
            self.put("custom", data)
        elif kind == "stream":
            ns, mode, chunk = data
            ns = tuple(ns)
            if self.subgraphs and mode in self.modes:
                self.queue.append(self.shape(ns[len(self.ns) :] if self.ns else ns, mode, chunk))
            if mode in self.passed and self.upward is not None:
                self.upward("stream", (ns, mode, chunk))

    # -- what the loop reports ----------------------------------------------------------------------------------------

    def started(self, tasks: Iterable[Task], task_id: Callable[[Task], str]) -> None:
        if not self.wants("tasks"):
            return
        # Sends are told first, as LangGraph does, though their writes are merged last.
        for task in sorted(tasks, key=lambda task: task.pulled):
            if not task.node.hidden:
                self.put(
                    "tasks",
                    {"id": task_id(task), "name": task.name, "input": task.input, "triggers": tuple(task.triggers)},
                )

    def values_now(self, state: ChannelState) -> None:
        if self.wants("values"):
            self.put("values", state.read(self.output))

    def ended(self, task: Task, task_id: Callable[[Task], str], state: ChannelState) -> None:
        if task.node.hidden or isinstance(task.error, ParentCommand):
            return
        if task.state == INTERRUPTED:
            self._asked(_interrupts(task), state)
        elif task.state == FINISHED and self.wants("updates") and TAG_HIDDEN not in (task.node.program.tags or ()):
            update: dict[str, Any] = {task.name: update_of(task.writes, self.output)}
            if task.cached:
                update[METADATA] = {"cached": True}
            self.put("updates", update)
        if task.cached:
            return
        if self.wants("tasks") and task.state in (FINISHED, FAILED, INTERRUPTED):
            self.put(
                "tasks",
                {
                    "id": task_id(task),
                    "name": task.name,
                    "error": task.error if task.state == FAILED else None,
                    "result": result_of(task.writes, self.channels) if task.state == FINISHED else {},
                    "interrupts": [_as_dict(item) for item in _interrupts(task)] if task.state == INTERRUPTED else [],
                },
            )

    def _asked(self, interrupts: tuple[Any, ...], state: ChannelState) -> None:
        """A task asked questions: they are an update, and show in the values as they are now (IN-4)."""
        if not interrupts:
            return
        if self.wants("updates"):
            self.put("updates", {INTERRUPT: interrupts})
        if self.wants("values"):
            values = state.read(self.output)
            shown = values if isinstance(values, dict) else {}
            self.put("values", {**shown, INTERRUPT: interrupts})


def update_of(writes: Sequence[tuple[str, Any]], output: Reads) -> Any:
    """What a task's diff looks like as an update (SM-4): None if it wrote no output key.

    If it wrote one key twice, a list with a dict for each write.
    """
    if isinstance(output, str):
        values = [value for name, value in writes if name == output]
        return None if not values else values[0] if len(values) == 1 else values
    mine = [write for write in writes if write[0] in output]
    update = dict(mine)
    if len(update) < len(mine):
        return [{name: value} for name, value in mine]
    return update or None


def result_of(writes: Sequence[tuple[str, Any]], channels: Reads) -> dict[str, Any]:
    """What a task wrote, by channel (SM-7): ``{"$writes": [...]}`` for a channel that it wrote several times."""
    known = (channels,) if isinstance(channels, str) else channels
    found: dict[str, list[Any]] = {}
    for name, value in writes:
        if name in known:
            found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else {WRITES: values} for name, values in found.items()}


def _interrupts(task: Task) -> tuple[Any, ...]:
    error = task.error
    return tuple(error.args[0]) if error is not None and error.args else ()


def _as_dict(interrupt: Any) -> dict[str, Any]:
    return {"value": interrupt.value, "id": interrupt.id}


def _shape(
    modes: str | Sequence[str] | None, subgraphs: bool, version: str
) -> Callable[[tuple[str, ...], str, Any], Any]:
    if version == "v2":
        return lambda ns, mode, data: {"type": mode, "ns": ns, "data": data}
    if version != "v1":
        raise ValueError(f"version={version!r} is none of 'v1', 'v2'")
    single = modes is None or isinstance(modes, str)
    if subgraphs:
        if single:
            return lambda ns, mode, data: (ns, data)
        return lambda ns, mode, data: (ns, mode, data)
    if single:
        return lambda ns, mode, data: data
    return lambda ns, mode, data: (mode, data)
