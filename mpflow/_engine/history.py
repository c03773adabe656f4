"""The saved states of a thread: looking at them, changing them, branching off them (SA-1 to SA-13).

Each operation is one generator that yields what it needs done, `(SAVER, method, arguments)` or `(CLOSE, node, diff,
scope)`; `perform` and `aperform` do it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Generator, Mapping, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from mpflow._core.merge import Writer, merge
from mpflow._core.state import ChannelState
from mpflow._core.steps import due_tasks
from mpflow._core.task import Task
from mpflow._engine.attempts import Performer
from mpflow._engine.changes import checkpoint_of, new_versions
from mpflow._engine.counting import COUNTERS, DeltaCounts
from mpflow._engine.loop import CLOSE
from mpflow._engine.nesting import lasting_namespace
from mpflow._engine.pending import SPECIAL, Pending
from mpflow._engine.resume import input_writes_of
from mpflow._engine.saving import SAVER, acall_saver, call_saver
from mpflow._engine.streams import result_of
from mpflow._names import (
    CHECKPOINT_ID,
    CHECKPOINT_MAP,
    CHECKPOINT_NS,
    CONF,
    COPY,
    ERROR,
    INPUT,
    INTERRUPT,
    RETURN,
)
from mpflow._scope import TaskScope, task_id_of
from mpflow.checkpoint.base import empty_checkpoint
from mpflow.checkpoint.ids import new_checkpoint_id
from mpflow.constants import END
from mpflow.errors import EmptyInputError, InvalidUpdateError
from mpflow.types import PregelTask, StateSnapshot, StateUpdate

if TYPE_CHECKING:
    from mpflow._core.merge import Merge
    from mpflow._core.plan import Plan

Effects = Generator[tuple[Any, ...], Any, Any]


def perform(steps: Effects, saver: Any) -> Any:
    """Do what an operation asks for; its result."""
    reply: Any = None
    try:
        while True:
            effect = steps.send(reply)
            if effect[0] is SAVER:
                reply = call_saver(saver, effect[1], effect[2])
            else:
                performer, node, diff, scope = effect[1:]
                reply = copy_context().run(performer.close, node, diff, scope)
    except StopIteration as stop:
        return stop.value


async def aperform(steps: Effects, saver: Any) -> Any:
    """As `perform`, awaiting."""
    reply: Any = None
    try:
        while True:
            effect = steps.send(reply)
            if effect[0] is SAVER:
                reply = await acall_saver(saver, effect[1], effect[2])
            else:
                performer, node, diff, scope = effect[1:]
                reply = await performer.aclose(node, diff, scope)
    except StopIteration as stop:
        return stop.value


class SavedStep:
    """A checkpoint opened: its state, and the tasks that are due from it with what they are known to have done."""

    def __init__(self, plan: Plan, saver: Any, saved: Any) -> None:
        self.plan = plan
        self.saved = saved
        self.state = ChannelState(plan)
        checkpoint = empty_checkpoint() if saved is None else saved.checkpoint
        self.versions_before = dict(checkpoint["channel_versions"])
        self.state.restore(checkpoint, lambda current: saver.get_next_version(current, None))
        self.checkpoint_id: str = checkpoint["id"]
        self.step = -1 if saved is None else int(saved.metadata.get("step", -1))
        self.pending = Pending(() if saved is None else saved.pending_writes or ())
        self.ns: str = "" if saved is None else (saved.config.get(CONF) or {}).get(CHECKPOINT_NS, "")
        self.due: list[Task] = []
        self.tasks: dict[str, Task] = {}
        self.is_superseded = False
        self.deltas = DeltaCounts(plan.channels)
        self.deltas.load(None if saved is None else saved.metadata)

    def find_tasks(self) -> None:
        """Sends in their order, then nodes as they were added: a record is shown in LangGraph's order, not in a run's."""
        step = self.step + 1
        order = {name: place for place, name in enumerate(self.plan.nodes)}
        self.due = list(due_tasks(self.plan, self.state, step, step + 2, None, _ignore))
        for task in sorted(self.due, key=lambda task: order[task.name] if task.pulled else -1):
            task_id = task_id_of(self.checkpoint_id, self.ns, step, task.name, task.path, task.triggers)
            self.tasks[task_id] = task

    def apply_null_writes(self) -> None:
        writes = self.pending.null_writes()
        if writes:
            merge(self.state, [Writer(writes)], ends_step=False)

    def note_written(self, writes: Sequence[tuple[str, Any]]) -> None:
        """What an update writes: where others went on from this checkpoint, the new one must not lean on it."""
        self.deltas.keep_replaced(writes)
        if self.is_superseded:
            self.deltas.keep_whole([name for name, _ in writes])

    def take_writes(self) -> list[Task]:
        """Give each due task what it is known to have written; those that have something, as a run merges them."""
        for task_id, task in self.tasks.items():
            task.writes = [write for write in self.pending.of(task_id) if write[0] not in SPECIAL]
        return [task for task in self.due if task.writes]


def _ignore(text: str) -> None:
    return None


# -- looking ----------------------------------------------------------------------------------------------------------


def snapshot(
    plan: Plan,
    saver: Any,
    config: Mapping[str, Any],
    saved: Any,
    subgraphs: Mapping[str, Any],
    *,
    live: bool,
    deep: bool,
) -> Effects:
    """A saved state as users see it; `live` with what the unfinished step has done so far (SA-2)."""
    if saved is None:
        return StateSnapshot({}, (), config, None, None, None, (), ())  # type: ignore[arg-type]
    step = SavedStep(plan, saver, saved)
    step.find_tasks()
    states: dict[str, Any] = {}
    for task_id, task in step.tasks.items():
        child = subgraphs.get(task.name)
        if child is None:
            continue
        ns = f"{task.name}:{task_id}" if not step.ns else f"{step.ns}|{task.name}:{task_id}"
        where: Any = {CONF: {"thread_id": saved.config[CONF]["thread_id"], CHECKPOINT_NS: ns}}
        if deep:
            if child.checkpointer is True:
                where = {CONF: {**where[CONF], CHECKPOINT_NS: lasting_namespace(ns)}}
            found = yield SAVER, "get_tuple", (where,)
            states[task_id] = yield from snapshot(
                child._plan, saver, where, found, dict(child.get_subgraphs()), live=live, deep=True
            )
        else:
            states[task_id] = where
    step.apply_null_writes()
    done: list[Task] = []
    if live:
        done = step.take_writes()
        if done:
            merge(step.state, done)
    shown = sorted(step.tasks.items(), key=lambda item: item[1].pulled)  # sends come first, as LangGraph shows them
    tasks = tuple(_shown(step, task_id, task, states.get(task_id), live) for task_id, task in shown)
    return StateSnapshot(
        step.state.read(plan.stream),
        tuple(task.name for _, task in shown if not task.writes),
        with_map(saved.config, saved.metadata),
        saved.metadata,
        saved.checkpoint["ts"],
        with_map(saved.parent_config, saved.metadata),
        tasks,
        tuple(interrupt for task in tasks for interrupt in task.interrupts),
    )


def _shown(step: SavedStep, task_id: str, task: Task, state: Any, live: bool) -> PregelTask:
    mine = step.pending.of(task_id)
    writes = [(name, value) for name, value in mine if name not in SPECIAL]
    error: Any = next((value for name, value in mine if name == ERROR), None)
    if isinstance(error, BaseException):
        error = repr(error)
    interrupts: tuple[Any, ...] = ()
    for name, value in mine:
        if name == INTERRUPT:
            interrupts += tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if live and writes:
        interrupts = ()
    result = None
    if writes:
        returned = [value for name, value in writes if name == RETURN]
        result = returned[0] if returned else result_of(writes, step.plan.stream)
        if not returned and isinstance(step.plan.stream, str):
            result = result.get(step.plan.stream)
    return PregelTask(task_id, task.name, task.path, error, interrupts, state, result)


def with_map(config: Any, metadata: Mapping[str, Any] | None) -> Any:
    """A checkpoint's config with the checkpoints of the graphs around it, so that it says where it lies."""
    parents = (metadata or {}).get("parents")
    if not config or not parents:
        return config
    configurable = config[CONF]
    ns = configurable.get(CHECKPOINT_NS, "")
    known = {**parents, ns: configurable.get(CHECKPOINT_ID)}
    return {**config, CONF: {**configurable, CHECKPOINT_MAP: known}}


