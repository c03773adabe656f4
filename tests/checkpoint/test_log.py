"""The log: what is put comes back, whatever the order, the branches and the deletions; rows that are damaged are refused."""

from __future__ import annotations

import random
import threading
from contextlib import nullcontext
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpflow._scope import task_id_of
from mpflow._wire.codec import DecodeError
from mpflow.checkpoint.base import CheckpointTuple, empty_checkpoint
from mpflow.checkpoint.ids import new_checkpoint_id
from mpflow.checkpoint.log import envelope, operations, pruning, weight
from mpflow.checkpoint.log.coding import DataCoder
from mpflow.checkpoint.log.driver import RESULT, STEP, Row
from mpflow.checkpoint.log.folding import Opening, fold
from mpflow.checkpoint.log.memory import MemoryDriver
from mpflow.checkpoint.log.patching import patch_of, patched
from mpflow.checkpoint.log.records import (
    ADD,
    APPEND,
    DROP,
    EXTEND,
    FORMAT,
    MERGE,
    PATCH,
    SET,
    TEXT,
    UNION,
    Frame,
    Part,
    Result,
    Step,
)
from mpflow.checkpoint.log.saver import LogSaver
from mpflow.checkpoint.log.writer import GroupWriter
from mpflow.checkpoint.sqlite import SqliteSaver
from mpflow.errors import CheckpointCorruptError, CheckpointVersionError

CODER = DataCoder()
INTS = st.integers(-(2**63), 2**64 - 1)


def saver() -> LogSaver:
    """A log whose rows are bytes, in memory."""
    return LogSaver(MemoryDriver())


def at(thread_id: str = "t", checkpoint_id: str | None = None, ns: str = "") -> Any:
    where = {"thread_id": thread_id, "checkpoint_ns": ns}
    return {"configurable": where if checkpoint_id is None else {**where, "checkpoint_id": checkpoint_id}}


def checkpoint(values: dict[str, Any], versions: dict[str, Any], seen: dict[str, Any] | None = None) -> Any:
    made = empty_checkpoint()
    made["channel_values"], made["channel_versions"], made["versions_seen"] = values, versions, seen or {}
    return made


def step(
    checkpoint_id: str, parent_id: str | None, *ops: tuple[Any, ...], whole: bool = False, numbers: Any = ()
) -> Step:
    """A step of operations ``(channel, code, operand)``, or with references in a further place."""
    frame = Frame(
        CODER.pack({}, ""),
        v=4,
        ops=[(op[0], op[1], op[3] if len(op) > 3 else None) for op in ops],
        parts=[None] * len(numbers),
    )
    operands = [op[2] for op in ops if len(op) == 3]
    versions = {op[0]: 1 for op in ops}
    return Step(
        checkpoint_id,
        parent_id,
        frame,
        whole=whole,
        ts="",
        versions=versions,
        operands=operands,
        numbers=numbers,
    )


def folded(*records: Step | Result) -> dict[str, Any]:
    """The values at the last step."""
    last = [record.checkpoint_id for record in records if isinstance(record, Step)][-1]
    state = fold("t", "", records, {last})[last]
    opening = Opening(CODER)
    return {name: opening.value(cell) for name, cell in state.cells.items()}


def packed(value: Any) -> bytes:
    return CODER.pack(value, "value")


