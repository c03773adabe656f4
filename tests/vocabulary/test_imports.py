"""What importing mpflow loads, in an interpreter of its own: a program pays for what it uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each costs milliseconds, or is a library that a program may not use at all.
HEAVY = (
    "asyncio",
    "cloudpickle",
    "concurrent.futures",
    "hashlib",
    "langchain_core",
    "langgraph",
    "logging",
    "loky",
    "msgpack",
    "multiprocessing",
    "numpy",
    "pickle",
    "psutil",
    "pydantic",
    "random",
    "rich",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "typing_extensions",
    "uuid",
)


def loaded_by(code: str) -> set[str]:
    """The modules of `HEAVY` and of mpflow that an interpreter has loaded at the end of `code`, and not at its start."""
    program = f"import sys; before = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return {name for name in done.stdout.split() if name in HEAVY or name.partition(".")[0] == "mpflow"}


@pytest.mark.parametrize("module", ["mpflow", "mpflow.types", "mpflow.graph", "mpflow.channels", "mpflow.errors"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    assert not loaded_by(f"import {module}") & set(HEAVY)


def test_importing_mpflow_alone_loads_no_other_module_of_it() -> None:
    assert loaded_by("import mpflow") == {"mpflow"}


def test_a_graph_that_runs_inline_starts_no_machinery() -> None:
    code = """
from typing import TypedDict
from mpflow.graph import END, START, StateGraph
class State(TypedDict):
    n: int
graph = StateGraph(State)
graph.add_node("a", lambda state: {"n": state["n"] + 1})
graph.add_edge(START, "a")
graph.add_edge("a", END)
assert graph.compile().invoke({"n": 1}) == {"n": 2}
"""
    loaded = loaded_by(code)
    assert loaded & set(HEAVY) <= {"random"}  # for the versions of checkpoints
    assert "mpflow._exec.process" not in loaded
