"""Spans as a timeline that other programs draw: the Trace Event format, which ui.perfetto.dev and chrome://tracing open.

The format: docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

from mpflow.observe.trace import Span


def trace_events(spans: Iterable[Span]) -> list[dict[str, Any]]:
    """One event for each span, in microseconds. Graphs are shown as processes, by depth; spans side by side as threads.

    A lane is no particular worker or thread: it holds spans that do not overlap.
    """
    events: list[dict[str, Any]] = []
    groups: dict[tuple[int, str], list[Span]] = {}
    for span in spans:
        groups.setdefault((span.depth, span.graph), []).append(span)
    for group, ((depth, graph), found) in enumerate(sorted(groups.items()), 1):
        name = graph if depth == 0 else f"{graph} (within {depth})"
        events.append({"ph": "M", "name": "process_name", "pid": group, "args": {"name": name}})
        for lane, span in lanes(found):
            events.append(
                {
                    "ph": "X",
                    "name": span.node,
                    "cat": span.ending,
                    "pid": group,
                    "tid": lane,
                    "ts": round(span.started_s * 1e6, 3),
                    "dur": round(span.run_s * 1e6, 3),
                    "args": {
                        "step": span.step,
                        "attempt": span.number,
                        "path": repr(span.path),
                        "waited_us": round((span.started_s - span.queued_s) * 1e6, 3),
                        "ending": span.ending,
                        "moved": span.moved,
                    },
                }
            )
    return events


def lanes(spans: Iterable[Span]) -> Iterable[tuple[int, Span]]:
    """Each span with the number of a lane in which nothing else runs at its time; as few lanes as there can be."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    for span in sorted(spans, key=lambda span: (span.started_s, span.ended_s)):
        while busy and busy[0][0] <= span.started_s:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy) + 1
        heapq.heappush(busy, (span.ended_s, lane))
        yield lane, span