@pytest.mark.parametrize(
    ("code", "before", "operand", "after"),
    [
        (SET, [1], [2], [2]),
        (EXTEND, [1], [2, 3], [1, 2, 3]),
        (EXTEND, (1,), (2,), (1, 2)),
        (APPEND, [1], [2], [1, [2]]),
        (TEXT, "ab", "c", "abc"),
        (TEXT, b"ab", b"c", b"abc"),
        (MERGE, {"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
        (UNION, {1}, {2}, {1, 2}),
        (UNION, frozenset({1}), {2}, frozenset({1, 2})),
        (ADD, 1, 2, 3),
        (ADD, 0.5, 2, 2.5),
    ],
)
def test_operations_by_value_and_by_reference(code: int, before: Any, operand: Any, after: Any) -> None:
    first = step("1", None, ("x", SET, packed(before)), whole=True)
    assert folded(first, step("2", "1", ("x", code, packed(operand)))) == {"x": after}
    result = Result("1", 7, "task", "", ["other", "x"], packed([None, operand]))
    by_reference = folded(first, result, step("2", "1", ("x", code, None, (0, 1)), numbers=[7]))
    assert by_reference == {"x": after}
    assert type(by_reference["x"]) is type(after)


def carrying(checkpoint_id: str, parent_id: str, value: Any) -> Step:
    """The step after a task of node ``n`` wrote `value` to ``x``, which it carries along."""
    part = Part("n", ("__pregel_pull", "n"), ("go",), ["x"])
    frame = Frame({"source": "loop"}, v=4, names=["x"], saw=[("n", ["x"])], ops=[("x", SET, (0, 0))], parts=[part])
    return Step(checkpoint_id, parent_id, frame, whole=False, number=1, version="2", values=[packed([value])])


def test_a_step_carries_what_its_tasks_wrote_and_says_what_they_saw() -> None:
    log, ids = saver(), [new_checkpoint_id(number) for number in range(7)]
    first = step(ids[0], None, ("x", SET, packed(1)), whole=True)
    rows = [envelope.dump_step("t", "", first, ids[0])]
    rows += [envelope.dump_step("t", "", carrying(one, ids[0], one), ids[0]) for one in ids[1:3]]
    log.driver.append([("t", rows)])
    after, before = (log.get_tuple(at(checkpoint_id=one)) for one in (ids[1], ids[0]))
    assert after is not None and before is not None
    assert after.checkpoint["channel_values"] == {"x": ids[1]}
    assert after.checkpoint["channel_versions"] == {"x": "2"}
    assert after.checkpoint["versions_seen"] == {"n": {"x": 1}}
    assert after.metadata == {"source": "loop", "step": 1}
    assert datetime.fromisoformat(after.checkpoint["ts"]).tzinfo is not None
    task_id = task_id_of(ids[0], "", 1, "n", ("__pregel_pull", "n"), ("go",))
    assert before.pending_writes == [(task_id, "x", ids[1])]  # of two results of a task the first counts
    assert [found.pending_writes for found in log.list(at())][2] == before.pending_writes
    for dropped in ids[2], ids[1]:  # what they carried belongs to a checkpoint that stays
        operations.perform(pruning.delete_steps(log, "t", "", {dropped}), log.driver)
        left = log.get_tuple(at(checkpoint_id=ids[0]))
        assert left is not None and {write[0] for write in left.pending_writes or ()} == {task_id}
    log.copy_thread("t", "u")
    assert [found.pending_writes for found in log.list(at("u"))] == [left.pending_writes]


def test_frames_that_do_not_fit_their_steps_are_refused() -> None:
    parent_id, checkpoint_id = new_checkpoint_id(), new_checkpoint_id()
    made = carrying(checkpoint_id, parent_id, 1)
    for name, value in (
        ("values", []),
        ("numbers", [1]),
        ("number", None),
        ("version", None),
        ("operands", ["text"]),
    ):
        damaged = carrying(checkpoint_id, parent_id, 1)
        setattr(damaged, name, value)
        with pytest.raises(CheckpointCorruptError):
            envelope.load_step("t", envelope.dump_step("t", "", damaged, parent_id))
    assert envelope.load_step("t", envelope.dump_step("t", "", made, parent_id)).values == made.values


def test_dropped_channels_have_no_value() -> None:
    assert folded(step("1", None, ("x", SET, packed(1)), whole=True), step("2", "1", ("x", DROP))) == {}


def test_patches_follow_one_another_and_results_may_hold_them() -> None:
    values = [[f"line {n}" * 5 for n in range(length)] for length in (40, 41, 42)]
    one, two = (patch_of(packed(old), packed(new)) for old, new in pairwise(values))
    assert one is not None and two is not None
    first = step("1", None, ("x", SET, packed(values[0])), whole=True)
    second = step("2", "1", ("x", PATCH, one))
    result = Result("2", 5, "task", "", ["x"], packed([None]), {0: (PATCH, two)})
    assert folded(first, second, result, step("3", "2", ("x", SET, None, (0, 0)), numbers=[5])) == {"x": values[2]}


@pytest.mark.parametrize(
    "records",
    [
        (step("2", "1", ("x", SET, packed(1))),),
        (step("1", None, whole=True), step("2", "1", ("x", EXTEND, packed([1])))),
        (step("1", None, ("x", SET, packed(1)), whole=True), step("2", "1", ("x", EXTEND, packed([1])))),
        (step("1", None, whole=True), step("2", "1", ("x", SET, None, (0, 0)), numbers=[7])),
        (step("1", "1", ("x", SET, packed(1))),),
        (step("1", None, ("x", SET, packed(1))),),
    ],
    ids=["parent missing", "no value", "wrong type", "result missing", "its own parent", "no parent"],
)
def test_records_that_do_not_fit_are_refused(records: tuple[Any, ...]) -> None:
    with pytest.raises((CheckpointCorruptError, ValueError)):
        folded(*records)


class Model:
    """What a saver should give: whole copies of everything."""

    def __init__(self) -> None:
        self.checkpoints: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str | None]] = {}
        self.writes: dict[str, dict[tuple[str, int], tuple[str, str, Any]]] = {}


