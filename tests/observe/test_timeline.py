"""Timelines for other programs to draw."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mpflow.observe.timeline import lanes, trace_events
from mpflow.observe.trace import Span, Trace


def span(started_s: float, run_s: float, node: str = "a", depth: int = 0) -> Span:
    return Span("g", depth, node, 1, ("pull", node), 1, max(0.0, started_s - 0.5), started_s, started_s + run_s, "done")


TIMES = st.floats(0, 100, allow_nan=False)


@given(st.lists(st.builds(span, TIMES, TIMES), max_size=30))
def test_spans_of_a_lane_do_not_overlap_and_no_lane_is_wasted(spans: list[Span]) -> None:
    found = list(lanes(spans))
    assert sorted(id(span) for _, span in found) == sorted(map(id, spans))
    for lane in {lane for lane, _ in found}:
        own = sorted((span.started_s, span.ended_s) for number, span in found if number == lane)
        assert all(before[1] <= after[0] for before, after in pairwise(own))
    widest = max((sum(o.started_s <= s.started_s < o.ended_s or o is s for o in spans) for s in spans), default=0)
    assert max((lane for lane, _ in found), default=0) <= max(widest, 1 if spans else 0)


def test_events_carry_times_in_microseconds_and_graphs_within_are_apart() -> None:
    named, first, deeper, second = trace_events([span(1.0, 0.25), span(1.0, 0.1, "b", depth=1)])
    assert named["args"] == {"name": "g"}
    assert (first["ts"], first["dur"], first["args"]["waited_us"]) == (1e6, 250_000, 500_000)
    assert deeper["pid"] == second["pid"] != first["pid"]


def test_it_is_saved_as_json(tmp_path: Path) -> None:
    trace = Trace()
    trace.spans.append(span(0.5, 1))
    trace.save(tmp_path / "trace.json")
    assert len(json.loads((tmp_path / "trace.json").read_text())["traceEvents"]) == 2
