"""Checks of LangGraph's saver protocol: checkpoints, listings and the writes of unfinished steps."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

from mpflow.checkpoint.ids import new_checkpoint_id
from mpflow.testing.probe import Thread, address, holds, same
from mpflow.testing.suite import Suite

KINDS: dict[str, Any] = {
    "nothing": None,
    "truth": [True, False],
    "int": [0, -1, 2**63 - 1, -(2**63)],
    "float": [0.1, -0.0, 1e308, math.inf],
    "text": ["", "naïve \U0001f680 \n\t' \" \\ %s"],
    "bytes": b"\x00\xff" * 3,
    "list": [[], [1, [2, [3]]]],
    "dict": {"a": {"b": [{}]}, "": 0},
    "set": {1, 2},
    "when": [datetime(2024, 2, 29, 1, 2, 3, 4, timezone.utc), date(2024, 2, 29), timedelta(days=-1, microseconds=5)],
    "id": UUID("12345678-1234-5678-1234-567812345678"),
    "number": Decimal("1.10"),
}


class Checkpoints(Suite):
    """Putting checkpoints and getting them back."""

    def test_cp7_the_latest_checkpoint_or_the_one_named(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            first = thread.step({"a": 1})
            second = thread.step({"a": 2})
            same(set(first["configurable"]), {"thread_id", "checkpoint_ns", "checkpoint_id"}, "keys of put's config")
            same(thread.saved(address("thread")), {"a": 2}, "the latest")
            same(thread.saved(first), {"a": 1}, "the one named")
            found = saver.found(second)
            same(found.config["configurable"], second["configurable"], "its config")
            holds(found.parent_config, "a checkpoint knows its parent")
            same((found.parent_config or {}).get("configurable"), first["configurable"], "its parent")
            same(saver.found(first).parent_config, None, "the first one's parent")

    def test_cp7_nothing_is_found_where_nothing_was_saved(self, colour: str) -> None:
        with self.opened(colour) as saver:
            where = Thread(saver).step({"a": 1})["configurable"]
            for nowhere in (address("other"), address("thread", "sub"), address("thread", "", new_checkpoint_id())):
                same(saver.get_tuple(nowhere), None, f"what is at {nowhere}")
            wrong = address("other", "", where["checkpoint_id"])
            same(saver.get_tuple(wrong), None, "a checkpoint's id on another thread")

    def test_cp7_a_namespace_may_be_left_out_for_the_root(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            thread.step({"a": 1})
            same(thread.saved({"configurable": {"thread_id": "thread"}}), {"a": 1}, "the root's latest")

    def test_cp7_the_latest_is_the_one_with_the_greatest_id(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            thread.step({"a": "old"})
            early = thread.checkpoint()
            thread.step({"a": "new"})
            saver.put(address("thread"), early, {"source": "loop", "step": 9, "parents": {}}, {})
            same(thread.saved(address("thread")), {"a": "new"}, "the latest after an earlier id came late")

    def test_cp4_all_of_a_checkpoint_comes_back(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            thread.step({"a": 1, "b": [2]})
            made = thread.checkpoint()
            versions = dict(made["channel_versions"])
            made["versions_seen"] = {"node": versions, "__input__": {}}
            made["updated_channels"] = ["a", "b"]
            where = saver.put(thread.where, made, {"source": "loop", "step": 1, "parents": {}}, {})
            found = saver.found(where).checkpoint
            same({key: found.get(key) for key in made}, dict(made), "the checkpoint")

    def test_cp3_metadata_comes_back(self, colour: str) -> None:
        about: dict[str, Any] = {
            "source": "fork",
            "step": -1,
            "parents": {"": "id", "a|b:1": "id2"},
            "note": "é\n'",
            "n": 1.5,
            "no": None,
        }
        with self.opened(colour) as saver:
            thread = Thread(saver)
            where = thread.step({}, **about)
            found: Any = saver.found(where).metadata
            same({key: found.get(key) for key in about}, about, "the metadata")
            same([dict(one.metadata) for one in saver.list(where)], [dict(found)], "the metadata in a list")

    def test_cp11_values_of_all_kinds_come_back(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            thread.step(KINDS)
            saved = thread.saved()
            for kind, value in KINDS.items():
                same((kind, type(saved.get(kind)), saved.get(kind)), (kind, type(value), value), "a value")
            same(list(saved["dict"]), ["a", ""], "the order of a dict's keys")

    def test_cp11_a_large_value_comes_back(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            large = {"bytes": bytes(range(256)) * 12_000, "text": "é" * 1_000_000}
            thread.step({"large": large})
            thread.step({"small": 1})
            holds(thread.saved() == {"large": large, "small": 1}, "three megabytes come back as they were")

    def test_cp7_values_that_did_not_change_are_found_in_later_checkpoints(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            configs = [thread.step({"still": ["here"], "a": 0})]
            configs += [thread.step({"a": number}) for number in range(1, 30)]
            for number, where in enumerate(configs):
                same(thread.saved(where), {"still": ["here"], "a": number}, f"the values of step {number}")

    def test_cp4_a_channel_that_lost_its_value_is_left_out(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            full = thread.step({"a": 1, "b": None})
            empty = thread.step({}, gone=["a"])
            again = thread.step({"a": 3})
            same(thread.saved(full), {"a": 1, "b": None}, "None is a value")
            same(thread.saved(empty), {"b": None}, "a value that is gone")
            same(thread.saved(again), {"a": 3, "b": None}, "a value that came again")

    def test_cp4_a_channel_that_a_checkpoint_does_not_name_is_left_out(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            thread.step({"a": 1, "b": [2]})
            del thread.values["b"], thread.versions["b"]
            thread.step({"a": 3})
            same(thread.saved(), {"a": 3}, "the values")
            thread.step({"b": 4})
            same(thread.saved(), {"a": 3, "b": 4}, "the values once it is named again")

    def test_cp7_branches_of_one_parent_keep_their_own_values(self, colour: str) -> None:
        with self.opened(colour) as saver:
            trunk = Thread(saver)
            parent = trunk.step({"a": [0], "b": 0})
            tips = {}
            for name in ("left", "right"):
                branch = Thread(saver)
                branch.where, branch.count = parent, 1
                branch.values, branch.versions = dict(trunk.values), dict(trunk.versions)
                branch.step({"a": [0, name]})
                tips[name] = branch.step({"b": name})
            for name, tip in tips.items():
                same(trunk.saved(tip), {"a": [0, name], "b": name}, f"the branch {name}")
            same(trunk.saved(parent), {"a": [0], "b": 0}, "their parent")

    def test_cp7_putting_a_checkpoint_again_replaces_it(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            parent = thread.step({"a": 1})
            made = thread.checkpoint()
            for note in ("first", "second"):
                saver.put(parent, made, {"source": "loop", "step": 1, "parents": {}, "note": note}, {})
            found = saver.list(address("thread"))
            same(len(found), 2, "how many there are")
            same(found[0].metadata.get("note"), "second", "its metadata")
            same(found[0].checkpoint["channel_values"], {"a": 1}, "its values")

    def test_cp7_namespaces_and_threads_lie_apart(self, colour: str) -> None:
        names = [("thread", ""), ("thread", "sub"), ("thread", "sub|inner:1"), ("other", "")]
        with self.opened(colour) as saver:
            for thread_id, ns in names:
                Thread(saver, thread_id, ns).step({"whose": [thread_id, ns]})
            for thread_id, ns in names:
                found = saver.found(address(thread_id, ns))
                same(found.checkpoint["channel_values"], {"whose": [thread_id, ns]}, "the values")
                same(found.config["configurable"].get("checkpoint_ns"), ns, "the namespace")

    def test_cp10_what_was_saved_is_nobodys_to_change(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            value = {"xs": [1]}
            where = thread.step({"a": value})
            saver.put_writes(where, [("a", value)], "task")
            value["xs"].append(2)
            found = saver.found(where)
            found.checkpoint["channel_values"]["a"]["xs"].append(3)
            found.checkpoint["channel_versions"]["more"] = "1"
            found.metadata["step"] = 99
            (found.pending_writes or [])[0][2]["xs"].append(4)
            again = saver.found(where)
            same(again.checkpoint["channel_values"], {"a": {"xs": [1]}}, "the values")
            same(list(again.checkpoint["channel_versions"]), ["a"], "the channels with a version")
            same((again.metadata.get("step"), again.pending_writes), (0, [("task", "a", {"xs": [1]})]), "the rest")

    def test_cp4_versions_follow_one_another(self, colour: str) -> None:
        with self.opened(colour) as saver:
            versions: list[Any] = [saver.saver.get_next_version(None, None)]
            for _ in range(300):
                versions.append(saver.saver.get_next_version(versions[-1], None))
            holds(all(a < b for a, b in pairwise(versions)), "each version is above the last")
            same(len({type(version) for version in versions}), 1, "how many types versions have")


class Listings(Suite):
    """Listing checkpoints, newest first, and narrowing what is listed."""

    def test_cp7_newest_first(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            configs = [thread.step({"a": number}) for number in range(5)]
            found = saver.list(address("thread"))
            same([one.config["configurable"] for one in found], [c["configurable"] for c in configs[::-1]], "the order")
            same([one.checkpoint["channel_values"]["a"] for one in found], [4, 3, 2, 1, 0], "the values")
            parents = [one.parent_config["configurable"] if one.parent_config else None for one in found]
            same(parents, [c["configurable"] for c in configs[-2::-1]] + [None], "the parents")
            same(saver.list(address("nowhere")), [], "what is on an unknown thread")

    def test_cp7_limits_and_the_checkpoint_to_be_before(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            configs = [thread.step({"a": number}) for number in range(6)]
            where = address("thread")
            same(saver.steps(where, limit=2), [5, 4], "with a limit")
            same(saver.steps(where, limit=99), [5, 4, 3, 2, 1, 0], "with a limit above what there is")
            same(saver.steps(where, before=configs[3]), [2, 1, 0], "before one")
            same(saver.steps(where, before=configs[0]), [], "before the first")
            same(saver.steps(where, before=configs[5], limit=2), [4, 3], "both")
            same(saver.steps(configs[2]), [2], "one that is named")

    def test_cp7_filters_by_metadata(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            for number in range(6):
                thread.step({}, who="even" if number % 2 == 0 else "odd", flag=number > 3, deep={"a": number})
            where = address("thread")
            same(saver.steps(where, filter={"who": "odd"}), [5, 3, 1], "by text")
            same(saver.steps(where, filter={"step": 2}), [2], "by number")
            same(saver.steps(where, filter={"who": "even", "step": 4}), [4], "by two keys")
            same(saver.steps(where, filter={"who": "even", "step": 5}), [], "by two keys that no checkpoint has")
            same(saver.steps(where, filter={"missing": 1}), [], "by a key that none has")
            same(saver.steps(where, filter={}), [5, 4, 3, 2, 1, 0], "by nothing")
            same(saver.steps(where, filter={"who": "even"}, limit=2), [4, 2], "the limit counts what passes the filter")

    def test_cp7_namespaces_and_threads(self, colour: str) -> None:
        with self.opened(colour) as saver:
            for number, (thread_id, ns) in enumerate([("t", ""), ("t", "sub"), ("u", "")]):
                thread = Thread(saver, thread_id, ns)
                thread.count = number
                thread.step({})
            same(saver.steps(address("t")), [0], "the root")
            same(saver.steps(address("t", "sub")), [1], "a namespace")
            same(sorted(saver.steps({"configurable": {"thread_id": "t"}})), [0, 1], "all of a thread's namespaces")
            same(sorted(saver.steps(None)), [0, 1, 2], "all threads")
            same(sorted(saver.steps(None, filter={"step": 2})), [2], "all threads, filtered")

    def test_cp8_listed_checkpoints_have_their_pending_writes(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            for number in range(3):
                saver.put_writes(thread.step({"a": number}), [("a", number)], f"task{number}")
            pending = [one.pending_writes for one in saver.list(address("thread"))]
            same(pending, [[(f"task{number}", "a", number)] for number in (2, 1, 0)], "the pending writes")


class PendingWrites(Suite):
    """The writes of tasks that finished before their step did."""

    def test_cp8_writes_stay_with_their_checkpoint_in_order(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            first = thread.step({"a": 1})
            saver.put_writes(first, [("a", 1), ("b", [2]), ("a", 3), ("__no_writes__", None)], "task1")
            second = thread.step({"a": 2})
            expected = [("task1", "a", 1), ("task1", "b", [2]), ("task1", "a", 3), ("task1", "__no_writes__", None)]
            same(saver.found(first).pending_writes, expected, "the writes")
            same(saver.found(second).pending_writes or [], [], "the writes of the next checkpoint")

    def test_cp6_a_tasks_writes_count_once(self, colour: str) -> None:
        with self.opened(colour) as saver:
            where = Thread(saver).step({})
            for _ in range(2):
                saver.put_writes(where, [("a", 1), ("a", 2)], "task1")
                saver.put_writes(where, [("a", 3)], "task2")
            pending = saver.found(where).pending_writes or []
            same(sorted(pending), [("task1", "a", 1), ("task1", "a", 2), ("task2", "a", 3)], "the writes")

    def test_cp6_special_writes_replace_themselves(self, colour: str) -> None:
        with self.opened(colour) as saver:
            where = Thread(saver).step({})
            saver.put_writes(where, [("__resume__", ["one"])], "task")
            saver.put_writes(where, [("__interrupt__", "question")], "task")
            saver.put_writes(where, [("__resume__", ["one", "two"])], "task")
            saver.put_writes(where, [("__error__", "first")], "task")
            saver.put_writes(where, [("__error__", "second")], "task")
            pending = {channel: value for _, channel, value in saver.found(where).pending_writes or []}
            expected = {"__resume__": ["one", "two"], "__interrupt__": "question", "__error__": "second"}
            same(pending, expected, "the special writes")
            same(len(saver.found(where).pending_writes or []), 3, "how many writes there are")

    def test_cp6_writes_may_come_before_their_checkpoint(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            thread.step({"a": 1})
            made = thread.checkpoint()
            saver.put_writes(address("thread", "", made["id"]), [("a", 2)], "task")
            same(len(saver.list(address("thread"))), 1, "how many checkpoints there are before it came")
            where = saver.put(thread.where, made, {"source": "loop", "step": 1, "parents": {}}, {})
            same(saver.found(where).pending_writes, [("task", "a", 2)], "the writes")

    def test_cp6_namespaces_have_their_own_writes(self, colour: str) -> None:
        with self.opened(colour) as saver:
            outer, inner = Thread(saver), Thread(saver, ns="sub:1")
            saver.put_writes(outer.step({}), [("a", "outer")], "task")
            saver.put_writes(inner.step({}), [("a", "inner")], "task")
            same(saver.found(outer.where).pending_writes, [("task", "a", "outer")], "the root's")
            same(saver.found(inner.where).pending_writes, [("task", "a", "inner")], "the namespace's")

    def test_cp11_writes_of_all_kinds_come_back(self, colour: str) -> None:
        with self.opened(colour) as saver:
            where = Thread(saver).step({})
            saver.put_writes(where, list(KINDS.items()), "task")
            same(
                saver.found(where).pending_writes,
                [("task", kind, value) for kind, value in KINDS.items()],
                "the writes",
            )