def check(saver: LogSaver, model: Model) -> None:
    listed = {found.checkpoint["id"]: found for found in saver.list(at())}
    assert list(listed) == sorted(model.checkpoints, reverse=True)
    for checkpoint_id, (values, versions, seen, parent_id) in model.checkpoints.items():
        single = saver.get_tuple(at(checkpoint_id=checkpoint_id))
        for found in (single, listed[checkpoint_id]):
            assert isinstance(found, CheckpointTuple)
            assert found.checkpoint["channel_values"] == values
            assert found.checkpoint["channel_versions"] == versions
            assert found.checkpoint["versions_seen"] == seen
            assert found.parent_config == (None if parent_id is None else at(checkpoint_id=parent_id))
            assert found.pending_writes == list(model.writes.get(checkpoint_id, {}).values())
    latest = saver.get_tuple(at())
    assert (latest and latest.checkpoint["id"]) == max(model.checkpoints, default=None)


def play(dice: random.Random, log: LogSaver) -> None:
    """A random history in a log, and in a model of it, to which it is compared."""
    model = Model()
    for number in range(dice.randrange(1, 25)):
        known = list(model.checkpoints)
        choice = dice.random()
        if choice < 0.6 or not known:
            parent_id = dice.choice([*known, *known[-1:] * 5]) if known and dice.random() < 0.95 else None
            values, versions, seen, _ = model.checkpoints[parent_id] if parent_id else ({}, {}, {}, None)
            values, versions = dict(values), dict(versions)
            seen = {node: dict(one) for node, one in seen.items()}
            for name in dice.sample("abcd", dice.randrange(4)):
                versions[name] = f"{number:03}"
                if dice.random() < 0.2:
                    values.pop(name, None)
                else:
                    values[name] = dice.choice([number, [number] * dice.randrange(300), "text", {"k": number}])
            if dice.random() < 0.5:
                seen.setdefault(dice.choice("nm"), {}).update(versions)
            made = checkpoint(values, versions, seen)
            again = bool(known) and dice.random() < 0.1
            if again:
                made["id"] = dice.choice([one for one in known if one != parent_id] or known)
                parent_id = None if parent_id is not None and parent_id >= made["id"] else parent_id
            log.put(at(checkpoint_id=parent_id), made, {"source": "loop", "step": number}, {})
            model.checkpoints[made["id"]] = (values, versions, seen, parent_id)
        elif choice < 0.9:
            checkpoint_id, task_id = dice.choice(known), dice.choice("xyz")
            writes = [(dice.choice(["a", "b", "__error__"]), number) for _ in range(dice.randrange(1, 3))]
            log.put_writes(at(checkpoint_id=checkpoint_id), writes, task_id)
            slots = model.writes.setdefault(checkpoint_id, {})
            for index, (name, value) in enumerate(writes):
                slot = (task_id, -1 if name == "__error__" else index)
                if slot[1] < 0 or slot not in slots:
                    slots[slot] = (task_id, name, value)
        elif choice < 0.95:
            keep = dice.randrange(1, 6)
            log.prune(["t"], keep=keep)
            for gone in sorted(known)[:-keep]:
                del model.checkpoints[gone]
                model.writes.pop(gone, None)
        else:
            log.copy_thread("t", "u")
            assert len(list(log.list(at("u")))) == len(known)
            log.delete_thread("u")
            assert list(log.list(at("u"))) == []
    check(log, model)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@given(seed=st.integers(0, 2**32), heavy=st.booleans())
