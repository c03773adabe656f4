"""What a run remembers: its checkpoint, the writes that no checkpoint holds yet, and when each is given to the saver.

Plain values and decisions; the loop yields the saver's calls as effects, so that one body serves both drivers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpflow._names import (
    CHECKPOINT_ID,
    CHECKPOINT_MAP,
    CHECKPOINT_NS,
    CONF,
    ERROR,
    INTERRUPT,
    NO_WRITES,
    NULL_TASK_ID,
    RESUME,
)
from mpflow.channels.untracked_value import UntrackedValue
from mpflow.checkpoint.base import WRITES_IDX_MAP, get_checkpoint_metadata, new_checkpoint_id, now_iso
from mpflow.types import Send

if TYPE_CHECKING:
    from mpflow._core.plan import Plan
    from mpflow._core.state import ChannelState

Writes = Sequence[tuple[str, Any]]
Call = tuple[str, tuple[Any, ...]]
"""A saver's method by its sync name, and its arguments."""

SPECIAL = frozenset((ERROR, INTERRUPT, RESUME))


class Persistence:
    """The saved side of one run. ``durability`` is "sync", "async" or "exit" (CP-5)."""

    def __init__(self, saver: Any, config: Mapping[str, Any], ns: str, durability: str, plan: Plan) -> None:
        configurable = dict(config.get(CONF) or {})
        self.saver = saver
        self.durability = durability
        self.run_config = config
        self.plan = plan
        self.parents: dict[str, Any] = dict(configurable.get(CHECKPOINT_MAP) or {})
        self.parents.pop(ns, None)
        where = {"thread_id": configurable.get("thread_id"), CHECKPOINT_NS: ns}
        wanted = configurable.get(CHECKPOINT_ID)
        known = (configurable.get(CHECKPOINT_MAP) or {}).get(ns)
        if known:
            wanted = known
        if wanted:
            where[CHECKPOINT_ID] = wanted
        self.where: dict[str, Any] = where
        self.addressed = bool(wanted)
        self.checkpoint_id = ""
        self.metadata: dict[str, Any] = {}
        self.saved_versions: dict[str, Any] = {}
        self.pending: list[tuple[str, str, Any]] = []
        self.known = False
        self._delayed: list[Call] = []
        self.untracked = frozenset(key for key, channel in plan.channels.items() if isinstance(channel, UntrackedValue))

    @property
    def config(self) -> dict[str, Any]:
        """The config that names the run's current checkpoint, as savers take it."""
        return {CONF: dict(self.where)}

    def load(self, saved: Any, state: ChannelState) -> int:
        """Take over what the saver had; the step that comes next."""
        self.known = saved is not None
        if saved is None:
            self.checkpoint_id = new_checkpoint_id()
            state.next_version = self._next_version
            state.counter = None
            return -1
        checkpoint = saved.checkpoint
        state.restore(checkpoint, self._next_version)
        self.checkpoint_id = checkpoint["id"]
        self.metadata = dict(saved.metadata)
        self.saved_versions = dict(checkpoint["channel_versions"])
        self.pending = [(task_id, name, value) for task_id, name, value in saved.pending_writes or ()]
        self.where = {**self.where, **(saved.config.get(CONF) or {})}
        self.where[CHECKPOINT_ID] = checkpoint["id"]
        return int(saved.metadata.get("step", -2)) + 1

    def _next_version(self, current: Any) -> Any:
        return self.saver.get_next_version(current, None)

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def checkpoint(self, state: ChannelState, source: str, step: int, updated: Any) -> Iterator[Call]:
        """A new checkpoint of the state: the calls that save it, now or when the run ends."""
        self.metadata = {"source": source, "step": step, "parents": dict(self.parents)}
        self.checkpoint_id = new_checkpoint_id(step)
        self.pending = []
        self._delayed = []
        call = self._put(state, updated)
        if self.durability == "exit":
            self._last = call
        else:
            yield call

    _last: Call | None = None

    def _put(self, state: ChannelState, updated: Any) -> Call:
        checkpoint = {
            "v": 4,
            "id": self.checkpoint_id,
            "ts": now_iso(),
            "channel_values": state.checkpoint_values(),
            "channel_versions": dict(state.versions),
            "versions_seen": {name: dict(seen) for name, seen in state.seen.items()},
            "updated_channels": None if updated is None else sorted(updated),
        }
        before = self.saved_versions
        new = {name: version for name, version in state.versions.items() if before.get(name) != version}
        config = self.config
        if self.durability != "exit":
            self.saved_versions = dict(state.versions)
            self.where[CHECKPOINT_ID] = self.checkpoint_id
        metadata = get_checkpoint_metadata(self.run_config, self.metadata)  # type: ignore[arg-type]
        return "put", (config, checkpoint, metadata, new)

    def at_exit(self) -> Iterator[Call]:
        """What "exit" durability has put off: the last checkpoint, then the writes since (CP-6)."""
        if self.durability != "exit":
            return
        if self._last is not None:
            yield self._last
            self.where[CHECKPOINT_ID] = self.checkpoint_id
            self._last = None
        for method, (_, *rest) in self._delayed:
            yield method, (self.config, *rest)
        self._delayed = []

    # -- writes -------------------------------------------------------------------------------------------------------

    def task_ended(self, task_id: str, path: str, writes: Writes) -> Iterator[Call]:
        """Remember what a task wrote (or its error, or its questions) until the next checkpoint (CP-6)."""
        if not writes:
            writes = [(NO_WRITES, None)]
        if all(name in WRITES_IDX_MAP for name, _ in writes):
            writes = list({name: (name, value) for name, value in writes}.values())
        if task_id == NULL_TASK_ID:
            names = {name for name, _ in writes}
            self.pending = [
                write
                for write in self.pending
                if write[0] != task_id or (write[1] in SPECIAL and write[1] not in names)
            ]
        else:
            self.pending = [write for write in self.pending if write[0] != task_id]
        self.pending.extend((task_id, name, value) for name, value in writes)
        saved = [(name, self._trackable(value)) for name, value in writes if name not in self.untracked]
        call: Call = ("put_writes", (self.config, saved, task_id, path))
        if self.durability == "exit":
            self._delayed.append(call)
        else:
            yield call

    def _trackable(self, value: Any) -> Any:
        """A pending Send without the values of untracked channels, which are never saved (ST-9)."""
        if self.untracked and isinstance(value, Send) and isinstance(value.arg, dict):
            arg = {key: item for key, item in value.arg.items() if key not in self.untracked}
            return Send(value.node, arg, timeout=value.timeout)
        return value

    def kept(self) -> dict[str, list[tuple[str, Any]]]:
        """By task, the writes of those that finished in the step the run stopped in."""
        found: dict[str, list[tuple[str, Any]]] = {}
        for task_id, name, value in self.pending:
            if task_id != NULL_TASK_ID and name not in SPECIAL:
                found.setdefault(task_id, []).append((name, value))
        return found

    def answers(self, task_id: str) -> list[Any]:
        """The answers that a task was already given."""
        for found, name, value in self.pending:
            if found == task_id and name == RESUME:
                return list(value) if isinstance(value, (list, tuple)) else [value]
        return []

    def open_questions(self) -> set[str]:
        """The ids of the questions that have no answer yet."""
        asked = {task_id: value[0].id for task_id, name, value in self.pending if name == INTERRUPT and value}
        answered = {task_id for task_id, name, _ in self.pending if name == RESUME}
        return {question for task_id, question in asked.items() if task_id not in answered}

    def null_answer(self) -> list[Any]:
        """The answer that was given without naming its question, in a list of its own; empty if there is none."""
        return [value for task_id, name, value in self.pending if task_id == NULL_TASK_ID and name == RESUME][-1:]

    def null_writes(self) -> list[tuple[str, Any]]:
        """Writes that belong to no task: a command's update and its destinations."""
        return [(name, value) for task_id, name, value in self.pending if task_id == NULL_TASK_ID and name != RESUME]


def path_text(path: tuple[Any, ...]) -> str:
    """A task's path as savers sort it: numbers padded, parts joined."""
    return "~" + ", ".join(_part(part) for part in path)


def _part(part: Any) -> str:
    if isinstance(part, tuple):
        return path_text(part)
    return f"{part:010d}" if isinstance(part, int) else str(part)
