"""Checks of whole threads: deleting, copying and pruning them, ids of any shape, and many hands at once."""

from __future__ import annotations

from typing import Any

from mpflow.testing.probe import Probe, Thread, address, holds, same
from mpflow.testing.suite import Suite

ODD_IDS = (
    "it's", 'say "so"', "a;b--", "%", "_", "*", "../../etc/passwd", "trailing newline\n", "nul\0byte", " ", "\\", "é\U0001f680",
    "a|b:c", "x" * 4096, "' OR '1'='1", "$(id)", "\ud800",
)  # fmt: skip
"""Ids that a careless query, path or pattern would take for something else."""

ODD_KEYS = ("it's", 'say "so"', "a.b", "$.step", "step') OR 1=1 --", "a]", "nul\0", "é", "", "%s", "x" * 4096)


class Threads(Suite):
    """The methods that work on whole threads."""

    def test_cp7_deleting_a_thread_deletes_all_of_it_and_nothing_else(self, colour: str) -> None:
        self.needs("delete_thread")
        with self.opened(colour) as saver:
            for thread_id, ns in (("t", ""), ("t", "sub"), ("t2", ""), ("T", "")):
                thread = Thread(saver, thread_id, ns)
                thread.step({"a": thread_id})
                saver.put_writes(thread.step({"a": thread_id}), [("a", 1)], "task")
            saver.forget("delete_thread", "t")
            saver.forget("delete_thread", "unknown")
            same([saver.get_tuple(address("t", ns)) for ns in ("", "sub")], [None, None], "what is left of it")
            same(len(saver.list(None)), 4, "how many checkpoints the others have")
            same(saver.found(address("t2")).pending_writes, [("task", "a", 1)], "another's writes")

    def test_cp7_a_deleted_thread_may_begin_anew(self, colour: str) -> None:
        self.needs("delete_thread")
        with self.opened(colour) as saver:
            thread = Thread(saver)
            saver.put_writes(thread.step({"a": 1, "b": 1}), [("a", 1)], "task")
            saver.forget("delete_thread", "thread")
            again = Thread(saver)
            again.step({"a": 2})
            same(again.saved(), {"a": 2}, "the values")
            same(len(saver.list(address("thread"))), 1, "how many checkpoints there are")

    def test_cp7_copying_a_thread(self, colour: str) -> None:
        self.needs("copy_thread")
        with self.opened(colour) as saver:
            root, sub = Thread(saver, "from"), Thread(saver, "from", "sub")
            root.step({"a": 1, "still": 0})
            saver.put_writes(root.step({"a": 2}), [("a", 9)], "task")
            sub.step({"b": 3})
            saver.forget("copy_thread", "from", "to")
            for ns, steps in (("", [1, 0]), ("sub", [0])):
                same(saver.steps(address("to", ns)), steps, f"the steps in {ns!r}")
            copy = saver.found(address("to"))
            same(copy.checkpoint["channel_values"], {"a": 2, "still": 0}, "the values")
            same(copy.pending_writes, [("task", "a", 9)], "the pending writes")
            same((copy.parent_config or {}).get("configurable", {}).get("thread_id"), "to", "its parent's thread")
            root.step({"a": 3})
            same(saver.steps(address("to")), [1, 0], "the copy, after its source went on")
            saver.forget("copy_thread", "to", "to")
            same(saver.steps(address("to")), [1, 0], "the copy, after it was copied onto itself")
            if "delete_thread" not in self.lacks:
                saver.forget("delete_thread", "from")
            same(saver.found(address("to")).checkpoint["channel_values"], {"a": 2, "still": 0}, "the copy by itself")

    def test_cp7_pruning_keeps_the_latest_of_each_namespace(self, colour: str) -> None:
        self.needs("prune")
        with self.opened(colour) as saver:
            for thread_id, ns in (("t", ""), ("t", "sub"), ("u", "")):
                thread = Thread(saver, thread_id, ns)
                for number in range(4):
                    where = thread.step({"still": "here", "a": number} if not number else {"a": number})
                    saver.put_writes(where, [("a", number)], "task")
            saver.forget("prune", ["t"], strategy="keep_latest")
            for ns in ("", "sub"):
                same(saver.steps(address("t", ns)), [3], f"what is left in {ns!r}")
                found = saver.found(address("t", ns))
                same(found.checkpoint["channel_values"], {"still": "here", "a": 3}, "its values")
                same(found.pending_writes, [("task", "a", 3)], "its pending writes")
            same(saver.steps(address("u")), [3, 2, 1, 0], "another thread")

    def test_cp7_pruning_by_deletion(self, colour: str) -> None:
        self.needs("prune")
        with self.opened(colour) as saver:
            for thread_id in ("t", "u"):
                Thread(saver, thread_id).step({"a": 1})
            saver.forget("prune", ["t"], strategy="delete")
            same(len(saver.list(None)), 1, "how many checkpoints are left")

    def test_cp7_a_pruned_thread_goes_on(self, colour: str) -> None:
        self.needs("prune")
        with self.opened(colour) as saver:
            thread = Thread(saver)
            for number in range(4):
                thread.step({"a": number, "still": 1} if not number else {"a": number})
            saver.forget("prune", ["thread"])
            thread.step({"a": 4})
            same(saver.steps(address("thread")), [4, 3], "the steps")
            same(thread.saved(), {"a": 4, "still": 1}, "the values")

    def test_cp7_deleting_what_runs_made(self, colour: str) -> None:
        self.needs("delete_for_runs")
        with self.opened(colour) as saver:
            for thread_id in ("t", "u"):
                thread = Thread(saver, thread_id)
                for number, run_id in enumerate(("r1", "r2", "r2", "r3")):
                    thread.step({"a": number}, run_id=run_id)
            saver.forget("delete_for_runs", ["r2", "unknown"])
            for thread_id in ("t", "u"):
                same(saver.steps(address(thread_id)), [3, 0], f"what is left of {thread_id}")
            same(saver.found(address("t")).checkpoint["channel_values"], {"a": 3}, "the values")


