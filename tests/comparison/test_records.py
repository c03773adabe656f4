"""What follows from the measurements of a comparison."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mpflow.comparison import Comparison, Measurement, NodeTimes
from mpflow.comparison.records import duration, size
from mpflow.comparison.rows import node_rows, settings_rows
from mpflow.observe.explain import NodePlacement


def measured(place: str, workers: int, wall_s: float, *nodes: NodeTimes) -> Measurement:
    return Measurement(place, workers, (wall_s * 1.1, wall_s), wall_s, 0, 0, nodes)


def comparison_of(*measurements: Measurement, kept: dict[str, str] | None = None) -> Comparison:
    return Comparison("g", {"processors": 2, "python": "CPython"}, True, measurements, kept or {}, True)


BUSY, WAITING, TINY = (
    NodeTimes("busy", 8, 0.8, 24),
    NodeTimes("waiting", 8, 0.8, 24),
    NodeTimes("tiny", 8, 0.0008, 24),
)
ALL = comparison_of(
    measured("thread", 1, 1.6, BUSY, WAITING, TINY),
    measured("process", 1, 1.624, BUSY, WAITING, TINY),
    # Two threads take turns at what holds the GIL: each task takes twice as long.
    measured("thread", 2, 1.2, replace(BUSY, run_s=1.6), WAITING, TINY),
    measured("process", 2, 0.82, BUSY, WAITING, TINY),
)


def test_speed_up_is_against_one_thread_and_efficiency_against_its_multiple() -> None:
    fastest = ALL.fastest
    assert (fastest.place, fastest.workers) == ("process", 2)
    assert round(ALL.speed_up(fastest), 2) == 1.95
    assert round(ALL.efficiency(fastest), 2) == 0.98
    assert "2 processes, 820 ms, 1.95 times as fast as one thread and 1.46 times as fast as 2 threads" in ALL.summary


def test_a_node_that_waits_for_the_gil_gains_and_others_are_told_why_not() -> None:
    verdicts = {verdict.node: verdict for verdict in ALL.verdicts}
    assert ALL.verdicts[0].node == "busy"
    assert verdicts["busy"].gains
    assert "2.0 times as long" in verdicts["busy"].reason
    assert not verdicts["waiting"].gains
    assert "lets go of the GIL" in verdicts["waiting"].reason
    assert not verdicts["tiny"].gains
    assert "too short" in verdicts["tiny"].reason


def test_the_break_even_is_where_both_places_take_as_long() -> None:
    break_even_s = ALL.break_even_s
    assert break_even_s is not None
    thread_o, process_o = ALL.serial.overhead_s, ALL.of("process")[0].overhead_s
    assert abs((break_even_s + thread_o) - (break_even_s / 2 + process_o)) < 1e-9


def test_a_node_alone_in_its_step_cannot_gain() -> None:
    alone = NodeTimes("alone", 1, 1.0, 1)
    found = comparison_of(*(measured(place, n, 1.0, alone) for place in ("thread", "process") for n in (1, 2)))
    assert [verdict.gains for verdict in found.verdicts] == [False]
    assert "nothing runs beside it" in found.verdicts[0].reason


def test_a_node_that_cannot_travel_says_what_keeps_it() -> None:
    kept = replace(ALL, kept={"busy": "a lock"})
    assert next(verdict for verdict in kept.verdicts if verdict.node == "busy").reason == "a lock"


def test_without_a_gil_and_with_other_results_it_says_so() -> None:
    summary = replace(ALL, has_gil=False, same_result=False).summary
    assert "has no GIL" in summary
    assert "did not all give the same result" in summary


def test_it_is_plain_json() -> None:
    told = json.loads(json.dumps(ALL.to_json()))
    assert len(told["settings"]) == len(told["measurements"]) == 4
    assert told["verdicts"][0]["node"] == "busy"
    assert "Left to itself" not in ALL.summary


def test_what_auto_decided_is_shown_beside_each_node() -> None:
    placement = NodePlacement("busy", "auto", "process", "it computes", True, None, 2, 6, 0.1, 0.1, 0.1)
    told = replace(ALL, auto=measured("auto", 2, 0.83, BUSY, WAITING, TINY), decisions=(placement,))
    assert [row[0] for row in settings_rows(told)][-1] == "auto"
    assert next((row[0], row[-1]) for row in node_rows(told)) == ("busy", "workers: it computes")
    assert "Left to itself it takes 830 ms" in told.summary
    assert json.loads(json.dumps(told.to_json()))["decisions"][0]["place"] == "process"
    assert told.fastest == ALL.fastest


@given(st.floats(min_value=1e-9, max_value=1e5))
def test_durations_are_read_back_to_three_digits(seconds: float) -> None:
    number, unit = duration(seconds).split()
    assert abs(float(number) * {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}[unit] - seconds) <= seconds * 0.0051


def test_sizes_have_units() -> None:
    assert [size(count) for count in (0, 999, 1500, 3_400_000, 2e9)] == ["0 B", "999 B", "1.5 kB", "3.4 MB", "2 GB"]
