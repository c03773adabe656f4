"""The graphs that are measured, each built from either library, and the nodes they run. Imports nothing heavy."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict


def library(name: str) -> SimpleNamespace:
    """The names that graphs are made of, from ``mpflow`` or ``langgraph``. Raises ImportError."""
    graph, types = import_module(f"{name}.graph"), import_module(f"{name}.types")
    return SimpleNamespace(StateGraph=graph.StateGraph, START=graph.START, END=graph.END, Send=types.Send)


def _at(place: str | None) -> dict[str, Any]:
    return {} if place is None else {"executor": place}


# -- steps -------------------------------------------------------------------------------------------------------------


class Count(TypedDict):
    n: int


def add_one(state: dict[str, Any]) -> dict[str, Any]:
    return {"n": state["n"] + 1}


def loop(name: str, steps: int) -> Callable[[], Any]:
    """One node that goes back to itself until it has run `steps` times."""
    lib = library(name)
    graph = lib.StateGraph(Count)
    graph.add_node("a", add_one)
    graph.add_edge(lib.START, "a")
    graph.add_conditional_edges("a", lambda state: "a" if state["n"] < steps else lib.END, ["a", lib.END])
    app = graph.compile()
    return lambda: app.invoke({"n": 0}, {"recursion_limit": steps + 10})


def chain(name: str, steps: int) -> Callable[[], Any]:
    """`steps` nodes, one after the other."""
    lib = library(name)
    graph = lib.StateGraph(Count)
    graph.add_sequence([(f"n{i}", add_one) for i in range(steps)])
    graph.add_edge(lib.START, "n0")
    graph.add_edge(f"n{steps - 1}", lib.END)
    app = graph.compile()
    return lambda: app.invoke({"n": 0}, {"recursion_limit": steps + 10})


def wide(name: str, steps: int, keys: int) -> Callable[[], Any]:
    """The loop, in a state of `keys` keys of which each step writes one."""
    lib = library(name)
    graph = lib.StateGraph(TypedDict("Wide", {"n": int} | {f"k{i}": int for i in range(keys - 1)}))  # type: ignore
    graph.add_node("a", add_one)
    graph.add_edge(lib.START, "a")
    graph.add_conditional_edges("a", lambda state: "a" if state["n"] < steps else lib.END, ["a", lib.END])
    app = graph.compile()
    start = {"n": 0} | {f"k{i}": i for i in range(keys - 1)}
    return lambda: app.invoke(start, {"recursion_limit": steps + 10})


def validated(name: str, steps: int) -> Callable[[], Any]:
    """The loop over a pydantic model. Raises ImportError."""
    from pydantic import create_model

    Model = create_model("Model", n=(int, 0), words=(list[str], []))

    def add(state: Any) -> dict[str, Any]:
        return {"n": state.n + 1}

    lib = library(name)
    graph = lib.StateGraph(Model)
    graph.add_node("a", add)
    graph.add_edge(lib.START, "a")
    graph.add_conditional_edges("a", lambda state: "a" if state.n < steps else lib.END, ["a", lib.END])
    app = graph.compile()
    start = {"n": 0, "words": ["one", "two", "three"]}
    return lambda: app.invoke(start, {"recursion_limit": steps + 10})


def batch(name: str, inputs: int) -> Callable[[], Any]:
    """`inputs` runs of a graph of one node, by ``batch``."""
    lib = library(name)
    graph = lib.StateGraph(Count)
    graph.add_node("a", add_one)
    graph.add_edge(lib.START, "a")
    graph.add_edge("a", lib.END)
    app = graph.compile()
    given = [{"n": i} for i in range(inputs)]
    return lambda: app.batch(given)


def whole_runs(name: str, runs: int) -> Callable[[], Any]:
    """`runs` runs of a graph of two nodes, one after the other, by ``invoke``."""
    lib = library(name)
    graph = lib.StateGraph(Count)
    graph.add_sequence([("a", add_one), ("b", add_one)])
    graph.add_edge(lib.START, "a")
    graph.add_edge("b", lib.END)
    app = graph.compile()

    def run() -> None:
        for _ in range(runs):
            app.invoke({"n": 0})

    return run


def calls(name: str, count: int) -> Callable[[], Any]:
    """An entrypoint that calls a trivial task `count` times, and waits for each."""
    func = import_module(f"{name}.func")
    step = func.task(lambda n: n + 1, name="step")

    def all_of_them(start: int) -> int:
        for _ in range(count):
            start = step(start).result()
        return start

    app = func.entrypoint()(all_of_them)
    return lambda: app.invoke(0)


# -- fan-out -----------------------------------------------------------------------------------------------------------


class Total(TypedDict):
    total: Annotated[int, operator.add]
    cpu_s: Annotated[list[float], operator.add]


def one(task: dict[str, int]) -> dict[str, int]:
    return {"total": 1}


def fan_out(name: str, node: Callable[..., Any], inputs: list[Any], place: str | None = None) -> Any:
    """A graph that sends each input to `node`, whose ``total`` is summed."""
    lib = library(name)
    graph = lib.StateGraph(Total)
    graph.add_node("work", node, **_at(place))
    graph.add_conditional_edges(lib.START, lambda state: [lib.Send("work", given) for given in inputs], ["work"])
    graph.add_edge("work", lib.END)
    return graph.compile()


def sends(name: str, count: int, place: str | None = None) -> Callable[[], Any]:
    """`count` Sends of a trivial node."""
    app = fan_out(name, one, [{"i": i} for i in range(count)], place)

    def run() -> None:
        assert app.invoke({"total": 0})["total"] == count

    return run


def subgraphs(name: str, count: int) -> Callable[[], Any]:
    """`count` Sends of a graph of one node, as a node."""
    lib = library(name)
    inner = lib.StateGraph(Total)
    inner.add_node("inner", one)
    inner.add_edge(lib.START, "inner")
    inner.add_edge("inner", lib.END)
    app = fan_out(name, inner.compile(), [{"total": 0} for _ in range(count)])
    return lambda: app.invoke({"total": 0})


async def waits(task: dict[str, float]) -> dict[str, int]:
    import asyncio

    await asyncio.sleep(task["s"])
    return {"total": 1}


# -- work for processors -----------------------------------------------------------------------------------------------


def burn(turns: int) -> int:
    """Pure Python that keeps one core busy: `turns` of a small generator of random numbers."""
    x = 1
    for _ in range(turns):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
    return x


def burning(task: dict[str, int]) -> dict[str, Any]:
    """Burn, and tell the CPU seconds that it took."""
    start = time.thread_time()
    burn(task["turns"])
    return {"total": 1, "cpu_s": [time.thread_time() - start]}


def turns_for(cpu_s: float) -> int:
    """How many turns take so many seconds of CPU time here, by the best of several tries."""
    probe = 200_000
    best = float("inf")
    for _ in range(7):
        start = time.process_time()
        burn(probe)
        best = min(best, time.process_time() - start)
    return int(probe * cpu_s / best)
