"""What runs see of the process pool: results, order, output, logs, streams, functions that change, fairness."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypedDict

import pytest

from mpflow._exec.mailbox import Mailbox
from mpflow._exec.pools import default_pool, shutdown_default_pool
from mpflow._exec.process import WorkerPool
from mpflow._messages import DONE, EVENT, FAILED, Attempt
from mpflow._scope import Answers
from mpflow.errors import GraphInterrupt, PoolClosedError
from tests.exec.pooling import Drive, Node, facts_of, kinds, one_by_one


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool


pytestmark = pytest.mark.warm_pool


def test_results_are_those_of_their_inputs(pool: WorkerPool) -> None:
    values = [None, True, 3, 2**70, -0.0, "ü\ud800", b"x", (1, [2]), {3: {4}}, {"k": (None,)}]
    assert Drive(pool).values(Node(lambda x: (x, x)), values) == [(value, value) for value in values]


def test_thousands_of_tiny_tasks_travel_in_few_frames(pool: WorkerPool) -> None:
    drive = Drive(pool)
    drive.values(Node(lambda x: x), range(100))
    before = pool.stats()["bytes_out"]
    assert drive.values(Node(lambda x: x + 1), range(5000)) == [x + 1 for x in range(5000)]
    assert (pool.stats()["bytes_out"] - before) / 5000 < 60


def test_closures_local_classes_and_their_instances_travel(pool: WorkerPool) -> None:
    @dataclasses.dataclass
    class Point:
        x: int

    factor = 3
    [result] = Drive(pool).values(Node(lambda p: Point(p.x * factor)), [Point(2)])
    assert result == Point(6) and type(result) is Point


def test_local_typed_dicts_with_bases_travel(pool: WorkerPool) -> None:
    class Base(TypedDict):
        a: int

    class Derived(Base, total=False):
        b: Annotated[list, len]

    def described(_: Any) -> Any:
        return sorted(Derived.__annotations__), sorted(Derived.__required_keys__), Derived.__total__, Derived(a=1)

    assert Drive(pool).values(Node(described), [0]) == [(["a", "b"], ["a"], False, {"a": 1})]


def test_a_task_gets_pristine_values(pool: WorkerPool) -> None:
    def spoil(value: Any, scope: Any) -> Any:
        seen = [list(value["items"]), list(scope.facts.config["configurable"]["kept"])]
        value["items"].append(1)
        scope.facts.config["configurable"]["kept"].append(1)
        return seen

    shared = {"items": [0]}
    results = Drive(pool, facts_of(kept=[0])).values(Node(spoil, with_scope=True), [shared] * 200)
    assert all(result == [[0], [0]] for result in results)


def test_a_task_runs_in_a_context_of_its_own_with_its_scope(pool: WorkerPool) -> None:
    # Made in the worker: a context variable cannot be pickled.
    def work(x: int, scope: Any) -> Any:
        import builtins

        from mpflow._scope import current

        var = builtins.__dict__.setdefault("_test_var", contextvars.ContextVar("test", default="fresh"))
        before = var.get()
        var.set(x)
        return before, current.get() is scope, scope.name, scope.path, list(scope.triggers), scope.number

    results = Drive(pool).values(Node(work, "named", with_scope=True), range(100))
    assert results == [("fresh", True, "named", ("__pregel_push", x), ["go"], 1) for x in range(100)]


def test_the_scope_tells_what_the_parent_knows(pool: WorkerPool) -> None:
    facts = facts_of(thread_id="t1")
    facts.checkpoint_ns, facts.checkpoint_id, facts.context = "outer:1", "c1", {"user": 7}

    def ask(x: int, scope: Any) -> Any:
        config = scope.config["configurable"]
        return config["thread_id"], scope.facts.checkpoint_ns, scope.facts.context, scope.facts.step, scope.task_id

    drive = Drive(pool, facts)
    [(thread, ns, context, step, task_id)] = drive.values(Node(ask, with_scope=True), [0])
    assert (thread, ns, context, step) == ("t1", "outer:1", {"user": 7}, 1)
    from mpflow._scope import TaskScope

    assert task_id == TaskScope(facts, "node", ("__pregel_push", 0), ("go",)).task_id


def test_custom_chunks_arrive_at_once_and_in_order(pool: WorkerPool) -> None:
    def stream(x: int, scope: Any) -> int:
        for part in range(3):
            scope.emit("custom", [x, part])
        return x

    drive = Drive(pool)
    drive.values(Node(stream, with_scope=True), range(20))
    for x in range(20):
        assert [data for _, kind, data in drive.events if kind == "custom" and data[0] == x] == [
            [x, p] for p in range(3)
        ]


def test_answers_travel_and_come_back(pool: WorkerPool) -> None:
    def ask(x: int, scope: Any) -> Any:
        return [scope.interrupt("first?"), scope.interrupt("second?")]

    drive = Drive(pool)
    node = Node(ask, with_scope=True)
    [attempt] = drive.attempts(node, [0])
    attempt.answers = Answers(["one"], [], {})
    pool.submit([attempt])
    [(kind, _, error, _)] = drive.finish(1)
    assert kind == FAILED and isinstance(error, GraphInterrupt)
    attempt.answers = Answers(["one"], ["two"], {})
    drive.outcomes.clear()
    pool.submit([attempt])
    [(kind, _, diff, _)] = drive.finish(1)
    assert (kind, diff) == (DONE, [("out", ["one", "two"])])
    assert attempt.answers.given == ["one", "two"] and attempt.answers.null == []


def test_a_replaced_cell_global_or_default_is_seen_by_the_next_run(pool: WorkerPool) -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def helper(x): return x + 1\ndef work(x): return helper(x)", space)
    factor = 1

    def closed(x: int) -> int:
        return x * factor

    by_global, by_cell = Node(space["work"]), Node(closed)
    assert Drive(pool, facts_of()).values(by_global, [1]) == [2]
    assert Drive(pool, facts_of()).values(by_cell, [5]) == [5]
    exec("def helper(x): return x + 100", space)
    factor = 7
    assert Drive(pool, facts_of()).values(by_global, [1]) == [101]
    assert Drive(pool, facts_of()).values(by_cell, [5]) == [35]


def test_functions_of_a_main_module_without_a_guard_travel() -> None:
    script = """
        import sys
        from mpflow._exec.process import WorkerPool
        from tests.exec.pooling import Drive, Node
        print("main runs", flush=True)
        class Local:
            def __init__(self, x): self.x = x
        def helper(x): return Local(x.x + 1)
        def work(x): return helper(x)
        pool = WorkerPool(1)
        print([type(r) is Local and r.x for r in Drive(pool).values(Node(work), [Local(1)])])
    """
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.stdout == "main runs\n[2]\n", done.stderr


def test_functions_of_a_spawned_programs_main_module_travel(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `multiprocessing` starts, by spawn or by a fork server, has its main module under a name of its own."""
    main = ModuleType("__mp_main__")
    monkeypatch.setitem(sys.modules, "__mp_main__", main)
    exec(
        "class Kind:\n    pass\ndef inner(x): return x + 1\ndef work(x): return inner(x), Kind.__name__", main.__dict__
    )
    assert Drive(pool).values(Node(main.work), [1]) == [(2, "Kind")]


