"""Whole runs in worker processes: ``batch(parallel="items")``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import TypedDict

from mpflow import WorkerPool
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.config import RunnableConfig
from mpflow.errors import PoisonTaskError
from mpflow.graph import END, START, StateGraph
from mpflow.runtime import Runtime
from mpflow.store.base import BaseStore
from mpflow.store.memory import InMemoryStore
from mpflow.types import Command, FailureRecord, interrupt
from tests.colours import Run

pytestmark = pytest.mark.warm_pool


USER: ContextVar[str] = ContextVar("USER", default="nobody")


class State(TypedDict, total=False):
    x: int
    pid: int
    seen: Any


class Told(TypedDict):
    offset: int


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool


def graph_of(*functions: Any, pool: WorkerPool, **options: Any) -> Any:
    builder = StateGraph(State, context_schema=Told)
    builder.add_sequence([(f"step{index}", function) for index, function in enumerate(functions)])
    builder.add_edge(START, "step0")
    builder.add_edge(f"step{len(functions) - 1}", END)
    return builder.compile(pool=pool, **options)


def add_one(state: State) -> State:
    return {"x": state["x"] + 1, "pid": os.getpid()}


def refuse_sevens(state: State) -> State:
    if state["x"] == 7:
        raise LookupError("seven")
    return {"x": state["x"]}


def test_each_run_is_within_one_worker_and_outputs_keep_the_order_of_inputs(run: Run, pool: WorkerPool) -> None:
    def compare_pids(state: State) -> State:
        return {"seen": state["pid"] == os.getpid()}

    outputs = run.batch(graph_of(add_one, compare_pids, pool=pool), [{"x": n} for n in range(300)], parallel="items")
    assert [output["x"] for output in outputs] == list(range(1, 301))
    assert all(output["seen"] for output in outputs)
    assert os.getpid() not in {output["pid"] for output in outputs}


def test_nodes_that_ask_for_a_process_run_in_place(pool: WorkerPool) -> None:
    builder = StateGraph(State)
    builder.add_node("a", add_one, executor="process")
    builder.add_edge(START, "a")
    assert builder.compile(pool=pool).batch([{"x": 1}], parallel="items")[0]["x"] == 2


def test_config_and_context_reach_the_run(run: Run, pool: WorkerPool) -> None:
    def ask(state: State, config: RunnableConfig, runtime: Runtime[Told]) -> State:
        return {"seen": (config["configurable"]["user"], runtime.context["offset"], config["tags"])}

    config = {"configurable": {"user": "ada"}, "tags": ["t"], "callbacks": [object()]}
    outputs = run.batch(graph_of(ask, pool=pool), [{"x": 1}] * 3, config, context={"offset": 5}, parallel="items")
    assert [output["seen"] for output in outputs] == [("ada", 5, ["t"])] * 3


def test_each_input_may_have_a_config(pool: WorkerPool) -> None:
    def ask(state: State, config: RunnableConfig) -> State:
        return {"seen": config["configurable"]["user"]}

    configs = [{"configurable": {"user": n}} for n in range(20)]
    outputs = graph_of(ask, pool=pool).batch([{"x": n} for n in range(20)], configs, parallel="items")
    assert [output["seen"] for output in outputs] == list(range(20))


def test_context_variables_reach_the_nodes_of_items(run: Run, pool: WorkerPool) -> None:
    # D-11, as for nodes
    def ask(state: State) -> State:
        return {"seen": USER.get()}

    def nested(state: State) -> State:
        return {"seen": (state["seen"], USER.get())}

    graph = graph_of(ask, nested, pool=pool)
    before = USER.set("ada")
    try:
        outputs = run.batch(graph, [{"x": n} for n in range(20)], parallel="items")
    finally:
        USER.reset(before)
    assert [output["seen"] for output in outputs] == [("ada", "ada")] * 20
    assert run.batch(graph, [{"x": 1}], parallel="items")[0]["seen"] == ("nobody", "nobody")


def test_the_first_failure_is_raised(run: Run, pool: WorkerPool) -> None:
    with pytest.raises(LookupError, match="seven"):
        run.batch(graph_of(refuse_sevens, pool=pool), [{"x": n} for n in range(2000)], parallel="items")


def test_failures_can_be_results(run: Run, pool: WorkerPool) -> None:
    inputs = [{"x": n} for n in range(9)]
    outputs = run.batch(graph_of(refuse_sevens, pool=pool), inputs, parallel="items", return_exceptions=True)
    assert isinstance(outputs.pop(7), LookupError)
    assert [output["x"] for output in outputs] == [0, 1, 2, 3, 4, 5, 6, 8]


def test_failures_can_be_records(pool: WorkerPool) -> None:
    graph = graph_of(refuse_sevens, pool=pool, on_error="record")
    record = graph.batch([{"x": n} for n in range(9)], parallel="items")[7]
    assert isinstance(record, FailureRecord)
    assert record.input == {"x": 7}


def test_a_lost_item_runs_again_and_its_neighbours_are_not_touched(pool: WorkerPool, tmp_path: Path) -> None:
    def die_once(state: State) -> State:
        mark = tmp_path / "died"
        if state["x"] == 30 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
        return {"x": state["x"]}

    outputs = graph_of(die_once, pool=pool).batch([{"x": n} for n in range(60)], parallel="items")
    assert [output["x"] for output in outputs] == list(range(60))


def test_an_item_that_kills_its_workers_is_quarantined_alone(pool: WorkerPool) -> None:
    def die_of_three(state: State) -> State:
        if state["x"] == 3:
            os._exit(1)
        return {"x": state["x"]}

    inputs = [{"x": n} for n in range(6)]
    outputs = graph_of(die_of_three, pool=pool).batch(inputs, parallel="items", return_exceptions=True)
    error = outputs.pop(3)
    assert isinstance(error, PoisonTaskError)
    assert len(error.deaths) == 3
    assert [output["x"] for output in outputs] == [0, 1, 2, 4, 5]


def test_inputs_are_taken_as_there_is_room(pool: WorkerPool) -> None:
    taken = 0

    def inputs() -> Iterator[State]:
        nonlocal taken
        while True:
            taken += 1
            yield {"x": taken}

    results = graph_of(add_one, pool=pool).batch_as_completed(inputs(), parallel="items")
    for _ in range(10):
        next(results)
    assert taken <= 10 + 2 * 1024 * pool.max_workers
    results.close()


def test_max_concurrency_bounds_the_items_that_run(pool: WorkerPool, tmp_path: Path) -> None:
    def alone(state: State) -> State:
        mark = tmp_path / "running"
        mark.touch(exist_ok=False)
        mark.unlink()
        return {"x": state["x"]}

    graph = graph_of(alone, pool=pool)
    assert len(graph.batch([{"x": n} for n in range(50)], {"max_concurrency": 1}, parallel="items")) == 50


def test_closing_the_results_early_leaves_the_pool_usable(pool: WorkerPool) -> None:
    graph = graph_of(add_one, pool=pool)
    results = graph.batch_as_completed(({"x": n} for n in range(100_000)), parallel="items")
    next(results)
    results.close()
    assert graph.batch([{"x": 1}], parallel="items")[0]["x"] == 2


def threads(count: int) -> list[RunnableConfig]:
    return [{"configurable": {"thread_id": f"item {n}"}} for n in range(count)]


def test_saver_and_store_stay_in_the_parent(run: Run, pool: WorkerPool) -> None:
    def remember(state: State, store: BaseStore) -> State:
        store.put(("items",), str(state["x"]), {"pid": os.getpid()})
        return {"x": state["x"]}

    saver, store = InMemorySaver(), InMemoryStore()
    graph = graph_of(add_one, remember, pool=pool, checkpointer=saver, store=store)
    outputs = run.batch(graph, [{"x": n} for n in range(20)], threads(20), parallel="items")
    assert [output["x"] for output in outputs] == list(range(1, 21))
    for n, config in enumerate(threads(20), 1):
        snapshot = graph.get_state(config)
        assert snapshot.values["x"] == n
        assert snapshot.next == ()
        found = store.get(("items",), str(n))
        assert found is not None
        assert found.value["pid"] != os.getpid()


def test_a_run_that_asks_a_question_goes_on_with_its_answer(run: Run, pool: WorkerPool) -> None:
    def ask(state: State) -> State:
        return {"seen": interrupt(state["x"])}

    graph = graph_of(ask, pool=pool, checkpointer=InMemorySaver())
    asked = run.batch(graph, [{"x": n} for n in range(5)], threads(5), parallel="items")
    assert [output["__interrupt__"][0].value for output in asked] == list(range(5))
    answers = [Command(resume=n * 10) for n in range(5)]
    outputs = run.batch(graph, answers, threads(5), parallel="items")
    assert [output["seen"] for output in outputs] == [0, 10, 20, 30, 40]


def test_an_unknown_way_is_refused(run: Run, pool: WorkerPool) -> None:
    with pytest.raises(ValueError, match="parallel='threads'"):
        run.batch(graph_of(add_one, pool=pool), [{"x": 1}], parallel="threads")


@pytest.mark.parametrize("parallel", ["items", "nodes"])
def test_a_bar_counts_what_has_finished(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, parallel: str
) -> None:
    graph = (
        StateGraph(State)
        .add_node("copy", lambda state: {"seen": state["x"]})
        .add_edge(START, "copy")
        .compile(name="copies")
    )
    inputs = [{"x": x} for x in range(5)]
    quiet = run.batch(graph, inputs, parallel=parallel, progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run.batch(graph, inputs, parallel=parallel, progress=True) == quiet
    shown = capsys.readouterr().err
    assert "copies" in shown
    assert "5/5" in shown
