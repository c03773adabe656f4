"""What a graph says of where its nodes run, before and after runs."""

from __future__ import annotations

import select
import time
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from mpflow._engine.hints import hint
from mpflow._exec.functions import Spent
from mpflow._exec.placement.decide import NO_LOCK, ms
from mpflow._exec.process import WorkerPool
from mpflow.graph import START, StateGraph
from mpflow.types import Send
from tests.colours import Run
from tests.exec.placement import corpus

State = dict


def graph_of(**actions: Any) -> Any:
    graph = StateGraph(dict)
    for name, action in actions.items():
        graph.add_node(name, action).add_edge(START, name)
    return graph.compile()


async def awaits(state: Any) -> None:
    pass


def waits(state: Any) -> None:
    time.sleep(0.02)


def test_before_a_run_it_tells_what_could_move_and_what_holds_the_rest() -> None:
    found = graph_of(a=corpus.computes, b=corpus.appends_to_a_global, c=awaits).explain()
    assert [(p.node, p.place, p.can_move) for p in found] == [
        ("a", "thread", True),
        ("b", "thread", False),
        ("c", "loop", False),
    ]
    assert "moves to workers if" in found["a"].reason
    assert "the global 'ITEMS' is a list" in found["b"].reason
    assert found["b"].held_by is not None
    with pytest.raises(KeyError):
        found["z"]


def test_after_a_run_it_tells_the_figures(run: Run) -> None:
    graph = graph_of(waits=waits, tiny=corpus.remembers_nothing)
    run.invoke(graph, {})
    found = graph.explain()
    assert found["waits"].calls_here == 1
    assert found["waits"].wall_s >= 0.02 > found["waits"].cpu_s
    assert found["waits"].reason.startswith(f"its calls wait: {ms(found['waits'].wall_s)} each")
    assert "of CPU time a call; sending a task costs" in found["tiny"].reason


def test_without_the_interpreters_lock_it_says_that_threads_use_every_core(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys._is_gil_enabled", lambda: False, raising=False)
    graph = graph_of(a=corpus.computes)
    assert (graph.explain()["a"].can_move, graph.explain()["a"].reason) == (False, NO_LOCK)
    run.invoke(graph, {})
    found = graph.explain()["a"]
    assert (found.place, found.reason) == ("thread", f"{ms(found.cpu_s)} of CPU time a call; {NO_LOCK}")


def test_a_place_that_was_asked_for_is_named(run: Run) -> None:
    graph = StateGraph(dict).add_node("a", corpus.remembers_nothing, executor="thread").add_edge(START, "a")
    app = graph.compile(executor="inline")
    run.invoke(app, {})
    placement = app.explain()["a"]
    assert (placement.asked, placement.place, placement.can_move) == ("thread", "thread", None)
    assert placement.reason.startswith("executor='thread'; ")


def test_it_prints_as_a_table_and_gives_plain_data() -> None:
    found = graph_of(first=corpus.computes).explain()
    lines = str(found).split("\n")
    assert lines[1].split() == [
        "node",
        "asked",
        "runs",
        "in",
        "calls",
        "here",
        "calls",
        "in",
        "workers",
        "memory",
        "why",
    ]
    assert lines[2].split()[:3] == ["first", "auto", "threads"]
    assert found.to_dicts()[0]["node"] == "first"
    out = StringIO()
    Console(file=out, width=200).print(found)
    assert "moves to workers" in out.getvalue()


# -- hints -----------------------------------------------------------------------------------------------------------


def hints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "costs more than it gains" in record.getMessage()]


def test_a_thread_that_holds_up_the_others_is_told_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mpflow._engine.hints.cpu_count", lambda: 2)
    graph = StateGraph(dict).add_node("a", corpus.remembers_nothing, executor="thread").add_edge(START, "a").compile()
    run.invoke(graph, {})
    profile = graph._plan.nodes["a"].meter
    for _ in range(300):
        profile.note(0.1, 0.02)
        profile.note_company(1.0)
    for _ in range(3):
        run.invoke(graph, {})
    (text,) = hints(caplog)
    assert text.startswith("node 'a': executor='thread' costs more than it gains: its calls take turns")
    assert "of them take" in text and "in 2 workers" in text


class Pool:
    max_workers = 2

    def __init__(self, figures: tuple[int, float, int] = (0, 0.0, 0), spent: Spent | None = None) -> None:
        self.figures = figures
        self.spending = spent or Spent(0, 0.0, 0.0, 0.0, 0)

    def measured(self, program: Any) -> tuple[int, float, int]:
        return self.figures

    def spent(self, program: Any) -> Spent:
        return self.spending


