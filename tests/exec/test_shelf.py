from __future__ import annotations

import gc
import operator
from collections.abc import Iterator
from time import process_time
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict

import pytest

from mpflow._exec.process import WorkerPool
from mpflow._exec.shelf import Sheet, Shelf
from mpflow._messages import Attempt, StepFacts
from mpflow._wire.codec import REFERS, Codec
from mpflow._wire.shm import Arena
from mpflow.graph import END, START, StateGraph
from mpflow.types import Send
from tests.colours import Run

LONG = ["a long list of words"] * 1000
LONG_BYTES = len(Codec(trust=True).encode(LONG))


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool


pytestmark = pytest.mark.warm_pool


class State(TypedDict, total=False):
    words: Any
    n: int
    log: Annotated[list[Any], operator.add]


def sent_bytes(pool: WorkerPool, run: Any) -> int:
    before = pool.stats()["bytes_out"]
    run()
    return int(pool.stats()["bytes_out"] - before)


# -- runs --------------------------------------------------------------------------------------------------------------


def test_sends_with_a_value_in_common_take_it_along_once_a_worker(run: Run, pool: WorkerPool) -> None:
    graph = StateGraph(State)
    graph.add_node("work", lambda given: {"log": [len(given["words"]) + given["n"]]}, executor="process")
    graph.add_conditional_edges(START, lambda state: [Send("work", {**state, "n": n}) for n in range(300)], ["work"])
    app = graph.compile(pool=pool)
    sent = sent_bytes(pool, lambda: run.invoke(app, {"words": LONG, "log": []}))
    assert sent < 2 * LONG_BYTES + 100_000


def test_sends_share_what_is_in_no_channel_too(run: Run, pool: WorkerPool) -> None:
    graph = StateGraph(State)
    graph.add_node("work", lambda given: {"log": [given["big"][given["n"]]]}, executor="process")
    big = [str(n) * 10 for n in range(3000)]
    graph.add_conditional_edges(START, lambda state: [Send("work", {"big": big, "n": n}) for n in range(300)], ["work"])
    app = graph.compile(pool=pool)
    found: list[Any] = []
    sent = sent_bytes(pool, lambda: found.extend(run.invoke(app, {"log": []})["log"]))
    assert found == big[:300]
    # The first of a node travels alone, before its neighbours are known to hold the same.
    assert sent < 3 * len(Codec(trust=True).encode(big)) + 100_000


def looped(steps: int, pool: WorkerPool, schema: Any = State) -> Any:
    graph = StateGraph(schema)
    graph.add_node("count", lambda state: {"n": state["n"] + 1}, executor="process")
    graph.add_edge(START, "count")
    graph.add_conditional_edges("count", lambda state: "count" if state["n"] < steps else END, ["count", END])
    return graph.compile(pool=pool)


def test_a_channel_travels_once_a_worker_however_many_steps_read_it(run: Run, pool: WorkerPool) -> None:
    app = looped(20, pool)
    config = {"recursion_limit": 30}
    sent = sent_bytes(pool, lambda: run.invoke(app, {"words": LONG, "n": 0, "log": []}, config))
    assert sent < 2 * LONG_BYTES + 30_000


def test_of_a_wide_state_only_what_changed_travels(run: Run, pool: WorkerPool) -> None:
    wide = TypedDict("wide", {"n": int} | {f"k{i}": int for i in range(299)})  # type: ignore[misc]
    app = looped(40, pool, wide)
    given = {"n": 0} | {f"k{i}": 10**9 + i for i in range(299)}
    found: list[Any] = []
    config = {"recursion_limit": 50}
    sent = sent_bytes(pool, lambda: found.append(run.invoke(app, given, config)))
    assert found == [given | {"n": 40}]
    assert sent < 40 * 800


