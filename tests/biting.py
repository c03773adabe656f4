"""Bugs to plant, one at a time, in a copy of the package: the tests named with each must catch it.

``python -m tests.biting`` plants them all, ``python -m tests.biting NAME ...`` some; it ends with 1 if one got away. To add
one, add a `Bug`: the text it replaces must occur exactly once in its file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).parents[1]
LIMIT_S = 240


class Bug(NamedTuple):
    """``right`` in ``file`` becomes ``wrong``; ``tests`` are pytest's arguments that must then fail."""

    name: str
    file: str
    right: str
    wrong: str
    tests: Sequence[str]


def _faults(*names: str) -> tuple[str, ...]:
    return "tests/exec/test_process_faults.py", "-k", " or ".join(names)


BUGS = (
    Bug(
        "a round taken for the one before",
        "_engine/changes.py",
        "return _growth(channel, channel.value, held, size, (write,)) == code",
        "return True",
        ("tests/engine/test_rounds.py", "-k", "overwritten"),
    ),
    Bug(
        "no attempt token",
        "_core/scheduler.py",
        "            if task.attempt is not attempt:\n                return out",
        "            if False:\n                return out",
        ("tests/core/test_scheduler.py", "-k", "outcome_of_an_attempt_that_is_over"),
    ),
    Bug(
        "drain skipped",
        "_exec/foreman.py",
        "            return\n        self._hearing.read_all(worker)\n        was_starting",
        "            return\n        was_starting",
        _faults("what_a_dead_worker_has_sent_counts"),
    ),
    Bug(
        "finished tasks taken back",
        "_exec/slots.py",
        "return max(running, words[FINISHED])",
        "return running",
        _faults("finished_and_unread"),
    ),
    Bug(
        "stale slot blamed",
        "_exec/deaths.py",
        "attempt = worker.window.get(worker.running)",
        "attempt = next(iter(worker.window.values()), None)",
        _faults("killed_worker_costs_its_running_task_alone"),
    ),
    Bug(
        "no parent-death signal",
        "_exec/worker.py",
        "ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)",
        "ctypes.CDLL(None)",
        _faults("workers_end_when_their_parent_is_killed"),
    ),
    Bug(
        "what a worker started outlives it",
        "_exec/crew.py",
        "            with contextlib.suppress(OSError):\n                os.killpg(self.pid, signal.SIGKILL)\n            _, status",
        "            _, status",
        _faults("what_a_worker_forked_ends_with_it"),
    ),
    Bug(
        "no backstop of deadlines",
        "_exec/deadline.py",
        "if worker.stop() and due_at(worker, now) <= now:",
        "if False:",
        _faults("overrunning_task_is_killed_at_its_deadline"),
    ),
    Bug(
        "results wait for a long task",
        "_exec/lookout.py",
        "if number and number == before:",
        "if False:",
        (*_faults("no_result_waits"), "--timeout", "60"),
    ),
    Bug(
        "what printed comes after its result",
        "_exec/worker.py",
        "                self._voice.flush_ours()\n",
        "",
        _faults("held_back_tasks_printed"),
    ),
    Bug(
        "no kernel timer",
        "_exec/worker.py",
        "signal.setitimer(signal.ITIMER_REAL, max(timeout_s, 1e-6))",
        "pass",
        _faults("siblings_of_an_overrunning_task or overrunning_task_is_killed or stopped_sees_no_false"),
    ),
    Bug(
        "a suspect among others",
        "_exec/queues.py",
        "            if attempt.alone:\n                self.alone += singly((attempt,))\n                continue\n",
        "",
        _faults("gets_a_fresh_worker_to_itself"),
    ),
    Bug(
        "starts without end",
        "_exec/roster.py",
        "        if len(self._failed_starts) < FAILED_STARTS:\n            return None",
        "        if True:\n            return None",
        _faults("cannot_start_are_given_up"),
    ),
    Bug(
        "deaths are not counted",
        "_core/retry.py",
        "return len(deaths) >= MAX_DEATHS or",
        "return",
        ("tests/core/test_scheduler.py", "-k", "quarantined"),
    ),
    Bug(
        "a half frame counts",
        "_exec/foreman.py",
        "            self._floor.end([blamed], kind, payload)",
        "            self._floor.end([blamed], 0, [])",
        ("tests/exec/test_process_resources.py", "-k", "killed_in_the_middle"),
    ),
    Bug(
        "a task that ends the program is tried for ever",
        "_engine/suspicion.py",
        "return self._begun[-1] if self._begun else None",
        "return None",
        ("tests/engine/test_suspicion.py", "-k", "found_and_given_up"),
    ),
    Bug(
        "a program that others kill is blamed on its tasks",
        "_engine/suspicion.py",
        "deaths = task.deaths or (AMONG_OTHERS,)",
        "deaths = task.deaths or (AMONG_OTHERS, AMONG_OTHERS)",
        ("tests/engine/test_suspicion.py", "-k", "killed_by_others"),
    ),
    Bug(
        "a damaged index is trusted",
        "checkpoint/sqlite/driver.py",
        "if self._is_to_be_checked():",
        "if False:",
        ("tests/checkpoint/test_damage.py", "-k", "flipped_bit_anywhere"),
    ),
    Bug(
        "a reducer half applied",
        "_core/merge.py",
        "        change.undo()",
        "        pass",
        ("tests/core", "-k", "merge_that_fails or fault26"),
    ),
    Bug(
        "one context for all tasks",
        "_exec/worker.py",
        "context = contextvars.Context()",
        "context = contextvars.copy_context() if not hasattr(self, 'ctx') else self.ctx; self.ctx = context",
        ("tests/exec/test_process_runs.py", "-k", "context_of_its_own"),
    ),
    Bug(
        "an answer for another question",
        "_exec/errands.py",
        "question = self._open.get(number)",
        "question = next(iter(self._open.values()), None)",
        ("tests/engine/test_nested_in_processes.py", "-k", "side_by_side", "--timeout", "30"),
    ),
    Bug(
        "answers are not told back",
        "_exec/worker.py",
        "if answers is not None and (len(answers.given), len(answers.null)) != before:",
        "if False:",
        ("tests/engine/test_nested_in_processes.py", "tests/exec/test_process_runs.py", "-k", "ask or answer"),
    ),
    Bug(
        "a consumer who never reads takes the pool",
        "_exec/stalls.py",
        "        self._queue.hold(outbox)",
        "        pass",
        ("tests/engine/test_slow_consumers.py", "--timeout", "60"),
    ),
    Bug(
        "chunks without bound",
        "_exec/worker.py",
        "self._errands.ask(number, link.CONSUMER)",
        "pass",
        ("tests/engine/test_slow_consumers.py", "-k", "bounded", "--timeout", "60"),
    ),
    Bug(
        "Ctrl-C leaves workers running",
        "_engine/drive.py",
        "        places.cancel(running, kill=True)",
        "        pass",
        ("tests/engine/test_slow_consumers.py", "-k", "walked_away", "--timeout", "60"),
    ),
    Bug(
        "finished work is not saved",
        "_engine/resume.py",
        "writes = task.writes or [(NO_WRITES, None)]",
        "return ()",
        ("tests/engine/test_signals.py", "-k", "thread-sync"),
    ),
)


