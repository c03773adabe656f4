"""Large numpy arrays to process nodes and back. For information until a figure is set; the floor is one copy of the bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest

from bench.graphs import library
from bench.race import Against, Race

np: Any = pytest.importorskip("numpy")

MB = 1 << 20


def join(old: list[Any], new: list[Any]) -> list[Any]:
    return old + new


class Arrays(TypedDict):
    given: Any
    sums: Annotated[list[float], join]
    results: Annotated[list[Any], join]


def looks(state: dict[str, Any]) -> dict[str, Any]:
    return {"sums": [float(state["given"][::4096].sum())]}


def makes(state: dict[str, Any]) -> dict[str, Any]:
    return {"results": [np.ones(25 * MB, np.uint8)]}


def app(name: str, node: Callable[..., Any], count: int, place: str | None) -> Any:
    """`count` nodes side by side."""
    lib = library(name)
    graph = lib.StateGraph(Arrays)
    for i in range(count):
        graph.add_node(f"n{i}", node, **({} if place is None else {"executor": place}))
        graph.add_edge(lib.START, f"n{i}")
        graph.add_edge(f"n{i}", lib.END)
    return graph.compile()


def copy(size_bytes: int) -> Callable[[], None]:
    source, target = np.ones(size_bytes, np.uint8), np.zeros(size_bytes, np.uint8)
    return lambda: np.copyto(target, source)


def joblib_looks(race: Race, given: Any) -> Callable[[], Any]:
    import joblib

    pool = race.stack.enter_context(joblib.Parallel(2))
    return lambda: pool(joblib.delayed(looks)({"given": given}) for _ in range(8))


def joblib_makes(race: Race) -> Callable[[], Any]:
    import joblib

    pool = race.stack.enter_context(joblib.Parallel(2))
    return lambda: pool(joblib.delayed(makes)({}) for _ in range(8))


def test_one_array_to_eight_nodes(race: Race) -> None:
    given = np.ones(100 * MB, np.uint8)
    graph = app("mpflow", looks, 8, "process")
    race(
        "100 MB to 8 process nodes",
        lambda: graph.invoke({"given": given}),
        Against("one copy of 100 MB", lambda: copy(100 * MB)),
        Against("joblib", lambda: joblib_looks(race, given)),
    )


def test_eight_arrays_from_nodes(race: Race) -> None:
    graph = app("mpflow", makes, 8, "process")
    race(
        "8 results of 25 MB from process nodes",
        lambda: graph.invoke({"sums": []}),
        Against("one copy of 200 MB", lambda: copy(200 * MB)),
        Against("joblib", lambda: joblib_makes(race)),
    )
