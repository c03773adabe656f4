"""A node under guard: what it returns is handed on, whatever could differ from a thread's is refused."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from contextvars import copy_context
from typing import Any

import numpy as np
import pytest

from mpflow._exec.placement.guard import GuardedProgram, Stays
from mpflow._exec.placement.safety import walk
from mpflow._exec.program import NodeProgram
from mpflow._messages import StepFacts
from mpflow._scope import TaskScope
from mpflow.runnables.base import coerce
from tests.exec.placement import corpus


def guarded(node: Any) -> GuardedProgram:
    return GuardedProgram(NodeProgram("n", coerce(node), ["out"]), walk(node).entries)


def run(program: GuardedProgram, state: Any) -> Any:
    scope = TaskScope(StepFacts({}, 1, 2), "n", ("pull", "n"), ())
    return copy_context().run(program.run, state, scope)


def test_a_node_that_keeps_to_itself_gives_its_diff_and_its_figures() -> None:
    program = guarded(corpus.computes)
    assert program.figures() is None
    run(program, {})  # the first one tells nothing of those after it
    assert program.figures() is None
    for _ in range(3):
        assert "out" in dict(run(program, {}))
    assert program.objection() is None
    calls, own_ns, cpu_ns, waited_ns = program.figures() or (0, 0, 0, 0)
    assert calls == 3
    assert 0 < own_ns <= cpu_ns
    assert waited_ns >= 0
    assert program.figures() is None


def changes_its_input(state: Any) -> Any:
    state["items"].append(1)
    return {"out": 1}


def changes_an_array(state: Any) -> Any:
    state["array"][0] = 1
    return {"out": 1}


def gives_its_input_back(state: Any) -> Any:
    return {"out": state["items"]}


def gives_an_object(state: Any) -> Any:
    return {"out": corpus.Tree(1)}


def sets_it(kind: Any) -> None:
    kind.limit = 2


class Limits:
    limit = 1


def sets_a_class_it_was_handed(state: Any) -> Any:
    sets_it(Limits)
    return {"out": 1}


def changes_a_number(state: Any) -> Any:
    state["n"] = True
    return {"out": 1}


def gives_its_flat_input_back(state: Any) -> Any:
    return {"out": state}


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (changes_a_number, "it changes its input"),
        (gives_its_flat_input_back, "is an object of the input itself"),
    ],
)
def test_flat_inputs_are_seen_to_as_well(node: Any, why: str) -> None:
    with pytest.raises(Stays, match=why):
        run(guarded(node), {"n": 1})


@pytest.mark.parametrize("value", ["\ud800", 1 << 70, 1j])
def test_flat_inputs_may_hold_what_is_no_plain_data(value: Any) -> None:
    assert run(guarded(corpus.computes), {"n": value})


def test_what_was_changed_beside_the_input_is_seen_before_results_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "limit", 1)
    program = guarded(sets_a_class_it_was_handed)
    run(program, {"items": []})
    assert "it changes 'limit'" in str(program.objection())


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (changes_its_input, "it changes its input"),
        (gives_its_input_back, "is an object of the input itself"),
        (gives_an_object, "is a Tree"),
    ],
)
def test_what_a_thread_would_show_is_refused(node: Any, why: str) -> None:
    with pytest.raises(Stays, match=why):
        run(guarded(node), {"items": []})


def test_a_large_array_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        run(guarded(changes_an_array), {"array": np.zeros(1 << 16)})


def test_a_small_array_that_was_changed_is_seen() -> None:
    with pytest.raises(Stays, match="changes its input"):
        run(guarded(changes_an_array), {"array": np.zeros(4)})


def test_a_node_whose_module_holds_something_else_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    program = guarded(corpus.computes)
    monkeypatch.setattr(corpus, "LIMIT", 11)
    with pytest.raises(Stays, match="the global 'LIMIT' is another in a worker"):
        run(program, {})


def imports_what_is_loaded(state: Any) -> Any:
    import colorsys

    return {"out": colorsys.ONE_THIRD}


def test_what_a_node_imports_is_loaded_before_its_walk_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    import colorsys

    clearance = walk(imports_what_is_loaded)
    assert clearance.held is None and "colorsys" in clearance.imports
    program = GuardedProgram(
        NodeProgram("n", coerce(imports_what_is_loaded), ["out"]), clearance.entries, clearance.imports
    )
    monkeypatch.delitem(sys.modules, "colorsys")
    assert run(program, {}) == [("out", colorsys.ONE_THIRD)]


# -- a batch at once ------------------------------------------------------------------------------------------------------


def changes_an_even_number(state: Any) -> Any:
    if state["n"] % 2 == 0:
        state["n"] += 1
    return {"out": state["n"]}


def given(node: Any, *inputs: Any) -> GuardedProgram:
    program = guarded(node)
    program.given(list(inputs))
    for state in inputs:
        run(program, state)
    return program


@pytest.mark.parametrize("numbers", [(1, 3, 5, 4), (2, 3, 5, 7), (1, 3, 5, 7)])
def test_inputs_of_a_batch_are_seen_to_before_results_are_sent(numbers: tuple[int, ...]) -> None:
    inputs = [{"n": n} for n in numbers]
    with pytest.raises(Stays) if numbers[0] == 2 else nullcontext():  # the first call is looked at by itself
        objection = given(changes_an_even_number, *inputs).objection()
        assert (objection is None) == all(n % 2 for n in numbers)
        if objection is not None:
            assert str(objection) == "it changes its input"


def test_a_batch_that_follows_does_not_hide_what_was_changed() -> None:
    program = given(changes_an_even_number, {"n": 1}, {"n": 3}, {"n": 2})
    program.given([{"n": 3}])
    run(program, {"n": 3})
    assert "it changes its input" in str(program.objection())


def test_a_batch_whose_input_becomes_no_plain_data_is_refused() -> None:
    def spoils(state: Any) -> Any:
        if state["n"] > 2:
            state["n"] = object()

    program = given(spoils, {"n": 1}, {"n": 2}, {"n": 3})
    assert "it changes its input" in str(program.objection())
    with pytest.raises(Stays, match="it changes its input"):
        given(spoils, {"n": 3})


def test_results_of_a_batch_are_looked_at_one_by_one() -> None:
    with pytest.raises(Stays, match="is an object of the input itself"):
        given(gives_its_input_back, {"items": [1]}, {"items": [2]})