# -- changing ---------------------------------------------------------------------------------------------------------


def update(plan: Plan, saver: Any, config: Mapping[str, Any], supersteps: Sequence[Sequence[StateUpdate]]) -> Effects:
    """Apply updates, one checkpoint for each inner list; the config of the last (SA-5 to SA-8)."""
    current: Any = config
    for number, updates in enumerate(supersteps):
        current = yield from _superstep(plan, saver, current, updates, is_first=number == 0)
    return current


def _superstep(
    plan: Plan, saver: Any, config: Mapping[str, Any], updates: Sequence[StateUpdate], *, is_first: bool = False
) -> Effects:
    saved = yield SAVER, "get_tuple", (config,)
    step = SavedStep(plan, saver, saved)
    if is_first and saved is not None and config[CONF].get(CHECKPOINT_ID):
        thread = {key: value for key, value in config[CONF].items() if key != CHECKPOINT_ID}
        latest = yield SAVER, "get_tuple", ({**config, CONF: thread},)
        step.is_superseded = latest is not None and latest.checkpoint["id"] != step.checkpoint_id
    if is_first:
        step.deltas.keep_whole([name for _, name, _ in step.pending])
    where: Any = {**config, CONF: {CHECKPOINT_NS: "", **config[CONF], **({} if saved is None else saved.config[CONF])}}
    values, as_node = updates[0].values, updates[0].as_node
    if len(updates) > 1 and as_node in (END, INPUT, COPY, None):
        if as_node is None:
            raise InvalidUpdateError("as_node is required when applying multiple updates: name a node for each")
        raise InvalidUpdateError(f"Cannot apply multiple updates when one of them is as_node={as_node!r}")
    if values is None and as_node == END:
        step.find_tasks()
        step.apply_null_writes()
        step.take_writes()
        merged = merge(step.state, step.due) if step.due else None
        return (yield from _save(step, where, "update", merged))
    if as_node == INPUT:
        try:
            writes = input_writes_of(plan, values)
        except EmptyInputError as error:
            raise InvalidUpdateError(str(error)) from error
        step.note_written(writes)
        return (yield from _save(step, where, "input", merge(step.state, [Writer(writes)], ends_step=False)))
    if as_node == COPY:
        return (yield from _copy(plan, saver, step, values))
    return (yield from _as_nodes(plan, step, where, updates))


