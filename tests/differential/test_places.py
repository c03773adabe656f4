"""Where nodes run does not show in what a graph comes to (D-1)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import assume, given, settings

import mpflow._engine.placing as placing
from mpflow._exec.placement import standing
from mpflow._exec.placement.decide import PROCESS, THREAD, Verdict
from mpflow._exec.placement.profile import Profile
from mpflow._exec.placement.standing import Trial
from tests.differential.graphs import (
    Awaiting,
    Doing,
    Graph,
    Library,
    build,
    calls_again,
    graphs,
    is_left_early,
    names_of,
)
from tests.differential.test_same import CONFIG, INPUT
from tests.differential.trace import async_trace, sync_trace

pytestmark = pytest.mark.warm_pool
OURS = Library("mpflow")


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def test_processes_come_to_what_threads_do(monkeypatch: pytest.MonkeyPatch, record_property: Any) -> None:
    """And at least 80 % of what is generated goes to processes whole: none of its nodes runs here."""
    here: list[Any] = []
    for kind in (Doing, Awaiting):  # in this process only: workers import the classes as they are
        call = kind.__call__
        monkeypatch.setattr(
            kind, "__call__", lambda node, *given, _call=call: (here.append(node), _call(node, *given))[1]
        )
    generated: list[bool] = []

    def ran(graph: Graph, trace: Any) -> Any:
        here.clear()
        trace = trace(graph)
        generated.append(not here)
        return trace

    @settings(max_examples=36, database=None)
    @given(graphs())
    def compare(graph: Graph) -> None:
        away = ran(graph, lambda graph: sync_trace(build(graph, OURS, executor="process"), INPUT, CONFIG))
        assume(not calls_again(graph) and not is_left_early(graph))
        expected = sync_trace(build(graph, OURS, executor="thread"), INPUT, CONFIG)
        assert away == expected
        assert ran(graph, awaited) == expected

    def awaited(graph: Graph) -> Any:
        return asyncio.run(async_trace(build(graph, OURS, awaits=True, executor="process"), INPUT, CONFIG))

    compare()
    share = sum(generated) / len(generated)
    record_property("share of programs that travelled", share)
    assert share >= 0.8


@pytest.fixture
def _moved_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever says nothing of its place goes to workers, measured or not, unless its guard sends it back."""

    def moves(*_: Any, held: str | None, **__: Any) -> Verdict:
        return Verdict(THREAD, str(held)) if held is not None else Verdict(PROCESS, "", 1.0, 0.5)

    def settle(profile: Profile) -> None:
        profile.is_heavy = True

    def trusted(trial: Trial, *_: Any) -> bool:
        trial._standing.proven = True
        return True

    monkeypatch.setattr(placing, "decide", moves)
    monkeypatch.setattr(placing, "may_move", lambda: True)
    monkeypatch.setattr(Profile, "settle", settle)
    monkeypatch.setattr(Trial, "begin", trusted)
    monkeypatch.setattr(standing, "needs_of", lambda program: None)


@settings(max_examples=25)
@given(graphs())
def test_what_is_moved_unasked_comes_to_what_threads_do(_moved_at_once: None, graph: Graph) -> None:
    expected = sync_trace(build(graph, OURS, executor="thread"), INPUT, CONFIG)
    assume(expected.crowded.isdisjoint(names_of(graph, "up")))
    app = build(graph, OURS)
    for _ in range(2):  # only the second run knows the nodes from the start
        assert sync_trace(app, INPUT, CONFIG) == expected
    assert asyncio.run(async_trace(build(graph, OURS, awaits=True), INPUT, CONFIG)) == expected


@settings(max_examples=50)
@given(graphs())
def test_the_calling_thread_comes_to_what_threads_do(graph: Graph) -> None:
    expected = sync_trace(build(graph, OURS, executor="thread"), INPUT, CONFIG)
    assume(expected.crowded.isdisjoint(names_of(graph, "up")))
    assert sync_trace(build(graph, OURS, executor="inline"), INPUT, CONFIG) == expected
