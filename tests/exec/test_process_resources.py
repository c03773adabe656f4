"""What the pool does when memory, shared memory or the size of a message comes to its limits (FAULTS rows 2, 3, 10, 18, 33)."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpflow._exec.process import WorkerPool
from mpflow._wire.memory import headroom_bytes
from tests.exec.cgroups import memory_cgroup
from tests.exec.pooling import DONE, LOST, Drive, Node, kinds
from tests.exec.scripts import run_script

pytestmark = pytest.mark.chaos


@pytest.fixture
def socket_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No shared memory: large results travel through the socket."""
    monkeypatch.setattr("mpflow._exec.process.limit_bytes", lambda: 0)


@pytest.fixture
def pool(socket_only: None) -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool
        assert Drive(pool).values(Node(lambda x: x * 2), range(20)) == [x * 2 for x in range(20)]


def mid_frame(drive: Drive, size_bytes: int, gate: Path) -> int:
    """Submit a task with a result of that size, and come back when a part of it is here: the pid of its worker."""
    pool = drive.pool

    def big(_: int) -> bytes:
        while not gate.exists():
            time.sleep(0.001)
        return bytes(size_bytes)

    drive.submit(Node(big, "big"), [0])
    pid = drive.running_pid("big")
    drive.poll_until(lambda: not pool.stats()["starting"])  # the thread that waits for them reads from all
    before = pool.stats()["bytes_in"]
    gate.touch()  # from here on nobody reads but us, a little at a time
    drive.poll_until(lambda: pool.stats()["bytes_in"] > before + (1 << 20))
    assert not drive.outcomes
    return pid


def test_a_worker_killed_in_the_middle_of_a_result(pool: WorkerPool, tmp_path: Path) -> None:
    """FAULTS row 2: what came whole before the half frame counts, the half frame does not."""
    drive = Drive(pool)
    pid = mid_frame(drive, 200 << 20, tmp_path / "gate")
    os.kill(pid, signal.SIGKILL)
    [(kind, _, death, _)] = drive.finish(1)
    assert (kind, death.signal, death.pid) == (LOST, signal.SIGKILL, pid)


def test_a_worker_stopped_in_the_middle_of_a_result_holds_up_nobody(pool: WorkerPool, tmp_path: Path) -> None:
    """FAULTS row 3"""
    drive, other = Drive(pool), Drive(pool)
    pid = mid_frame(drive, 200 << 20, tmp_path / "gate")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert other.values(Node(lambda x: x), range(500)) == list(range(500))
        assert not drive.mailbox.items
    finally:
        os.kill(pid, signal.SIGCONT)
    [(kind, _, diff, _)] = drive.finish(1)
    assert kind == DONE and len(diff[0][1]) == 200 << 20


def test_a_pool_with_a_stopped_worker_closes(socket_only: None, tmp_path: Path) -> None:
    pool = WorkerPool(1)
    drive = Drive(pool)
    pid = mid_frame(drive, 50 << 20, tmp_path / "gate")
    os.kill(pid, signal.SIGSTOP)
    pool.close()
    assert not Path(f"/proc/{pid}").exists()


# -- memory ------------------------------------------------------------------------------------------------------------

IN_A_GROUP = """
    import os, sys
    open({procs!r}, "w").write(str(os.getpid()))
"""


@pytest.fixture
def in_a_group() -> Iterator[Callable[[str], str]]:
    """Runs a script in a memory cgroup of 400 MiB; its output. Skips where the machine gives us none."""
    with memory_cgroup(400 << 20) as group:
        if group is None:
            pytest.skip("this user can make no memory cgroup")
        procs = str(group / "cgroup.procs")
        yield lambda script: run_script(IN_A_GROUP.format(procs=procs) + script).stdout


def test_the_kernel_kills_a_task_for_its_memory(in_a_group: Callable[[str], str]) -> None:
    """FAULTS row 10: the cause is named, and the second time it is not tried again."""
    out = in_a_group("""
    from typing import TypedDict
    from mpflow import StateGraph, WorkerPool
    from mpflow.errors import PoisonTaskError
    class State(TypedDict):
        x: int
    def greedy(state):
        return {"x": len(bytearray(b"x") * (800 << 20))}
    def modest(state):
        return {"x": state["x"] + 1}
    def graph(node, pool):
        return StateGraph(State).add_node("n", node, executor="process").add_edge("__start__", "n").compile(pool=pool)
    with WorkerPool(2) as pool:
        try:
            graph(greedy, pool).invoke({"x": 0})
        except PoisonTaskError as error:
            print(error.node, [(death.reason, death.signal) for death in error.deaths])
        print(graph(modest, pool).invoke({"x": 1}))
    """)
    assert out == "n [('out of memory', 9), ('out of memory', 9)]\n{'x': 2}\n"


def test_arrays_beyond_the_groups_memory_travel_by_the_socket(in_a_group: Callable[[str], str]) -> None:
    """FAULTS row 33: what is shared is budgeted beforehand, so that writing to it never kills."""
    pytest.importorskip("numpy")
    out = in_a_group("""
    import numpy
    from mpflow import WorkerPool
    from tests.exec.pooling import Drive, Node
    array = numpy.ones(4 << 20)  # 32 MiB
    with WorkerPool(2) as pool:
        for _ in range(6):
            print([float(result.sum()) for result in Drive(pool).values(Node(lambda a: a * 2), [array])])
        print(pool.stats()["deaths"], pool.stats()["bytes_out"] > 32 << 20)
    """)
    assert out == "[8388608.0]\n" * 6 + "0 True\n"


def test_a_small_dev_shm_does_not_matter() -> None:
    """FAULTS row 33: shared memory has no file there, so its size bounds nothing."""
    pytest.importorskip("numpy")
    script = """
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 16384, 1 << 18
    mounted = (libc.unshare(CLONE_NEWNS) == 0 and libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0
               and libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=1m") == 0)
    import numpy
    from mpflow import WorkerPool
    from tests.exec.pooling import Drive, Node
    array = numpy.ones(1 << 20)
    with WorkerPool(2) as pool:
        print([float(result.sum()) for result in Drive(pool).values(Node(lambda a: a * 2), [array] * 4)])
        print(pool.stats()["deaths"], pool.stats()["bytes_out"] < 1 << 20)
    print("mounted" if mounted else "no namespace")
    """
    out = run_script(script).stdout.splitlines()
    assert out[:2] == ["[2097152.0, 2097152.0, 2097152.0, 2097152.0]", "0 True"]


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("arena", [True, False], ids=["shared", "socket"])
def test_two_gigabytes_and_one_both_ways(arena: bool, request: pytest.FixtureRequest) -> None:
    """FAULTS row 18"""
    size_bytes = (2 << 30) + 1
    if headroom_bytes() < 6 * size_bytes:
        pytest.skip(f"needs {6 * size_bytes >> 30} GiB of memory")
    if not arena:
        request.getfixturevalue("socket_only")
    with WorkerPool(1) as pool:
        drive = Drive(pool)
        data = bytes(size_bytes)
        [(kind, _, diff, _)] = (drive.submit(Node(lambda b: b), [data]), drive.finish(1, limit_s=300))[1]
        assert kind == DONE and diff[0][1] == data
    assert kinds(drive.outcomes) == {DONE} and sys.getsizeof(data) > size_bytes
