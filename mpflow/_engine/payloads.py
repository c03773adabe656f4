"""What the detailed streams say: a task's start and end, a checkpoint, and their debug wrapping (SM-7 to SM-9).

Functions from the engine's values to LangGraph's dicts; who is told is decided in streams.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mpflow._core.task import FAILED, FINISHED, INTERRUPTED
from mpflow._messages import Handled
from mpflow._names import (
    CHECKPOINT_ID,
    CHECKPOINT_MAP,
    CHECKPOINT_NS,
    CONF,
    ERROR,
    INTERRUPT,
    NO_WRITES,
    RESUME,
    RETURN,
    WRITES,
)

if TYPE_CHECKING:
    from mpflow._core.plan import Reads
    from mpflow._core.task import Task
    from mpflow._engine.run import Run

_PRIVATE = "__pregel_"


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


def questions_of(task: Task) -> tuple[Any, ...]:
    """What a task asked that ended with questions."""
    error = task.error
    return tuple(error.args[0]) if error is not None and error.args else ()


def task_started(task: Task, task_id: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The payload for a task's start. Its metadata is the user's: what the engine adds is left out."""
    from mpflow.checkpoint.base import EXCLUDED_METADATA_KEYS  # most runs load no saver's contract

    program = task.node.program
    input = task.input.input if isinstance(task.input, Handled) else _given(task)
    payload = {"id": task_id, "name": task.name, "input": input, "triggers": tuple(task.triggers)}
    metadata = {**(config.get("metadata") or {}), **(program.metadata or {})}
    metadata = {key: value for key, value in metadata.items() if key not in EXCLUDED_METADATA_KEYS}
    tags = user_tags([*(config.get("tags") or ()), *(program.tags or ())])
    if tags:
        metadata["tags"] = tags
    if metadata:
        payload["metadata"] = metadata
    return payload


def _given(task: Task) -> Any:
    """What the node is called with: an instance of its schema, where it has one that can be made."""
    coerce = getattr(task.node.program, "coerce", None)
    if coerce is None or not task.pulled:
        return task.input
    try:
        return coerce(task.input)
    except Exception:  # the task is about to fail with it
        return task.input


def user_tags(tags: Sequence[str] | None) -> list[str]:
    """Tags without those that langchain gives to the steps of a sequence."""
    return [tag for tag in tags or () if not tag.startswith("seq:step")]


def task_ended(task: Task, task_id: str, channels: Reads) -> dict[str, Any]:
    """The payload for a task's end."""
    return {
        "id": task_id,
        "name": task.name,
        "error": task.error if task.state == FAILED else None,
        "result": _result(task.writes, channels) if task.state == FINISHED else {},
        "interrupts": [asdict(item) for item in questions_of(task)] if task.state == INTERRUPTED else [],
    }


def _result(writes: Sequence[tuple[str, Any]], channels: Reads) -> dict[str, Any]:
    known = (channels,) if isinstance(channels, str) else tuple(channels)
    return result_of(writes, (*known, RETURN))


def checkpoint_saved(run: Run, tasks: Sequence[Task], subgraphs: Mapping[str, Any]) -> dict[str, Any]:
    """The payload for the run's current checkpoint and the `tasks` that are due from it.

    `subgraphs` has the nodes whose tasks have states of their own, below the checkpoint.
    """
    persistence = run.persistence
    assert persistence is not None
    metadata = persistence.metadata
    configurable = dict(run.user_config.get(CONF) or {})
    for key in (CHECKPOINT_ID, CHECKPOINT_MAP):
        configurable.pop(key, None)
    configurable.update(persistence.where)
    thread_id, ns = configurable.get("thread_id"), run.namespace
    shown = []
    for task in tasks:
        task_id = run.task_id(task)
        state = None
        if task.name in subgraphs:
            own = f"{task.name}:{task_id}"
            state = {CONF: {"thread_id": thread_id, CHECKPOINT_NS: f"{ns}|{own}" if ns else own}}
        shown.append(_due(task, task_id, persistence.pending.of(task_id), state, run.streams.output))
    parent = persistence.parent_id
    return {
        "config": _located({**configurable, CHECKPOINT_ID: persistence.checkpoint_id}, metadata, ns),
        "parent_config": None if parent is None else _located({**configurable, CHECKPOINT_ID: parent}, metadata, ns),
        "values": run.state.read(run.plan.stream),
        "metadata": dict(metadata),
        "next": [task.name for task in tasks],
        "tasks": shown,
    }


def _located(configurable: Mapping[str, Any], metadata: Mapping[str, Any], ns: str) -> dict[str, Any]:
    where = {key: value for key, value in configurable.items() if not key.startswith(_PRIVATE)}
    if parents := metadata.get("parents"):
        where[CHECKPOINT_MAP] = {**parents, ns: where[CHECKPOINT_ID]}
    return {CONF: where}


def _due(task: Task, task_id: str, writes: Sequence[tuple[str, Any]], state: Any, output: Reads) -> dict[str, Any]:
    """A task that is due, with what is known of it from before the run was resumed."""
    payload: dict[str, Any] = {"id": task_id, "name": task.name}
    errors = [value for name, value in writes if name == ERROR]
    if errors:
        return {**payload, "error": errors[0], "state": state}
    made = [(name, value) for name, value in writes if name not in (ERROR, INTERRUPT, RESUME, NO_WRITES)]
    if made:
        returned = [value for name, value in made if name == RETURN]
        result = returned[0] if returned else result_of(made, output)
        if isinstance(output, str) and not returned:
            result = result.get(output)
        if result:
            payload["result"] = result
    asked = [value for name, value in writes if name == INTERRUPT]
    payload["interrupts"] = tuple(
        asdict(item) for value in asked for item in (value if isinstance(value, (list, tuple)) else (value,))
    )
    payload["state"] = state
    return payload


def debug_of(mode: str, payload: dict[str, Any], step: int) -> dict[str, Any]:
    """A payload as the "debug" stream wraps it."""
    from mpflow.checkpoint.base import now_iso

    kind = "checkpoint" if mode == "checkpoints" else "task_result" if "result" in payload else "task"
    return {"step": step, "timestamp": now_iso(), "type": kind, "payload": payload}