def test_log_records_reach_the_parents_handlers(pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    def chat(x: int) -> None:
        log = logging.getLogger("app.part")
        log.info("quiet %d", x)
        log.warning("loud %d", x)
        try:
            raise ValueError("why")
        except ValueError:
            log.exception("broken")

    Drive(pool).values(Node(chat, "talker"), [1])
    records = [record for record in caplog.records if record.name == "app.part"]
    assert [record.getMessage() for record in records] == ["loud 1", "broken"]
    assert all(record.node == "talker" and record.process != os.getpid() for record in records)  # type: ignore[attr-defined]
    assert "ValueError: why" in records[1].exc_text  # type: ignore[operator]
    with caplog.at_level(logging.INFO):
        Drive(pool).values(Node(chat), [2])
    assert "quiet 2" in caplog.messages


def test_runs_share_the_workers_fairly(pool: WorkerPool) -> None:
    long, short = Drive(pool), Drive(pool)
    nap = Node(lambda x: time.sleep(0.005), "nap")
    long.values(nap, range(4))
    long.submit(nap, range(200))
    short.values(Node(lambda x: time.sleep(0.005)), range(10))
    assert len(long.mailbox.items) < 200, "the short run waited for the long one"
    long.finish(204)


def test_many_threads_wait_at_once(pool: WorkerPool) -> None:
    failures: list[BaseException] = []

    def use(seed: int) -> None:
        try:
            drive = Drive(pool)
            for round in range(20):
                inputs = range(seed * 100 + round, seed * 100 + round + 30)
                assert drive.values(Node(lambda x: -x), inputs) == [-x for x in inputs]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures and not any(thread.is_alive() for thread in threads)


def test_a_worker_lets_go_of_nodes_that_are_gone(pool: WorkerPool) -> None:
    class Heavy:
        def __reduce__(self) -> Any:
            return _Loaded, ()

    def alive(_: Any) -> int:
        import gc

        from tests.exec.test_process_runs import _Loaded

        gc.collect()
        return _Loaded.alive

    def run_a_node_that_holds(heavy: Heavy) -> None:
        Drive(pool).values(Node(lambda x: heavy and x), range(20))

    drive, counting = Drive(pool), Node(alive)
    for _ in range(3):
        run_a_node_that_holds(Heavy())
    gc.collect()
    assert set(drive.values(counting, range(20))) == {0}


class _Loaded:
    """Counts itself in each process."""

    alive = 0

    def __init__(self) -> None:
        _Loaded.alive += 1

    def __del__(self) -> None:
        _Loaded.alive -= 1


def test_an_event_loop_drains(pool: WorkerPool) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        drive = Drive(pool)
        woken = asyncio.Event()
        drive.mailbox.notify = lambda: loop.call_soon_threadsafe(woken.set)
        loop.add_reader(pool.fileno(), pool.drain)
        try:
            drive.submit(Node(lambda x: x), range(500))
            outcomes: list[Any] = []
            while len(outcomes) < 500:
                await asyncio.wait_for(woken.wait(), 20)
                woken.clear()
                outcomes += one_by_one(drive.mailbox.take())
        finally:
            loop.remove_reader(pool.fileno())
        return outcomes

    assert kinds(asyncio.run(main())) == {DONE}


def test_results_come_in_while_nobody_polls(pool: WorkerPool) -> None:
    drive = Drive(pool)
    drive.submit(Node(lambda x: x), range(50))
    deadline = time.monotonic() + 10
    outcomes: list[Any] = []
    while len(outcomes) < 50 and time.monotonic() < deadline:
        drive.mailbox.wait(0.5)  # not the pool's: its own thread must do it
        outcomes += one_by_one(drive.mailbox.take())
    assert len(outcomes) == 50


def test_another_thread_can_wake_a_run_that_waits(pool: WorkerPool) -> None:
    drive = Drive(pool)
    [attempt] = drive.attempts(Node(lambda x: x), [0])
    threading.Timer(0.1, drive.mailbox.post, [(EVENT, attempt, ("custom", 1), 0.0)]).start()
    while not drive.mailbox.items:
        pool.wait(drive.mailbox)


def test_a_run_that_waits_returns_when_its_time_is_up(pool: WorkerPool) -> None:
    before = time.monotonic()
    pool.wait(Mailbox(), 0.05)
    assert time.monotonic() - before >= 0.04


def test_an_initializer_runs_once_in_each_worker() -> None:
    def init() -> None:
        os.environ["READY"] = os.environ.get("READY", "") + "x"

    with WorkerPool(2, worker_init=init) as pool:
        assert set(Drive(pool).values(Node(lambda x: os.environ["READY"]), range(20))) == {"x"}


def test_inner_threads_fit_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    with WorkerPool(2) as pool:
        [found] = Drive(pool).values(
            Node(lambda x: [os.environ[n] for n in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]), [0]
        )
    assert int(found[0]) >= 1 and found[1] == "3"


def test_a_pool_at_rest_holds_on_to_no_runs_facts() -> None:
    with WorkerPool(1) as pool:
        facts = facts_of()
        drive = Drive(pool, facts)
        drive.values(Node(lambda x: x), range(3))
        gone = weakref.ref(facts)
        del facts, drive
        gc.collect()
        assert gone() is None


def test_the_default_pool_is_one_and_can_be_shut_down() -> None:
    try:
        pool = default_pool()
        assert default_pool() is pool
        assert Drive(pool).values(Node(lambda x: x), [1]) == [1]
        shutdown_default_pool()
        with pytest.raises(PoolClosedError):
            pool.submit([])
        assert default_pool() is not pool
    finally:
        shutdown_default_pool()


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", True])
def test_counts_that_are_none_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="max_workers"):
        WorkerPool(bad)


