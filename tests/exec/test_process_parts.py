"""The parts of the process pool that need no process: counting processors, batch sizes, turns, the page, the facts."""

from __future__ import annotations

import os
import select
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mpflow._exec import batches, finished, slots
from mpflow._exec.cpu import THREAD_VARIABLES, cpu_count, quotas, thread_limits
from mpflow._exec.crew import READY
from mpflow._exec.facts import KnownFacts, LazyFacts, LeftBehind, encode_facts
from mpflow._exec.functions import Shipment, Shipments
from mpflow._exec.mailbox import Mailbox
from mpflow._exec.payloads import Payloads
from mpflow._exec.program import NodeProgram
from mpflow._exec.queues import Queue
from mpflow._exec.roster import Roster
from mpflow._messages import Attempt, StepFacts
from mpflow._wire.codec import Codec
from mpflow._wire.shm import Arena
from mpflow.errors import WorkerStartError
from mpflow.runnables.base import coerce
from tests.exec.pooling import Node, facts_of


def tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, [1.5]),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "200000 100000", "sys/fs/cgroup/a/b/cpu.max":
          "max 100000"}, [2.0]),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/a/cpu.max":
          "300000 100000", "sys/fs/cgroup/a/b/cpu.max": "50000 100000"}, [3.0, 0.5]),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/job\n", "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "400000",
          "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, [4.0]),
        ({"proc/self/cgroup": "4:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
          "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, []),
        ({"proc/self/cgroup": "0::/gone\n", "sys/fs/cgroup/cpu.max": "100000 100000"}, [1.0]),
        ({"sys/fs/cgroup/cpu.max": "250000 100000"}, [2.5]),
        ({"proc/self/cgroup": "junk\n", "sys/fs/cgroup/cpu.max": "one two three"}, []),
    ],
)  # fmt: skip
def test_quotas_of_all_cgroups_around(tmp_path: Path, files: dict[str, str], expected: list[float]) -> None:
    assert list(quotas(tree(tmp_path, files))) == expected


