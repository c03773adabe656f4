"""Large buffers to process nodes, back, and on to the next node: against the copies that cannot be saved, and Ray."""

from __future__ import annotations

import mmap
import operator
import os
from collections.abc import Callable
from time import perf_counter
from typing import Annotated, Any, TypedDict

import pytest

from bench.bare import BareWorkers
from bench.graphs import library
from bench.peers import ray
from bench.race import Against, Race
from mpflow._exec.process import WorkerPool
from tests.exec.pooling import Drive, Node

np: Any = pytest.importorskip("numpy")

MB = 1 << 20
CORES = len(os.sched_getaffinity(0))
PAGES = 64


class Arrays(TypedDict):
    given: Any
    sums: Annotated[list[float], operator.add]
    results: Annotated[list[Any], operator.add]


def looks(state: dict[str, Any]) -> dict[str, Any]:
    given = state["given"]
    return {"sums": [float(given[:: len(given) // PAGES].sum())]}


def sums(state: dict[str, Any]) -> dict[str, Any]:
    return {"sums": [float(state["given"].sum())]}


def makes(state: Any) -> dict[str, Any]:
    return {"results": [np.ones(25 * MB, np.uint8)]}


def app(node: Callable[..., Any], count: int, steps: int = 1) -> Any:
    """`count` process nodes side by side, `steps` times one after the other."""
    lib = library("mpflow")
    graph = lib.StateGraph(Arrays)
    names = [[f"n{step}.{i}" for i in range(count)] for step in range(steps)]
    for step, row in enumerate(names):
        for name in row:
            graph.add_node(name, node, executor="process")
            graph.add_edge(names[step - 1] if step else lib.START, name)
    return graph.compile()


def recycled_copy(size_bytes: int) -> Callable[[], None]:
    """A copy into shared memory whose pages are there."""
    source = np.ones(size_bytes, np.uint8)
    target = np.frombuffer(mmap.mmap(-1, size_bytes), np.uint8)
    return lambda: np.copyto(target, source)


def ray_looks(race: Race, given: Any, node: Callable[..., Any]) -> Callable[[], Any]:
    found = ray(race)
    task = found.remote(lambda array: node({"given": array}))

    def run() -> None:
        array = found.put(given)
        found.get([task.remote(array) for _ in range(8)])

    return run


def ray_makes(race: Race) -> Callable[[], Any]:
    found = ray(race)
    task = found.remote(lambda: makes({}))
    return lambda: found.get([task.remote() for _ in range(8)])


def joblib_looks(race: Race, given: Any) -> Callable[[], Any]:
    """An array that joblib has not seen: of one that it has, it finds the file that it wrote, whatever is in it now."""
    import joblib

    pool = race.stack.enter_context(joblib.Parallel(CORES))

    def run() -> None:
        fresh = given.view()
        pool(joblib.delayed(looks)({"given": fresh}) for _ in range(8))

    return run


def joblib_makes(race: Race) -> Callable[[], Any]:
    import joblib

    pool = race.stack.enter_context(joblib.Parallel(CORES))
    return lambda: pool(joblib.delayed(makes)({}) for _ in range(8))


def test_one_array_to_eight_nodes(race: Race) -> None:
    given = np.ones(100 * MB, np.uint8)
    graph = app(looks, 8)
    race(
        "fresh 100 MB to 8 process nodes",
        lambda: graph.invoke({"given": given}),
        Against("one copy into recycled shared memory", lambda: recycled_copy(100 * MB), wanted=1 / 1.3),
        Against("Ray", lambda: ray_looks(race, given, looks), wanted=1),
        Against("joblib", lambda: joblib_looks(race, given), rounds=3),
        rounds=9,
    )


def test_the_same_array_in_the_next_step(race: Race) -> None:
    given = np.ones(100 * MB, np.uint8)
    graph = app(looks, 8, steps=2)

    def second_step_s() -> float:
        begins = [perf_counter() for _ in graph.stream({"given": given}, stream_mode="values")]
        return begins[2] - begins[1]

    def copies() -> Callable[[], Any]:
        return recycled_copy(100 * MB)

    name = "the same 100 MB to 8 nodes of the next step"
    best_s = race(name, second_step_s, Against("one copy into recycled shared memory", copies), rounds=9)
    race.compare(name, best_s, "3 ms", 0.003, wanted=1)


def test_eight_nodes_that_read_all_of_an_array(race: Race) -> None:
    given = np.ones(100 * MB, np.uint8)
    graph = app(sums, 8)
    race(
        "8 process nodes that sum 100 MB each",
        lambda: graph.invoke({"given": given}),
        Against("8 plain sums, over the cores", lambda: plain_sums(given)),
        Against("Ray", lambda: ray_looks(race, given, sums), wanted=1),
    )


def plain_sums(given: Any) -> Callable[[], float]:
    def run() -> float:
        start = perf_counter()
        for _ in range(8):
            sums({"given": given})
        return (perf_counter() - start) / CORES

    return run


_target: Any = None


def makes_and_copies(count: int) -> int:
    """The least that a worker has to do: make arrays, and copy each into shared memory whose pages are there."""
    global _target
    if _target is None:
        _target = [np.frombuffer(mmap.mmap(-1, 25 * MB), np.uint8) for _ in range(count)]
    for target in _target:
        np.copyto(target, makes({})["results"][0])
    return count


def test_eight_arrays_from_nodes(race: Race) -> None:
    graph = app(makes, 8)

    def copies() -> Callable[[], Any]:
        workers = race.stack.enter_context(BareWorkers(makes_and_copies, CORES))
        return lambda: workers.map([8 // CORES] * CORES, batch=1, window=1)

    race(
        "8 results of 25 MB from process nodes",
        lambda: graph.invoke({"sums": []}),
        Against("bare workers that make and copy them", copies, wanted=1 / 1.5),
        Against("Ray", lambda: ray_makes(race), wanted=1),
        Against("joblib", lambda: joblib_makes(race), rounds=3),
        rounds=9,
    )


def test_an_array_passed_on(race: Race) -> None:
    """Made by one node, read by eight: its bytes are copied once, by the worker that made it."""
    lib = library("mpflow")
    graph = lib.StateGraph(Arrays)
    graph.add_node("makes", lambda state: {"given": np.ones(100 * MB, np.uint8)}, executor="process")
    graph.add_edge(lib.START, "makes")
    for i in range(8):
        graph.add_node(f"n{i}", looks, executor="process")
        graph.add_edge("makes", f"n{i}")
    compiled = graph.compile()

    def make_and_copy() -> Callable[[], None]:
        copy = recycled_copy(100 * MB)

        def run() -> None:
            np.ones(100 * MB, np.uint8)
            copy()

        return run

    race(
        "100 MB made by a node, to 8 nodes",
        lambda: compiled.invoke({"sums": []}),
        Against("making it, and one copy", make_and_copy),
    )


def weigh(data: bytes) -> int:
    return len(data)


def test_a_large_closure(race: Race) -> None:
    lib = library("mpflow")
    data = os.urandom(50 * MB)

    def ours() -> None:
        captured = bytes(memoryview(data))  # another object: it is not known to the workers
        graph = lib.StateGraph(Arrays)
        graph.add_node("work", lambda given: {"sums": [float(len(captured) + given["i"])]}, executor="process")
        inputs = [lib.Send("work", {"i": i}) for i in range(1000)]
        graph.add_conditional_edges(lib.START, lambda state: inputs, ["work"])
        assert len(graph.compile().invoke({"sums": []})["sums"]) == 1000

    def shipped() -> Callable[[], Any]:
        workers = race.stack.enter_context(BareWorkers(weigh, CORES))
        return lambda: workers.map([bytes(memoryview(data))] * CORES, batch=1, window=1)

    race("1,000 tasks that capture 50 MB", ours, Against("50 MB to each bare worker once", shipped, wanted=1 / 1.2))


@pytest.mark.parametrize("size_kb", [16, 32, 64, 128, 256, 512, 1024])
def test_where_shared_memory_begins_to_pay(race: Race, size_kb: int) -> None:
    """The crossing is the size from which a buffer leaves the message (`shm.DEFAULT_THRESHOLD_BYTES`)."""
    count = max(8, 16_384 // size_kb)
    arrays = [np.ones(size_kb * 1024, np.uint8) for _ in range(count)]

    def through(threshold_bytes: int) -> Callable[[], Any]:
        pool = race.stack.enter_context(WorkerPool(CORES))
        pool._foreman._floor.parcels.arena.threshold_bytes = threshold_bytes
        node = Node(lambda array: int(array[-1]))
        return lambda: Drive(pool).values(node, arrays)

    ours, socket = through(4096), through(1 << 40)
    socket()
    race(
        f"a task given {size_kb} kB, by shared memory", ours, Against("through the socket", lambda: socket), each=count
    )
