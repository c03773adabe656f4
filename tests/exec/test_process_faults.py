"""What kills or confuses a worker, and who is charged for it: the rows of the fault catalogue that concern the pool."""

from __future__ import annotations

import ctypes
import multiprocessing
import operator
import os
import random
import resource
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypedDict

import pytest

from mpflow._exec import deaths, link
from mpflow._exec.mailbox import Mailbox
from mpflow._exec.process import WorkerPool
from mpflow._messages import EVENT
from mpflow._wire.errors import EncodeError
from mpflow.errors import (
    EngineUnhealthy,
    NodeNotPicklableError,
    NodeTimeoutError,
    WorkerStartError,
    WrongProcessError,
)
from mpflow.graph import START, StateGraph
from mpflow.runtime import get_runtime
from mpflow.types import Send
from tests.exec.pooling import (
    CANCELLED,
    DONE,
    FAILED,
    LIMIT_S,
    LOST,
    Drive,
    Node,
    die,
    facts_of,
    is_alive,
    kinds,
    wait_until,
)
from tests.exec.scripts import run_script

pytestmark = pytest.mark.chaos


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool
        # After every fault the pool still works, and all it holds ends with it (see the leak check around each test).
        assert Drive(pool).values(Node(lambda x: x * 2), range(20)) == [x * 2 for x in range(20)]


def sleep(x: Any) -> Any:
    time.sleep(x)
    return x


# -- 1-3: killed and stopped -------------------------------------------------------------------------------------------


def test_killed_worker_costs_its_running_task_alone(pool: WorkerPool) -> None:
    """FAULTS row 1"""
    drive = Drive(pool)

    def work(x: int) -> int:
        if x == 50:
            die()
        return x

    node = Node(work)
    drive.values(node, range(100, 300))  # both workers are up, and batches are long
    results = drive.all(node, range(100))
    assert [index for index, (kind, _) in enumerate(results) if kind != DONE] == [50]
    kind, death = results[50]
    assert (kind, death.signal, death.reason) == (LOST, signal.SIGKILL, "died")
    assert "SIGKILL(-9)" in str(death)


def test_kill_from_outside_is_charged_to_what_ran(pool: WorkerPool) -> None:
    """FAULTS row 1"""
    drive = Drive(pool)
    drive.values(Node(lambda x: x), [1, 2])
    drive.submit(Node(sleep), [20], rerun_on_loss=False)
    pid = drive.running_pid()
    os.kill(pid, signal.SIGKILL)
    [(kind, _, death, _)] = drive.finish(3)[2:]
    assert kind == LOST and death.pid == pid