def test_a_task_may_change_what_it_shares_with_others(run: Run, pool: WorkerPool) -> None:
    def spoil(given: Any) -> Any:
        given["words"].append("more")
        return {"log": [len(given["words"])]}

    graph = StateGraph(State).add_node("spoil", spoil, executor="process")
    graph.add_conditional_edges(START, lambda state: [Send("spoil", state)] * 20, ["spoil"])
    result = run.invoke(graph.compile(pool=pool), {"words": LONG, "log": []})
    assert result["log"] == [1001] * 20 and len(result["words"]) == 1000


def test_a_channel_written_anew_is_sent_anew(run: Run, pool: WorkerPool) -> None:
    def grow(state: Any) -> Any:
        return {"words": state["words"] + ["x"], "n": state["n"] + 1, "log": [len(state["words"])]}

    graph = StateGraph(State).add_node("grow", grow, executor="process").add_edge(START, "grow")
    graph.add_conditional_edges("grow", lambda state: "grow" if state["n"] < 5 else END, ["grow", END])
    result = run.invoke(graph.compile(pool=pool), {"words": LONG, "n": 0, "log": []})
    assert result["log"] == [1000, 1001, 1002, 1003, 1004]


def test_what_a_node_moved_is_counted(run: Run, pool: WorkerPool) -> None:
    def sizes(given: Any) -> Any:
        began_s = process_time()
        while process_time() - began_s < 0.02:  # a worker looks at what it computed every 10 ms at most
            pass
        return {"log": [bytes(given["n"])]}

    graph = StateGraph(State).add_node("sizes", sizes, executor="process")
    sends = [Send("sizes", {"n": n, "own": bytes(n)}) for n in (10, 100_000, 500_000)]
    graph.add_conditional_edges(START, lambda state: sends, ["sizes"])
    app = graph.compile(pool=pool)
    run.invoke(app, {"log": []})
    moved = pool.stats()["nodes"]["sizes"]
    assert moved["tasks"] == 3 and moved["run_s"] > 0 and moved["cpu_s"] > 0
    assert 100_000 < moved["bytes_out"] < 110_000 and 100_000 < moved["bytes_in"] < 110_000
    assert moved["shared_out"] == moved["shared_in"] == 500_000


def test_an_array_goes_from_node_to_node_with_one_copy(run: Run, pool: WorkerPool) -> None:
    np = pytest.importorskip("numpy")
    graph = StateGraph(State)
    graph.add_node("made", lambda state: {"words": np.arange(100_000.0)}, executor="process")
    graph.add_node("same", lambda state: {"words": state["words"]}, executor="process")
    graph.add_node("read", lambda state: {"log": [state["words"].sum()]}, executor="process")
    graph.add_edge(START, "made").add_edge("made", "same").add_edge("same", "read")
    app = graph.compile(pool=pool)
    assert run.invoke(app, {"log": []})["log"] == [np.arange(100_000.0).sum()]
    moved = pool.stats()["nodes"]
    assert moved["made"]["shared_in"] == 800_000
    assert [moved[name][way] for name in ("same", "read") for way in ("shared_out", "shared_in")] == [0] * 4


# -- the shelf alone ---------------------------------------------------------------------------------------------------


class Owner:
    """What stands for a run."""

    def __init__(self, **values: Any) -> None:
        self.state = SimpleNamespace(values=values, versions=dict.fromkeys(values, 1))


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(64 << 20, 4096)
    yield arena
    arena.close()


def attempt(owner: Owner, step: int = 1) -> Attempt:
    facts = StepFacts({}, step, 25, local=owner)
    return Attempt(None, 1, None, dict(owner.state.values), facts, ("__pregel_pull", "n"), ("t",))


def sheets_of(shelf: Shelf, one: Attempt, next_one: Attempt | None = None) -> list[Sheet] | None:
    return shelf.sheets(one, [one.input], next_one)


