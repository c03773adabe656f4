"""A node under guard: what it returns is handed on, whatever could differ from a thread's is refused."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

import numpy as np
import pytest

from mpflow._exec.placement.guard import GuardedProgram, Stays
from mpflow._exec.placement.safety import walk
from mpflow._exec.placement.standing import taken_apart
from mpflow._exec.program import NodeProgram
from mpflow._messages import StepFacts
from mpflow._scope import TaskScope
from mpflow.runnables.base import coerce
from tests.exec.placement import corpus


def guarded(node: Any) -> GuardedProgram:
    return GuardedProgram(NodeProgram("n", coerce(node), ["out"]), walk(node).entries)


def run(program: GuardedProgram, state: Any) -> Any:
    scope = TaskScope(StepFacts({}, 1, 2), "n", ("pull", "n"), ())
    return taken_apart(copy_context().run(program.run, state, scope))


def test_a_node_that_keeps_to_itself_gives_its_diff_and_its_figures() -> None:
    diff, (cpu_s, waited_s, guard_s) = run(guarded(corpus.computes), {})
    assert diff[0][0] == "out"
    assert cpu_s > 0 and guard_s > 0 and waited_s >= 0


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


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (changes_its_input, "it changes its input"),
        (gives_its_input_back, "is an object of the input itself"),
        (gives_an_object, "is a Tree"),
        (sets_a_class_it_was_handed, "it changes 'limit'"),
    ],
)
def test_what_a_thread_would_show_is_refused(node: Any, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "limit", 1)
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
