"""The safety walk: nothing that could observe a move is let through, and ordinary code is."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpflow._exec.placement.safety import walk
from tests.exec.placement import corpus
from tests.naming import shown


def name_of(node: Any) -> str:
    return getattr(node, "__qualname__", None) or shown(node)


@pytest.mark.parametrize("node", corpus.HELD, ids=name_of)
def test_what_could_observe_a_move_is_held(node: Any) -> None:
    assert walk(node).held is not None


@pytest.mark.parametrize("node", corpus.LET_THROUGH, ids=name_of)
def test_ordinary_code_is_let_through(node: Any) -> None:
    assert statistics.mean([1]) == 1  # what a node imports is loaded by then
    assert walk(node).held is None


@pytest.mark.parametrize(
    ("node", "named"),
    [
        (corpus.appends_through_helpers, "the global 'ITEMS' is a list, which can change, which _deeper uses"),
        (corpus.assigns_a_global, "assigns_a_global assigns the global 'COUNT'"),
        (corpus.counting_closure(), "assigns the outer variable 'count'"),
        (corpus.draws_by_chance, "'random.random'"),
        (corpus.registers_in_a_class, "'known' of the class Registry is a list"),
        (corpus.Model().node, "holds 'weights', a list"),
    ],
)
def test_the_reason_names_what_held_the_node(node: Any, named: str) -> None:
    assert named in str(walk(node).held)


def test_a_walk_notices_that_a_global_was_bound_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clearance = walk(corpus.computes)
    assert clearance.changed() is None
    monkeypatch.setattr(corpus, "LIMIT", 11)
    assert clearance.changed() == "LIMIT"


def test_a_walk_notices_that_a_variable_was_assigned() -> None:
    counts, reads = corpus.sharing_closures()
    clearance = walk(reads)
    assert (clearance.held, clearance.changed()) == (None, None)
    counts({})
    assert clearance.changed() == "a variable of an outer function"


def test_a_walk_notices_a_patched_class_and_module(monkeypatch: pytest.MonkeyPatch) -> None:
    of_class, of_module = walk(corpus.builds_objects), walk(corpus.computes)
    monkeypatch.setattr(corpus.Tree, "total", lambda self: 0)
    assert of_class.changed() == "total"
    monkeypatch.setattr("math.sqrt", lambda number: 0)
    assert of_module.changed() == "sqrt"


def test_two_walks_over_the_same_agree_and_over_another_name_the_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    first = walk(corpus.computes)
    assert first.difference(walk(corpus.computes).entries) is None
    monkeypatch.setattr(corpus, "LIMIT", 11)
    assert first.difference(walk(corpus.computes).entries) == "the global 'LIMIT'"


# Functions made of statements that are safe in themselves, with one among them that is not, at some depth.
SAFE = [
    "x = [1, 2]",
    "x.append(3)",
    "y = {'a': x}",
    "y = {}; y['b'] = LIMIT",
    "z = math.sqrt(LIMIT)",
    "w = sorted(set(x))",
]
LEAKY = [
    "ITEMS.append(1)",
    "global COUNT; COUNT = 2",
    "del ITEMS[0]",
    "TABLE['k'] = 1",
    "Fixed.factor = 2",
    "_helper()",
    "random.random()",
    "os.environ['A'] = 'b'",
    "remembered(2)",
    "id(x)",
    "setattr(Fixed, 'factor', 2)",
    "print(x)",
    "state.__class__.__dict__",
    "exec('pass')",
    "m = math; m.tau = 3",
    "f = ITEMS.append; f(1)",
    "next(COUNTER)",
    "LOCAL.x = 2",
    "Registry.add(1)",
]
WRAPS = [
    "{0}",
    "for i in range(2):\n    {0}",
    "if x:\n    {0}",
    "try:\n    {0}\nfinally:\n    pass",
    "with LOCK:\n    {0}",
    "def inner():\n    {0}\ninner()",
    "class Inner:\n    def go(self):\n        {0}\nInner().go()",
]


def made(statements: list[str]) -> Any:
    body = "\n".join(
        "    " + line for statement in ["x = [0]", *statements] for line in statement.replace("; ", "\n").split("\n")
    )
    namespace = vars(corpus).copy()
    exec(f"def node(state):\n{body}\n    return {{'out': x}}", namespace)
    return namespace["node"]


def wrapped(statement: str, wraps: list[str]) -> str:
    for wrap in wraps:
        head, _, _ = wrap.partition("{0}")
        indent = " " * (len(head) - len(head.rstrip(" ")))
        statement = wrap.replace("{0}", statement.replace("; ", "\n").replace("\n", "\n" + indent))
    return statement


@given(st.lists(st.sampled_from(SAFE), max_size=4), st.lists(st.sampled_from(WRAPS), max_size=3))
def test_made_functions_without_a_leak_are_let_through(statements: list[str], wraps: list[str]) -> None:
    assert walk(made([*statements, wrapped("v = 1", wraps)])).held is None


@given(
    st.lists(st.sampled_from(SAFE), max_size=3),
    st.sampled_from(LEAKY),
    st.lists(st.sampled_from(WRAPS), max_size=3),
    st.lists(st.sampled_from(SAFE), max_size=3),
)
def test_made_functions_with_a_leak_are_held(before: list[str], leak: str, wraps: list[str], after: list[str]) -> None:
    assert walk(made([*before, wrapped(leak, wraps), *after])).held is not None
