"""How a batch is spread if nobody says: ``batch(parallel="auto")``."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from typing_extensions import TypedDict

from mpflow import WorkerPool
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.graph import END, START, StateGraph
from mpflow.pregel import spreading
from mpflow.pregel.items import Items
from mpflow.pregel.spreading import checks_of, reason_to_drive
from tests.colours import Run

pytestmark = pytest.mark.warm_pool


class State(TypedDict, total=False):
    x: Any
    y: int


def burn(state: State) -> State:
    y = 1
    for _ in range(2_000):
        y = y * 1103515245 + 12345 & 0x7FFFFFFF
    return {"y": y}


def refuse_sevens(state: State) -> State:
    if state["x"] % 1000 == 7:
        raise LookupError(state["x"])
    return burn(state)


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool


@pytest.fixture(autouse=True)
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else the machine does: runs count as busy, and are measured briefly."""
    monkeypatch.setattr(spreading, "BUSY", (0.0, 100.0))
    monkeypatch.setattr(spreading, "TRIAL_S", 0.0)
    monkeypatch.setattr(spreading, "START_S", 0.0)


def graph_of(function: Any, pool: WorkerPool, **options: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("a", function)
    builder.add_edge(START, "a")
    builder.add_edge("a", END)
    return builder.compile(pool=pool, **options)


class Moved:
    """How many inputs went to workers whole."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._count = 0
        submit = Items.submit

        def counted(batch: Items, items: Sequence[Any]) -> None:
            self._count += len(items)
            submit(batch, items)

        monkeypatch.setattr(Items, "submit", counted)

    def __bool__(self) -> bool:
        return self._count > 0


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Moved:
    return Moved(monkeypatch)


def test_busy_runs_of_safe_functions_go_to_workers_whole(run: Run, pool: WorkerPool, moved: Moved) -> None:
    outputs = run.batch(graph_of(burn, pool), [{"x": n} for n in range(200)])
    assert [output["x"] for output in outputs] == list(range(200))
    assert moved


def test_runs_that_wait_stay(run: Run, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch, moved: Moved) -> None:
    monkeypatch.setattr(spreading, "BUSY", (100.0, 200.0))
    run.batch(graph_of(burn, pool), [{"x": n} for n in range(20)])
    assert not moved


def test_failures_are_what_they_are_here(run: Run, pool: WorkerPool) -> None:
    inputs = [{"x": n} for n in range(100)]
    outputs = run.batch(graph_of(refuse_sevens, pool), inputs, return_exceptions=True)
    failed = outputs.pop(7)
    assert isinstance(failed, LookupError)
    assert failed.args == (7,)
    assert all(output["x"] != 7 for output in outputs)
    with pytest.raises(LookupError):
        run.batch(graph_of(refuse_sevens, pool), inputs)


def test_inputs_that_are_no_plain_values_stay(pool: WorkerPool) -> None:
    lock = threading.Lock()
    inputs: list[State] = [{"x": n} for n in range(30)]
    inputs[15] = {"x": lock}
    outputs = graph_of(burn, pool).batch(inputs)
    assert outputs[15]["x"] is lock


def test_functions_with_state_stay(pool: WorkerPool) -> None:
    seen: list[Any] = []

    def remember(state: State) -> State:
        seen.append(state["x"])
        return burn(state)

    assert checks_of(graph_of(remember, pool)) is None
    graph_of(remember, pool).batch([{"x": n} for n in range(30)])
    assert sorted(seen) == list(range(30))


@pytest.mark.parametrize(
    "options", [{"checkpointer": InMemorySaver()}, {"executor": "thread"}], ids=["a checkpointer", "a place"]
)
def test_what_the_graph_remembers_or_says_keeps_it(options: dict[str, Any], pool: WorkerPool) -> None:
    assert reason_to_drive(graph_of(burn, pool), {}) is None
    assert reason_to_drive(graph_of(burn, pool, **options), {}) is not None


def test_a_function_that_is_another_in_the_worker_is_run_here(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = checks_of(graph_of(refuse_sevens, pool))
    monkeypatch.setattr(spreading, "checks_of", lambda graph: other)
    outputs = graph_of(burn, pool).batch([{"x": n} for n in range(30)])
    assert [output["x"] for output in outputs] == list(range(30))


def test_a_graph_that_cannot_travel_stays(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()

    def guarded(state: State) -> State:
        with lock:
            return burn(state)

    monkeypatch.setattr(spreading, "checks_of", lambda graph: {})
    outputs = graph_of(guarded, pool).batch([{"x": n} for n in range(30)])
    assert [output["x"] for output in outputs] == list(range(30))