def test_a_random_history_comes_back_whole(kind: str, seed: int, heavy: bool) -> None:
    least, weight.LEAST_BYTES = weight.LEAST_BYTES, 20_000 if heavy else weight.LEAST_BYTES
    try:
        with nullcontext(saver()) if kind == "memory" else SqliteSaver.from_conn_string(":memory:") as log:
            play(random.Random(seed), log)
    finally:
        weight.LEAST_BYTES = least


def test_what_is_read_is_the_callers_own() -> None:
    log = saver()
    values = {"a": [1]}
    where = log.put(at(), checkpoint(values, {"a": 1}), {}, {"a": 1})
    values["a"].append(2)
    for _ in range(2):
        found = log.get_tuple(where)
        assert found is not None and found.checkpoint["channel_values"] == {"a": [1]}
        found.checkpoint["channel_values"]["a"].append(3)


def test_filters_limits_and_before() -> None:
    log = saver()
    where = at()
    for number in range(200):
        where = log.put(where, checkpoint({"a": number}, {"a": number}), {"step": number, "odd": number % 2}, {})
    assert [found.metadata["step"] for found in log.list(at(), limit=3)] == [199, 198, 197]
    assert [found.metadata["step"] for found in log.list(at(), filter={"odd": 1}, limit=2)] == [199, 197]
    assert [found.checkpoint["channel_values"]["a"] for found in log.list(at())] == list(range(199, -1, -1))
    assert [found.metadata["step"] for found in log.list(at(), before=where, limit=1)] == [198]
    assert list(log.list(at(), limit=0)) == []
    assert len(list(log.list(None, filter={"odd": 0}))) == 100
    assert len(list(log.list(at(), filter={"nowhere": None}, limit=3))) == 3  # as in LangGraph's SQLite


def listed_newest_first(log: LogSaver) -> None:
    """Checkpoints of several threads and namespaces, in turns: a listing of all has them by time, however it is cut."""
    wheres = [at("t"), at("t", ns="sub"), at("u")]
    for number in range(150):
        where = wheres[number % 3]
        wheres[number % 3] = log.put(where, checkpoint({"a": [number]}, {"a": number}), {"step": number}, {})

    def steps(config: Any, **narrowed: Any) -> list[Any]:
        return [found.metadata["step"] for found in log.list(config, **narrowed)]

    assert steps(None) == list(range(149, -1, -1))
    assert steps(None, limit=4) == [149, 148, 147, 146]
    assert steps(None, before=wheres[0], limit=2) == [146, 145]
    of_thread: Any = {"configurable": {"thread_id": "t"}}
    assert steps(of_thread, limit=4) == [148, 147, 145, 144]
    assert [found.checkpoint["channel_values"]["a"] for found in log.list(None)] == [[n] for n in range(149, -1, -1)]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_cp7_checkpoints_of_several_threads_are_listed_newest_first(kind: str) -> None:
    with nullcontext(saver()) if kind == "memory" else SqliteSaver.from_conn_string(":memory:") as log:
        listed_newest_first(log)


