"""The conformance suite on savers that are known to be right, and on broken ones that it must find out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from mpflow.checkpoint.base import CheckpointTuple
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.testing import PlainSaver, SaverConformance, check_saver


class TestInMemorySaver(SaverConformance):
    def open(self, place: Path) -> AbstractContextManager[Any]:
        return nullcontext(InMemorySaver())


class TestLangGraphsInMemorySaver(SaverConformance):
    lacks = frozenset({"prune", "copy_thread", "delete_for_runs"})
    refusals = (ValueError, TypeError)

    def open(self, place: Path) -> AbstractContextManager[Any]:
        memory = pytest.importorskip("langgraph.checkpoint.memory")
        return nullcontext(memory.InMemorySaver())


@pytest.mark.slow
class TestLangGraphsSqliteSaver(SaverConformance):
    persistent = True
    colours = ("sync",)
    lacks = frozenset({"prune", "copy_thread", "delete_for_runs"})
    refusals = (ValueError, TypeError)

    def open(self, place: Path) -> AbstractContextManager[Any]:
        sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
        return sqlite.SqliteSaver.from_conn_string(str(place / "saver.db"))


class _Wrong(PlainSaver):
    """A saver with one fault, which `broken` names."""

    broken = ""

    def __init__(self) -> None:
        super().__init__(InMemorySaver())
        self._handed_out: dict[str, Any] = {}
        self._changed: dict[str, set[str]] = {}

    def get_tuple(self, config: Any) -> CheckpointTuple | None:
        found = super().get_tuple(config)
        if found is None:
            return None
        if self.broken == "forgets parents":
            return found._replace(parent_config=None)
        if self.broken == "hands out what it keeps":
            return self._handed_out.setdefault(found.checkpoint["id"], found)
        if self.broken == "turns writes around":
            return found._replace(pending_writes=(found.pending_writes or [])[::-1])
        if self.broken == "keeps what changed alone":
            for name in found.checkpoint["channel_values"].keys() - self._changed[found.checkpoint["id"]]:
                del found.checkpoint["channel_values"][name]
        if self.broken == "keeps what is gone":
            found.checkpoint["channel_values"] = {"a": 1, **found.checkpoint["channel_values"]}
        return found

    def list(
        self, config: Any, *, filter: Any = None, before: Any = None, limit: Any = None
    ) -> Iterator[CheckpointTuple]:
        if self.broken == "ignores filters":
            return super().list(config, before=before, limit=limit)
        if self.broken == "counts before it filters":
            kept = list(super().list(config, before=before, limit=limit))
            return iter(
                [one for one in kept if all(one.metadata.get(key) == value for key, value in (filter or {}).items())]
            )
        found = super().list(config, filter=filter, before=before, limit=limit)
        return iter(list(found)[::-1]) if self.broken == "lists oldest first" else found

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if self.broken == "takes the last for the latest":
            self.saver = InMemorySaver()
        self._changed[checkpoint["id"]] = set(new_versions)
        return super().put(config, checkpoint, metadata, new_versions)

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        if self.broken == "keeps a first answer for ever":
            writes = [(channel.replace("__resume__", "__resume__ "), value) for channel, value in writes]
        if self.broken == "loses writes" and len(writes) > 1:
            writes = writes[:1]
        super().put_writes(config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        if self.broken == "deletes by prefix":
            others = {one.config["configurable"]["thread_id"] for one in self.saver.list(None)}
            for other in [other for other in others if other.startswith(thread_id)]:
                super().delete_thread(other)
        super().delete_thread(thread_id)

    def prune(self, thread_ids: Any, *, strategy: str = "keep_latest") -> None:
        super().prune(thread_ids, strategy="delete" if self.broken == "prunes too much" else strategy)

    def get_next_version(self, current: Any, channel: None) -> Any:
        if self.broken == "has versions that do not sort":
            return str(int(current or 0) + 1)
        return super().get_next_version(current, channel)


FOUND_BY = {
    "": "test_cp7_newest_first",
    "forgets parents": "test_cp7_the_latest_checkpoint_or_the_one_named",
    "hands out what it keeps": "test_cp10_what_was_saved_is_nobodys_to_change",
    "turns writes around": "test_cp8_writes_stay_with_their_checkpoint_in_order",
    "keeps what is gone": "test_cp4_a_channel_that_lost_its_value_is_left_out",
    "ignores filters": "test_cp7_filters_by_metadata",
    "counts before it filters": "test_cp7_filters_by_metadata",
    "lists oldest first": "test_cp7_newest_first",
    "takes the last for the latest": "test_cp7_the_latest_is_the_one_with_the_greatest_id",
    "keeps what changed alone": "test_cp7_values_that_did_not_change_are_found_in_later_checkpoints",
    "keeps a first answer for ever": "test_cp6_special_writes_replace_themselves",
    "loses writes": "test_cp6_a_step_that_failed_in_part",
    "deletes by prefix": "test_cp7_deleting_a_thread_deletes_all_of_it_and_nothing_else",
    "prunes too much": "test_cp7_pruning_keeps_the_latest_of_each_namespace",
    "has versions that do not sort": "test_cp4_versions_follow_one_another",
}


@pytest.mark.parametrize("fault", FOUND_BY)
def test_a_broken_saver_is_found_out(fault: str) -> None:
    saver: Callable[[], Any] = type("Saver", (_Wrong,), {"broken": fault})

    class Suite(SaverConformance):
        def open(self, place: Path) -> AbstractContextManager[Any]:
            return nullcontext(saver())

    check = getattr(Suite(), FOUND_BY[fault])
    if not fault:
        check("sync")
        return
    with pytest.raises(AssertionError, match=r"expected|is above|knows its parent"):
        check("sync")


def test_what_is_no_suite_is_not_said_to_pass() -> None:
    with pytest.raises(TypeError, match="subclass of SaverConformance"):
        check_saver(PlainSaver(InMemorySaver()))  # type: ignore[arg-type]


def test_a_method_that_a_saver_lacks_is_told_with_how_to_say_so() -> None:
    class Bare(_Wrong):
        def prune(self, *args: Any, **kw: Any) -> None:
            raise NotImplementedError

    class Suite(SaverConformance):
        def open(self, place: Path) -> AbstractContextManager[Any]:
            return nullcontext(Bare())

    with pytest.raises(AssertionError, match=r'no prune\(\).*lacks = frozenset\({"prune"}\)'):
        Suite().test_cp7_pruning_by_deletion("sync")


def test_without_pytest_a_report_says_what_came_of_the_checks() -> None:
    class Suite(SaverConformance):
        colours = ("sync",)
        lacks = frozenset({"prune"})

        def open(self, place: Path) -> AbstractContextManager[Any]:
            return nullcontext(type("Saver", (_Wrong,), {"broken": "lists oldest first"})())

    report = check_saver(Suite())
    assert "test_cp7_newest_first[sync]" in report.failed
    assert "test_cp7_pruning_by_deletion[sync]" in report.skipped
    assert "test_cp7_odd_thread_ids[sync]" in report.passed
    assert "expected [" in str(report)
    assert str(report).startswith(f"{len(report.passed)} passed, {len(report.failed)} failed")
