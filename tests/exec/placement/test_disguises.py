"""What hides in a constant, in what makes a field, in a module that answers by itself: it holds a node, and is not asked."""

from __future__ import annotations

import locale
import sys
import time
import warnings
from abc import ABC, abstractmethod
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from mpflow._exec.placement import surroundings
from mpflow._exec.placement.guard import GuardedProgram, Stays
from mpflow._exec.placement.safety import walk
from mpflow._exec.program import NodeProgram
from mpflow.runnables.base import coerce
from tests.exec.placement import disguises
from tests.exec.placement.test_guard import run


def made(statement: str) -> Any:
    namespace = {**vars(disguises), "pd": pd}
    exec(f"def _node(state):\n    out = None\n    {statement}\n    return {{'out': out}}", namespace)
    return namespace["_node"]


def guarded(node: Any) -> GuardedProgram:
    clearance = walk(node)
    assert clearance.held is None
    program = NodeProgram("n", coerce(node), ["out"])
    return GuardedProgram(program, clearance.entries, clearance.imports, surroundings.look())


@pytest.mark.parametrize("statement", disguises.HELD)
def test_state_in_disguise_holds_a_node_and_none_of_its_code_is_run(
    statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, disguises.asked.__name__, disguises.asked)
    before = len(disguises.SEEN)
    assert disguises.HELD[statement] in str(walk(made(statement)).held)
    assert len(disguises.SEEN) == before


@pytest.mark.parametrize("statement", disguises.HARMLESS)
def test_what_looks_alike_and_is_none_is_let_through(statement: str) -> None:
    program = guarded(made(statement))
    assert [channel for channel, _ in run(program, {})] == ["out"]
    assert program.objection() is None


def test_a_warning_that_the_program_listens_to_is_for_a_thread() -> None:
    with warnings.catch_warnings(record=True):
        program = guarded(made("out = float(np.log(np.zeros(1))[0])"))
        with pytest.raises(Stays, match="it warns \\(RuntimeWarning: divide by zero"):
            run(program, {})


def test_a_warning_that_is_only_printed_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "are_warnings_heard", lambda: False)
    monkeypatch.setitem(surroundings._LOOKS, surroundings.WARNINGS, lambda: False)
    program = guarded(made("out = float(np.log(np.zeros(1))[0])"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run(program, {}) == [("out", -np.inf)]


def test_what_a_module_ignores_is_heard_by_nobody() -> None:
    with warnings.catch_warnings(record=True):
        warnings.filterwarnings("ignore", message="divide by zero")
        program = guarded(made("out = float(np.log(np.zeros(1))[0])"))
        assert run(program, {}) == [("out", -np.inf)]


def test_results_may_be_sent_while_a_watched_call_runs() -> None:
    """That one is watched is no change of what becomes of warnings."""
    with warnings.catch_warnings(record=True):
        program = guarded(made("out = float(np.log(np.ones(1))[0])"))
        run(program, {})
        objections = []
        inner = program.inner
        program.inner = SimpleNamespace(
            returned=lambda *given: (objections.append(program.objection()), inner.returned(*given))[1],
            diff=inner.diff,
        )
        run(program, {})
    assert objections == [None]


def test_a_program_that_begins_to_listen_to_warnings_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    node = made("out = float(np.zeros(1)[0])")
    monkeypatch.setitem(surroundings._LOOKS, surroundings.WARNINGS, lambda: False)
    clearance = walk(node)
    assert clearance.changed() is None
    monkeypatch.setitem(surroundings._LOOKS, surroundings.WARNINGS, lambda: True)
    assert clearance.changed() == "what becomes of warnings"


@pytest.mark.parametrize(
    ("change", "heard"),
    [
        (lambda: warnings.simplefilter("ignore"), False),
        (lambda: warnings.simplefilter("error"), True),
        (lambda: setattr(warnings, "showwarning", print), True),
    ],
)
def test_who_listens_to_warnings(change: Any, heard: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = warnings
    with warnings.catch_warnings():
        monkeypatch.setattr(warnings, "showwarning", module._showwarning_orig)
        monkeypatch.setattr(warnings, "_showwarnmsg_impl", _shows_plainly)
        warnings.resetwarnings()
        change()
        assert surroundings.are_warnings_heard() is heard


def _shows_plainly(message: Any) -> None: ...


_shows_plainly.__module__ = "warnings"


def test_chance_of_numpys_shared_generator_behind_a_method_is_for_a_thread() -> None:
    program = guarded(made("out = pd.Series([1, 2]).sample(1).tolist()"))
    with pytest.raises(Stays, match="numpy's shared generator"):
        run(program, {})
    seeded = guarded(made("out = pd.Series([1, 2]).sample(1, random_state=3).tolist()"))
    assert run(seeded, {}) == run(seeded, {})


def test_dates_go_by_the_time_zone_and_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    clearance = walk(made("out = datetime.datetime(2020, 1, 1).astimezone().hour"))
    assert (clearance.held, clearance.changed()) == (None, None)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert clearance.changed() == surroundings.CLOCK
    time.tzset()
    assert clearance.changed() is None
    was = locale.setlocale(locale.LC_TIME)
    with suppress(locale.Error):
        locale.setlocale(locale.LC_TIME, "C.UTF-8" if was == "C" else "C")
        assert clearance.changed() == surroundings.CLOCK
    locale.setlocale(locale.LC_TIME, was)


def test_numbers_go_by_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    program = guarded(made("out = f'{1234.5:n}'"))
    clearance = walk(made("out = f'{1234.5:n}'"))
    assert (clearance.held, clearance.changed()) == (None, None)
    monkeypatch.setitem(surroundings._LOOKS, surroundings.NUMBERS, lambda: "de_DE")
    assert clearance.changed() == surroundings.NUMBERS
    with pytest.raises(Stays, match="the locale of numbers"):
        run(program, {})


def test_what_was_registered_with_an_abstract_class_must_be_so_in_a_worker() -> None:
    class Shape(ABC):
        @abstractmethod
        def area(self) -> float: ...

    def node(state: Any) -> Any:
        return {"out": isinstance(1, Shape)}

    program = guarded(node)
    run(guarded(node), {})
    Shape.register(int)
    with pytest.raises(Stays, match=r"what is registered with .*Shape is another"):
        run(program, {})


def test_documents_go_by_the_prefixes_that_were_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    def node(state: Any) -> Any:
        return {"out": ElementTree.tostring(ElementTree.fromstring("<a xmlns='urn:y'/>"))}

    clearance = walk(node)
    assert (clearance.held, clearance.changed()) == (None, None)
    monkeypatch.setitem(vars(ElementTree)["_namespace_map"], "urn:y", "y")
    assert clearance.changed() == surroundings.PREFIXES


def test_paths_go_by_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    clearance = walk(made("out = str(pathlib.Path.home())"))
    assert (clearance.held, clearance.changed()) == (None, None)
    monkeypatch.setenv("HOME", "/nowhere")
    assert clearance.changed() == surroundings.HOME