def test_a_search_with_a_limit_looks_no_further_than_to_what_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    log = saver()
    where = at()
    for number in range(50):
        where = log.put(where, checkpoint({"a": number}, {"a": number}), {"step": number, "odd": number % 2}, {})
    looked_at: list[int] = []
    steps = log.driver.steps

    def noted(*arguments: Any) -> Any:
        found = steps(*arguments)
        looked_at.append(len(found))
        return found

    monkeypatch.setattr(log.driver, "steps", noted)
    monkeypatch.setattr(operations, "BLOCK", 8)
    assert [one.metadata["step"] for one in log.list(at(), filter={"odd": 1}, limit=5)] == [49, 47, 45, 43, 41]
    assert looked_at == [8, 8]
    assert [one.metadata["step"] for one in log.list(where, limit=2)] == [49]
    assert looked_at[2:] == [8]
    assert [one.metadata["step"] for one in log.list(at(), filter={"step": 0}, limit=2)] == [0]
    assert list(log.list(at(), filter={"step": 99}, limit=1)) == []


def test_a_copy_replaces_what_its_target_has_of_the_same() -> None:
    log = saver()
    where = log.put(at(), checkpoint({"a": 1}, {"a": 1}), {}, {})
    log.put_writes(log.put(where, checkpoint({"a": 2}, {"a": 2}), {}, {}), [("a", 3)], "task")
    for _ in range(2):
        log.copy_thread("t", "u")
    assert len(list(log.list(at("u")))) == 2
    assert len(log.driver.rows("u")) == 3


def test_a_run_is_deleted_without_harm_to_what_builds_on_it() -> None:
    log = saver()
    where = at()
    for run_id in "abab":
        where = log.put(where, checkpoint({"x": run_id}, {"x": run_id}), {"run_id": run_id}, {})
    log.delete_for_runs(["a"])
    assert [found.checkpoint["channel_values"] for found in log.list(at())] == [{"x": "b"}] * 2


def test_bytes_grow_with_the_changes_and_not_with_the_state() -> None:
    log = saver()
    where, values = at(), {f"c{n}": "x" * 1000 for n in range(100)}
    for number in range(100):
        values["c0"] = str(number)
        where = log.put(where, checkpoint(dict(values), dict.fromkeys(values, 1) | {"c0": number}), {}, {})
    assert sum(len(row.data) for row in log.driver.rows("t")) < 2 * 100_000


# -- damage -----------------------------------------------------------------------------------------------------------


def rows_of_a_thread() -> tuple[LogSaver, list[Row]]:
    log = saver()
    where = log.put(at(), checkpoint({"a": [1, 2], "b": "text"}, {"a": 1, "b": 1}, {"n": {"a": 1}}), {"step": 0}, {})
    log.put_writes(where, [("a", [3])], "task", "path")
    log.put(where, checkpoint({"a": [1, 2, 3], "b": "text"}, {"a": 2, "b": 1}), {"step": 1}, {"a": 2})
    return log, list(log.driver.rows("t"))