def test_killed_in_the_middle_of_a_large_result(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    drive = Drive(pool)

    def reply(x: int) -> bytes:
        if x == 1:
            return bytes(50_000_000)
        # Half a frame, then death: what a kill in the middle of a large write looks like.
        from mpflow._exec import link

        link.Blocking.send = half  # type: ignore[method-assign, assignment]
        return bytes(100_000)

    def half(self: Any, kind: int, *body: Any, fds: Any = None) -> None:
        from mpflow._wire.frames import frame

        self._sock.sendall(b"".join(frame(kind, *body))[:50_000])
        die()

    results = drive.all(Node(reply), [1, 2])
    assert results[0][0] == DONE and len(results[0][1][0][1]) == 50_000_000
    assert results[1][0] == LOST


def test_stopped_worker_holds_up_nobody_else(pool: WorkerPool) -> None:
    drive = Drive(pool)
    drive.submit(Node(lambda x: bytes(300_000) if sleep(0.2) else x, "stopped"), [0])
    pid = drive.running_pid("stopped")
    os.kill(pid, signal.SIGSTOP)
    try:
        other = Drive(pool)
        assert other.values(Node(lambda x: x), range(500)) == list(range(500))
        assert not drive.mailbox.items
    finally:
        os.kill(pid, signal.SIGCONT)
    assert kinds(drive.finish(1)) == {DONE}


def test_no_result_waits_behind_a_task_that_turns_out_long(pool: WorkerPool, tmp_path: Path) -> None:
    """FAULTS promise 3: what was finished before it in its batch is sent, what waits behind it is taken back."""
    drive = Drive(pool)
    go_on = tmp_path / "go on"

    def work(x: int) -> bool:
        return wait_until(go_on.exists, LIMIT_S) if x == 100 else True

    drive.values(Node(lambda x: x), range(100))
    drive.outcomes.clear()
    drive.submit(Node(work), range(2000))
    drive.wait(lambda: len(drive.outcomes) >= 1999)  # all but the long one, which would wait for longer than we do
    go_on.touch()
    assert all(payload[0][1] for _, _, payload, _ in drive.finish(2000))


def test_what_held_back_tasks_printed_comes_before_their_results(
    pool: WorkerPool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    drive = Drive(pool)
    go_on = tmp_path / "go on"

    def work(x: int) -> None:
        print(f"<{x}>", end="")
        if x == 60:
            assert wait_until(go_on.exists, LIMIT_S)

    drive.values(Node(lambda x: x), range(100))
    drive.outcomes.clear()
    drive.submit(Node(work), range(200))
    drive.wait(lambda: len(drive.outcomes) >= 199)
    printed = capsys.readouterr().out
    go_on.touch()
    assert kinds(drive.finish(200)) == {DONE}
    assert all(printed.count(f"<{x}>") == 1 for x in range(200) if x != 60), printed


def test_a_task_forks_where_no_other_thread_runs_and_goes_on(pool: WorkerPool, tmp_path: Path) -> None:
    drive = Drive(pool)
    go_on = tmp_path / "go on"

    def work(x: int) -> Any:
        if x != 100:
            return threading.active_count()
        threads = multiprocessing.get_context("fork").SimpleQueue()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            child = multiprocessing.get_context("fork").Process(
                target=lambda: threads.put(len(os.listdir("/proc/self/task")))
            )
            child.start()
        child.join()
        assert wait_until(go_on.exists, LIMIT_S)
        return threads.get(), child.exitcode

    drive.values(Node(lambda x: x), range(100))
    drive.outcomes.clear()
    attempts = drive.submit(Node(work), range(200))
    drive.wait(lambda: len(drive.outcomes) >= 199)
    go_on.touch()
    ended = {id(attempt): payload[0][1] for _, attempt, payload, _ in drive.finish(200)}
    assert ended[id(attempts[100])] == (1, 0)
    assert max(ended[id(attempts[x])] for x in range(100)) == 2, "nobody looked out"


# -- 4-8: crashes and exits --------------------------------------------------------------------------------------------


def test_segfault_is_named_with_its_python_stack(pool: WorkerPool) -> None:
    """FAULTS row 4"""

    def crash_here(x: int) -> None:
        ctypes.string_at(0)

    [(kind, death)] = Drive(pool).all(Node(crash_here), [1])
    assert (kind, death.signal) == (LOST, signal.SIGSEGV)
    assert "SIGSEGV" in str(death) and "crash_here" in death.stderr_tail


@pytest.mark.parametrize("code", [0, 3])
def test_os_exit_is_a_loss(pool: WorkerPool, code: int) -> None:
    """FAULTS row 5"""
    [(kind, death)] = Drive(pool).all(Node(lambda x: os._exit(code)), [1])
    assert (kind, death.exit_code) == (LOST, code)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), ValueError("no")])
def test_exceptions_of_any_kind_fail_the_task_and_spare_the_worker(pool: WorkerPool, error: BaseException) -> None:
    """FAULTS row 6"""
    drive = Drive(pool)

    def work(x: int) -> int:
        raise error

    drive.values(Node(lambda x: x), [0, 1])
    pids = pool.stats()["pids"]
    [(kind, caught)] = drive.all(Node(work), [1])
    assert kind == FAILED and type(caught) is type(error) and caught.args == error.args
    assert pool.stats()["pids"] == pids


def test_poison_is_lost_each_time_and_everything_else_finishes(pool: WorkerPool) -> None:
    """FAULTS row 7"""
    drive = Drive(pool)
    ended = drive.rerunning(Node(lambda x: die() if x == 7 else x), range(100))
    assert [index for index, (kind, _) in sorted(ended.items()) if kind != DONE] == [7]
    assert len(drive.lost) == 2 and ended[7][0] == LOST


def test_an_attempt_that_asks_for_it_gets_a_fresh_worker_to_itself(pool: WorkerPool) -> None:
    drive = Drive(pool)
    drive.values(Node(lambda x: x), range(10))
    used = set(drive.values(Node(lambda x: sleep(0.05) and os.getpid()), range(2)))
    [alone] = drive.values(Node(lambda x: os.getpid()), [0], alone=True)
    assert alone not in used
    pids = drive.values(Node(lambda x: os.getpid()), range(3), alone=True)
    assert len(set(pids)) == 3 and alone not in pids


def test_a_forked_child_that_comes_back_from_its_task_runs_no_other(pool: WorkerPool, tmp_path: Path) -> None:
    def work(x: int) -> int:
        if x == 0:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                os.fork()
        with open(tmp_path / str(x), "a") as file:
            file.write("x")
        return x

    drive = Drive(pool)
    drive.values(Node(lambda x: x), range(100, 300))  # from now on batches are long
    assert drive.values(Node(work), range(200)) == list(range(200))
    assert all((tmp_path / str(x)).read_text() == "x" for x in range(1, 200)), "a task ran twice"


def test_what_a_worker_forked_ends_with_it(pool: WorkerPool, tmp_path: Path) -> None:
    """FAULTS row 8"""

    def forks(path: str) -> None:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        Path(path).write_text(str(child))
        die()

    path = tmp_path / "child"
    [(kind, _)] = Drive(pool).all(Node(forks), [str(path)])
    assert kind == LOST
    assert wait_until(lambda: not is_alive(int(path.read_text())), 2.0)