def test_what_a_run_kept_is_dropped_at_its_end(arena: Arena) -> None:
    rung: list[bool] = []
    shelf = Shelf(Codec(trust=True, arena=arena).encode_flagged, arena, lambda: rung.append(True))
    owner = Owner(words=LONG, raw=b"x" * 100_000)
    one = attempt(owner)
    sheets = sheets_of(shelf, one)
    assert sheets is not None and len(sheets[0].refs) == 2 and arena.used_bytes > 100_000
    shelf.rest()
    del owner, one
    gc.collect()
    assert rung
    shelf.tidy()
    del sheets
    gc.collect()
    assert len(shelf.dropped) == 2 and arena.used_bytes == 0


def test_an_outdated_version_is_dropped_at_the_next_step(arena: Arena) -> None:
    shelf = Shelf(Codec(trust=True, arena=arena).encode_flagged, arena, lambda: None)
    owner = Owner(words=LONG, more=LONG[:500])
    assert sheets_of(shelf, attempt(owner)) is not None and not shelf.dropped
    owner.state.versions["words"] = 2
    assert sheets_of(shelf, attempt(owner, 2)) is not None
    assert len(shelf.dropped) == 1
    shelf.rest()


def test_small_inputs_and_those_of_one_task_alone_travel_as_they_are(arena: Arena) -> None:
    shelf = Shelf(Codec(trust=True, arena=arena).encode_flagged, arena, lambda: None)
    assert sheets_of(shelf, attempt(Owner(n=1, few=[1, 2], word="w"))) is None
    facts = StepFacts({}, 1, 25)
    alone, other = (Attempt(None, 1, None, {"own": [n] * 9999}, facts, ("push", n), ()) for n in (1, 2))
    assert sheets_of(shelf, alone, other) is None
    shelf.rest()


def encodings(arena: Arena) -> tuple[Shelf, list[Any]]:
    """A shelf, and what it has encoded so far."""
    encode, encoded = Codec(trust=True, arena=arena).encode_flagged, []

    def noted(value: Any) -> tuple[bytes, int]:
        encoded.append(value)
        return encode(value)

    return Shelf(noted, arena, lambda: None), encoded


def test_nodes_that_read_the_same_state_are_given_one_encoding_of_it(arena: Arena) -> None:
    shelf, encoded = encodings(arena)
    owner = Owner(words=LONG, few=[1, 2], n=1)
    facts = StepFacts({}, 1, 25, local=owner)
    nodes = [Attempt(None, 1, None, dict(owner.state.values), facts, ("pull", str(n)), ()) for n in range(3)]
    first, second, third = (sheets_of(shelf, node) for node in nodes)
    assert first == second == third and len(encoded) == 3, "the words, the few numbers, and what goes along"
    nodes[0].input = {**nodes[0].input, "n": 2}
    other = sheets_of(shelf, nodes[0])
    assert other is not None and first is not None and other[0].light != first[0].light
    shelf.rest()


def test_an_encoding_is_not_used_again_when_something_of_it_was_dropped(arena: Arena) -> None:
    shelf, _ = encodings(arena)
    owner = Owner(words=LONG)
    facts = StepFacts({}, 1, 25, local=owner)
    node = Attempt(None, 1, None, dict(owner.state.values), facts, ("pull", "n"), ())
    first = sheets_of(shelf, node)
    owner.state.versions["words"] = 2
    assert sheets_of(shelf, attempt(owner, 2)) is not None
    assert first is not None and shelf.dropped == [first[0].refs[0][1].number]
    again = sheets_of(shelf, node)
    assert again is not None and again[0].refs[0][1].number not in shelf.dropped
    shelf.rest()


def test_an_encoding_with_buffers_of_its_own_is_not_used_again(arena: Arena) -> None:
    shelf, encoded = encodings(arena)
    owner = Owner(words=LONG)
    facts = StepFacts({}, 1, 25, local=owner)
    given = {"words": LONG, "own": b"x" * 100_000}  # the second is no channel
    for count in (2, 3):
        with arena.scope() as lease:
            sheets = sheets_of(shelf, Attempt(None, 1, None, dict(given), facts, ("push", 1), ()))
        assert sheets is not None and sheets[0].flags & REFERS and len(encoded) == count
        lease.close()
    shelf.rest()
