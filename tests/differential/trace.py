"""What a run showed its caller, with what no engine promises taken out: ids, and the order of ends within a step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MODES = ["values", "updates", "tasks", "custom"]


class Trace:
    """Steps of a stream: its tasks as they were started, its updates and results in any order, its values."""

    def __init__(self, chunks: Iterable[Any], error: BaseException | None) -> None:
        self.error = None if error is None else type(error).__name__
        streams: dict[tuple[str, ...], list[tuple[str, Any]]] = {}
        for ns, mode, chunk in chunks:
            # Later calls of one task have a number, and so have those of a later attempt.
            ns = tuple(part for part in ns if not part.isdigit())
            streams.setdefault(ns, []).append((mode, chunk))
        steps = [step for events in streams.values() for step in _steps(events)]
        self.crowded = {name for step in steps if len(step["starts"]) > 1 for name, *_ in step["starts"]}
        """Nodes that ran beside others: which of their errors or commands comes first depends on time."""
        self.root = _steps(streams.pop((), []))
        if error is not None:
            # Who was still running when the step failed depends on time.
            self.root[-1].update(ends=[], failed=set())
        if error is not None and len(self.root[-1]["starts"]) > 1:
            self.error = "the first in time"  # several may have failed
        # Which of several runs below was cut short by a failure depends on time.
        self.below = sorted(
            repr((tuple(part.partition(":")[0] for part in ns), [_without_race(step) for step in _steps(events)]))
            for ns, events in (streams.items() if error is None else ())
        )
        self.final: Any = None
        if error is None:
            self.final = self.root[-1]["values"][-1]

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Trace)
        mine = (self.error, self.root, self.below, self.final)
        return mine == (other.error, other.root, other.below, other.final)

    def __repr__(self) -> str:
        return "\n".join(["", *map(repr, self.root), *self.below, f"{self.final!r} {self.error}"])


def _steps(events: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """What failed in a step, and was not handled there, is told by its key `failed`."""
    steps = [_empty()]
    for mode, chunk in events:
        step = steps[-1]
        if mode == "tasks" and "triggers" in chunk:
            if step["values"] or step["ends"]:
                steps.append(_empty())
            steps[-1]["starts"].append((chunk["name"], chunk["input"], tuple(chunk["triggers"])))
        elif mode == "tasks":
            error = chunk["error"]
            result = repr((chunk["name"], type(error).__name__, chunk["result"], chunk["interrupts"]))
            step["ends"].append(result)
            if error:
                step["failed"].add(chunk["name"])
            else:
                step["failed"].discard(chunk["name"].removeprefix("__error_handler__"))
        elif mode in ("updates", "custom"):
            step["ends"].append(repr((mode, chunk)))
        else:
            step["values"].append(chunk)
    for step in steps:
        step["ends"].sort()
    return steps


def _empty() -> dict[str, Any]:
    return {"values": [], "starts": [], "ends": [], "failed": set()}


def _without_race(step: dict[str, Any]) -> tuple[Any, ...]:
    """A step of a run below may fail, and the run be begun again or handled above: who had ended by then is left out."""
    is_decided_by_time = step["failed"] and len(step["starts"]) > 1
    return step["values"], step["starts"], [] if is_decided_by_time else step["ends"]


def sync_trace(graph: Any, input: Any, config: Any, *, invokes: bool = True) -> Trace:
    """The trace of a graph; with `invokes`, what ``invoke`` returns is final, else the last values of the stream."""
    chunks: list[Any] = []
    error: BaseException | None = None
    try:
        chunks.extend(graph.stream(input, config, stream_mode=MODES, subgraphs=True))
    except Exception as raised:
        error = raised
    trace = Trace(chunks, error)
    if error is None and invokes:
        trace.final = graph.invoke(input, config)
    return trace


async def async_trace(graph: Any, input: Any, config: Any) -> Trace:
    chunks: list[Any] = []
    error: BaseException | None = None
    try:
        async for chunk in graph.astream(input, config, stream_mode=MODES, subgraphs=True):
            chunks.append(chunk)
    except Exception as raised:
        error = raised
    trace = Trace(chunks, error)
    if error is None:
        trace.final = await graph.ainvoke(input, config)
    return trace
