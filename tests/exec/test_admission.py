"""Which task may start beside which, for their memory: by a machine that the tests make up, and in a real cgroup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from time import sleep
from typing import Any, TypedDict

import pytest

from mpflow import StateGraph, WorkerPool
from mpflow._exec.admission import PASSED_OVER, Admission
from mpflow._exec.appetite import Appetite
from mpflow._exec.functions import Shipments
from mpflow._exec.gauge import LONG_NS, NOTABLE_BYTES, Gauge
from mpflow._exec.queues import Queue
from mpflow._exec.window import Window
from mpflow._messages import Attempt
from mpflow._wire import memory
from mpflow.pregel.program import RunProgram
from tests.exec.cgroups import memory_cgroup
from tests.exec.pooling import Drive, Node, facts_of
from tests.exec.scripts import run_script

MB = 1_000_000
LONG_S = 2 * LONG_NS / 1e9


class Hand:
    """A worker as far as admission looks at it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.window = Window()
        self.programs: set[int] = set()
        self.next_number = 1
        self.baseline_rss = 0


class Machine:
    """Memory of which workers take some, a pool's admission to it, and a clock that stands still."""

    def __init__(self, size_mb: int, workers: int = 4) -> None:
        self.size_bytes = size_mb * MB
        self.taken: dict[int, int] = {}
        self.elsewhere_bytes = 0
        self.now = 100.0
        self.queue = Queue()
        self.shipments = Shipments()
        self.counts: Counter[str] = Counter()
        self.absent: set[Any] = set()
        self.looks = 0
        self.admission = Admission(
            self.queue,
            self.shipments,
            workers,
            self.counts,
            self.absent,
            source=self,
            clock=lambda: self.now,
        )
        self.hands: list[Any] = [Hand(pid) for pid in range(1, workers + 1)]
        self.facts = facts_of()

    def limit_bytes(self) -> int:
        return self.size_bytes

    def available_bytes(self) -> int:
        self.looks += 1
        return self.size_bytes - sum(self.taken.values()) - self.elsewhere_bytes

    def private_bytes(self, pid: int) -> int:
        return self.taken.get(pid, 0)

    def node(self, name: str, *, hint_mb: int = 0, seen: bool = True) -> Node:
        node = Node(lambda x: x, name)
        shipment = self.shipments.of(node)
        shipment.number = id(node)
        shipment.appetite.hint_bytes = hint_mb * MB
        shipment.seen = int(seen)
        return node

    def add(self, node: Node, count: int, **fields: Any) -> list[Attempt]:
        made = []
        for index in range(count):
            attempt = Attempt(index, 1, node, index, self.facts, (index,), ())
            attempt.outbox = self  # type: ignore[assignment]
            for name, value in fields.items():
                setattr(attempt, name, value)
            made.append(attempt)
        self.queue.add(made)
        return made

    def start(self, hand: Any, attempt: Attempt, took_mb: int) -> None:
        number = self.shipments.of(attempt.program).number
        hand.window.add(hand.next_number, [attempt])
        hand.next_number += 1
        is_first = number not in hand.programs
        hand.programs.add(number)
        self.admission.given(hand, attempt, is_first)
        self.taken[hand.pid] = self.taken.get(hand.pid, 0) + took_mb * MB

    def fill(self, took_mb: int = 0, called_only: bool = False) -> list[str]:
        """Give each idle worker what it may start, of which it takes so much at once; what has started."""
        started = []
        for hand in self.hands:
            if not hand.window and self.admission.clear_way(hand, called_only):
                [attempt] = self.queue.take(1)
                self.start(hand, attempt, took_mb)
                started.append(attempt.program.name)
        return started

    def end(self, hands: Iterable[Any], keeps_mb: int = 0, grew_mb: int | None = None) -> None:
        for hand in hands:
            for attempt in hand.window.values():
                shipment = self.shipments.of(attempt.program)
                if grew_mb is not None:
                    shipment.appetite.learn(grew_mb * MB, True)
                shipment.seen += 1
            hand.window.clear()
            self.taken[hand.pid] = keeps_mb * MB


def test_as_many_run_side_by_side_as_fit_with_a_reserve() -> None:
    machine = Machine(2000)
    machine.add(machine.node("big", hint_mb=600), 8)
    assert machine.fill() == ["big"] * 3
    assert machine.counts["held_back"] == machine.queue.apart == 5
    machine.end(machine.hands[:1])
    assert machine.fill() == ["big"]