def test_the_count_is_the_least_of_all_limits(tmp_path: Path) -> None:
    affinity = len(os.sched_getaffinity(0))
    root = tree(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000"})
    assert cpu_count(root=root, environ={}) == 1
    nothing = str(tmp_path / "nothing")
    assert cpu_count(root=nothing, environ={}) == affinity
    assert cpu_count(root=nothing, environ={"LOKY_MAX_CPU_COUNT": "1"}) == 1
    assert cpu_count(root=nothing, environ={"LOKY_MAX_CPU_COUNT": "1000"}) == affinity


def test_inner_threads_share_what_is_there_and_leave_the_users_choice() -> None:
    limits = thread_limits(3, {"OMP_NUM_THREADS": "9"}, cpus=8)
    assert "OMP_NUM_THREADS" not in limits and set(limits) == set(THREAD_VARIABLES) - {"OMP_NUM_THREADS"}
    assert set(limits.values()) == {"2"}
    assert set(thread_limits(8, {}, cpus=2).values()) == {"1"}


@pytest.mark.parametrize(
    ("seen", "mean_s", "waiting", "expected"),
    [
        (0, 0.0, 10_000, 1),  # nothing is known: one
        (1, 1e-6, 10_000, 8),  # one was quick: a few
        (1000, 1e-4, 100_000, 400),
        (5000, 0.0, 100_000, 1024),
        (1000, 1e-3, 100_000, 40),
        (1000, 1.0, 100_000, 1),  # long tasks travel one by one
        (1000, 1e-4, 40, 10),  # near the end they are shared out
        (1000, 1e-4, 4, 4),  # but not into less than is worth a frame
        (1000, 0.0, 1, 1),
    ],
)
def test_batches_aim_at_some_milliseconds(seen: int, mean_s: float, waiting: int, expected: int) -> None:
    assert batches.size(seen, mean_s, waiting, 2) == expected


def test_runs_that_share_the_workers_get_short_batches_and_windows() -> None:
    assert batches.size(1000, 1e-3, 100_000, 2, is_shared=True) == 3
    assert batches.window_s(100.0, 2, is_shared=True) < batches.window_s(100.0, 2)
    assert batches.window_s(0.0, 2, is_shared=True) == batches.window_s(0.0, 2)


def test_one_long_task_outweighs_many_short_ones() -> None:
    shipment = Shipment()
    for _ in range(50):
        shipment.measured(100, 100 * 1e-6)
    shipment.measured(1, 0.5)
    assert batches.size(shipment.seen, shipment.mean_s, 10_000, 2) == 1


def attempts(count: int, node: Node, outbox: Mailbox, **fields: Any) -> list[Attempt]:
    made = []
    for index in range(count):
        attempt = Attempt(index, 1, node, index, facts_of(), (index,), ())
        attempt.outbox = outbox
        for name, value in fields.items():
            setattr(attempt, name, value)
        made.append(attempt)
    return made


def test_runs_take_turns() -> None:
    queue, node, one, two = Queue(), Node(lambda x: x), Mailbox(), Mailbox()
    queue.add(attempts(5, node, one))
    queue.add(attempts(3, node, two))
    taken = [queue.take(2) for _ in range(5)]
    assert [[a.outbox is one for a in batch] for batch in taken] == [[True] * 2, [False] * 2] * 1 + [
        [True] * 2, [False], [True],
    ]  # fmt: skip
    assert not len(queue) and queue.head() is None


def test_a_batch_is_of_one_program_and_keeps_the_order() -> None:
    queue, first, second, box = Queue(), Node(lambda x: x), Node(lambda x: x), Mailbox()
    queue.add(attempts(2, first, box) + attempts(2, second, box) + attempts(1, first, box))
    assert [[a.program for a in queue.take(10)] for _ in range(3)] == [[first] * 2, [second] * 2, [first]]


def test_what_is_put_back_comes_first_and_what_may_not_rerun_travels_alone() -> None:
    queue, node, box = Queue(), Node(lambda x: x), Mailbox()
    queue.add(attempts(3, node, box))
    batch = queue.take(2)
    queue.put_back(batch)
    assert [a.task for a in queue.take(5)] == [0, 1, 2]
    queue.add(attempts(3, node, box, rerun_on_loss=False))
    assert len(queue.take(5)) == 1
    lone = attempts(2, node, box, alone=True)
    queue.add(lone)
    assert list(queue.alone) == lone and len(queue) == 2
    assert len(queue.remove(lambda a: a.task != 1)) == 2 and [a.task for a in queue.alone] == [1]


def test_the_page_tells_both_sides_about_tasks_taken_back() -> None:
    ours = slots.Page(slots.create())
    theirs = slots.Page(os.dup(ours.fd))
    try:
        theirs.words[slots.RUNNING] = 7
        assert ours.take_back(8, 12) == 7
        assert (theirs.words[slots.TAKEN_FROM], theirs.words[slots.TAKEN_TO]) == (8, 12)
        os.write(ours.fd, b"last words")
        assert ours.notes() == "last words"
    finally:
        ours.close()
        theirs.close()


def test_functions_are_packed_once_and_again_when_replaced() -> None:
    shipments, run, factor = Shipments(), object(), 1
    node = Node(lambda x: x * factor)
    first = shipments.packed(node, run)
    number = first.number
    assert shipments.packed(node, object()).number == number
    assert shipments.packed(node, run) is first
    factor = 2
    assert shipments.packed(node, run).number == number, "within a run a function stays what it was"
    assert shipments.packed(node, object()).number != number


def test_programs_are_forgotten_when_they_die() -> None:
    shipments = Shipments()
    node = Node(lambda x: x)
    shipments.packed(node, None)
    del node
    assert not shipments._by_id


def _finish(results: finished.Results, payload: Any) -> None:
    results.numbers.append(results.count + 1)
    results.times_ns.append(0)
    results.payloads.append(payload)


@pytest.mark.parametrize("numbers", [[], [7], [3, 4, 5], [3, 5], [1, 2, 9]])
def test_numbers_travel_as_a_run_where_none_is_missing(numbers: list[int]) -> None:
    assert list(finished.numbers_in(finished.run_of(numbers))) == numbers


def test_results_that_run_no_code_are_decoded_in_one_call_or_cut_apart() -> None:
    codec = Codec(trust=True)
    results = finished.Results(codec.encode)
    results.open_up()
    for diff in ([("a", 1)], [], [("a", (1, 2)), ("b", {"c": None})]):
        _finish(results, codec.encode(finished.flat(diff)))
    head, _ = batches.part(memoryview(b"".join(results.parts(0, [], 0))))
    whole = head[7]
    values = [finished.diff_of(items) for items in codec.decode(whole)]
    assert values == [[("a", 1)], [], [("a", (1, 2)), ("b", {"c": None})]]
    assert finished.cut(whole) == results.payloads


def test_values_for_one_channel_become_whole_diffs_when_another_comes() -> None:
    codec = Codec(trust=True)
    results = finished.Results(codec.encode)
    payloads = Payloads(results, lambda *frame: None, codec)
    for diff in ([("a", 1)], [("a", "x")], [("a", {"k": None})], [("a", 1 << 63)], [("b", 2)], [("a", 3)]):
        _finish(results, payloads.of(diff, Node(len)))
    assert results.channel is None
    assert [codec.decode(payload) for payload in results.payloads] == [
        ["a", 1],
        ["a", "x"],
        ["a", {"k": None}],
        ["a", 1 << 63],
        ["b", 2],
        ["a", 3],
    ]


@pytest.mark.parametrize("before", [[], [{"a": 1}, {"a": 2}]])
@pytest.mark.parametrize("odd", [{"x": 3}, {None: 3}, {"": 3}, {"b": 3}, {"a": 3, "b": 4}, {}])
def test_dicts_that_nodes_return_travel_as_their_diffs(odd: dict[Any, Any], before: list[Any]) -> None:
    codec = Codec(trust=True)
    program = NodeProgram("n", coerce(len), ["a", "b"])
    returned = [*before, odd, odd, {"a": 5}]
    results = finished.Results(codec.encode)
    payloads = Payloads(results, lambda *frame: None, codec)
    payloads.use(Arena(1 << 16))
    for given in returned:
        _finish(results, payloads.of(given, program))
    assert [finished.diff_of(codec.decode(payload)) for payload in results.payloads] == list(
        map(program.diff, returned)
    )


@pytest.mark.parametrize("values", [[1, None, 0.5, True, -(1 << 61)], [1, 1 << 70], [1, "x", {"k": 1}, None], ["x", 1]])
def test_small_values_for_one_channel_are_encoded_together(values: list[Any]) -> None:
    codec = Codec(trust=True)
    results = finished.Results(codec.encode)
    payloads = Payloads(results, lambda *frame: None, codec)
    expected = []
    for value in values:
        _finish(results, payloads.of([("a", value)], Node(len)))
        expected.append(copy(value))
        if type(value) is dict:  # a task may change what it returned as soon as it has
            value.clear()
    head, _ = batches.part(memoryview(b"".join(results.parts(0, [], 0))))
    assert (head[5], codec.decode(head[7])) == ("a", expected)
    assert finished.cut(head[7]) == [codec.encode(value) for value in expected]


@pytest.mark.parametrize("value", [1 << 64, "\ud800", [1, [2]], ["x", b"y"], {"x": [1]}, {(1, 2): 3}])
def test_what_only_the_codec_can_pack_is_left_to_it(value: Any) -> None:
    assert finished.plain(value) is None
    assert finished.plain(1) == Codec(trust=True).encode(1), "the packer is as good as new"


@pytest.mark.parametrize("value", [{}, {"x": 1.5, "y": None}, {1: "x", None: True}, ["x", 2], -1])
def test_plain_data_is_packed_as_the_codec_does_it(value: Any) -> None:
    assert finished.plain(value) == Codec(trust=True).encode(value)


@pytest.mark.parametrize("config", [{}, {"tags": ["t"], "configurable": {"k": [1, {"deep": None}]}}])
def test_no_task_sees_what_another_did_to_its_facts(config: dict[str, Any]) -> None:
    codec = Codec(trust=True)
    known = KnownFacts(encode_facts(StepFacts(config, 3, 9), codec.encode), codec.decode)
    for _ in range(3):
        facts: Any = LazyFacts(known, str)
        assert (facts.config, facts.step, facts.local) == (config, 3, None)
        facts.config.setdefault("configurable", {}).setdefault("k", []).append("changed")
        facts.config["tags"] = "changed"


def test_failed_starts_neither_loop_nor_end_recruiting_for_good() -> None:
    ordered: list[int] = []
    with select.epoll() as epoll:
        roster = Roster(2, epoll, -1, ordered.append, None, False, 0)
        other: Any = SimpleNamespace(state=READY, spent=False, is_fresh=False, window={1: None})
        roster.crew.append(other)
        assert [roster.start_failed("no") for _ in range(3)] == [None] * 3, "the other one can do the work"
        roster.recruit(5, 0, 1, 100.0)
        assert not ordered
        roster.crew.clear()  # it died as well
        roster.recruit(5, 0, 0, 100.0)
        assert ordered
        errors = [roster.start_failed("no") for _ in range(3)]
        assert errors[:2] == [None] * 2 and isinstance(errors[2], WorkerStartError)


def test_what_stayed_behind_says_so_whatever_is_asked_of_it() -> None:
    left = Codec(trust=True).decode(Codec(trust=True).encode(LeftBehind("config['lock']", "it is a lock")))
    for use in (lambda: left(), lambda: left.acquire(), lambda: left[0], lambda: bool(left), lambda: list(left)):
        with pytest.raises(RuntimeError, match=r"config\['lock'\].*it is a lock"):
            use()
    assert "lock" in repr(left)


def test_what_a_worker_has_finished_is_not_taken_back_though_nobody_has_heard_of_it() -> None:
    ours = slots.Page(slots.create())
    theirs = slots.Page(os.dup(ours.fd))
    try:
        theirs.words[slots.FINISHED], theirs.words[slots.RUNNING] = 9, 0  # all sent, and at rest
        assert ours.last_started == 9 == ours.take_back(8, 12)
        theirs.words[slots.RUNNING] = 10
        assert ours.last_started == 10
    finally:
        ours.close()
        theirs.close()
