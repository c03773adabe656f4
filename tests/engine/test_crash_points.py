"""Every system call that stores something as the last one of the process (FAULTS row 22): acknowledged is durable, and it goes on."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.test_kills import ROOT, contains, said

CALLS = ("pwrite64", "fdatasync", "ftruncate")
ROUNDS = "2"

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]


def start(folder: Path, inject: str | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.engine.killed", str(folder / "db"), str(folder / "starts"), "thread"]
    if inject is not None:
        command = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            f"trace={','.join(CALLS)}",
            "-e",
            f"inject={inject}",
            *command,
        ]
    environment = {**os.environ, "MPFLOW_TEST_ROUNDS": ROUNDS}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


def crash_at(folder: Path, call: str, number: int, expected: Any) -> bool:
    """Whether there was such a call to die at."""
    folder.mkdir()
    lines = said(start(folder, f"{call}:signal=KILL:when={number}"), None)
    died = not lines or "final" not in lines[-1]
    if (folder / "db").exists() and died:
        connection = sqlite3.connect(folder / "db")
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
    again = said(start(folder, None), None)
    for chunk in lines:
        if chunk.keys() <= {"updates", "values"}:
            assert contains(again[0]["resumed"], chunk), f"streamed, and not durable at {call} {number}: {chunk}"
    assert again[-1]["final"] == expected, f"after {call} {number}"
    return died


def points(folder: Path, every: int) -> None:
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir()
    expected = said(start(undisturbed, None), None)[-1]["final"]
    for call in CALLS:
        number = 1
        while crash_at(folder / f"{call}{number}", call, number, expected):
            number += every
        assert number > 1 or call == "ftruncate", f"{call} was never called"


def test_some_storage_calls_as_the_last_one(tmp_path: Path) -> None:
    points(tmp_path, every=59)


@pytest.mark.chaos_full
@pytest.mark.timeout(3600)
def test_every_storage_call_as_the_last_one(tmp_path: Path) -> None:
    points(tmp_path, every=1)