def test_what_a_task_has_taken_already_is_not_counted_twice() -> None:
    machine = Machine(2000)
    machine.add(machine.node("big", hint_mb=600), 8)
    for hand in machine.hands[:2]:
        assert machine.admission.clear_way(hand, False)
        machine.start(hand, *machine.queue.take(1), took_mb=600)  # type: ignore[misc]
    machine.now += 1
    assert machine.fill() == ["big"]


def test_memory_that_others_take_holds_back_and_lets_go() -> None:
    machine = Machine(2000)
    machine.add(machine.node("big", hint_mb=600), 8)
    machine.elsewhere_bytes = 1000 * MB
    assert machine.fill() == ["big"]
    machine.elsewhere_bytes = 0
    machine.now += 1
    assert machine.fill() == ["big"] * 2


def test_a_task_that_never_fits_runs_alone() -> None:
    machine = Machine(1000)
    machine.add(machine.node("huge", hint_mb=5000), 2)
    assert machine.fill() == ["huge"]
    assert machine.fill() == []
    machine.end(machine.hands)
    assert machine.fill() == ["huge"]


def test_light_nodes_pass_by_what_waits_and_never_cost_a_look() -> None:
    machine = Machine(1000)
    machine.add(machine.node("big", hint_mb=700), 3)
    machine.add(machine.node("small"), 2)
    assert machine.fill() == ["big", "small", "small"]
    machine.end(machine.hands[1:])
    looks = machine.looks
    machine.add(machine.node("small"), 2)
    assert machine.fill()[-2:] == ["small", "small"] and machine.looks <= looks + 1


def test_a_light_task_in_the_same_worker_ends_no_promise_of_another_and_keeps_none() -> None:
    """A worker that goes on with light tasks holds nothing for the heavy one before them."""
    machine = Machine(1000, workers=2)
    first, second = machine.hands
    small = machine.node("small")
    machine.add(machine.node("big", hint_mb=700), 2)
    assert machine.fill() == ["big"]
    light, lighter = machine.add(small, 2)
    machine.queue.remove(lambda attempt: attempt.program is small)
    machine.start(first, light, 0)
    assert machine.fill() == []
    first.window.pop(1)  # the heavy one has ended, the light one runs
    assert machine.fill() == ["big"] and second.window and lighter


def test_one_that_waits_is_passed_over_only_so_often() -> None:
    machine = Machine(1000, workers=3)
    machine.add(machine.node("huge", hint_mb=900), 1)
    medium = machine.node("medium", hint_mb=300)
    machine.start(machine.hands[0], machine.add(medium, 1)[0], 0)
    machine.queue.remove(lambda attempt: attempt.program is medium)
    machine.add(medium, 100)
    started: list[str] = []
    for turn in range(100):
        started += machine.fill()
        if "huge" in started:
            break
        machine.end([machine.hands[turn % 3]])
    assert "huge" in started
    assert PASSED_OVER <= started.index("huge") <= PASSED_OVER + 3


def test_an_unknown_nodes_first_task_runs_by_itself_where_memory_is_tight() -> None:
    machine = Machine(2000)
    machine.add(machine.node("new", seen=False), 4)
    machine.add(machine.node("other", seen=False), 1)
    assert machine.fill() == ["new", "other"]  # one of each
    machine.end(machine.hands[:1])  # it took nothing of note
    assert machine.fill() == ["new"] * 3


def test_an_unknown_node_that_turns_out_heavy_is_held_back_after_its_first() -> None:
    machine = Machine(2000)
    machine.add(machine.node("new", seen=False), 8)
    assert machine.fill(600) == ["new"]
    machine.end(machine.hands[:1], grew_mb=600)
    assert machine.fill() == ["new"] * 3


def test_unknown_nodes_start_side_by_side_where_there_is_plenty() -> None:
    machine = Machine(16_000)
    machine.add(machine.node("new", seen=False), 8)
    assert machine.fill() == ["new"] * 4
    assert machine.looks == 1 and machine.counts["held_back"] == 0


def test_with_plenty_of_memory_the_last_look_is_good_for_a_second() -> None:
    machine = Machine(64_000)
    machine.add(machine.node("big", hint_mb=600), 40)
    for _ in range(10):
        assert machine.fill() == ["big"] * 4
        machine.end(machine.hands)
    assert machine.looks <= 10


def test_a_called_task_starts_though_its_caller_holds_all_memory() -> None:
    machine = Machine(1000, workers=2)
    node = machine.node("recursive", hint_mb=700)
    machine.add(node, 1)
    assert machine.fill(700) == ["recursive"]
    machine.absent.add(machine.hands[0])
    machine.add(node, 1, is_called=True)
    assert machine.fill(called_only=True) == ["recursive"]