# -- 9-11: starts, memory ----------------------------------------------------------------------------------------------


def test_workers_that_cannot_start_are_given_up_with_their_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS row 9"""
    from mpflow._exec import spawn

    monkeypatch.setattr(spawn, "_BOOT", "import os\nos.dup2({page}, 2)\nraise ImportError('no such thing as luck')")
    with WorkerPool(2) as pool:
        outcomes = Drive(pool).all(Node(lambda x: x), range(4), limit_s=15)
        assert kinds(outcomes) == {FAILED}
        assert isinstance(outcomes[0][1], WorkerStartError) and "no such thing as luck" in str(outcomes[0][1])
        assert pool.stats()["started"] <= 4


def test_an_interpreter_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with WorkerPool(1) as pool:
        [(kind, error)] = Drive(pool).all(Node(lambda x: x), [1])
        assert kind == FAILED and isinstance(error, WorkerStartError)


def test_a_failing_initializer_is_shown() -> None:
    def init() -> None:
        raise RuntimeError("the model is missing")

    with WorkerPool(1, worker_init=init) as pool:
        [(kind, error)] = Drive(pool).all(Node(lambda x: x), [1])
        assert kind == FAILED and isinstance(error, WorkerStartError)
        assert "the model is missing" in str(error) and "Traceback" in str(error)


def test_workers_that_keep_dying_without_a_task_are_given_up() -> None:
    def init() -> None:
        import threading

        threading.Timer(0.05, die).start()

    with WorkerPool(1, worker_init=init) as pool:
        drive = Drive(pool)
        [(kind, error)] = drive.all(Node(lambda x: sleep(0.5)), [1])
        assert kind == LOST  # it had started: that one is charged
        blocker = Node(lambda x: x)
        pool._foreman.dispatch = lambda: pool._roster.recruit(1, 0, 0, 1.0)  # type: ignore[method-assign]
        drive.submit(blocker, [1])
        [_, (kind, _, error, _)] = drive.finish(2)
        assert kind == FAILED and isinstance(error, EngineUnhealthy) and len(error.deaths) == 5
        del pool._foreman.dispatch  # type: ignore[method-assign]


def test_out_of_memory_is_told_by_the_cgroups_counter(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("5:memory:/job\n0::/job/inner\n")
    for name, text in (("memory/job/memory.oom_control", "oom_kill_disable 0\noom_kill 2\n"),
                       ("job/inner/memory.events", "low 0\noom 4\noom_kill 3\n")):  # fmt: skip
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert deaths.oom_kills(str(tmp_path)) == 5
    assert deaths.oom_kills(str(tmp_path / "nowhere")) == 0


def test_a_kill_for_memory_names_its_cause(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    drive = Drive(pool)
    drive.values(Node(lambda x: x), [1])
    monkeypatch.setattr(deaths, "_oom_kills", 0)
    monkeypatch.setattr(deaths, "oom_kills", lambda: 1)
    # A child's peak is known only where it exceeds its parent's.
    size_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + (60 << 20)
    [(kind, death)] = drive.all(Node(lambda x: die() if bytearray(size_bytes) else None), [1])
    assert kind == LOST and death.reason == "out of memory"
    assert death.peak_rss_bytes > size_bytes


def test_a_leaking_worker_is_replaced_between_tasks() -> None:
    """FAULTS row 11"""

    def leak(x: int) -> int:
        kept.append(bytearray(30 << 20))
        sleep(0.06)
        return os.getpid()

    kept: list[Any] = []
    with WorkerPool(1, max_worker_rss=100 << 20) as pool:
        pids = Drive(pool).values(Node(leak), range(8))
        assert len(set(pids)) > 1
        assert pool.stats()["recycled"] >= 1 and pool.stats()["deaths"] == 0


def test_shared_memory_that_a_worker_reads_is_not_its_own() -> None:
    np = pytest.importorskip("numpy")
    given = {"array": np.ones(60 << 20, np.uint8)}
    with WorkerPool(1, max_worker_rss=50 << 20) as pool:
        drive, node = Drive(pool), Node(lambda given: int(given["array"].sum()))
        for _ in range(3):
            assert drive.values(node, [given] * 2) == [60 << 20] * 2
        assert pool.stats()["recycled"] == 0


def test_workers_are_replaced_after_so_many_tasks() -> None:
    with WorkerPool(1, max_tasks_per_worker=5) as pool:
        pids = Drive(pool).values(Node(lambda x: os.getpid()), range(20))
        assert sorted(map(pids.count, set(pids))) == [5, 5, 5, 5]
        assert pool.stats()["deaths"] == 0


# -- 12: deadlines -----------------------------------------------------------------------------------------------------


def spin(x: Any) -> None:
    while True:
        pass


def hold_the_gil(x: Any) -> None:
    ctypes.PyDLL(None).sleep(20)


def ignore_the_alarm(x: Any) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    spin(x)


@pytest.mark.parametrize("overrun", [spin, hold_the_gil, ignore_the_alarm])
def test_an_overrunning_task_is_killed_at_its_deadline(pool: WorkerPool, overrun: Any) -> None:
    """FAULTS row 12"""
    drive = Drive(pool)
    drive.values(Node(lambda x: x), [1, 2])
    [(kind, error)] = drive.all(Node(overrun, "over"), [1], timeout_s=0.3)
    assert kind == FAILED and isinstance(error, NodeTimeoutError)
    assert (error.node, error.kind, error.run_timeout) == ("over", "run", 0.3)
    assert error.elapsed >= 0.3


def test_siblings_of_an_overrunning_task_are_undisturbed(pool: WorkerPool, tmp_path: Path) -> None:
    """FAULTS row 12"""

    def work(x: int) -> int:
        with open(tmp_path / str(x), "a") as file:
            file.write("x")
        if x == 5:
            spin(x)
        return x

    drive = Drive(pool)
    drive.values(Node(lambda x: x), range(50))
    results = drive.all(Node(work), range(20), timeout_s=0.3)
    assert [index for index, (kind, _) in enumerate(results) if kind != DONE] == [5]
    assert all((tmp_path / str(x)).read_text() == "x" for x in range(20)), "a sibling ran twice"


def test_deadlines_hold_while_nobody_waits(pool: WorkerPool) -> None:
    drive = Drive(pool)
    drive.values(Node(lambda x: x), [1, 2])
    for overrun in (spin, ignore_the_alarm):
        drive.submit(Node(overrun), [1], timeout_s=0.2)
        # Nothing of ours runs in this thread meanwhile: the pool's own thread has to notice.
        assert wait_until(lambda: bool(drive.mailbox.items), 10.0)
        [(kind, _, error, _)] = drive.mailbox.take()
        assert kind == FAILED and isinstance(error, NodeTimeoutError)


def test_deadlines_hold_while_another_run_waits_for_long(pool: WorkerPool) -> None:
    """FAULTS row 12: a run that was asleep before there was a deadline minds it too."""
    drive, other = Drive(pool), Drive(pool)
    drive.values(Node(lambda x: x), [1, 2])
    sleepers = drive.submit(Node(lambda x: time.sleep(60), "sleeper"), [1])
    drive.running_pid("sleeper")
    waiting = threading.Thread(target=pool.wait, args=(drive.mailbox,))
    waiting.start()
    try:
        assert wait_until(lambda: pool.attended_at() == float("inf"), 10.0)
        other.submit(Node(ignore_the_alarm), [1], timeout_s=0.2)
        assert wait_until(lambda: bool(other.mailbox.items), 20.0)
        [(kind, _, error, _)] = other.mailbox.take()
        assert kind == FAILED and isinstance(error, NodeTimeoutError)
    finally:
        pool.cancel(sleepers, kill=True)
        waiting.join()


def test_a_parent_that_was_stopped_sees_no_false_timeouts() -> None:
    """FAULTS row 25"""
    script = """
        import os, signal, subprocess, sys, time
        from mpflow._exec.process import WorkerPool
        from tests.exec.pooling import DONE, Drive, Node
        with WorkerPool(2) as pool:
            drive = Drive(pool)
            drive.values(Node(lambda x: x), [1, 2])
            drive.submit(Node(lambda x: time.sleep(0.4)), range(2), timeout_s=1.0)
            waker = subprocess.Popen(["sh", "-c", f"sleep 1.6; kill -CONT {os.getpid()}"])
            os.kill(os.getpid(), signal.SIGSTOP)
            outcomes = drive.finish(4)
            waker.wait()
            print(all(kind == DONE for kind, *_ in outcomes))
    """
    assert run_script(script).stdout.strip() == "True"


# -- 13-16: descriptors, output, what cannot travel --------------------------------------------------------------------


def write_junk(x: Any) -> None:
    for fd in range(3, 40):
        try:
            os.write(fd, b"this is no frame of anybody's, and it is long enough to tell")
        except OSError:
            continue
    time.sleep(5)


def close_all(x: Any) -> int:
    os.closerange(3, 256)
    return x


@pytest.mark.parametrize("vandal", [write_junk, close_all])
def test_a_task_that_breaks_the_protocol_is_charged_alone(pool: WorkerPool, vandal: Any) -> None:
    """FAULTS row 13"""
    drive = Drive(pool)
    drive.values(Node(lambda x: x), range(40))
    drive.submit(Node(lambda x: x), range(200))
    drive.submit(Node(vandal, "vandal"), [1])
    drive.submit(Node(lambda x: x), range(200))
    outcomes = drive.finish(441)
    [(kind, attempt, death, _)] = [outcome for outcome in outcomes if outcome[0] != DONE]
    assert (kind, attempt.program.name, death.reason) == (LOST, "vandal", "protocol")


def test_output_goes_where_the_parents_goes_and_stdin_is_empty() -> None:
    """FAULTS row 14"""
    script = """
        import sys
        from mpflow._exec.process import WorkerPool
        from tests.exec.pooling import Drive, Node
        def chatty(x):
            print(f"begin {x}")
            for _ in range(1000):
                print("." * 1000)
            print(f"end {x}", repr(sys.stdin.read()))
            return x
        with WorkerPool(1) as pool:
            drive = Drive(pool)
            for x in range(3):
                drive.values(Node(chatty), [x])
                print(f"after {x}", flush=True)
    """
    lines = [line for line in run_script(script, input="not for workers").stdout.splitlines() if line[0] != "."]
    assert lines == [line for x in range(3) for line in (f"begin {x}", f"end {x} ''", f"after {x}")]


def test_workers_start_where_the_standard_streams_are_closed() -> None:
    script = """
        import os, sys
        from mpflow._exec.process import WorkerPool
        from tests.exec.pooling import Drive, Node
        os.closerange(0, 3)  # what the pool opens from now on has their numbers
        with WorkerPool(2) as pool:
            found = Drive(pool).values(Node(lambda x: print(x) or bytes(x)), [1, 1 << 20] * 5)
        os._exit(7 if found == [bytes(1), bytes(1 << 20)] * 5 else 1)
    """
    run_script(script, code=7)


def test_output_is_forwarded_where_stdout_was_replaced(pool: WorkerPool, capsys: pytest.CaptureFixture[str]) -> None:
    def say(x: int) -> None:
        print("said", x)
        print("moaned", x, file=sys.stderr)

    Drive(pool).values(Node(say), [1])
    out, err = capsys.readouterr()
    assert out == "said 1\n" and err == "moaned 1\n"


def test_a_node_that_cannot_be_pickled_names_the_path(pool: WorkerPool) -> None:
    """FAULTS row 15"""
    lock = threading.Lock()
    [(kind, error), _] = Drive(pool).all(Node(lambda x: lock, "locked"), [1, 2])
    assert kind == FAILED and isinstance(error, NodeNotPicklableError)
    assert error.node == "locked" and "'lock'" in error.path


def test_an_input_that_cannot_be_pickled_fails_that_task_alone(pool: WorkerPool) -> None:
    results = Drive(pool).all(Node(lambda x: x), [1, {"a": [threading.Lock()]}, 3])
    assert [kind for kind, _ in results] == [DONE, FAILED, DONE]
    assert isinstance(results[1][1], NodeNotPicklableError) and "['a'][0]" in results[1][1].path.replace('"', "'")


@pytest.mark.parametrize("make", [lambda x: (i for i in range(3)), lambda x: {"deep": [__import__("socket").socket()]}])
def test_a_result_that_cannot_be_encoded_fails_that_task_alone(pool: WorkerPool, make: Any) -> None:
    """FAULTS row 16"""
    results = Drive(pool).all(Node(lambda x: make(x) if x == 1 else x, "maker"), range(3))
    assert [kind for kind, _ in results] == [DONE, FAILED, DONE]
    error = results[1][1]
    assert isinstance(error, EncodeError)
    assert "'maker'" in str(error) and "'out'" in str(error) and error.type_name in ("generator", "socket.socket")


# -- 17-18: the matrix, the sizes --------------------------------------------------------------------------------------


class Trap:
    """Springs when it is pickled or unpickled, here or there."""

    def __init__(self, when: str, how: str, parent: int) -> None:
        self.when, self.how, self.parent = when, how, parent

    def spring(self) -> None:
        if self.how == "crash":
            die()
        if self.how == "exit":
            sys.exit(1)
        raise ValueError("sprung")

    def __getstate__(self) -> dict[str, Any]:
        if self.when == "pickling" and os.getpid() != self.parent:
            self.spring()
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.when == "unpickling" and os.getpid() != self.parent:
            self.spring()


class Unpicklable(Exception):
    """Pickles but does not unpickle."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__("two arguments")


