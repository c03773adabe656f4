"""The three workloads by which mpire's authors compare pools, written for graphs: wall-clock time.

Source of the kinds of work: the benchmarks that https://sybrenjansen.github.io/mpire names. One large input that every
task reads, tasks that keep a count in their worker, and a model that takes long to load and is wanted by every task.
"""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Annotated, Any, TypedDict

from bench.race import Against, Race

CORES = len(os.sched_getaffinity(0))
FILTERS = 40
COUNTS = 10_000
PREDICTIONS = 200
MODEL_LOAD_S = 0.05


class Filters(TypedDict, total=False):
    image: Any
    number: int
    sums: Annotated[list[float], operator.add]


def image_of(side: int) -> Any:
    import numpy

    return numpy.arange(side * side, dtype="float64").reshape(side, side) % 251


def filtered(image: Any, number: int) -> float:
    """One pass over a band of the image that depends on the filter's number."""
    rows = image[number * 20 : number * 20 + 400]
    return float((rows[:-1] * 0.25 + rows[1:] * 0.75).sum())


def filters(side: int) -> Callable[[], Any]:
    from mpflow import END, START, Send, StateGraph

    image = image_of(side)
    graph = StateGraph(Filters)
    graph.add_node("filter", lambda state: {"sums": [filtered(state["image"], state["number"])]}, executor="process")
    graph.add_conditional_edges(
        START,
        lambda state: [Send("filter", {"image": state["image"], "number": number}) for number in range(FILTERS)],
        ["filter"],
    )
    graph.add_edge("filter", END)
    app = graph.compile()
    return lambda: app.invoke({"image": image})


def mpire_filters(race: Race, side: int) -> Callable[[], Any]:
    import mpire

    # Its own way: what is shared is given to the pool once, at the start of its processes.
    pool = race.stack.enter_context(
        mpire.WorkerPool(CORES, shared_objects=image_of(side), start_method="fork", keep_alive=True)
    )
    return lambda: pool.map(filtered, range(FILTERS))


def joblib_filters(race: Race, side: int) -> Callable[[], Any]:
    import joblib

    image = image_of(side)
    pool = race.stack.enter_context(joblib.Parallel(CORES))
    return lambda: pool(joblib.delayed(filtered)(image, number) for number in range(FILTERS))


def test_one_image_for_every_filter(race: Race) -> None:
    side = 1500
    race(
        f"a filter of {FILTERS} over one image of {side * side * 8 // 10**6} MB",
        filters(side),
        Against("mpire, shared objects", lambda: mpire_filters(race, side)),
        Against("joblib", lambda: joblib_filters(race, side), wanted=1),
        each=FILTERS,
    )


class Counts(TypedDict, total=False):
    total: Annotated[int, operator.add]


_counted = 0


def count_here(task: Any) -> int:
    """A count that lives in the worker."""
    global _counted
    _counted += 1
    return 1


def counting() -> Callable[[], Any]:
    from mpflow import END, START, Send, StateGraph

    graph = StateGraph(Counts)
    graph.add_node("count", lambda task: {"total": count_here(task)}, executor="process")
    graph.add_conditional_edges(START, lambda state: [Send("count", number) for number in range(COUNTS)], ["count"])
    graph.add_edge("count", END)
    app = graph.compile()
    return lambda: app.invoke({"total": 0})


def mpire_counting(race: Race) -> Callable[[], Any]:
    import mpire

    pool = race.stack.enter_context(mpire.WorkerPool(CORES, start_method="spawn", keep_alive=True))
    return lambda: sum(pool.map(count_here, range(COUNTS)))


def joblib_counting(race: Race) -> Callable[[], Any]:
    import joblib

    pool = race.stack.enter_context(joblib.Parallel(CORES))
    return lambda: sum(pool(joblib.delayed(count_here)(number) for number in range(COUNTS)))


def test_stateful_counting(race: Race) -> None:
    race(
        f"a task of {COUNTS} that counts in its worker",
        counting(),
        Against("mpire", lambda: mpire_counting(race), wanted=1),
        Against("joblib", lambda: joblib_counting(race)),
        each=COUNTS,
    )


@cache
def model() -> list[int]:
    """Stands for a model: loading it takes long, and once a process is enough."""
    time.sleep(MODEL_LOAD_S)
    return list(range(1000))


def predict(number: int) -> int:
    return sum(weight * number for weight in model())


def predictions(loaded: bool) -> Callable[[], Any]:
    from mpflow import END, START, Send, StateGraph

    graph = StateGraph(Counts)
    graph.add_node("predict", lambda number: {"total": predict(number)}, executor="process")
    graph.add_conditional_edges(START, lambda state: [Send("predict", n) for n in range(PREDICTIONS)], ["predict"])
    graph.add_edge("predict", END)

    def run(pool: Any) -> None:
        graph.compile(pool=pool).invoke({"total": 0})

    return partial(_in_a_pool, run, loaded)


def _in_a_pool(run: Callable[[Any], None], loaded: bool) -> None:
    from mpflow import WorkerPool

    with WorkerPool(CORES, worker_init=_load if loaded else None) as pool:
        run(pool)


def _load() -> None:
    model()


def mpire_predictions() -> Callable[[], Any]:
    import mpire

    def run() -> None:
        with mpire.WorkerPool(CORES, start_method="spawn") as pool:
            sum(pool.map(predict, range(PREDICTIONS), worker_init=_load))

    return run


def test_an_expensive_model(race: Race) -> None:
    race(
        f"{PREDICTIONS} predictions of a model that takes 50 ms to load, with a fresh pool",
        predictions(loaded=True),
        Against("mpire", mpire_predictions, wanted=1),
        Against("mpflow, loaded at the first task", lambda: predictions(loaded=False)),
    )
