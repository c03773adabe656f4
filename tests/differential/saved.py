"""What runs with a saver show: checkpoints and debug events, questions and answers, the state and its history.

Ids and times are left out, as is the order of ends within a step, which time decides: that of threads in LangGraph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.differential.graphs import Library

MODES = ["values", "updates", "tasks", "checkpoints", "debug"]
CONFIG = {"configurable": {"thread_id": "1"}, "recursion_limit": 8}
ROUNDS = 5


class Saved:
    """The rounds of a thread: each the chunks of a run, how it ended, and the state that it left."""

    def __init__(self) -> None:
        self.rounds: list[Any] = []
        self.history: list[Any] = []
        self.is_decided_by_time = False
        """Whether tasks beside one another failed, or asked while others failed: who was first depends on time."""

    def __repr__(self) -> str:
        return "\n".join(["", *map(repr, self.rounds), "history", *map(repr, self.history)])


def saved(graph: Any, lib: Library, stream: Callable[..., list[Any]], run: Any, first: Any) -> Saved:
    """Run a graph on a thread until it has come to its end, answering what it asks; `stream` collects chunks and error."""
    shown = Saved()
    given: Any = first
    for number in range(ROUNDS):
        # LangGraph's thread that saves under "async" may find barriers that the next step has filled meanwhile.
        chunks, error = stream(graph, given, CONFIG, stream_mode=MODES, durability="sync")
        if type(error).__name__ == "InvalidUpdateError":  # LangGraph cannot show a state that its writes do not make
            shown.rounds.append((_chunks(chunks, error), "InvalidUpdateError"))
            shown.is_decided_by_time = _is_of_a_task(chunks)
            return shown
        try:
            state = run.get_state(graph, CONFIG)
        except Exception as failure:
            # Beside a question, what the others have written may make no state either.
            if type(failure).__name__ != "InvalidUpdateError":
                raise
            shown.rounds.append((_chunks(chunks, error), "no state"))
            return shown
        # The first to fail ends the step: what its siblings came to by then is a matter of time.
        if error is not None and len(state.tasks) > 1:
            shown.is_decided_by_time = True
        shown.rounds.append((_chunks(chunks, error), None if error is None else type(error).__name__, _state(state)))
        if error is not None or not state.next:
            break
        questions = state.interrupts
        answers = {question.id: f"answer {number} to {question.value}" for question in questions}
        if not questions:
            break
        given = lib.Command(resume=answers)
    shown.history = [_state(snapshot, whole=False) for snapshot in run.history(graph, CONFIG)]
    return shown


def _is_of_a_task(chunks: list[tuple[str, Any]]) -> bool:
    """Whether the last step had several tasks of which some did not finish, so that its error is that of one of them."""
    told = [chunk for mode, chunk in chunks if mode == "debug" and chunk["type"] in ("task", "task_result")]
    last = [chunk for chunk in told if chunk["step"] == told[-1]["step"]]
    results = [chunk["payload"] for chunk in last if chunk["type"] == "task_result"]
    finished = sum(not result["error"] and not result["interrupts"] for result in results)
    return 1 < len(last) - len(results) != finished


def _chunks(chunks: list[tuple[str, Any]], error: BaseException | None) -> list[Any]:
    """Chunks by mode: what each says in its own order, but for ends within a step."""
    by_mode: dict[str, list[Any]] = {mode: [] for mode in MODES}
    for mode, chunk in chunks:
        by_mode[mode].append(_plain(mode, chunk))
    return [(mode, _sorted_ends(told)) for mode, told in by_mode.items()]


def _plain(mode: str, chunk: Any) -> Any:
    if mode == "debug":
        kind = {"task": "tasks", "task_result": "tasks", "checkpoint": "checkpoints"}[chunk["type"]]
        return chunk["type"], chunk["step"], _plain(kind, chunk["payload"])
    if mode == "checkpoints":
        tasks = [
            (task["name"], repr(task.get("result")), bool(task.get("error")), len(task.get("interrupts") or ()))
            for task in chunk["tasks"]
        ]
        metadata = {key: chunk["metadata"].get(key) for key in ("source", "step")}
        return chunk["values"], metadata, list(chunk["next"]), tasks, chunk["parent_config"] is None
    if mode == "tasks" and "triggers" in chunk:
        return "start", chunk["name"], chunk["input"], list(chunk["triggers"])
    if mode == "tasks":
        asked = sorted(question["value"] for question in chunk["interrupts"])
        return "end", chunk["name"], type(chunk["error"]).__name__, _by_name(chunk["result"]), asked
    return _without_ids(chunk)


def _by_name(result: Any) -> Any:
    return sorted(map(repr, result.items() if isinstance(result, dict) else result or ()))


def _without_ids(chunk: Any) -> Any:
    if isinstance(chunk, dict) and "__interrupt__" in chunk:
        return {**chunk, "__interrupt__": sorted(question.value for question in chunk["__interrupt__"])}
    return chunk


def _sorted_ends(told: list[Any]) -> list[str]:
    """Neighbours that may come in any order, put in one: updates, and ends of tasks between two starts."""
    ordered: list[str] = []
    ends: list[str] = []
    for item in told:
        text = repr(item)
        is_end = "'end'" in text[:30] or "task_result" in text[:20] or isinstance(item, dict)
        if is_end:
            ends.append(text)
            continue
        ordered += sorted(ends)
        ends = []
        ordered.append(text)
    return ordered + sorted(ends)


def _state(snapshot: Any, *, whole: bool = True) -> Any:
    metadata = snapshot.metadata or {}
    tasks = [
        (
            task.name,
            sorted(question.value for question in task.interrupts),
            None if task.error is None else "error",
            repr(task.result) if whole else None,
        )
        for task in snapshot.tasks
    ]
    return snapshot.values, snapshot.next, metadata.get("source"), metadata.get("step"), tasks