def test_row_35_any_flipped_bit_is_found_and_says_where() -> None:
    _, rows = rows_of_a_thread()
    for number, row in enumerate(rows):
        for bit in range(8 * len(row.data)):
            data = bytearray(row.data)
            data[bit // 8] ^= 1 << bit % 8
            damaged = saver()
            damaged.driver.append([("t", [*rows[:number], row._replace(data=bytes(data)), *rows[number + 1 :]])])
            with pytest.raises(CheckpointCorruptError) as caught:
                damaged.get_tuple(at())
            assert caught.value.thread_id == "t"
            assert caught.value.checkpoint_id == row.checkpoint_id


def test_row_35_a_row_under_another_address_is_refused() -> None:
    _, rows = rows_of_a_thread()
    for change in ({"checkpoint_id": new_checkpoint_id()}, {"ns": "other"}, {"kind": 1 - rows[0].kind}):
        moved = saver()
        moved.driver.append([("t", [rows[0]._replace(**change)])])
        with pytest.raises(CheckpointCorruptError):
            list(moved.records("t", moved.driver.rows("t")))
    moved = saver()
    moved.driver.append([("u", rows)])
    with pytest.raises(CheckpointCorruptError):
        moved.get_tuple(at("u"))


def test_row_35_a_later_format_is_refused_by_its_number() -> None:
    body = [FORMAT + 1, "something", "new"]
    row = Row("", "1", STEP, "1", envelope._sealed(body, "t", "", "1", STEP, "1"))
    with pytest.raises(CheckpointVersionError, match=f"format {FORMAT + 1}"):
        envelope.load_step("t", row)


@given(st.lists(st.one_of(st.none(), INTS, st.text(), st.binary(), st.lists(INTS), st.booleans()), max_size=12))
def test_row_39_malformed_records_with_a_good_checksum_are_refused(parts: list[Any]) -> None:
    for kind, load in ((STEP, envelope.load_step), (RESULT, envelope.load_result)):
        row = Row("", "1", kind, "1", envelope._sealed([FORMAT, *parts], "t", "", "1", kind, "1"))
        try:
            load("t", row)
        except CheckpointCorruptError:
            continue


VERSIONS = st.one_of(
    st.builds("{:032}.0.{}".format, st.integers(0, 10**31), st.integers(0)),
    st.text(alphabet="0.+-1٣ ", max_size=40),
    st.text(alphabet="01.", min_size=31, max_size=50),
    INTS,
)


@given(VERSIONS, st.lists(st.sampled_from("bcd"), unique=True), st.booleans())
def test_versions_and_the_names_of_a_frame_are_read_as_they_were_written(
    version: Any, names: list[str], own: bool
) -> None:
    ops = [(name, DROP, None) for name in (["a", *names] if own else "cab")]
    frame = Frame(b"", v=4, names=["a", *names], updated=sorted(["a", *names]), ops=ops)
    row = envelope.dump_step("t", "", Step("1", None, frame, whole=True, version=version), "1")
    found = envelope.load_step("t", row)
    assert (found.version, found.frame.names, found.frame.updated) == (version, frame.names, frame.updated)
    assert type(found.version) is type(version)


@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40), st.binary(max_size=40))))
def test_patches_are_exact(old: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    old = old * 8
    new = old
    for where, length, by in edits[:4]:
        new = new[:where] + by + new[where + length :]
    patch = patch_of(old, new)
    if patch is not None:
        assert patched(old, patch) == new
        assert len(patch) < len(new)


def test_a_long_value_that_grows_at_its_end_makes_a_short_patch() -> None:
    old = [f"item number {n}, and something about it" for n in range(500)]
    for new in (old + ["one more"], old[:100] + ["changed"] + old[101:], ["first", *old], {"a": 1, "items": old}):
        patch = patch_of(packed(old), packed(new))
        assert patch is not None and len(patch) < 200
        assert CODER.unpack(patched(packed(old), patch)) == new


@given(st.binary(max_size=60))
def test_row_39_bytes_that_are_no_patch_are_refused(data: bytes) -> None:
    try:
        assert isinstance(patched(b"x" * 100, data), bytes)
    except ValueError:
        pass


def test_values_of_unknown_classes_are_refused_when_put() -> None:
    class Own:
        pass

    with pytest.raises(Exception, match=r"channel 'a'\.?.*Own"):
        saver().put(at(), checkpoint({"a": Own()}, {"a": 1}), {}, {})
    with pytest.raises(DecodeError):
        CODER.unpack(b"\xc1")


def test_writers_that_meet_share_a_commit() -> None:
    commits: list[list[str]] = []
    is_committing, may_go_on = threading.Event(), threading.Event()

    def commit(batches: Any) -> None:
        commits.append([thread_id for thread_id, _ in batches])
        is_committing.set()
        may_go_on.wait()

    writer = GroupWriter(commit)
    threads = [threading.Thread(target=writer.write, args=(name, [])) for name in "abc"]
    threads[0].start()
    is_committing.wait()
    for thread in threads[1:]:
        thread.start()
    while len(writer._waiting) < 2:
        threads[0].join(0.001)
    may_go_on.set()
    for thread in threads:
        thread.join()
    assert commits[0] == ["a"] and sorted(commits[1]) == ["b", "c"] and len(commits) == 2