@pytest.mark.parametrize("how", ["crash", "exit", "error"])
@pytest.mark.parametrize("when", ["pickling", "unpickling"])
def test_a_trap_in_a_value_fails_one_task(pool: WorkerPool, when: str, how: str) -> None:
    """FAULTS row 17"""
    drive = Drive(pool)
    drive.values(Node(lambda x: x), range(20))
    inputs: list[Any] = list(range(20))
    inputs[3] = Trap(when, how, os.getpid())
    results = drive.all(Node(lambda x: x), inputs)
    assert [index for index, (kind, _) in enumerate(results) if kind != DONE] == [3]
    assert results[3][0] == (LOST if how == "crash" else FAILED)


@pytest.mark.parametrize("how", ["crash", "exit", "error"])
def test_a_trap_in_a_node_fails_that_node_alone(pool: WorkerPool, how: str) -> None:
    """FAULTS row 17"""
    drive = Drive(pool)
    trap = Trap("unpickling", how, os.getpid())
    trapped = drive.submit(Node(lambda x: trap, "trapped"), [1])
    drive.submit(Node(lambda x: x), range(50))
    outcomes = drive.finish(51)
    assert [attempt for kind, attempt, _, _ in outcomes if kind != DONE] == trapped


def test_an_exception_that_does_not_unpickle_harms_nothing(pool: WorkerPool) -> None:
    """FAULTS row 17"""

    def work(x: int) -> None:
        raise Unpicklable(1, 2)

    [(kind, error)] = Drive(pool).all(Node(work), [1])
    assert kind == FAILED and "two arguments" in str(error)


