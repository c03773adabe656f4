"""The whole program killed at random moments, and started again each time (FAULTS promise 3, row 21 and the kill campaign)."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.engine.killed import ROUNDS, WIDTH

ROOT = Path(__file__).parents[2]


def start(folder: Path, place: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.engine.killed", str(folder / "db"), str(folder / "starts"), place]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def said(process: subprocess.Popen[str], kill_after_s: float | None) -> list[dict[str, Any]]:
    """What the program said until it ended; from its first word on it has so long to live."""
    lines: list[dict[str, Any]] = []
    timer: threading.Timer | None = None
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if line.endswith("\n"):  # the last may be cut off
                lines.append(json.loads(line))
            if timer is None and kill_after_s is not None:
                timer = threading.Timer(kill_after_s, process.kill)
                timer.start()
    if timer is not None:
        timer.cancel()
        timer.join()
    return lines


def contains(state: dict[str, Any], chunk: dict[str, Any]) -> bool:
    """Whether a state has what was streamed before."""
    if "values" in chunk:
        return len(chunk["values"].get("log", ())) <= len(state.get("log", ()))
    (update,) = (one for name, one in chunk["updates"].items() if name != "__metadata__")
    return not update or set(update.get("log", ())) <= set(state.get("log", ()))


def campaign(folder: Path, place: str, kills: int, starts_a_kill: int, seed: int) -> None:
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir()
    expected = said(start(undisturbed, place), None)[-1]["final"]
    assert len(expected["log"]) == 1 + ROUNDS * (WIDTH + 1)
    dice = random.Random(seed)
    killed = 0
    number = 0
    while killed < kills:
        number += 1
        here = folder / str(number)
        here.mkdir()
        heard: list[dict[str, Any]] = []
        kills_here = 0
        while True:
            process = start(here, place)
            lines = said(process, dice.uniform(0.0, 0.2 + 0.1 * kills_here))  # at last it comes through
            resumed = lines[0]["resumed"]
            for chunk in heard:
                assert contains(resumed, chunk), f"streamed, and not durable: {chunk}; seed {seed}, run {number}"
            heard = [line for line in lines if line.keys() <= {"updates", "values"}]
            if "final" in lines[-1]:
                break
            assert process.returncode == -9, process.returncode
            kills_here += 1
        assert lines[-1]["final"] == expected, f"seed {seed}, run {number}"
        starts = Counter((here / "starts").read_text().splitlines())
        extra = sum(starts.values()) - len(starts)
        assert len(starts) == ROUNDS * (WIDTH + 2)
        assert extra <= starts_a_kill * kills_here, f"{extra} starts too many in {kills_here} kills; seed {seed}"
        killed += kills_here
    print(f"{killed} kills, {number} runs")


@pytest.mark.chaos
@pytest.mark.parametrize("place", ["thread", "process"])
def test_a_killed_program_goes_on_where_it_was(tmp_path: Path, place: str) -> None:
    campaign(tmp_path, place, 2, WIDTH + 2 if place == "thread" else 4, seed=1)


@pytest.mark.chaos_full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("place", ["thread", "process"])
def test_two_hundred_kills(tmp_path: Path, place: str) -> None:
    campaign(tmp_path, place, 100, WIDTH + 2 if place == "thread" else 4, seed=random.randrange(1 << 30))
