"""Tasks that wait in a worker for tasks that they called: the worker runs these meanwhile, and no process is added (FAULTS row 31)."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpflow._exec.lending import MOST_LENT
from mpflow._exec.process import WorkerPool
from mpflow.errors import NodeTimeoutError, PoisonTaskError, PoolClosedError
from mpflow.func import entrypoint, task
from tests.colours import Run

pytestmark = pytest.mark.warm_pool


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as pool:
        yield pool


def flow_of(called: Any, pool: WorkerPool) -> Any:
    @entrypoint(pool=pool)
    def flow(x: Any) -> Any:
        return called(x).result()

    return flow


@task(executor="process")
def fib(n: int) -> int:
    if n < 2:
        return n
    first, second = fib(n - 1), fib(n - 2)
    return int(first.result() + second.result())


@task(executor="process")
def where(x: Any) -> int:
    return os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_recursion_adds_no_process(run: Run, workers: int) -> None:
    """FAULTS row 31"""
    with WorkerPool(workers) as small:
        assert run.invoke(flow_of(fib, small), 7) == 13
        assert small.stats()["started"] <= workers + 1


def test_a_task_of_another_kind_runs_in_the_worker_of_its_caller(run: Run, pool: WorkerPool) -> None:
    @task(executor="process")
    def caller(x: int) -> tuple[int, list[int]]:
        return os.getpid(), [future.result() for future in [where(y) for y in range(x)]]

    pid, pids = run.invoke(flow_of(caller, pool), 5)
    assert pids == [pid] * 5


def test_a_fan_out_within_a_fan_out(run: Run, pool: WorkerPool) -> None:
    @task(executor="process")
    def inner(x: int) -> int:
        return x * x

    @task(executor="process")
    def outer(x: int) -> int:
        return sum(future.result() for future in [inner(x + y) for y in range(4)])

    @entrypoint(pool=pool)
    def flow(count: int) -> int:
        return sum(future.result() for future in [outer(x) for x in range(count)])

    assert run.invoke(flow, 6) == sum((x + y) ** 2 for x in range(6) for y in range(4))


def test_a_chain_too_deep_for_one_worker() -> None:
    @task(executor="process")
    def deep(depth: int) -> int:
        return 0 if depth == 0 else 1 + int(deep(depth - 1).result())

    with WorkerPool(1) as small:
        assert flow_of(deep, small).invoke(MOST_LENT + 8) == MOST_LENT + 8
        assert small.stats()["started"] <= 2


def test_what_runs_above_may_recurse_as_deep_as_alone(run: Run, pool: WorkerPool) -> None:
    @task(executor="process")
    def leaf(_: int) -> int:
        def down(depth: int) -> int:
            return 0 if depth == 0 else 1 + down(depth - 1)

        return down(sys.getrecursionlimit() - 200)

    @task(executor="process")
    def caller(limit: int) -> tuple[bool, bool]:
        before = sys.getrecursionlimit()
        return leaf(0).result() >= before - 200, sys.getrecursionlimit() == before

    assert run.invoke(flow_of(caller, pool), 0) == (True, True)


Tree = st.recursive(st.integers(0, 9), lambda below: st.lists(below, min_size=1, max_size=4), max_leaves=12)


def total(tree: Any, call: Any) -> int:
    """Its leaves' sum; those at odd places are waited for first."""
    if isinstance(tree, int):
        return tree
    futures = [call(below) for below in tree]
    order = [*range(1, len(futures), 2), *range(0, len(futures), 2)]
    return sum(futures[at].result() * (at + 1) for at in order)


@task(executor="process")
def in_workers(tree: Any) -> int:
    return total(tree, in_workers)


@task
def in_either(tree: Any) -> int:
    return total(tree, in_workers)


@task(executor="process")
def in_turns(tree: Any) -> int:
    return total(tree, in_either)


def plainly(tree: Any) -> int:
    if isinstance(tree, int):
        return tree
    return sum(plainly(below) * (at + 1) for at, below in enumerate(tree))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=Tree)
