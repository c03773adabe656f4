"""A word, once a node, on a place that was asked for and costs more than it gains. It is logged; nothing is changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from mpflow._exec.cpu import cpu_count
from mpflow._exec.place import has_gil
from mpflow._exec.placement.costs import CostBook, book_of
from mpflow._exec.placement.decide import PROCESS, THREAD, decide, ms

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan

ENOUGH_CALLS = 1000
ENOUGH_S = 2.0
"""Below so many calls in workers, or so much CPU time in threads, it does not matter."""


wanted: ContextVar[bool] = ContextVar("mpflow_hints", default=True)
"""False around runs whose places are tried out for comparison."""


@contextmanager
def unsaid() -> Iterator[None]:
    """Say nothing of runs within."""
    token = wanted.set(False)
    try:
        yield
    finally:
        wanted.reset(token)


def hint(node: NodePlan, place: str, pool: Any) -> bool:
    """Say what a node's place costs, if it is the wrong one by far. Returns whether it was said."""
    if not wanted.get():
        return False
    text = _of_process(node, pool) if place == PROCESS else _of_thread(node)
    if text is None:
        return False
    logging.getLogger("mpflow").warning("node '%s': executor='%s' costs more than it gains: %s", node.name, place, text)
    return True


def _of_process(node: NodePlan, pool: Any) -> str | None:
    if pool is None or node.timeout_s is not None:
        return None
    calls, mean_s, batches = pool.measured(node.program)
    if calls < ENOUGH_CALLS:
        return None
    trip_s = book_of(pool).costs().trip_s * batches / calls
    if mean_s * 2 > trip_s:
        return None
    return (
        f"its calls take {ms(mean_s)} in a worker, decoding and encoding included, and travel {calls / batches:.1f} at a "
        f"time, which adds about {ms(trip_s)} to each. Leave it to 'auto', or send more of them at once"
    )


def _of_thread(node: NodePlan) -> str | None:
    profile = node.meter
    if not profile.is_heavy or profile.calls * profile.cpu_s < ENOUGH_S or not 0 < profile.lanes < 1.3:
        return None
    cores = cpu_count()
    costs = CostBook(cores).costs()._replace(is_started=True)
    verdict = decide(profile.figures(), costs, 4 * cores, cores=cores, has_gil=has_gil(), place=THREAD, held=None)
    if verdict.place != PROCESS:
        return None
    return (
        f"its calls take turns at the interpreter's lock. With {ms(profile.cpu_s)} of CPU time a call, {4 * cores} of them "
        f"take {ms(verdict.thread_s)} in threads, {ms(verdict.process_s)} in {cores} workers. Leave it to 'auto', or use "
        "executor='process'"
    )
