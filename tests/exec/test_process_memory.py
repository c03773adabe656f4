from __future__ import annotations

import gc
import operator
from typing import Annotated, Any, TypedDict

import pytest

from mpflow._exec.process import WorkerPool
from mpflow.graph import START, StateGraph
from mpflow.types import Send

MIB = 1 << 20
EACH = 10_000


class State(TypedDict):
    total: Annotated[int, operator.add]


def resident_bytes(pid: int | str) -> int:
    """Private and written to: what a process would give back by ending. Files it has mapped are not its own."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        fields = dict(line.split(":", 1) for line in file.read().splitlines()[1:])
    return int(fields["Private_Dirty"].split()[0]) * 1024


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_memory_stays_flat_from_the_100_000th_to_the_millionth_task() -> None:
    """FAULTS, figures: parent and workers drift by at most 2 MiB."""
    graph = StateGraph(State).add_node("one", lambda given: {"total": 1}, executor="process")
    graph.add_conditional_edges(START, lambda state: [Send("one", {"i": i}) for i in range(EACH)], ["one"])
    with WorkerPool(2) as pool:
        app = graph.compile(pool=pool)

        def run(tasks: int) -> dict[Any, int]:
            for _ in range(tasks // EACH):
                assert app.invoke({"total": 0})["total"] == EACH
            gc.collect()
            return {pid: resident_bytes(pid) for pid in ("self", *pool.stats()["pids"])}

        before = run(100_000)
        after = run(900_000)
    assert {pid: size - before[pid] for pid, size in after.items() if size - before[pid] > 2 * MIB} == {}
