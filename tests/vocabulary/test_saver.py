"""The saver contract and the saver in memory (CP-3, CP-4, CP-6 to CP-8, CP-10)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpflow.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    Checkpoint,
    CheckpointTuple,
    copy_checkpoint,
    empty_checkpoint,
    get_checkpoint_metadata,
)
from mpflow.checkpoint.ids import new_checkpoint_id
from mpflow.checkpoint.memory import InMemorySaver, MemorySaver
from mpflow.config import RunnableConfig
from tests.naming import shown


def at(thread_id: str = "t", checkpoint_id: str | None = None, ns: str = "", **more: Any) -> RunnableConfig:
    where: dict[str, Any] = {"thread_id": thread_id, "checkpoint_ns": ns, **more}
    if checkpoint_id is not None:
        where["checkpoint_id"] = checkpoint_id
    return {"configurable": where}


def checkpoint_of(versions: dict[str, Any], values: dict[str, Any]) -> Checkpoint:
    made = empty_checkpoint()
    made["channel_versions"], made["channel_values"] = versions, values
    return made


def save(saver: InMemorySaver, config: RunnableConfig, values: dict[str, Any], step: int = 0) -> RunnableConfig:
    versions = dict.fromkeys(values, f"{step:03}")
    made = checkpoint_of(dict(versions), values)
    return saver.put(config, made, {"source": "loop", "step": step, "parents": {}}, dict(versions))


def values_at(saver: InMemorySaver, config: RunnableConfig) -> dict[str, Any]:
    found = saver.get_tuple(config)
    assert found is not None
    return found.checkpoint["channel_values"]


def test_cp4_ids_sort_by_the_time_they_were_made() -> None:
    ids = [new_checkpoint_id(step) for step in range(2000)]
    assert ids == sorted(set(ids))
    assert {(len(one), one[14], one[19] in "89ab") for one in ids} == {(36, "6", True)}


def test_cp4_the_keys_of_a_checkpoint() -> None:
    assert set(empty_checkpoint()) == {
        "v",
        "id",
        "ts",
        "channel_values",
        "channel_versions",
        "versions_seen",
        "updated_channels",
    }
    one = empty_checkpoint()
    one["versions_seen"] = {"n": {"a": 1}}
    other = copy_checkpoint(one)
    other["versions_seen"]["n"]["a"] = 2
    assert (one["versions_seen"], other["id"]) == ({"n": {"a": 1}}, one["id"])


@given(st.integers(1, 10**9))
def test_cp4_versions_sort_as_they_count(count: int) -> None:
    saver = InMemorySaver()
    before = f"{count:032}.0.5"
    after = saver.get_next_version(before, None)
    assert after > before
    assert int(after.split(".")[0]) == count + 1
    assert BaseCheckpointSaver[int]().get_next_version(count, None) == count + 1


def test_cp3_metadata_takes_what_is_plain_and_not_an_address() -> None:
    config: RunnableConfig = {
        "configurable": {"thread_id": "t", "user": 1, "__private": 2, "object": object(), "step": 9},
        "metadata": {"note": "a\0b", "langgraph_step": 3, "deep": {"a": 1}, "run_id": "r"},
        "run_id": "of the call, which is not said",  # type: ignore[typeddict-item]
    }
    assert get_checkpoint_metadata(config, {"source": "loop", "step": 1}) == {
        "source": "loop",
        "step": 1,
        "note": "ab",
        "user": 1,
        "run_id": "r",
    }


def test_cp7_a_checkpoint_is_found_by_id_or_as_the_latest() -> None:
    saver = InMemorySaver()
    first = save(saver, at(), {"a": 1}, step=1)
    second = save(saver, first, {"a": 2}, step=2)
    assert values_at(saver, at()) == {"a": 2}
    assert values_at(saver, first) == {"a": 1}
    found = saver.get_tuple(second)
    assert found is not None
    assert (found.config, found.parent_config, found.metadata["step"]) == (second, first, 2)
    for nowhere in (at("other"), at(ns="sub"), at(checkpoint_id="0")):
        assert saver.get_tuple(nowhere) is None


def test_cp7_values_that_did_not_change_are_found_through_their_version() -> None:
    saver = InMemorySaver()
    parent = save(saver, at(), {"a": 1, "b": [1]}, step=1)
    made = checkpoint_of({"a": "002", "b": "001"}, {"a": 2, "b": "not looked at"})
    child = saver.put(parent, made, {"source": "loop", "step": 2}, {"a": "002"})
    assert values_at(saver, child) == {"a": 2, "b": [1]}


def test_cp4_a_channel_without_a_value_is_left_out() -> None:
    saver = InMemorySaver()
    made = checkpoint_of({"a": "1", "gone": "1"}, {"a": None})
    where = saver.put(at(), made, {}, {"a": "1", "gone": "1"})
    assert values_at(saver, where) == {"a": None}


class Odd:
    """Pickles, and does not unpickle."""

    def __init__(self, needed: int) -> None:
        self.needed = needed

    def __reduce__(self) -> Any:
        return (Odd, ())


@pytest.mark.parametrize("value", [[1, {"a": (2, b"x")}], {"xs": {1, 2}}, Odd(1), lambda: 1], ids=shown)
def test_cp10_the_saver_in_memory_keeps_anything(value: Any) -> None:
    saver = InMemorySaver()
    kept = values_at(saver, save(saver, at(), {"a": value}))["a"]
    assert kept == value if not isinstance(value, Odd) else kept.needed == 1


def test_cp10_nothing_saved_changes_with_what_was_put_or_got() -> None:
    saver = InMemorySaver()
    value = {"xs": [1]}
    where = save(saver, at(), {"a": value})
    saver.put_writes(where, [("a", value)], "task")
    value["xs"].append(2)
    found = saver.get_tuple(where)
    assert found is not None
    found.checkpoint["channel_values"]["a"]["xs"].append(3)
    found.checkpoint["channel_versions"]["b"] = "9"
    found.metadata["step"] = 99
    again = saver.get_tuple(where)
    assert again is not None
    assert again.checkpoint["channel_values"] == {"a": {"xs": [1]}}
    assert (again.metadata["step"], again.pending_writes) == (0, [("task", "a", {"xs": [1]})])


def test_cp6_cp8_pending_writes_are_kept_once_but_special_ones_replace_themselves() -> None:
    saver = InMemorySaver()
    where = save(saver, at(), {"a": 1})
    saver.put_writes(where, [("x", 1), ("x", 2), ("__error__", "e1")], "task1", "~1")
    saver.put_writes(where, [("x", 7), ("x", 8), ("__error__", "e2")], "task1", "~1")
    saver.put_writes(where, [("x", 3)], "task0")
    found = saver.get_tuple(where)
    assert found is not None
    assert found.pending_writes == [
        ("task1", "x", 1),
        ("task1", "x", 2),
        ("task1", "__error__", "e2"),
        ("task0", "x", 3),
    ]
    assert WRITES_IDX_MAP == {"__error__": -1, "__scheduled__": -2, "__interrupt__": -3, "__resume__": -4}


def test_cp6_writes_may_come_before_their_checkpoint() -> None:
    saver = InMemorySaver()
    made = checkpoint_of({}, {})
    saver.put_writes(at(checkpoint_id=made["id"]), [("x", 1)], "task")
    assert saver.get_tuple(at()) is None
    saver.put(at(), made, {}, {})
    found = saver.get_tuple(at())
    assert found is not None
    assert found.pending_writes == [("task", "x", 1)]


def test_cp7_listing_is_newest_first_and_can_be_narrowed() -> None:
    saver = InMemorySaver()
    configs = [save(saver, at(), {"a": step}, step=step) for step in range(4)]
    save(saver, at(ns="sub"), {"a": 9}, step=9)
    save(saver, at("other"), {"a": 9}, step=1)

    def steps(*args: Any, **kwargs: Any) -> list[Any]:
        return [found.metadata["step"] for found in saver.list(*args, **kwargs)]

    assert steps(at()) == [3, 2, 1, 0]
    assert steps({"configurable": {"thread_id": "t"}}) == [9, 3, 2, 1, 0]  # newest first, whatever the namespace
    assert steps(at(), filter={"step": 2}) == [2]
    assert steps(at(), before=configs[2]) == [1, 0]
    assert steps(at(), limit=2) == [3, 2]
    assert steps(at(), filter={"source": "loop"}, limit=1, before=configs[3]) == [2]
    assert steps(configs[1]) == [1]
    assert sorted(steps(None)) == [0, 1, 1, 2, 3, 9]


@pytest.mark.parametrize("method", ["get_delta_channel_history", "aget_delta_channel_history"])
def test_st12_the_history_of_a_channel_is_what_its_nearest_ancestor_holds_and_the_writes_since(method: str) -> None:
    saver = InMemorySaver()
    first = save(saver, at(), {"old": 1, "new": 1}, 1)
    saver.put_writes(first, [("new", 2), ("old", 2), ("new", 3)], "task")
    second = saver.put(first, checkpoint_of({"new": "002"}, {"new": 5}), {"source": "loop", "step": 2}, {"new": "002"})
    saver.put_writes(second, [("old", 4)], "later")
    third = save(saver, second, {"other": 1}, 3)
    saver.put_writes(third, [("old", 9)], "waiting")
    asked = getattr(saver, method)(config=third, channels=["old", "new", "nobody"])
    assert (asyncio.run(asked) if method.startswith("a") else asked) == {
        "old": {"seed": 1, "writes": [("task", "old", 2), ("later", "old", 4)]},
        "new": {"seed": 5, "writes": []},
        "nobody": {"writes": []},
    }


def test_cp7_threads_are_deleted_copied_and_pruned() -> None:
    saver = InMemorySaver()
    for step in range(3):
        save(saver, at(), {"a": step}, step=step)
    saver.copy_thread("t", "twin")
    saver.delete_thread("t")
    assert (saver.get_tuple(at()), len(list(saver.list(at("twin"))))) == (None, 3)
    saver.prune(["twin"])
    assert [found.metadata["step"] for found in saver.list(at("twin"))] == [2]
    assert values_at(saver, at("twin")) == {"a": 2}
    saver.prune(["twin"], strategy="delete")
    assert list(saver.list(None)) == []
    with pytest.raises(ValueError, match="keep_latest"):
        saver.prune([], strategy="oldest")


def test_cp7_what_a_run_saved_can_be_deleted() -> None:
    saver = InMemorySaver()
    for step, run_id in enumerate(("r1", "r2")):
        save(saver, {**at(), "metadata": {"run_id": run_id}}, {"a": run_id}, step=step)
    saver.delete_for_runs(["r2"])
    assert values_at(saver, at()) == {"a": "r1"}


def test_cp10_the_async_twins_do_the_same() -> None:
    async def use(saver: InMemorySaver) -> list[Any]:
        async with saver:
            where = await saver.aput(at(), checkpoint_of({"a": "1"}, {"a": 1}), {"step": 0}, {"a": "1"})
            await saver.aput_writes(where, [("x", 1)], "task")
            found = [one async for one in saver.alist(at())]
            assert await saver.aget_tuple(at()) == found[0]
            assert await saver.aget(at()) == found[0].checkpoint
            await saver.acopy_thread("t", "twin")
            await saver.aprune(["twin"], strategy="delete")
            await saver.adelete_thread("t")
            return [found[0].pending_writes, await saver.aget_tuple(at())]

    assert asyncio.run(use(MemorySaver())) == [[("task", "x", 1)], None]


def test_d9_a_saver_of_one_colour_serves_both() -> None:
    class Custom(BaseCheckpointSaver[int]):
        def get_tuple(self, config: RunnableConfig) -> Any:
            return None

        def list(self, config: Any, **kwargs: Any) -> Any:
            return iter([1, 2])

    async def use() -> list[Any]:
        saver = Custom()
        return [await saver.aget(at()), [found async for found in saver.alist(None)]]

    assert asyncio.run(use()) == [None, [1, 2]]
    with pytest.raises(NotImplementedError, match=r"Custom does not implement put_writes\(\)"):
        Custom().put_writes(at(), [], "t")


@dataclass
class Point:
    x: int


def test_d9_a_saver_that_needs_bytes_has_a_serializer_that_knows_the_graphs_classes(tmp_path: Any) -> None:
    """Such a saver as people write: one file for each checkpoint, whole."""
    from mpflow.graph import START, StateGraph

    class Folder(BaseCheckpointSaver[int]):
        def get_tuple(self, config: RunnableConfig) -> Any:
            found = sorted(tmp_path.iterdir())
            if not found:
                return None
            kind, data = found[-1].read_bytes().split(b" ", 1)
            checkpoint, metadata = self.serde.loads_typed((kind.decode(), data))
            return CheckpointTuple(at(checkpoint_id=checkpoint["id"]), checkpoint, metadata, None, [])

        def list(self, config: Any, **narrowing: Any) -> Any:
            return iter(())

        def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
            kind, data = self.serde.dumps_typed([checkpoint, metadata])
            (tmp_path / checkpoint["id"]).write_bytes(kind.encode() + b" " + data)
            return at(checkpoint_id=checkpoint["id"])

        def put_writes(self, config: Any, writes: Any, task_id: str) -> None:
            return None

    class State(TypedDict):
        point: Point

    builder = (
        StateGraph(State).add_node("move", lambda state: {"point": Point(state["point"].x + 1)}).add_edge(START, "move")
    )
    builder.compile(checkpointer=Folder()).invoke({"point": Point(1)}, at())
    assert builder.compile(checkpointer=Folder()).get_state(at()).values == {"point": Point(2)}


def test_a_serializer_without_formats_is_given_them() -> None:
    class Text:
        def dumps(self, value: Any) -> bytes:
            return repr(value).encode()

        def loads(self, data: bytes) -> Any:
            return data

    assert BaseCheckpointSaver[int](serde=Text()).serde.dumps_typed(1) == ("int", b"1")
