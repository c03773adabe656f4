"""What it costs to begin, in interpreters of their own: imports, and the first result of a fresh pool."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.race import Against, Race, children_time

ROOT = Path(__file__).parent.parent
ROUNDS = 15
# Compiled modules are kept, wherever else this runs: what is measured is the second start and not the first.
BYTECODE = tempfile.TemporaryDirectory(prefix="mpflow-bench-")
ENVIRON = {**os.environ, "PYTHONPYCACHEPREFIX": BYTECODE.name, "PYTHONDONTWRITEBYTECODE": ""}

FIRST = """\
from bench.graphs import sends
sends("mpflow", 1, "process")()
"""
FIRST_LOKY = """\
import loky
from bench.graphs import one
pool = loky.get_reusable_executor(2)
pool.submit(one, {}).result()
pool.shutdown(kill_workers=True)
"""
FIRST_CF = """\
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from bench.graphs import one
with ProcessPoolExecutor(2, get_context("spawn")) as pool:
    pool.submit(one, {}).result()
"""


def interpreter(code: str) -> Callable[[], object]:
    """Runs `code` in an interpreter of its own. Raises ImportError if it does not run here at all."""

    command = [sys.executable, "-c", code]
    tried = subprocess.run(command, cwd=ROOT, env=ENVIRON, stderr=subprocess.PIPE, timeout=60)
    if tried.returncode:
        raise ImportError(tried.stderr.decode().strip().splitlines()[-1])
    return lambda: subprocess.run(command, cwd=ROOT, env=ENVIRON, check=True, stderr=subprocess.DEVNULL)


def test_first_result(race: Race) -> None:
    race(
        "an interpreter's life to its first process result",
        interpreter(FIRST),
        Against("a bare interpreter", lambda: interpreter("pass")),
        Against("concurrent.futures, spawn", lambda: interpreter(FIRST_CF)),
        Against("loky", lambda: interpreter(FIRST_LOKY), wanted=1.0),
        rounds=ROUNDS,
    )


@children_time
@pytest.mark.parametrize("module", ["mpflow", "mpflow.graph"])
def test_import(race: Race, module: str) -> None:
    """The second line leaves out what the interpreter takes to start."""
    name = f"import {module}"
    peer = Against("import langgraph.graph", lambda: interpreter("import langgraph.graph"), rounds=5)
    bare = Against("a bare interpreter", lambda: interpreter("pass"))
    ours_s = race(name, interpreter(f"import {module}"), bare, peer, rounds=ROUNDS)
    times = {row.against: row.other_s for row in race.mine if row.other_s is not None}
    if peer.name in times:
        start_s = times[bare.name]
        race.compare(f"{name}, itself", ours_s - start_s, peer.name, times[peer.name] - start_s, wanted=23)
