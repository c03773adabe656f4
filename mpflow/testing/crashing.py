"""Checks of a saver whose process is killed. Run as a program, this module is the process: it saves until it dies."""

from __future__ import annotations

import operator
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, TypedDict

import cloudpickle

from mpflow.constants import START
from mpflow.graph.state import StateGraph
from mpflow.testing.probe import Thread, address, holds, same
from mpflow.testing.suite import Suite
from mpflow.types import Send

_ACKNOWLEDGED = 12
"""How many saves the process has acknowledged when it is killed."""
_TASKS = 6
_FATAL = 3
"""The task that kills its process."""
_TIMEOUT_S = 60.0


def value_of(step: int) -> list[str]:
    """What a step saves: more than one page, and told by the step alone."""
    return [f"{step}:{line}" for line in range(400)]


def save_for_ever(suite: Any, place: Path, colour: str) -> None:
    """Save step after step and say on stdout when each is saved."""
    with suite.opened(colour, place) as saver:
        thread = Thread(saver)
        while True:
            step = thread.count
            where = thread.step({"same": 0, "a": value_of(step)} if not step else {"a": value_of(step)})
            saver.put_writes(where, [("a", value_of(step)), ("b", step)], f"task{step}")
            print(step, flush=True)  # noqa: T201 - the parent reads it


class _State(TypedDict, total=False):
    done: Annotated[list[int], operator.add]


def graph_that_dies(saver: Any, starts: Path, fatal: int | None) -> Any:
    """Tasks that note their starts in a file; the `fatal` one kills its process."""

    def work(item: int) -> _State:
        with starts.open("a") as file:
            file.write(f"{item}\n")
        if item == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"done": [item]}

    builder = (
        StateGraph(_State).add_node("work", work, executor="thread").add_node("last", lambda state: {"done": [-1]})
    )
    builder.add_conditional_edges(START, lambda state: [Send("work", item) for item in range(_TASKS)], ["work"])
    return builder.add_edge("work", "last").compile(checkpointer=saver)


def run_until_killed(suite: Any, place: Path, colour: str) -> None:
    with suite.opened(colour, place) as saver:
        graph = graph_that_dies(saver.saver, place / "starts", _FATAL)
        config: Any = {**address("thread"), "max_concurrency": 1}
        saver.colour.call(graph, "invoke", {"done": []}, config, durability="sync")


class Crashes(Suite):
    """What is left when the process is killed, for savers that outlive one."""

    def _process(self, program: Any, place: Path, colour: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "mpflow.testing.crashing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert process.stdin is not None
        with process.stdin as stdin:
            stdin.write(cloudpickle.dumps((program, self, place, colour)))
        return process

    def test_cp6_what_was_acknowledged_survives_a_kill_and_all_is_whole(self, colour: str) -> None:
        self._needs_persistence()
        with self.place() as place:
            with self._process(save_for_ever, place, colour) as process:
                assert process.stdout is not None
                acknowledged = -1
                for line in process.stdout:
                    acknowledged = int(line)
                    if acknowledged == _ACKNOWLEDGED:
                        process.kill()
            same(process.returncode, -signal.SIGKILL, "how the process ended")
            with self.opened(colour, place) as saver:
                found = saver.list(address("thread"))
                holds(len(found) > acknowledged, f"{acknowledged + 1} saves were acknowledged, {len(found)} are found")
                for one in found:
                    step: Any = one.metadata.get("step")
                    same(
                        one.checkpoint["channel_values"], {"same": 0, "a": value_of(step)}, f"the values of step {step}"
                    )
                    writes = [(f"task{step}", "a", value_of(step)), (f"task{step}", "b", step)]
                    whole = [writes] if step <= acknowledged else [[], writes]
                    holds((one.pending_writes or []) in whole, f"the writes of step {step} are not whole")

    def test_cp6_a_killed_run_resumes_exactly(self, colour: str) -> None:
        self._needs_persistence()
        with self.place() as place:
            with self._process(run_until_killed, place, colour) as process:
                process.wait(_TIMEOUT_S)
            same(process.returncode, -signal.SIGKILL, "how the process ended")
            with self.opened(colour, place) as saver:
                graph = graph_that_dies(saver.saver, place / "starts", None)
                config: Any = {**address("thread"), "max_concurrency": 1}
                result = saver.colour.call(graph, "invoke", None, config, durability="sync")
                same(result, {"done": [*range(_TASKS), -1]}, "the result of the resumed run")
                starts = (place / "starts").read_text().split()
                holds(len(starts) <= _TASKS + 2, f"tasks that had finished ran again: {starts}")

    def _needs_persistence(self) -> None:
        if not self.persistent:
            from unittest import SkipTest

            raise SkipTest("the saver does not outlive its process")


if __name__ == "__main__":
    _program, *_arguments = pickle.loads(sys.stdin.buffer.read())
    _program(*_arguments)
