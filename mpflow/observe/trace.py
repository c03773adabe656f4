"""What ran when: one span for each attempt at a task, gathered from the runs that start while a trace is open.

The engine tells it what it hands out and what comes back, nothing else; a run without a trace pays one look at a context
variable. How it is written for others to draw: see `observe.timeline`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from os import PathLike
from threading import Lock
from typing import Any

from mpflow._messages import CANCELLED, EVENT, FAILED, LOST, Attempt, Outcome, one_by_one

ENDINGS = {FAILED: "failed", LOST: "lost", CANCELLED: "cancelled"}


@dataclass(frozen=True, slots=True)
class Span:
    """One attempt at a task. Times are in seconds since the trace was opened; ``number`` counts attempts from 1.

    ``depth`` counts the graphs around the task's own. ``queued_s`` is when the attempt was handed to its place, ``ended_s`` when its outcome reached the run, ``started_s``
    that less the time that the node ran: tiny tasks of worker processes arrive in batches, up to some milliseconds after
    they ended. ``ending`` is "done", "failed", "lost" or "cancelled".
    """

    graph: str
    depth: int
    node: str
    step: int
    path: tuple[Any, ...]
    number: int
    queued_s: float
    started_s: float
    ended_s: float
    ending: str
    moved: bool = False
    """It ran in a worker that nobody had asked for: see `explain`."""

    @property
    def run_s(self) -> float:
        """How long the node ran."""
        return self.ended_s - self.started_s


class Trace:
    """A context manager that records the runs started within it, in this thread or task and those they start.

    ``spans`` grow as attempts end. One trace may record many runs, one after the other or side by side.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.opened_at = time.time()
        self._zero = time.perf_counter()
        self._queued: dict[int, tuple[Attempt, float]] = {}
        self._lock = Lock()
        self._token: Token[Trace | None] | None = None

    def __enter__(self) -> Trace:
        if self._token is not None:
            raise RuntimeError("this trace is open already; open another one")
        self._token = tracing.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            tracing.reset(self._token)
            self._token = None

    def dispatched(self, attempts: Sequence[Attempt]) -> None:
        """Attempts are on the way to their places."""
        now = time.perf_counter() - self._zero
        with self._lock:
            for attempt in attempts:
                self._queued[id(attempt)] = attempt, now

    def arrived(self, graph: str, outcomes: Sequence[Outcome]) -> None:
        """Outcomes came back. One that is no ending is passed over."""
        now = time.perf_counter() - self._zero
        for kind, attempt, _, seconds in one_by_one(outcomes):
            if kind is EVENT:
                continue
            with self._lock:
                found = self._queued.pop(id(attempt), None)
            if found is None:
                continue
            queued_s = found[1]
            self.spans.append(
                Span(
                    graph=graph,
                    depth=attempt.facts.depth,
                    node=attempt.program.name,
                    step=attempt.facts.step,
                    path=attempt.path,
                    number=attempt.number,
                    queued_s=queued_s,
                    started_s=max(queued_s, now - seconds),
                    ended_s=now,
                    ending=ENDINGS.get(kind, "done"),
                    moved=getattr(attempt.program, "is_moved", False),
                )
            )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the timeline as JSON, to be opened at ui.perfetto.dev or chrome://tracing. Raises OSError."""
        import json

        from mpflow.observe.timeline import trace_events

        with open(path, "w", encoding="utf-8") as file:
            json.dump({"traceEvents": trace_events(self.spans), "displayTimeUnit": "ms"}, file)

    def by_node(self) -> Iterator[tuple[str, list[Span]]]:
        """The spans of each node, by the time of the first."""
        found: dict[str, list[Span]] = {}
        for span in sorted(self.spans, key=lambda span: span.started_s):
            found.setdefault(span.node, []).append(span)
        yield from found.items()


tracing: ContextVar[Trace | None] = ContextVar("mpflow_trace", default=None)