@pytest.mark.parametrize(
    ("calls", "mean_s", "batches", "is_told"),
    [(5000, 5e-6, 5000, True), (5000, 5e-6, 20, False), (5, 5e-6, 5, False), (5000, 0.001, 5000, False)],
)
def test_workers_for_tiny_calls_are_told_if_each_travels_by_itself(
    calls: int, mean_s: float, batches: int, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    node = graph_of(a=corpus.remembers_nothing)._plan.nodes["a"]
    assert hint(node, "process", Pool((calls, mean_s, batches)), 6) is is_told
    assert len(hints(caplog)) == is_told
    if is_told:
        assert "its calls take 5 us in a worker" in hints(caplog)[0] and "travel 1.0 at a time" in hints(caplog)[0]


@pytest.mark.warm_pool
def test_calls_that_were_sent_as_asked_are_counted(run: Run) -> None:
    graph = StateGraph(dict).add_node("a", corpus.remembers_nothing, executor="process").add_edge(START, "a").compile()
    run.invoke(graph, {})
    placement = graph.explain()["a"]
    assert (placement.asked, placement.place, placement.calls_in_workers) == ("process", "process", 1)


def eats(state: Any) -> None:
    taken = bytearray(64 << 20)
    time.sleep(0.02)
    assert taken


@pytest.mark.warm_pool
def test_what_a_task_takes_of_memory_is_told(run: Run) -> None:
    graph = StateGraph(dict).add_node("a", eats, executor="process").add_edge(START, "a").compile()
    run.invoke(graph, {})
    found = graph.explain()["a"]
    assert found.memory_bytes >= 32 << 20
    assert f"{found.memory_bytes / 1e6:,.0f} MB" in str(graph.explain())


@pytest.mark.parametrize(
    ("spent", "most_here", "is_told"),
    [
        (Spent(200, 4.0, 0.1, 0.0, 48), 6, True),
        (Spent(200, 4.0, 0.1, 0.0, 2), 6, False),  # no more than there are workers
        (Spent(200, 4.0, 3.0, 0.0, 48), 6, False),  # it computes
        (Spent(200, 4.0, 0.1, 3.0, 48), 6, False),  # others computed in its place
        (Spent(20, 0.4, 0.01, 0.0, 48), 6, False),  # hardly anything was lost
        (Spent(200, 4.0, 0.1, 0.0, 48), 2, False),  # no more threads than workers
        (Spent(200, 4.0, 0.1, 0.0, 48), 0, False),  # it can only be awaited, and nobody does
    ],
)
def test_workers_that_wait_are_told_of_where_many_wait(
    spent: Spent, most_here: int, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    node = graph_of(a=corpus.remembers_nothing)._plan.nodes["a"]
    assert hint(node, "process", Pool(spent=spent), most_here) is is_told
    assert len(hints(caplog)) == is_told
    if is_told:
        assert "its calls wait: 20 ms each in a worker, 500 us of it CPU time" in hints(caplog)[0]
        assert "48 were there at once: they take 480 ms in 2 workers, 160 ms in this process" in hints(caplog)[0]


def explained_on_processes(run: Run, node: Any, tasks: int, runs: int) -> Any:
    """What is explained of a node after runs of so many of its tasks at once."""
    graph = StateGraph(dict).add_node("a", node, executor="process")
    graph.add_conditional_edges(START, lambda _: [Send("a", {}) for _ in range(tasks)], ["a"])
    with WorkerPool(2) as pool:
        app = graph.compile(pool=pool)
        for _ in range(runs):
            run.invoke(app, {}, {"max_concurrency": tasks})
        (placement,) = app.explain()
    return placement


def test_a_node_that_waits_on_processes_is_told_once_and_explained(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mpflow._engine.hints.ENOUGH_S", 0.02)
    placement = explained_on_processes(run, waits_for_a_moment, tasks=24, runs=3)
    (text,) = hints(caplog)
    assert text.startswith("node 'a': executor='process' costs more than it gains: its calls wait")
    assert "24 were there at once" in text
    assert placement.calls_in_workers == 72
    assert "of it CPU time: its calls wait, as they could in threads" in placement.reason
    assert placement.cpu_s < 0.25 * placement.worker_s


def test_a_node_that_computes_on_processes_is_told_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mpflow._engine.hints.ENOUGH_S", 0.001)
    placement = explained_on_processes(run, computes_for_a_moment, tasks=12, runs=1)
    assert not hints(caplog)
    assert "its calls wait" not in placement.reason and "of it CPU time" in placement.reason


def waits_for_a_moment(state: Any) -> Any:
    select.select([], [], [], 0.005)


def computes_for_a_moment(state: Any) -> Any:
    sum(range(200_000))