class OddIds(Suite):
    """An id is kept exactly as it is, or refused."""

    def _is_kept(self, saver: Probe, thread_id: str, ns: str) -> bool:
        thread = Thread(saver, thread_id, ns)
        try:
            where = thread.step({"whose": repr((thread_id, ns))})
        except self.refusals:
            return False
        same(where["configurable"].get("thread_id"), thread_id, "the thread of put's config")
        same(where["configurable"].get("checkpoint_ns"), ns, "the namespace of put's config")
        return True

    def test_cp7_odd_thread_ids(self, colour: str) -> None:
        with self.opened(colour) as saver:
            kept = [odd for odd in ODD_IDS if self._is_kept(saver, odd, "")]
            for odd in kept:
                found = saver.list(address(odd))
                same([one.checkpoint["channel_values"] for one in found], [{"whose": repr((odd, ""))}], f"on {odd!r}")
            same(len(saver.list(None)), len(kept), "how many checkpoints there are")
            holds("it's" in kept, "a quote is no reason to refuse an id")
            if "delete_thread" not in self.lacks:
                for count, odd in enumerate(kept, 1):
                    saver.forget("delete_thread", odd)
                    same(len(saver.list(None)), len(kept) - count, f"what is left after deleting {odd!r}")

    def test_cp7_odd_namespaces(self, colour: str) -> None:
        with self.opened(colour) as saver:
            kept = [odd for odd in ODD_IDS if self._is_kept(saver, "t", odd)]
            for odd in kept:
                found = saver.list(address("t", odd))
                same([one.checkpoint["channel_values"] for one in found], [{"whose": repr(("t", odd))}], f"in {odd!r}")

    def test_cp7_odd_channels_and_tasks(self, colour: str) -> None:
        with self.opened(colour) as saver:
            for odd in ODD_IDS:
                thread = Thread(saver, "t")
                try:
                    where = thread.step({odd: odd})
                    saver.put_writes(where, [(odd, odd)], odd)
                except self.refusals:
                    continue
                found = saver.found(where)
                same(found.checkpoint["channel_values"], {odd: odd}, "the values")
                same(found.pending_writes, [(odd, odd, odd)], "the writes")

    def test_cp7_odd_filters(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            kept = []
            for key in ODD_KEYS:
                try:
                    thread.step({}, **{key: key})
                    kept.append((thread.count - 1, key))
                except self.refusals:
                    continue
            for number, key in kept:
                try:
                    found = saver.steps(address("thread"), filter={key: key})
                except self.refusals:
                    continue
                # A dot may lead into what lies below, and no string with NUL is kept in metadata.
                may_be_none = "." in key or "\0" in key
                holds(found == [number] or (may_be_none and not found), f"a filter by {key!r} found {found}")

    def test_cp7_an_odd_filter_value_is_a_literal(self, colour: str) -> None:
        with self.opened(colour) as saver:
            thread = Thread(saver)
            thread.step({}, who="anybody")
            odds: tuple[Any, ...] = (*ODD_IDS, None, 0, 1.5, True, [], {})
            for odd in odds:
                try:
                    found: Any = saver.steps(address("thread"), filter={"who": odd})
                except self.refusals:
                    continue
                same(found, [], f"what a filter for {odd!r} finds")


class ManyHands(Suite):
    """Calls that run at the same time."""

    def test_cp7_threads_that_are_saved_at_once_do_not_mix(self, colour: str) -> None:
        with self.opened(colour) as saver:
            threads = [Thread(saver, f"t{number}") for number in range(8)]
            for number in range(5):
                calls = []
                for thread in threads:
                    thread.values, thread.versions = (
                        {"a": [thread.where["configurable"]["thread_id"], number]},
                        {"a": _version(saver, thread)},
                    )
                    about = {"source": "loop", "step": number, "parents": {}}
                    calls.append(
                        (saver.saver, "put", (thread.where, thread.checkpoint(), about, dict(thread.versions)))
                    )
                for thread, where in zip(threads, saver.colour.together(calls), strict=True):
                    thread.where = where
            for number, thread in enumerate(threads):
                same(thread.saved(), {"a": [f"t{number}", 4]}, "the values")
                same(saver.steps(address(f"t{number}")), [4, 3, 2, 1, 0], "the steps")

    def test_cp6_tasks_that_finish_at_once_lose_no_write(self, colour: str) -> None:
        with self.opened(colour) as saver:
            where = Thread(saver).step({})
            writes = [
                (saver.saver, "put_writes", (where, [("a", n), ("b", n)], f"task{n:02}", f"~{n:02}")) for n in range(24)
            ]
            readers = [(saver.saver, "get_tuple", (where,))] * 4
            *_, seen = saver.colour.together([*writes, *readers])
            holds(len(seen.pending_writes or []) % 2 == 0, "a task's writes are seen all or not at all")
            expected = [(f"task{n:02}", channel, n) for n in range(24) for channel in "ab"]
            same(sorted(saver.found(where).pending_writes or []), expected, "the writes")


def _version(saver: Probe, thread: Thread) -> Any:
    return saver.saver.get_next_version(thread.versions.get("a"), None)
