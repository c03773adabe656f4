"""Conditional edges that answer with sends which can be made again: see `mpflow.types.ReplayableSends`."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from mpflow._wire.errors import EncodeError
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.checkpoint.sqlite import SqliteSaver
from mpflow.errors import InvalidUpdateError
from mpflow.graph import END, START, StateGraph
from mpflow.types import Command, ReplayableSends, Send, interrupt
from tests.colours import Run

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    count: int
    total: Annotated[int, operator.add]
    seen: int


@dataclass(frozen=True)
class Numbers(ReplayableSends):
    count: int

    def __iter__(self) -> Iterator[Send]:
        for number in range(self.count):
            yield Send("work", number)


def fan_out(state: State) -> Numbers:
    return Numbers(state["count"])


def add(number: int) -> State:
    return {"total": number}


def graph_of(work: Any = add, path: Any = fan_out, executor: Any = "inline", **options: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("work", work, executor=executor)
    builder.add_node("after", lambda state: {"seen": state["total"]})
    builder.add_conditional_edges(START, path)
    builder.add_edge("work", "after")
    builder.add_edge("after", END)
    return builder.compile(**options)


@pytest.mark.warm_pool
@pytest.mark.parametrize("executor", ["inline", "thread", "process"])
@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["unsaved", "saved"])
def test_every_send_is_run_once_and_the_next_step_sees_them_all(run: Run, saver: Any, executor: str) -> None:
    graph = graph_of(executor=executor, checkpointer=saver and saver())
    output = run.invoke(graph, {"count": 3_000, "total": 1}, THREAD)
    assert output == {"count": 3_000, "total": 1 + sum(range(3_000)), "seen": 1 + sum(range(3_000))}


def test_with_a_saver_too_they_are_made_while_they_run(run: Run) -> None:
    done = 0
    ahead = []

    class Watched(ReplayableSends):
        def __iter__(self) -> Iterator[Send]:
            for number in range(9_000):
                ahead.append(number - done)
                yield Send("work", number)

    def count(number: int) -> State:
        nonlocal done
        done += 1
        return {"total": 1}

    graph = graph_of(count, lambda state: Watched(), checkpointer=InMemorySaver())
    assert run.invoke(graph, {}, THREAD)["total"] == 9_000
    assert max(ahead) <= 8192


class Failing:
    """A node that fails once at a number."""

    def __init__(self, at: int) -> None:
        self.at: int | None = at
        self.started: Counter[int] = Counter()

    def __call__(self, number: int) -> State:
        self.started[number] += 1
        if number == self.at:
            self.at = None
            raise LookupError(number)
        return {"total": number}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_another_process_goes_on_with_the_rest(run: Run, tmp_path: Path, durability: str) -> None:
    """Of it there is only the file: what makes the sends is read back, and those that had finished are passed."""
    path, node = str(tmp_path / "saved.db"), Failing(at=1_000)
    with SqliteSaver.from_conn_string(path) as saver, pytest.raises(LookupError):
        run.invoke(graph_of(node, checkpointer=saver), {"count": 6_000, "total": 0}, THREAD, durability=durability)
    begun = set(node.started)
    assert max(begun) < 5_999
    with SqliteSaver.from_conn_string(path) as saver:
        output = run.invoke(graph_of(node, checkpointer=saver), None, THREAD, durability=durability)
    assert output == {"count": 6_000, "total": sum(range(6_000)), "seen": sum(range(6_000))}
    assert [number for number, starts in node.started.items() if starts > 1] == [1_000]


def test_what_is_kept_is_what_makes_them(tmp_path: Path) -> None:
    with SqliteSaver.from_conn_string(str(tmp_path / "saved.db"), types=[Numbers]) as saver:
        graph = graph_of(checkpointer=saver)
        graph.invoke({"count": 1_000, "total": 0}, THREAD)
        kept = [found.checkpoint["channel_values"].get("__pregel_tasks") for found in saver.list(THREAD)]
    assert [Numbers(1_000)] in kept and all(len(packets or ()) <= 1 for packets in kept)


def test_who_looks_at_the_state_sees_each(run: Run) -> None:
    graph = graph_of(Failing(at=2), checkpointer=InMemorySaver())
    with pytest.raises(LookupError):
        run.invoke(graph, {"count": 5, "total": 0}, THREAD)
    snapshot = run.get_state(graph, THREAD)
    assert snapshot.next == ("work",)
    assert [task.result for task in snapshot.tasks] == [{"total": 0}, {"total": 1}, None, {"total": 3}, {"total": 4}]


@pytest.mark.parametrize("mode", ["values", "updates", "tasks", "checkpoints", "debug"])
def test_streams_show_what_they_show_of_a_list(run: Run, mode: str) -> None:
    def as_list(state: State) -> list[Send]:
        return list(fan_out(state))

    def shown(path: Any) -> list[Any]:
        graph = graph_of(path=path, checkpointer=InMemorySaver())
        return [_without_ids(chunk) for chunk in run.stream(graph, {"count": 5, "total": 0}, THREAD, stream_mode=mode)]

    assert shown(fan_out) == shown(as_list)


def _without_ids(shown: Any) -> Any:
    if isinstance(shown, dict):
        ids = ("id", "checkpoint_id", "timestamp", "checkpoint_ns")
        return {key: _without_ids(value) for key, value in shown.items() if key not in ids}
    return [_without_ids(value) for value in shown] if isinstance(shown, (list, tuple)) else shown


def test_each_may_be_a_breakpoint(run: Run) -> None:
    graph = graph_of(checkpointer=InMemorySaver(), interrupt_before=["work"])
    assert "seen" not in run.invoke(graph, {"count": 3, "total": 0}, THREAD)
    assert run.get_state(graph, THREAD).next == ("work",) * 3
    assert run.invoke(graph, None, THREAD)["seen"] == 3


def test_after_a_question_no_more_are_begun_until_it_is_answered(run: Run) -> None:
    started: Counter[int] = Counter()

    def work(number: int) -> State:
        started[number] += 1
        return {"total": interrupt("what?") if number == 700 else number}

    graph = graph_of(work, checkpointer=InMemorySaver())
    paused = run.invoke(graph, {"count": 12_000, "total": 0}, THREAD)
    assert [question.value for question in paused["__interrupt__"]] == ["what?"]
    assert len(started) < 12_000
    output = run.invoke(graph, Command(resume=700), THREAD)
    assert output["seen"] == sum(range(12_000))
    assert {number: starts for number, starts in started.items() if starts > 1} == {700: 2}


def test_beside_other_destinations(run: Run) -> None:
    def path(state: State) -> list[Any]:
        return [Numbers(3), "after", Send("work", 10), Numbers(2)]

    assert run.invoke(graph_of(path=path), {"total": 0})["total"] == 0 + 1 + 2 + 10 + 0 + 1


def test_what_could_not_be_read_back_is_refused(run: Run, tmp_path: Path) -> None:
    @dataclass
    class Stuck(ReplayableSends):
        count: int

        def __iter__(self) -> Iterator[Send]:
            yield Send("work", 1)

    def path(state: State) -> Stuck:
        return Stuck(1)

    with SqliteSaver.from_conn_string(str(tmp_path / "saved.db")) as saver:
        with pytest.raises(EncodeError, match=r"compile\(types=\[Stuck\]\)"):
            run.invoke(graph_of(path=path, checkpointer=saver), {"total": 0}, THREAD)


def test_what_they_give_is_checked(run: Run) -> None:
    class Strange(ReplayableSends):
        def __iter__(self) -> Iterator[Any]:
            yield "work"

    class Lost(ReplayableSends):
        def __iter__(self) -> Iterator[Send]:
            yield Send("nowhere", 1)

    with pytest.raises(InvalidUpdateError, match="gave str 'work'"):
        run.invoke(graph_of(path=lambda state: Strange()), {"total": 0})
    with pytest.raises(InvalidUpdateError, match="'nowhere', which is no node"):
        run.invoke(graph_of(path=lambda state: Lost()), {"total": 0})


@pytest.mark.slow
def test_memory_stays_level_with_a_saver_too(tmp_path: Path) -> None:
    import os

    def rss_bytes() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with SqliteSaver.from_conn_string(str(tmp_path / "saved.db")) as saver:
        graph = graph_of(checkpointer=saver)
        graph.invoke({"count": 20_000, "total": 0}, {"configurable": {"thread_id": "1"}})
        before = rss_bytes()
        graph.invoke({"count": 200_000, "total": 0}, {"configurable": {"thread_id": "2"}})
        assert rss_bytes() - before <= 2 * 2**20
