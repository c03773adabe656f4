"""What a program keeps at the top of its modules, as nodes meet it: state holds them and is named, constants let them go."""

from __future__ import annotations

import decimal
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mpflow._exec.placement import surroundings
from mpflow._exec.placement.guard import GuardedProgram, Stays
from mpflow._exec.placement.safety import walk
from mpflow._exec.program import NodeProgram
from mpflow.runnables.base import coerce
from tests.exec.placement import things
from tests.exec.placement.test_guard import run


def made(statement: str) -> Any:
    namespace = vars(things)
    exec(f"def _node(state):\n    out = None\n    {statement}\n    return {{'out': out}}", namespace)
    return namespace.pop("_node")


def guarded(node: Any) -> GuardedProgram:
    clearance = walk(node)
    return GuardedProgram(
        NodeProgram("n", coerce(node), ["out"]), clearance.entries, clearance.imports, surroundings.look()
    )


@pytest.mark.parametrize("statement", things.HELD)
def test_state_holds_a_node_and_is_named(statement: str) -> None:
    assert things.HELD[statement] in str(walk(made(statement)).held)


@pytest.mark.parametrize("name", things.CALLABLES)
def test_state_behind_a_callable_holds_it_and_is_named(name: str) -> None:
    node, named = things.CALLABLES[name]
    assert named in str(walk(node).held)


@pytest.mark.parametrize("statement", things.HARMLESS)
def test_ordinary_statements_are_let_through_and_not_refused_under_guard(statement: str) -> None:
    node = made(statement)
    assert walk(node).held is None
    program = guarded(node)
    assert [channel for channel, _ in run(program, {})] == ["out"]
    assert program.objection() is None


@pytest.mark.parametrize("name", things.MOVING)
def test_ordinary_callables_are_let_through(name: str) -> None:
    assert walk(things.MOVING[name]).held is None


@pytest.mark.parametrize(
    ("statement", "way"),
    [
        ("out = _BEHIND['a']", "; a types.MappingProxyType of a dict that has no other name could move"),
        ("out = SEEN[0]", "; a tuple could move"),
        ("out = ARRAY[0]", "; after setflags(write=False) it could move"),
    ],
)
def test_the_reason_says_what_to_do_about_a_constant(statement: str, way: str) -> None:
    assert str(walk(made(statement)).held).endswith(way)


def shares_a_count() -> tuple[Any, Any]:
    """One that counts in an object, through a helper that is handed it, and one that reads the count."""
    counter = things.Rule(1)

    def bump(it: Any) -> None:
        it.factor += 1

    def counts(state: Any) -> Any:
        bump(counter)
        return {"out": counter.factor}

    return counts, lambda state: {"out": counter.factor}


def test_an_object_that_is_changed_where_nobody_looks_is_seen_before_results_are_sent() -> None:
    counts, reads = shares_a_count()
    before = walk(reads)
    program = guarded(counts)
    run(program, {})
    assert "it changes 'factor'" in str(program.objection())
    assert before.changed() == "factor"


def test_an_attribute_of_a_function_that_was_set_anew_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(things.recursive, "limit", 1, raising=False)
    clearance = walk(made("out = recursive.limit"))
    assert (clearance.held, clearance.changed()) == (None, None)
    monkeypatch.setattr(things.recursive, "limit", 2)
    assert clearance.changed() == "limit"


def sets_precision() -> None:
    decimal.getcontext().prec = 7


def changes_options() -> None:
    pd.set_option("display.precision", 3)


def prints_short() -> None:
    np.set_printoptions(precision=2)


SETTINGS = [
    (sets_precision, "out = str(Decimal(1) / 3)", {}, "the decimal context"),
    (sets_precision, "out = 1", {"x": decimal.Decimal(1)}, "the decimal context"),
    (changes_options, "out = repr(pd.Series([1.5]))", {}, "pandas' options"),
    (prints_short, "out = str(np.zeros(3))", {}, "numpy's error and print settings"),
]


@pytest.mark.parametrize(("change", "statement", "state", "named"), SETTINGS)
def test_settings_that_are_others_in_a_worker_are_seen(change: Any, statement: str, state: Any, named: str) -> None:
    node = made(statement)
    with decimal.localcontext(), pd.option_context("display.precision", 6), np.printoptions():
        program = guarded(node)
        before = walk(node)
        change()
        with pytest.raises(Stays, match=named):
            run(program, state)
        assert before.changed() == (None if state else named)


def test_the_working_directory_is_seen_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clearance = walk(made("out = os.path.exists('x')"))
    assert (clearance.held, clearance.changed()) == (None, None)
    monkeypatch.chdir(tmp_path)
    assert clearance.changed() == "the working directory"
    assert os.getcwd() == str(tmp_path)


# -- tables -------------------------------------------------------------------------------------------------------------


def table() -> pd.DataFrame:
    times = pd.date_range("2020", periods=3, tz="UTC")
    return pd.DataFrame({"n": [1, 2, 3], "s": ["a", "b", None], "c": pd.Categorical(["u", "v", "u"]), "t": times})


def sums(state: Any) -> Any:
    return {"out": state["table"].groupby("c", observed=True)[["n"]].sum()}


def adds_a_column(state: Any) -> Any:
    state["table"]["m"] = 1


def sets_a_cell(state: Any) -> Any:
    state["table"].loc[0, "n"] = 7


def test_a_table_may_come_and_go() -> None:
    program = guarded(sums)
    ((_, value),) = run(program, {"table": table()})
    assert value["n"].to_dict() == {"u": 4, "v": 2}
    assert program.objection() is None


@pytest.mark.parametrize("node", [adds_a_column, sets_a_cell])
def test_a_table_that_was_changed_is_seen(node: Any) -> None:
    with pytest.raises(Stays, match="changes its input"):
        run(guarded(node), {"table": table()})


def test_a_large_table_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        run(guarded(sets_a_cell), {"table": pd.DataFrame({"n": np.zeros(1 << 16)})})


def test_a_table_of_objects_is_not_looked_into() -> None:
    with pytest.raises(Stays, match="holds objects, one of them a list"):
        run(guarded(sums), {"table": pd.DataFrame({"n": [[1], [2]]})})


def opens_its_input(state: Any) -> Any:
    return {"out": state["path"].rename("b")}


def test_a_path_in_the_input_is_a_value() -> None:
    assert run(guarded(made("out = state['path'].name")), {"path": Path("/x")}) == [("out", "x")]
