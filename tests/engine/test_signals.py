"""Whole programs that are interrupted or terminated: what was saved stays, nothing is left running (FAULTS row 27)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.exec.pooling import is_alive, wait_until
from tests.exec.scripts import run_script

pytestmark = pytest.mark.chaos

PROGRAM = """
import asyncio, operator, os, sys, time
from typing import Annotated, TypedDict
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.graph import START, StateGraph
from mpflow.types import Send

place, colour, pids = sys.argv[1:4]

class State(TypedDict):
    done: Annotated[list, operator.add]

class Journal(InMemorySaver):
    '''Writes down which tasks it was given, as soon as it has them.'''
    def put_writes(self, config, writes, task_id, task_path=""):
        super().put_writes(config, writes, task_id, task_path)
        for channel, value in writes:
            if channel == "done" and value:
                os.write(1, f"saved {value[0]}\\n".encode())
    async def aput_writes(self, *args):
        self.put_writes(*args)

def work(number):
    with open(pids, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(0.05)
    return {"done": [number]}

graph = StateGraph(State).add_node("work", work, executor=place)
graph.add_conditional_edges(START, lambda state: [Send("work", number) for number in range(10_000)])
graph = graph.compile(checkpointer=Journal())
options = dict(config={"configurable": {"thread_id": "1"}}, stream_mode="updates", durability="sync")

def told(chunk):
    os.write(1, f"told {chunk['work']['done'][0]}\\n".encode())

async def main():
    async for chunk in graph.astream({"done": []}, **options):
        told(chunk)

if colour == "sync":
    for chunk in graph.stream({"done": []}, **options):
        told(chunk)
else:
    asyncio.run(main())
"""

OUR_FRAMES = int(sys.version_info < (3, 11))
"""Python 3.10 shows the public method that was called; from 3.11 on nothing of ours is seen."""
LINES = {"sync": 4 + 2 * OUR_FRAMES, "async": 20 + 2 * OUR_FRAMES}
"""The traceback of KeyboardInterrupt is Python's own, and asyncio's has two parts."""
SAVER_LINES = 5
"""Of the program's saver and ours that it calls, if it came there."""


def interrupt(directory: Path, place: str, colour: str, how: str, after_s: float) -> None:
    """Run the program, end it `after_s` seconds after its first result, and look at what is left."""
    root = Path(__file__).parents[2]
    program, seen, said = directory / "program.py", directory / "pids", directory / "said"
    program.write_text(PROGRAM)
    seen.write_text("")
    out = said.open("wb")
    process = subprocess.Popen(
        [sys.executable, str(program), place, colour, str(seen)],
        stdout=out, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    try:
        wait_until(lambda: "told" in said.read_text() or process.poll() is not None, 30.0)
        time.sleep(after_s)
        number = signal.SIGTERM if how == "term" else signal.SIGINT
        if how == "group":
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        if how == "twice":
            time.sleep(after_s % 0.1)
            process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
        out.close()
    assert process.returncode == -number, err
    pids = {int(line) for line in seen.read_text().split()}
    assert wait_until(lambda: not any(map(is_alive, pids)), 2.0), "workers are left"
    lines = said.read_text().splitlines()
    saved = [line.split()[1] for line in lines if line.startswith("saved")]
    told = [line.split()[1] for line in lines if line.startswith("told")]
    assert set(told) <= set(saved), "something was streamed that was not durable"
    assert len(set(saved)) == len(saved) and len(saved) < 10_000
    # A second one that comes when the run has ended is Python's to tell of, once more.
    told_of = 2 if how == "twice" else 1
    in_saver = err.count("in put_writes\n    super()")
    own = [line for line in err.splitlines() if f'"{root / "mpflow"}' in line]
    assert len(own) <= OUR_FRAMES * told_of + in_saver, err
    lines = [line for line in err.splitlines() if line.strip(" ~^")]
    assert len(lines) <= LINES[colour] * told_of + SAVER_LINES * in_saver, err
    if how != "term":
        # The second may come when Python tears down modules of its own; nothing of ours may be cut short by it.
        answer, _, ignored = err.partition("Exception ignored")
        assert answer.rstrip().endswith("KeyboardInterrupt") and "mpflow" not in ignored, err


@pytest.mark.parametrize(
    ("place", "colour", "how"),
    [
        ("thread", "sync", "pid"),
        ("thread", "async", "group"),
        ("process", "sync", "group"),
        ("process", "sync", "twice"),
        ("process", "sync", "term"),
        ("process", "async", "pid"),
        ("process", "async", "twice"),
    ],
)
def test_an_interrupted_program_keeps_what_it_saved_and_leaves_nobody(
    tmp_path: Path, place: str, colour: str, how: str
) -> None:
    interrupt(tmp_path, place, colour, how, 0.03)


def test_an_interrupt_while_the_program_ends_does_not_cut_that_short() -> None:
    script = """
        import os, signal
        from mpflow._exec.pools import default_pool
        from mpflow._exec.process import WorkerPool
        from tests.exec.pooling import Drive, Node
        close = WorkerPool.close
        def interrupted(self, **how):
            os.kill(os.getpid(), signal.SIGINT)
            close(self, **how)
            os.kill(os.getpid(), signal.SIGINT)
        WorkerPool.close = interrupted
        Drive(default_pool()).values(Node(lambda x: x), range(2))
        print(*default_pool().stats()["pids"])
    """
    done = run_script(script)
    assert done.stderr == ""
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids and not any(map(is_alive, pids))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(40))
def test_a_program_interrupted_at_any_time(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    place, colour = chance.choice(["thread", "process"]), chance.choice(["sync", "async"])
    interrupt(tmp_path, place, colour, chance.choice(["pid", "group", "twice", "term"]), chance.random() * 0.5)
