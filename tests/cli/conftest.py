"""The command line called in this process: exit code, stdout and stderr; a graph to call it on."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mpflow.cli import main

ROOT = Path(__file__).parents[2]
GRAPHS = """
import os
from typing import TypedDict

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.graph import END, START, StateGraph


class State(TypedDict, total=False):
    x: int
    pid: int


def double(state):
    if state["x"] < 0:
        raise ValueError("negative")
    return {"x": state["x"] * 2, "pid": os.getpid()}


builder = StateGraph(State).add_node("double", double).add_edge(START, "double").add_edge("double", END)
graph = builder.compile()
saved = builder.compile(checkpointer=InMemorySaver())
pure = StateGraph(State).add_node("square", lambda state: {"x": state["x"] ** 2}).add_edge(START, "square").compile()
broken = StateGraph(State).add_node("double", double)
number = 3


class holder:
    graph = graph
"""


@dataclass
class Called:
    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Run one command line; what it did to the import system is undone."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)

    def call(*args: str) -> Called:
        with pytest.raises(SystemExit) as exit:
            main(args)
        return Called(exit.value.code, *capsys.readouterr())

    yield call
    for name in set(sys.modules) - modules:
        # Only what the test wrote: libraries must not be imported twice.
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def spawn() -> Callable[..., subprocess.Popen[str]]:
    """Start ``python *args`` with pipes, from wherever the test is; it finds this mpflow even if none is installed."""

    def spawn(*args: str, stdin: Any = None, stdout: Any = subprocess.PIPE) -> subprocess.Popen[str]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.Popen(
            [sys.executable, *args], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment
        )

    return spawn


@pytest.fixture
def graphs(tmp_path: Path, monkeypatch) -> Path:
    """The working directory, holding cli_graphs.py."""
    (tmp_path / "cli_graphs.py").write_text(GRAPHS)
    monkeypatch.chdir(tmp_path)
    return tmp_path