def test_a_worker_starts_no_workers(pool: WorkerPool) -> None:
    def nest(x: int) -> None:
        from mpflow._exec.pools import default_pool

        default_pool()

    [(kind, error)] = Drive(pool).all(Node(nest), [0])
    assert kind == FAILED and "worker" in str(error)


def test_arrays_travel_by_shared_memory(pool: WorkerPool) -> None:
    np = pytest.importorskip("numpy")
    array = np.arange(500_000, dtype=np.float64)
    before = pool.stats()["bytes_out"]
    for result in Drive(pool).values(Node(lambda a: a * 2), [array] * 6):
        assert (result == array * 2).all()
    assert pool.stats()["bytes_out"] - before < 1_000_000


def test_an_attempt_in_a_path_of_odd_keys(pool: WorkerPool) -> None:
    drive = Drive(pool)
    [attempt] = drive.attempts(Node(lambda x, scope: scope.path, with_scope=True), [0])
    attempt.path = ("__pregel_push", ("nested", 1, (True, None)), frozenset({1}))
    pool.submit([attempt])
    [(_, _, diff, _)] = drive.finish(1)
    assert diff == [("out", attempt.path)]


def test_attempt_is_what_these_tests_take_it_for() -> None:
    attempt = Attempt(0, 1, Node(lambda x: x), 1, facts_of(), (), ())
    assert (attempt.outbox, attempt.timeout_s, attempt.alone, attempt.rerun_on_loss) == (None, None, False, True)
