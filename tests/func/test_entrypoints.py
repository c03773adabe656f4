"""Entrypoints: functions as graphs, and what they keep from one run to the next (FN-2, FN-5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.func import entrypoint, task
from mpflow.pregel import Pregel
from mpflow.runtime import Runtime
from mpflow.store.memory import InMemoryStore
from tests.colours import Run

HERE: dict[str, Any] = {"configurable": {"thread_id": "1"}}


def test_an_entrypoint_is_a_graph(run: Run) -> None:
    @entrypoint()
    def graph(x: int) -> int:
        return x + 1

    assert isinstance(graph, Pregel)
    assert run.invoke(graph, 1) == 2
    assert run.batch(graph, [1, 2, 3]) == [2, 3, 4]
    assert run.stream(graph, 1) == [{"graph": 2}]


def test_what_cannot_be_an_entrypoint() -> None:
    def generator(x: int) -> Any:
        yield x

    with pytest.raises(NotImplementedError):
        entrypoint()(generator)
    with pytest.raises(ValueError, match="at least one parameter"):
        entrypoint()(lambda: 1)
    with pytest.raises(ValueError, match="timeout"):
        entrypoint(timeout=1.0)(lambda x: 1)


def test_previous_is_what_the_last_run_of_the_thread_returned(run: Run) -> None:
    @entrypoint(checkpointer=InMemorySaver())
    def graph(x: int, *, previous: Any) -> Any:
        return x + (previous or 0)

    assert [run.invoke(graph, 1, HERE), run.invoke(graph, 2, HERE)] == [1, 3]
    assert run.invoke(graph, 5, {"configurable": {"thread_id": "2"}}) == 5
    run.update_state(graph, HERE, 10)
    assert run.invoke(graph, 2, HERE) == 12


def test_final_saves_something_else_than_it_returns(run: Run) -> None:
    @entrypoint(checkpointer=InMemorySaver())
    def graph(x: int, *, previous: Any = None) -> entrypoint.final[Any, int]:
        return entrypoint.final(value=previous, save=2 * x)

    assert [run.invoke(graph, x, HERE) for x in (1, 2, 3)] == [None, 2, 4]
    assert run.get_state(graph, HERE).values == 4


def test_without_a_checkpointer_there_is_no_previous(run: Run) -> None:
    @entrypoint()
    def graph(x: int, *, previous: Any) -> Any:
        return previous

    assert [run.invoke(graph, 1), run.invoke(graph, 1)] == [None, None]


def test_an_entrypoint_is_given_what_it_asks_for(run: Run) -> None:
    @dataclass
    class Context:
        user: str

    store = InMemoryStore()

    @entrypoint(store=store, context_schema=Context)
    def graph(x, *, runtime: Runtime[Context], store, config, writer):  # type: ignore[no-untyped-def]
        writer("here")
        return runtime.context.user, store is runtime.store, config["configurable"]["own"]

    config = {"configurable": {"own": 4}}
    assert run.invoke(graph, 1, config, context={"user": "u"}) == ("u", True, 4)
    assert run.stream(graph, 1, config, context={"user": "u"}, stream_mode="custom") == ["here"]


def test_entrypoints_within_entrypoints_and_tasks(run: Run) -> None:
    saver = InMemorySaver()

    @entrypoint()
    def inner(x: int, *, previous: Any) -> int:
        return add.__wrapped__(x, 1)

    @task
    def add(x: int, y: int) -> int:
        return x + y

    @task
    def nested(x: int) -> Any:
        return inner.invoke(x)

    @entrypoint(checkpointer=saver)
    def outer(x: int) -> Any:
        return [inner.invoke(x), nested(x).result(), add(x, 10).result()]

    assert run.invoke(outer, 1, HERE) == [2, 2, 11]