def test_only_what_was_called_is_brought_back_while_all_workers_call() -> None:
    machine = Machine(1000, workers=2)
    machine.add(machine.node("big", hint_mb=700), 2)
    assert machine.fill() == ["big"]
    machine.end(machine.hands)
    assert machine.fill(called_only=True) == []
    assert machine.fill() == ["big"]


def test_a_worker_that_holds_what_a_node_loads_is_known_to_need_less() -> None:
    appetite = Appetite(0)
    appetite.learn(1000 * MB, True)
    assert appetite.need_bytes(True) == 1000 * MB  # not yet known
    appetite.learn(5 * MB, False)
    assert (appetite.need_bytes(False), appetite.need_bytes(True)) == (1000 * MB, 5 * MB)


def test_what_is_learnt_rises_at_once_and_falls_slowly() -> None:
    appetite = Appetite(0)
    for size in (100, 600, 100):
        appetite.learn(size * MB, False)
    assert 580 * MB < appetite.need_bytes(True) < 600 * MB
    for _ in range(200):
        appetite.learn(100 * MB, False)
    assert appetite.need_bytes(True) < 120 * MB


def test_a_hint_counts_until_more_is_measured() -> None:
    appetite = Appetite(200 * MB)
    appetite.learn(50 * MB, True)
    assert appetite.need_bytes(False) == 200 * MB
    appetite.learn(300 * MB, True)
    assert appetite.need_bytes(False) == 300 * MB


def test_after_a_death_for_memory_the_retry_runs_with_no_other_heavy_one() -> None:
    """FAULTS row 10"""
    machine = Machine(2000)
    big = machine.node("big", hint_mb=300)
    machine.add(machine.node("other", hint_mb=300), 1)
    machine.add(big, 1)
    assert machine.fill() == ["other", "big"]
    dead = machine.hands[1]
    [attempt] = dead.window.values()
    machine.admission.starved(dead, attempt, 900 * MB)
    dead.window.clear()
    attempt.alone = True
    machine.elsewhere_bytes = 500 * MB
    machine.queue.put_back([attempt])
    fresh = machine.hands[2]
    assert machine.admission.take_alone(fresh) is None and machine.queue.apart == 1
    machine.end(machine.hands[:1])
    assert machine.admission.take_alone(fresh) is attempt and not machine.queue.apart


def test_what_is_set_aside_is_cancelled_and_held_with_its_run() -> None:
    machine = Machine(1000)
    attempts = machine.add(machine.node("big", hint_mb=700), 4)
    assert machine.fill() == ["big"]
    machine.queue.hold(machine)
    assert machine.queue.apart == 0 and machine.queue.head() is None
    machine.queue.let_go(machine)
    assert [machine.queue.head(), len(machine.queue)] == [attempts[1], 3]
    assert machine.fill() == []
    assert machine.queue.remove(lambda attempt: attempt is not attempts[2]) == [attempts[1], attempts[3]]
    assert machine.queue.apart == 1


def test_a_pool_learns_what_its_tasks_take() -> None:
    """Growth beyond the worker's own size, by the first and by later tasks; nothing for those that take little."""
    with WorkerPool(1) as pool:
        big = Node(lambda x: sleep(LONG_S) or len(bytearray(b"x") * (80 << 20)), "big")
        small = Node(lambda x: x, "small")
        drive = Drive(pool)
        assert drive.values(big, range(3)) == [80 << 20] * 3
        drive.values(small, range(100))
        nodes = pool.stats()["nodes"]
        assert 80 << 20 <= nodes["big"]["memory"] < (80 << 20) + 4 * NOTABLE_BYTES
        assert nodes["small"]["memory"] == 0
        assert pool.stats()["held_back"] == 0


def test_an_array_that_is_only_read_is_shared_and_one_that_is_changed_is_the_tasks_own() -> None:
    numpy = pytest.importorskip("numpy")

    def read(array: Any) -> float:
        sleep(LONG_S)
        return float(array.sum())

    def change(array: Any) -> float:
        array += 1
        sleep(LONG_S)
        return float(array[0])

    array = numpy.ones(10 << 20)
    with WorkerPool(1) as pool:
        programs = [Node(read, "read"), Node(change, "change")]
        for program in programs:
            Drive(pool).values(program, [array] * 3)
        nodes = pool.stats()["nodes"]
        assert nodes["read"]["memory"] < 40 << 20 < nodes["change"]["memory"] < 120 << 20