@pytest.mark.parametrize("size", [0, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 1 << 20, 40 << 20])
@pytest.mark.parametrize("arena", [True, False], ids=["shared", "socket"])
def test_sizes_both_ways_at_once(size: int, arena: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS row 18"""
    if not arena:
        monkeypatch.setattr("mpflow._exec.process.limit_bytes", lambda: 0)
    with WorkerPool(2) as pool:
        data = os.urandom(min(size, 1 << 16)) * (size // (1 << 16) or 1) if size else b""
        for result in Drive(pool).values(Node(lambda b: b + b"!"), [data] * 4):
            assert result == data + b"!"


# -- 21-25: the parent -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", ["lambda x: x", "spin", "hold_the_gil"])
def test_workers_end_when_their_parent_is_killed(work: str) -> None:
    """FAULTS row 21"""
    script = f"""
        import os, signal, threading
        from mpflow._exec.process import WorkerPool
        from tests.exec.pooling import Drive, Node
        from tests.exec.test_process_faults import hold_the_gil, spin
        pool = WorkerPool(2)
        drive = Drive(pool)
        drive.values(Node(lambda x: x), [1, 2])
        drive.submit(Node({work}, "busy"), [1, 2])
        if {work!r} != "lambda x: x":
            drive.running_pid("busy")
        print(*pool.stats()["pids"], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    pids = [int(pid) for pid in run_script(script, code=-9).stdout.split()]
    assert pids
    assert wait_until(lambda: not any(map(is_alive, pids)), 2.0)


def test_workers_outlive_the_thread_that_made_the_pool() -> None:
    """FAULTS row 23"""
    made: list[Any] = []

    def make() -> None:
        pool = WorkerPool(2)
        drive = Drive(pool)
        made.extend([pool, set(drive.values(Node(lambda x: sleep(0.1) and os.getpid()), range(2)))])

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    pool, pids = made
    with pool:
        drive = Drive(pool)
        assert set(drive.values(Node(lambda x: sleep(0.1) and os.getpid()), range(2))) <= pids
        assert pool.stats()["deaths"] == 0


def test_a_forked_child_can_neither_use_nor_harm_the_pool(pool: WorkerPool) -> None:
    """FAULTS row 24"""
    drive = Drive(pool)
    drive.values(Node(lambda x: x), [1, 2])
    before = pool.stats()["pids"]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            try:
                pool.submit(drive.attempts(Node(lambda x: x), [1]))
            except WrongProcessError:
                code = 0
            pool.cancel([])
            pool.close(kill=True)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert drive.values(Node(lambda x: x), range(50)) == list(range(50))
    assert pool.stats()["pids"] == before


# -- 27-32: cancelling, ends, descriptors ------------------------------------------------------------------------------


def test_cancelled_attempts_end_once_and_others_are_not_charged(pool: WorkerPool) -> None:
    drive, other = Drive(pool), Drive(pool)
    drive.values(Node(lambda x: x), range(50))
    attempts = drive.submit(Node(sleep, "sleeper"), [60.0] * 30)
    drive.running_pid("sleeper")
    other.submit(Node(lambda x: x), range(100))
    pool.cancel(attempts, kill=True)
    outcomes = drive.finish(80)[50:]
    assert kinds(outcomes) == {CANCELLED}
    assert kinds(other.finish(100)) == {DONE}
    assert pool.stats()["deaths"] == 0


def test_without_kill_what_runs_goes_on(pool: WorkerPool) -> None:
    drive = Drive(pool)
    drive.values(Node(lambda x: x), [1, 2])
    attempts = drive.submit(Node(sleep, "sleeper"), [0.5] * 10)
    drive.running_pid("sleeper")
    pool.cancel(attempts)
    outcomes = drive.finish(12)[2:]
    assert sorted(kind for kind, *_ in outcomes).count(DONE) in (1, 2)
    assert kinds(outcomes) == {DONE, CANCELLED}


def test_close_cancels_and_ends_within_two_seconds() -> None:
    pool = WorkerPool(2)
    drive = Drive(pool)
    drive.submit(Node(sleep, "sleeper"), [60.0] * 5)
    drive.running_pid("sleeper")
    pids = pool.stats()["pids"]
    pool.close()
    assert not any(map(is_alive, pids))
    assert [kind for kind, *_ in drive.mailbox.take()] == [CANCELLED] * 5
    pool.close()


def test_an_exit_without_close_is_quick_and_leaves_nobody() -> None:
    """FAULTS row 28"""
    script = """
        import time
        from mpflow._exec.pools import default_pool
        from tests.exec.pooling import Drive, Node
        drive = Drive(default_pool())
        drive.submit(Node(lambda x: time.sleep(600)), range(2))
        drive.running_pid()
        print(*default_pool().stats()["pids"])
    """
    pids = [int(pid) for pid in run_script(script).stdout.split()]
    assert pids and not any(map(is_alive, pids))


def test_a_pool_that_nobody_holds_ends() -> None:
    """FAULTS row 28"""
    pool = WorkerPool(2)
    Drive(pool).values(Node(lambda x: x), range(3))
    pids = pool.stats()["pids"]
    del pool
    assert wait_until(lambda: not any(map(is_alive, pids)), 2.0)


def test_ctrl_c_in_wait_propagates_and_leaves_the_pool_whole(pool: WorkerPool) -> None:
    drive = Drive(pool)
    drive.values(Node(lambda x: x), [1, 2])
    attempts = drive.submit(Node(sleep, "sleeper"), [20.0])
    drive.running_pid("sleeper")
    timer = threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        pool.wait(drive.mailbox, 10)
        time.sleep(1)
    timer.join()
    pool.cancel(attempts, kill=True)
    assert kinds(drive.finish(3)[2:]) == {CANCELLED}


def test_a_signal_handler_may_run_tasks_while_what_it_interrupts_waits_for_others(
    pool: WorkerPool, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    found: list[Any] = []

    def handle(*_: Any) -> None:
        if not found:
            found.append(None)  # another signal may come meanwhile
            try:
                found[0] = Drive(pool).values(Node(lambda x: x), range(5))
                done.touch()
            except RuntimeError:  # it came in the middle of the pool's own work
                found.clear()

    def work(x: int) -> bool:
        return wait_until(lambda: bool(os.kill(os.getppid(), signal.SIGUSR1)) or done.exists(), LIMIT_S)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        assert Drive(pool).values(Node(work), [1]) == [True]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert found == [list(range(5))]


class Greedy:
    """Asks more of the pools when it is unpickled here."""

    pools: ClassVar[list[WorkerPool]] = []

    def __getstate__(self) -> int:
        return 1

    def __setstate__(self, state: Any) -> None:
        for pool in self.pools:
            Drive(pool).values(Node(lambda x: x), [1])


def test_what_the_pools_own_work_calls_cannot_wait_for_it(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Greedy, "pools", [pool])
    [(kind, error)] = Drive(pool).all(Node(lambda x: Greedy()), [1])
    assert kind == FAILED and "that pool's own work" in str(error)


def test_it_works_off_the_main_thread_and_touches_no_signal_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS row 30"""

    def refuse(*_: Any) -> None:
        raise AssertionError("signal.signal in the parent")

    monkeypatch.setattr(signal, "signal", refuse)
    found: list[Any] = []

    def use() -> None:
        with WorkerPool(2) as pool:
            found.extend(Drive(pool).values(Node(lambda x: x), range(30), timeout_s=20.0))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(20)
    assert found == list(range(30))


def test_without_descriptors_there_are_fewer_workers_or_an_error() -> None:
    """FAULTS row 32"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1
    results = []
    for room in (4, 14, 20):
        pool = WorkerPool(4)
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + room, hard))
        try:
            results.append(Drive(pool).all(Node(lambda x: x), range(20), limit_s=15))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            pool.close()
    assert all(isinstance(error, WorkerStartError) for kind, error in results[0] if kind == FAILED)
    assert kinds(results[-1]) == {DONE}


def test_facts_that_cannot_travel_stay_behind_and_say_so(pool: WorkerPool) -> None:
    def ask(x: int, scope: Any) -> Any:
        try:
            scope.config["configurable"]["lock"].acquire()
        except RuntimeError as error:
            return str(error), scope.config["configurable"]["plain"]

    facts = facts_of(lock=threading.Lock(), plain=7)
    [(told, plain)] = Drive(pool, facts).values(Node(ask, with_scope=True), [1])
    assert "'lock'" in told and plain == 7


def test_a_slow_import_of_a_node_does_not_count_for_its_deadline(pool: WorkerPool) -> None:
    class SlowToLoad:
        def __reduce__(self) -> Any:
            return sleep, (0.9,)

    slow = SlowToLoad()
    [(kind, _)] = Drive(pool).all(Node(lambda x: slow), [1], timeout_s=0.3)
    assert kind == DONE


# -- 19: what comes twice, late, or in another order ---------------------------------------------------------------------


def test_results_that_come_twice_or_late_or_in_disorder_find_nobody(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS row 19"""
    chance = random.Random(5)
    heard: list[tuple[Any, int, bytes]] = []
    hear = pool._foreman._hearing._hear

    def disturbed(worker: Any, kind: int, body: Any) -> None:
        if kind != link.RESULTS:
            hear(worker, kind, body)
            return
        frame = worker, kind, bytes(body)
        hear(*frame)
        heard.append(frame)
        for again in chance.sample(heard, min(3, len(heard))):  # of this worker or another, dead ones included
            if again[0] is worker:
                hear(*again)

    monkeypatch.setattr(pool._foreman._hearing, "_hear", disturbed)
    drive = Drive(pool)
    for round in range(5):
        assert drive.values(Node(lambda x: x), range(200)) == list(range(200))
        if round == 2:
            os.kill(pool.stats()["pids"][0], signal.SIGKILL)
    assert len(heard) > 20


def test_outcomes_that_a_run_gets_twice_or_in_disorder_are_dropped_by_their_attempt(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS row 19"""
    chance = random.Random(7)
    take = Mailbox.take
    seen: list[Any] = []

    def shuffled(mailbox: Mailbox) -> list[Any]:
        taken = take(mailbox)
        seen.extend(outcome for outcome in taken if outcome[0] != EVENT)
        taken += chance.choices(seen, k=3) if seen else []
        chance.shuffle(taken)
        return taken

    class State(TypedDict):
        log: Annotated[list[Any], operator.add]
        killed: bool

    def work(state: Any) -> Any:
        number, attempt = state["number"], get_runtime().execution_info.node_attempt
        if number == 7 and attempt == 1:
            die()
        return {"log": [(number, attempt)]}

    graph = StateGraph(State).add_node("work", work, executor="process")
    graph.add_conditional_edges(START, lambda state: [Send("work", {"number": n}) for n in range(40)])
    compiled = graph.compile(pool=pool)
    monkeypatch.setattr(Mailbox, "take", shuffled)
    for _ in range(3):
        assert compiled.invoke({"log": []})["log"] == [(n, 2 if n == 7 else 1) for n in range(40)]


class Unread:
    """Keeps everybody from reading what workers send, for as long as it is entered."""

    def __init__(self, pool: WorkerPool) -> None:
        self._leader = pool._polling._leader

    def __enter__(self) -> None:
        self._leader[0] = self  # type: ignore[assignment]

    def __exit__(self, *_: Any) -> None:
        del self._leader[0]


def counting(directory: Path) -> Node:
    def work(x: int) -> int:
        with open(directory / str(x), "a") as file:
            file.write("x")
        return x

    return Node(work)


def test_what_a_dead_worker_has_sent_counts(tmp_path: Path) -> None:
    """FAULTS row 2: it is drained before what the worker held is placed elsewhere."""
    node = counting(tmp_path)
    with WorkerPool(1) as pool:
        drive = Drive(pool)
        drive.values(node, range(100, 300))  # from now on batches are long
        drive.outcomes.clear()
        with Unread(pool):
            drive.submit(node, range(9))
            [worker] = pool._roster.crew
            assert len(worker.window) > 1
            assert wait_until(lambda: worker.page.last_started == worker.next_number - 1, LIMIT_S)
            assert wait_until(lambda: worker.running == 0, LIMIT_S)
            os.kill(worker.pid, signal.SIGKILL)
            assert wait_until(lambda: not is_alive(worker.pid), LIMIT_S)
            with pool._lock:  # its death may well be told before its last words
                pool._foreman.serve(worker.pidfd, select.EPOLLIN)
        pool.drain()
        assert kinds(drive.finish(9)) == {DONE}
    assert [(tmp_path / str(x)).read_text() for x in range(9)] == ["x"] * 9, "something ran twice"


def test_what_is_finished_and_unread_is_not_given_to_another_worker(pool: WorkerPool, tmp_path: Path) -> None:
    drive = Drive(pool)
    node = counting(tmp_path)
    drive.values(node, range(100, 300))
    drive.outcomes.clear()
    with Unread(pool):
        drive.submit(node, range(20))
        crew = [worker for worker in pool._roster.crew if worker.window]
        sent = sum(len(worker.window) for worker in crew)
        assert sent > len(crew) and wait_until(lambda: sum(1 for _ in tmp_path.iterdir()) == 200 + sent, LIMIT_S)
        assert wait_until(lambda: all(worker.running == 0 for worker in crew), LIMIT_S)
        with pool._lock:
            assert not any(pool._foreman._take_back(worker) for worker in crew)
    assert kinds(drive.finish(20)) == {DONE}
    assert [(tmp_path / str(x)).read_text() for x in range(20)] == ["x"] * 20
