"""Nodes that say nothing of where they run: moved by what was measured, and never to another result."""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Annotated, Any, TypedDict

import pytest

import mpflow._engine.placing as placing
from mpflow._columns import Span
from mpflow._exec.placement.costs import book_of
from mpflow._exec.placement.decide import PROCESS, THREAD, Verdict
from mpflow._exec.placement.profile import Profile
from mpflow._exec.placement.safety import walk
from mpflow._exec.placement.standing import Trial
from mpflow._exec.process import WorkerPool
from mpflow.graph import START, StateGraph
from mpflow.types import Send
from tests.colours import Run
from tests.exec.scripts import run_script

pytestmark = pytest.mark.warm_pool

TASKS = 24
PATIENCE_S = 60.0
"""A pool may take its time to start, on a machine that others use."""


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]


class Task(TypedDict):
    n: int
    items: list


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        fan(busy, pool, executor="process").invoke({})
        book_of(pool).is_started = True
        yield pool


@pytest.fixture(autouse=True)
def _decided(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are always quicker, whatever else this machine does: what is tested is what follows from that."""
    monkeypatch.setattr(placing, "cores", lambda: 2)

    def quicker(figures: Any, costs: Any, tasks: int, *, held: str | None, **_: Any) -> Verdict:
        if held is not None or tasks < 2 or costs.workers < 2:
            return Verdict(THREAD, f"it stays: {held}")
        return Verdict(PROCESS, "it moves", 1.0, 0.5)

    if "measured" not in request.node.name:
        monkeypatch.setattr(placing, "decide", quicker)


def spin(turns: int = 15_000) -> int:
    x = 1
    for _ in range(turns):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
    return x


def busy(task: Any) -> Any:
    spin()
    return {"log": [task["n"]]}


def fan(action: Any, pool: Any, tasks: int = TASKS, **node: Any) -> Any:
    graph = StateGraph(State).add_node("w", action, **node)
    graph.add_conditional_edges(START, lambda state: [Send("w", {"n": n, "items": [n]}) for n in range(tasks)])
    return graph.compile(pool=pool)


def profile_of(graph: Any) -> Profile:
    return graph._plan.nodes["w"].meter


def known(graph: Any, cpu_s: float = 0.01) -> Profile:
    """Have the node measured before: calls that hold the interpreter's lock."""
    profile = graph._plan.nodes["w"].meter = Profile("w")
    for _ in range(100):
        profile.note(cpu_s, cpu_s)
        profile.note_company(1.0)
    return profile


def until_moved(run: Run, graph: Any) -> Profile:
    """Run until the node is trusted and its tasks are sent."""
    profile = profile_of(graph) or known(graph)
    until_s = monotonic() + PATIENCE_S
    while monotonic() < until_s:
        result = run.invoke(graph, {})
        assert result["log"] == list(range(TASKS))
        if profile.sent > 2 or (profile.standing is not None and profile.standing.held):
            return profile
    raise AssertionError(f"it was not moved: {profile.standing and profile.standing.verdict}")


@pytest.mark.slow
def test_calls_that_are_measured_to_take_turns_move_and_give_the_same(run: Run, pool: WorkerPool) -> None:
    profile = until_moved(run, fan(busy, pool))
    assert profile.standing is not None
    assert profile.standing.held is None


@pytest.fixture
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial is passed as soon as it is begun."""

    def passed(trial: Trial, *_: Any) -> bool:
        trial._standing.proven = True
        return True

    monkeypatch.setattr(Trial, "begin", passed)


def test_a_long_fan_out_moves_in_the_middle(run: Run, pool: WorkerPool, _trusted: None) -> None:
    graph = fan(busy, pool, 200)
    known(graph)
    assert run.invoke(graph, {})["log"] == list(range(200))
    assert 0 < profile_of(graph).sent < 200


class Spans:
    """A pool that notes in what it is given tasks."""

    def __init__(self, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[tuple[type, int]] = []
        submit = pool.submit

        def noted(attempts: Any) -> None:
            self.given.append((type(attempts), len(attempts)))
            submit(attempts)

        monkeypatch.setattr(pool, "submit", noted)


def test_the_first_step_after_the_decision_goes_as_a_span(
    run: Run, pool: WorkerPool, _trusted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = fan(busy, pool)
    profile = known(graph)
    while not profile.moves:
        run.invoke(graph, {})
    spans = Spans(pool, monkeypatch)
    assert run.invoke(graph, {})["log"] == list(range(TASKS))
    assert spans.given == [(Span, TASKS)]


def test_light_calls_by_the_hundred_are_seen_and_moved(
    run: Run, pool: WorkerPool, _trusted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def light(task: Any) -> Any:
        return {"log": [task["n"]]}

    graph = StateGraph(State).add_node("w", light)
    graph.add_conditional_edges(START, lambda state: [Send("w", {"n": n}) for n in range(300)])
    app = graph.compile(pool=pool)
    run.invoke(app, {})
    spans = Spans(pool, monkeypatch)
    assert run.invoke(app, {})["log"] == list(range(300))
    assert not profile_of(app).is_heavy
    assert spans.given == [(Span, 300)]


def test_a_fan_of_which_one_does_not_travel_back_is_completed_by_threads(
    run: Run, pool: WorkerPool, _trusted: None
) -> None:
    graph = StateGraph(State).add_node("w", turns_bad)
    bad = [0]

    def sends(state: Any) -> Any:
        return [Send("w", {"n": n, "items": ["bad" if n == bad[0] else "good"]}) for n in range(1, 200)]

    app = graph.add_conditional_edges(START, sends).compile(pool=pool)
    known(app)
    run.invoke(app, {})
    bad[0] = 77
    assert run.invoke(app, {})["log"] == list(range(1, 200))
    standing = profile_of(app).standing
    assert standing is not None
    assert standing.held == "it changes its input"
    assert standing.returned >= 1
    assert run.invoke(app, {})["log"] == list(range(1, 200))


def test_a_closure_that_collects_stays_and_collects() -> None:
    seen: list[int] = []

    def collects(task: Any) -> Any:
        spin()
        seen.append(task["n"])
        return {"log": [task["n"]]}

    graph = fan(collects, None)
    known(graph)
    for _ in range(3):
        graph.invoke({})
    standing = profile_of(graph).standing
    assert standing is not None
    assert "the variable 'seen' is a list" in str(standing.held)
    assert sorted(seen) == sorted([*range(TASKS)] * 3)


def test_the_first_run_of_a_batch_counts_on_the_others(run: Run, pool: WorkerPool, _trusted: None) -> None:
    """By itself its one task would have nothing to run beside it, and stay."""
    app = StateGraph(State).add_node("w", lambda state: {"log": [spin()]}).add_edge(START, "w").compile(pool=pool)
    profile = known(app)
    run.batch(app, [{}] * 6, {"max_concurrency": 6}, parallel="nodes")
    calls, sent = profile.calls, pool.stats()["ended"]
    run.batch(app, [{}] * 6, {"max_concurrency": 6}, parallel="nodes")
    assert profile.calls == calls
    assert pool.stats()["ended"] == sent + 6


def scribbles(task: Any) -> Any:
    spin()
    task["items"].append("scribbled")
    return {"log": [task["n"]]}


def gives_a_lock(task: Any) -> Any:
    spin()
    return {"log": [threading_lock()]}


def threading_lock() -> Any:
    return threading.Lock()


def test_a_node_that_changes_its_input_is_seen_to_and_stays(run: Run, pool: WorkerPool) -> None:
    graph = fan(scribbles, pool)
    known(graph)
    profile = until_moved(run, graph)
    assert profile.standing is not None
    assert profile.standing.held == "it changes its input"
    assert profile.sent == 0


def test_a_result_that_cannot_travel_fails_no_run(run: Run, pool: WorkerPool) -> None:
    graph = fan(gives_a_lock, pool)
    profile = known(graph)
    for _ in range(100):
        assert len(run.invoke(graph, {})["log"]) == TASKS
        if profile.standing is not None and profile.standing.held:
            break
    assert profile.standing is not None
    assert "lock" in str(profile.standing.held)


def turns_bad(task: Any) -> Any:
    spin()
    if task["items"][0] == "bad":
        task["items"].append(1)
    return {"log": [task["n"]]}


def test_what_is_found_out_late_is_run_again_in_a_thread(run: Run, pool: WorkerPool) -> None:
    kinds = ["good"]
    graph = StateGraph(State).add_node("w", turns_bad)
    graph.add_conditional_edges(START, lambda state: [Send("w", {"n": n, "items": [kinds[0]]}) for n in range(TASKS)])
    graph = graph.compile(pool=pool)
    known(graph)
    profile = until_moved(run, graph)
    kinds[0] = "bad"
    assert profile.standing is not None
    for _ in range(100):
        assert run.invoke(graph, {})["log"] == list(range(TASKS))
        if profile.standing.held:
            break
    assert profile.standing.held == "it changes its input"
    assert profile.standing.returned > 0


def fails(task: Any) -> Any:
    spin()
    raise KeyError(task["n"])


def test_a_failure_is_the_threads_own(run: Run, pool: WorkerPool) -> None:
    graph = fan(lambda task: fails(task) if task["items"] == ["fail"] else busy(task), pool)
    known(graph)
    until_moved(run, graph)
    failing = StateGraph(State).add_node("w", fails)
    failing.add_conditional_edges(START, lambda state: [Send("w", {"n": 7, "items": []}) for _ in range(4)])
    app = failing.compile(pool=pool)
    known(app)
    for _ in range(4):
        with pytest.raises(KeyError, match="7") as raised:
            run.invoke(app, {})
        assert raised.value.__cause__ is None  # no worker's traceback stands behind it
        assert raised.traceback[-1].name == "fails"


LIMIT = 1


def goes_by_a_global(task: Any) -> Any:
    spin()
    return {"log": [task["n"] * LIMIT]}


def test_a_global_that_was_bound_anew_is_seen_by_all(
    run: Run, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = fan(goes_by_a_global, pool)
    known(graph)
    until_moved(run, graph)
    monkeypatch.setitem(globals(), "LIMIT", 2)
    for _ in range(4):
        assert run.invoke(graph, {})["log"] == [2 * n for n in range(TASKS)]


def test_waiting_calls_stay_in_threads(run: Run, pool: WorkerPool) -> None:
    together = threading.Barrier(3)

    def meets(task: Any) -> Any:
        together.wait(30)
        return {"log": [task["n"]]}

    graph = fan(meets, pool)
    for _ in range(2):
        assert run.invoke(graph, {})["log"] == list(range(TASKS))
    assert not profile_of(graph).is_heavy


def test_runs_of_several_threads_look_through_a_node_one_after_the_other(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = fan(busy, pool)
    standing = placing.standing_of(known(graph))
    together, walks = threading.Barrier(2), []

    def slow(source: Any) -> Any:
        walks.append(source)
        return walk(source)

    def looks(_: int) -> tuple[str | None, bool]:
        together.wait(30)
        return standing.reason_to_stay(graph._plan.nodes["w"].program), standing.guarded is not None

    monkeypatch.setattr("mpflow._exec.placement.standing.walk", slow)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(looks, range(2))) == [(None, True)] * 2
    assert len(walks) == 1


def test_a_closed_pool_fails_no_run(run: Run) -> None:
    with WorkerPool(2) as pool:
        graph = fan(busy, pool)
        known(graph)
        book_of(pool).is_started = True
        until_moved(run, graph)
    assert run.invoke(graph, {})["log"] == list(range(TASKS))
    assert "its pool is gone" in str(profile_of(graph).standing.held)


def test_a_pool_of_one_worker_is_never_started(run: Run) -> None:
    with WorkerPool(1) as pool:
        graph = fan(busy, pool)
        known(graph)
        for _ in range(3):
            run.invoke(graph, {})
        assert pool.stats()["started"] == 0


def test_the_explicit_place_is_kept(run: Run, pool: WorkerPool) -> None:
    def tells(task: Any) -> Any:
        return {"log": [os.getpid()]}

    assert set(run.invoke(fan(tells, pool, executor="thread"), {})["log"]) == {os.getpid()}
    assert os.getpid() not in run.invoke(fan(tells, pool, executor="process"), {})["log"]


@pytest.mark.parametrize(
    "known",
    [
        "profile.calls, profile.cpu_s, profile.is_heavy = 1_000, 0.001, True",
        "profile.proven_as, profile.is_heavy = 'by an earlier run of the program', True",
    ],
)
def test_what_moving_takes_is_loaded_when_there_is_enough_to_compute(known: str) -> None:
    """It takes longer to import than a short first run may be held up."""
    script = """
    import sys
    from typing import Annotated
    from typing_extensions import TypedDict
    from mpflow.graph import START, StateGraph
    from mpflow.types import Send

    class State(TypedDict, total=False):
        done: Annotated[int, lambda a, b: a + b]

    def busy(task):
        return {"done": sum(range(20_000)) > 0}

    graph = StateGraph(State).add_node("w", busy)
    app = graph.add_conditional_edges(START, lambda state: [Send("w", {})] * 70, ["w"]).compile()
    app.invoke({})
    print("mpflow._engine.placing" in sys.modules)
    profile = app._plan.nodes["w"].meter
    KNOWN
    app.invoke({})
    print("mpflow._engine.placing" in sys.modules)
    """
    assert run_script(script.replace("KNOWN", known)).stdout.split() == ["False", "True"]