def test_any_tree_of_tasks_comes_to_what_it_does_without(pool: WorkerPool, tree: Any) -> None:
    assert flow_of(in_workers, pool).invoke(tree) == plainly(tree)
    assert flow_of(in_turns, pool).invoke(tree) == plainly(tree)


def test_its_callers_streams_stay_the_callers_own(run: Run, pool: WorkerPool, capsys: Any) -> None:
    @task(executor="process")
    def says(x: int) -> None:
        print("below", x)

    @task(executor="process")
    def caller(x: int) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as kept:
            print("before")
            says(x).result()
            print("after")
        return kept.getvalue()

    assert run.invoke(flow_of(caller, pool), 3) == "before\nafter\n"
    assert capsys.readouterr().out == "below 3\n"


@pytest.mark.parametrize("deaths", [1, 3])
def test_a_death_is_that_of_the_topmost_task(tmp_path: Path, deaths: int) -> None:
    """FAULTS row 1, row 7: those that waited below it run again, uncharged, and what they had called does not."""

    @task(executor="process")
    def note(name: str) -> None:
        with open(tmp_path / name, "a") as file:
            file.write("x")

    @task(executor="process")
    def deadly(_: int) -> str:
        with open(tmp_path / "deadly", "a") as file:
            file.write("x")
        if len((tmp_path / "deadly").read_text()) <= deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return "alive"

    @task(executor="process")
    def middle(x: int) -> str:
        note("noted").result()
        return str(deadly(x).result())

    with WorkerPool(1) as small:
        flow = flow_of(middle, small)
        if deaths == 1:
            assert flow.invoke(0) == "alive"
        else:
            with pytest.raises(PoisonTaskError, match="deadly"):
                flow.invoke(0)
        assert (tmp_path / "noted").read_text() == "x"
        assert flow_of(fib, small).invoke(3) == 2


@task(executor="process")
def sleeps(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@task(executor="process", timeout=0.3)
def hurried(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@task(executor="process", timeout=0.3)
def hurried_caller(seconds: float) -> float:
    return float(sleeps(seconds).result())


def test_the_deadline_of_one_above_is_its_own(run: Run, pool: WorkerPool) -> None:
    """FAULTS row 12"""

    @task(executor="process")
    def caller(seconds: float) -> str:
        try:
            return str(hurried(seconds).result())
        except NodeTimeoutError as error:
            return error.node

    assert run.invoke(flow_of(caller, pool), 0.0) == "0.0"
    assert run.invoke(flow_of(caller, pool), 30.0) == "hurried"


def test_the_deadline_of_one_that_waits_goes_on(run: Run, pool: WorkerPool) -> None:
    """FAULTS row 12"""
    assert run.invoke(flow_of(hurried_caller, pool), 0.0) == 0.0
    with pytest.raises(NodeTimeoutError) as raised:
        run.invoke(flow_of(hurried_caller, pool), 3.0)  # so long the run lasts if another worker had the called one
    assert raised.value.node == "hurried_caller"


def test_a_deadline_that_came_back_is_kept(run: Run, pool: WorkerPool) -> None:
    """The timer of one above is taken off, and that of its caller is set again."""

    @task(executor="process", timeout=0.5)
    def caller(_: int) -> None:
        hurried(0.0).result()
        time.sleep(30)

    with pytest.raises(NodeTimeoutError) as raised:
        run.invoke(flow_of(caller, pool), 0)
    assert raised.value.node == "caller"


def test_a_pool_that_is_closed_while_tasks_wait(run: Run, tmp_path: Path) -> None:
    @task(executor="process")
    def last(_: int) -> None:
        (tmp_path / "began").touch()
        time.sleep(30)

    @task(executor="process")
    def caller(x: int) -> None:
        last(x).result()

    small = WorkerPool(1)

    def close() -> None:
        while not (tmp_path / "began").exists():
            time.sleep(0.01)
        small.close(kill=True)

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(PoolClosedError):
        run.invoke(flow_of(caller, small), 0)
    closer.join()
    assert small.stats()["workers"] == 0