def test_what_the_first_task_loads_for_those_after_it_is_expected_once_in_each_worker() -> None:
    kept: list[Any] = []

    def load(x: int) -> int:
        if not kept:
            kept.append(bytearray(b"x") * (60 << 20))
            sleep(LONG_S)
        return len(kept)

    node = Node(load, "load")
    with WorkerPool(1) as pool:
        Drive(pool).values(node, range(4))
        appetite = pool._foreman._floor.parcels.shipments.of(node).appetite
        assert appetite.need_bytes(False) >= 60 << 20 > NOTABLE_BYTES > appetite.need_bytes(True)


def test_where_the_kernel_tells_nothing_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpflow._exec.gauge._figures", lambda: None)
    gauge = Gauge()
    gauge.begin(1, True)
    gauge.look()
    assert gauge.word() is None


def test_where_a_peak_cannot_be_reset_only_what_exceeds_the_highest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = [(10 * MB, 0, 500 * MB)]
    monkeypatch.setattr("mpflow._exec.gauge._RESET_PEAK", b"no such command")
    monkeypatch.setattr("mpflow._exec.gauge._figures", lambda: figures[-1])
    gauge = Gauge()
    gauge.begin(1, True)
    figures.append((110 * MB, 20 * MB, 500 * MB))
    gauge.look()
    assert gauge.word() == (100 * MB, True)
    figures.append((110 * MB, 20 * MB, 900 * MB))
    gauge.look()
    assert gauge.word() == (770 * MB, False)


def test_files_that_can_be_read_again_leave_room_in_a_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both versions, and the narrowest of nested groups counts."""
    inner, outer = tmp_path / "outer/inner", tmp_path / "outer"
    inner.mkdir(parents=True)
    for group, limit, stat in (
        (outer, 300 * MB, "total_inactive_file 40000000\ntotal_active_file 60000000\ninactive_file 0\n"),
        (inner, 900 * MB, "anon 5\n"),
    ):
        (group / "limit").write_text(f"{limit}\n")
        (group / "usage").write_text(f"{200 * MB}\n")
        (group / "memory.stat").write_text(stat)
    monkeypatch.setattr(memory, "_cgroups", lambda: [(inner, "limit", "usage"), (outer, "limit", "usage")])
    monkeypatch.setattr(memory, "_free_bytes", lambda: 5000 * MB)
    monkeypatch.setattr(memory, "_machine_bytes", lambda: 8000 * MB)
    assert memory.headroom_bytes() == 100 * MB
    assert memory.available_bytes() == 170 * MB
    (outer / "memory.stat").write_text("inactive_file 10000000\nactive_file 20000000\n")
    assert memory.available_bytes() == 120 * MB


def test_a_run_within_one_worker_is_expected_to_take_what_its_hungriest_node_does() -> None:
    class State(TypedDict):
        x: int

    graph = StateGraph(State).add_node("a", lambda state: state, memory="1GB").add_node("b", lambda state: state)
    compiled = graph.add_edge("__start__", "a").add_edge("a", "b").compile()
    assert RunProgram(compiled, {}).memory_bytes == 10**9


def test_a_run_that_does_not_fit_side_by_side_finishes_without_a_death() -> None:
    """In a cgroup of 600 MiB tasks of 200 MiB on four workers, between many that take nothing."""
    with memory_cgroup(600 << 20) as group:
        if group is None:
            pytest.skip("this user can make no memory cgroup")
        out = run_script(f"""
        import os
        open({str(group / "cgroup.procs")!r}, "w").write(str(os.getpid()))
        import operator
        from typing import Annotated, TypedDict
        from mpflow import Send, StateGraph, WorkerPool
        class State(TypedDict):
            sizes: Annotated[list, operator.add]
        def big(size):
            return {{"sizes": [len(bytearray(b"x") * size)]}}
        def small(size):
            return {{"sizes": [size]}}
        def start(state):
            return [Send("big", 200 << 20)] * 5 + [Send("small", 1)] * 100
        graph = StateGraph(State).add_conditional_edges("__start__", start, ["big", "small"])
        graph.add_node("big", big, executor="process").add_node("small", small, executor="process")
        with WorkerPool(4) as pool:
            print(sum(graph.compile(pool=pool).invoke({{"sizes": []}})["sizes"]) - 1000 * (1 << 20))
            print(pool.stats()["deaths"], pool.stats()["held_back"] > 0)
        """).stdout
    assert out == "100\n0 True\n"