def _copy(plan: Plan, saver: Any, step: SavedStep, values: Any) -> Effects:
    """A sibling of the checkpoint, with the updates that came along applied on top of it."""
    saved = step.saved
    if saved is None:
        raise InvalidUpdateError("Cannot copy a non-existent checkpoint")
    beside = saved.parent_config
    if beside is None:
        beside = {CONF: {key: value for key, value in saved.config[CONF].items() if key != CHECKPOINT_ID}}
    copied = yield from _save(step, beside, "fork")
    if not isinstance(values, list):
        return copied
    step.checkpoint_id = copied[CONF][CHECKPOINT_ID]
    step.step += 1
    step.find_tasks()
    waiting: dict[str, deque[str]] = defaultdict(deque)
    for task_id, task in step.tasks.items():
        waiting[task.name].append(task_id)
    updates = []
    for item in values:
        value, as_node = item[0], item[1]
        known = waiting[as_node].popleft() if waiting[as_node] else None
        updates.append(StateUpdate(value, as_node, known))
    return (yield from _superstep(plan, saver, copied, updates))


def _as_nodes(plan: Plan, step: SavedStep, where: Any, updates: Sequence[StateUpdate]) -> Effects:
    """Write values as nodes would: their edges and branches run too, the nodes do not."""
    state = step.state
    waiting: dict[str, deque[str]] = defaultdict(deque)
    if step.saved is not None:
        step.find_tasks()
        for task_id, task in step.tasks.items():
            waiting[task.name].append(task_id)
    writers: list[Any] = []
    performer = Performer(plan, state, copy_context(), _ignore)
    for update in updates:
        name = update.as_node or _last_node(plan, step)
        if name not in plan.nodes:
            raise InvalidUpdateError(f"Node {name} does not exist")
        node = plan.nodes[name]
        task_id = update.task_id or (waiting[name].popleft() if waiting[name] else "")
        if not task_id:
            task_id = str(uuid5(NAMESPACE_URL, f"{step.checkpoint_id}:{INTERRUPT}:{len(writers)}"))
        scope = TaskScope(_facts(where, step), name, (INTERRUPT,), (INTERRUPT,))
        diff = node.program.diff(update.values)
        writes = yield CLOSE, performer, node, diff, scope
        if step.saved is not None and writes and not step.is_superseded:  # others went on from it, without these
            yield SAVER, "put_writes", (where, writes, task_id, "")
        step.note_written(writes)
        writers.append(Writer(writes, name))
    return (yield from _save(step, where, "update", merge(state, writers)))


def _facts(where: Mapping[str, Any], step: SavedStep) -> Any:
    from mpflow._messages import StepFacts

    facts = StepFacts(dict(where), step.step + 1, step.step + 3)
    facts.checkpoint_ns, facts.checkpoint_id = step.ns, step.checkpoint_id
    return facts


def _last_node(plan: Plan, step: SavedStep) -> str:
    """The node that ran last, if that is clear (SA-6)."""
    if len(plan.nodes) == 1:
        return next(iter(plan.nodes))
    ran = sorted(
        (version, name) for name, seen in step.state.seen.items() if name in plan.nodes for version in seen.values()
    )
    if not ran and isinstance(plan.input, str) and plan.input in plan.nodes:
        return plan.input
    if ran and (len(ran) == 1 or ran[-1][0] != ran[-2][0]):
        return ran[-1][1]
    raise InvalidUpdateError("Ambiguous update, specify as_node")


def _save(step: SavedStep, where: Any, source: str, merged: Merge | None = None) -> Effects:
    """Save the state as it is now; a copy ("fork") is said to have nothing new."""
    state = step.state
    number = -1 if step.saved is None and source == "input" else step.step + 1
    checkpoint = checkpoint_of(state, new_checkpoint_id(number))
    new = new_versions(state, step.versions_before)
    metadata = {
        "source": source,
        "step": number,
        "parents": {} if step.saved is None else step.saved.metadata.get("parents", {}),
    }
    if step.saved is not None:
        if source != "fork":
            step.deltas.step(() if merged is None else merged.updated)
            metadata.update(step.deltas.told(state.versions))
        elif COUNTERS in step.saved.metadata:
            metadata[COUNTERS] = step.saved.metadata[COUNTERS]
    saved = yield SAVER, "put", (where, checkpoint, metadata, {} if source == "fork" else new)
    return with_map(saved, metadata)