def plant(bug: Bug, copy: Path) -> None:
    """Write the bug into a copy of the package. Raises ValueError if the code it means has changed."""
    path = copy / "mpflow" / bug.file
    source = path.read_text()
    if source.count(bug.right) != 1:
        raise ValueError(f"bug '{bug.name}': its text occurs {source.count(bug.right)} times in {bug.file}, expected 1")
    path.write_text(source.replace(bug.right, bug.wrong))


def is_caught(bug: Bug) -> tuple[bool, str]:
    """Plant it and run its tests: whether they fail, and the last lines of what pytest said."""
    with tempfile.TemporaryDirectory(prefix="mpflow-biting-") as directory:
        copy = Path(directory)
        for name in ("mpflow", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        plant(bug, copy)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *bug.tests]
        environ = {**os.environ, "PYTHONPATH": str(copy)}
        try:
            done = subprocess.run(
                command, cwd=copy, env=environ, capture_output=True, text=True, timeout=LIMIT_S, start_new_session=True
            )
        except subprocess.TimeoutExpired:
            return True, "the tests hung"
        finally:
            _end_what_is_left_in(copy)
        # 1: tests failed. Anything else, such as a selection without tests, proves nothing.
        return done.returncode == 1, "\n".join(done.stdout.splitlines()[-4:])


def _end_what_is_left_in(copy: Path) -> None:
    """Kill the processes that a planted bug let outlive its tests: those that work in the copy."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(copy):
                process.kill()


def main(names: Sequence[str]) -> int:
    escaped = []
    for bug in BUGS:
        if names and bug.name not in names:
            continue
        caught, said = is_caught(bug)
        print(f"{'caught ' if caught else 'ESCAPED'}  {bug.name}", flush=True)
        if not caught:
            escaped.append(bug.name)
            print(said)
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
