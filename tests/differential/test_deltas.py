"""Threads with a `DeltaChannel` show LangGraph's histories, forks and counters, however seldom it is saved whole (ST-12)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from tests.colours import Run
from tests.differential.scenarios import check, tried

THREAD: Any = {"configurable": {"thread_id": "1"}}


def joined(value: list[Any], writes: Any) -> list[Any]:
    return [*value, *(item for write in writes for item in (write if isinstance(write, list) else [write]))]


def _schema(lib: Any, every: int) -> Any:
    channel = partial(lib.channels_delta.DeltaChannel, joined, snapshot_frequency=every)
    fields = {"a": Annotated[list, channel()], "b": Annotated[list, channel()], "p": Annotated[list, operator.add]}
    return TypedDict("State", fields, total=False)  # type: ignore[operator]


def both(item: Any) -> dict[str, Any]:
    return {"a": [item], "p": [item]}


def chain(lib: Any, every: int, *nodes: tuple[str, Callable[[Any], Any]], **options: Any) -> Any:
    builder = lib.graph.StateGraph(_schema(lib, every)).add_sequence(nodes)
    builder.add_edge("__start__", nodes[0][0])
    return builder.compile(checkpointer=lib.checkpoint_memory.InMemorySaver(), **options)


def two(lib: Any, every: int, **options: Any) -> Any:
    return chain(lib, every, ("n0", lambda state: both(0)), ("n1", lambda state: both(1)), **options)


def told(run: Run, graph: Any) -> Any:
    """Each state of the thread, with what its metadata counts as lists, which is what JSON makes of LangGraph's pairs."""
    seen = []
    for state in run.history(graph, THREAD):
        counters = (state.metadata or {}).get("counters_since_delta_snapshot") or {}
        counted = {name: list(counts) for name, counts in sorted(counters.items())}
        seen.append((state.values, state.next, state.metadata["step"], state.metadata.get("source"), counted))
    return seen


def runs(lib: Any, run: Run, *, every: int, durability: Any) -> Any:
    graph = two(lib, every)
    results = [run.invoke(graph, both(item), THREAD, durability=durability) for item in ("in", "again")]
    return results, told(run, graph)


def replays(lib: Any, run: Run, *, every: int, durability: Any) -> Any:
    graph = two(lib, every)
    run.invoke(graph, both("in"), THREAD, durability=durability)
    states = run.history(graph, THREAD)
    results = [tried(lambda old=old: run.invoke(graph, None, old.config, durability=durability)) for old in states]
    return results, told(run, graph)


def forks(lib: Any, run: Run, *, every: int, durability: Any) -> Any:
    graph = two(lib, every)
    run.invoke(graph, both("in"), THREAD, durability=durability)
    for old in run.history(graph, THREAD):
        run.invoke(graph, both("other"), old.config, durability=durability)
        changed = run.update_state(graph, old.config, both("changed"), as_node="n0")
        run.invoke(graph, None, changed, durability=durability)
    return told(run, graph)


def changes(lib: Any, run: Run, *, every: int, durability: Any) -> Any:
    graph = two(lib, every, interrupt_before=["n1"])
    run.invoke(graph, both("in"), THREAD, durability=durability)
    for values, node in ((both(2), "__input__"), (both(3), "n0"), (None, "__copy__"), (None, None), (None, "__end__")):
        run.update_state(graph, THREAD, values, node)
    many = [[lib.types.StateUpdate({"a": [4]}, "n0"), lib.types.StateUpdate({"b": [5]}, "n1")]]
    run.call(graph, "bulk_update_state", THREAD, many)
    return run.invoke(graph, both("in"), THREAD, durability=durability), told(run, graph)


def answers(lib: Any, run: Run, *, every: int, durability: Any) -> Any:
    graph = chain(lib, every, ("ask", lambda state: both(lib.types.interrupt("?"))), ("after", lambda state: both("z")))
    run.invoke(graph, both("in"), THREAD, durability=durability)
    paused = told(run, graph)
    answer = lib.types.Command(resume="yes", update=both("update"))
    return paused, run.invoke(graph, answer, THREAD, durability=durability), told(run, graph)


def replacements(lib: Any, run: Run, *, every: int, durability: Any) -> Any:
    replace = lib.types.Overwrite
    graph = chain(lib, every, ("n0", lambda state: both(0)), ("n1", lambda state: {"a": replace([9]), "b": [1]}))
    run.invoke(graph, both("in"), THREAD, durability=durability)
    run.update_state(graph, THREAD, {"a": replace([7])}, as_node="n1")
    return run.invoke(graph, {"a": replace(None)}, THREAD, durability=durability), told(run, graph)


def of_sends(lib: Any, run: Run, *, every: int, durability: Any) -> Any:
    builder = lib.graph.StateGraph(_schema(lib, every)).add_node("m", lambda item: both(item))
    builder.add_conditional_edges("__start__", lambda state: [lib.types.Send("m", item) for item in (3, 1, 2)])
    graph = builder.compile(checkpointer=lib.checkpoint_memory.InMemorySaver())
    results = [run.invoke(graph, both("in"), THREAD, durability=durability) for _ in range(2)]
    return results, told(run, graph)


SCENARIOS = [runs, replays, forks, changes, answers, replacements, of_sends]


@pytest.mark.parametrize("durability", ["sync", "exit"])
@pytest.mark.parametrize("every", [2, 1000])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_threads_show_the_same(scenario: Any, every: int, durability: str) -> None:
    check(partial(scenario, every=every, durability=durability))


def channels(lib: Any, run: Run) -> Any:
    new, replace = partial(lib.channels_delta.DeltaChannel, joined), lib.types.Overwrite
    channel = new()
    seen = [tried(channel.get), channel.is_available(), channel.update([]), channel.update([[1], 2]), channel.get()]
    copied = channel.copy()
    copied.update([3])
    seen += [channel.get(), copied.get(), channel.update([4, replace([5])]), channel.get()]
    seen += [tried(lambda: channel.update([replace(1), replace(2)])), channel.update([replace(None)]), channel.get()]
    restored = channel.from_checkpoint([6])
    restored.replay_writes([("t", "a", 7), ("t", "a", replace([8])), ("u", "a", 9)])
    return [*seen, restored.get(), new() == new(), new() == new(snapshot_frequency=3)]


def test_a_channel_by_itself_is_the_same() -> None:
    check(channels)
