"""A word, once a node, on a place that was asked for and costs more than it gains. It is logged; nothing is changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import ceil
from typing import TYPE_CHECKING, Any

from mpflow._exec.cpu import cpu_count
from mpflow._exec.place import has_gil
from mpflow._exec.placement.costs import CostBook, book_of
from mpflow._exec.placement.decide import GAIN, PROCESS, THREAD, decide, ms
from mpflow._exec.placement.profile import ENOUGH_S

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan

ENOUGH_CALLS = 1000
"""Below so many calls in workers it does not matter."""


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


def hint(node: NodePlan, place: str, pool: Any, most_here: int) -> bool:
    """Say what a node's place costs, if it is the wrong one by far. Returns whether it was said.

    `most_here` is how many of its tasks could be under way at once in this process, if they wait.
    """
    if not wanted.get():
        return False
    if place != PROCESS:
        text = _of_thread(node)
    elif pool is None or node.timeout_s is not None:
        text = None
    else:
        text = _tiny(node, pool) or _waiting(node, pool, most_here)
    if text is None:
        return False
    logging.getLogger("mpflow").warning("node '%s': executor='%s' costs more than it gains: %s", node.name, place, text)
    return True


def _tiny(node: NodePlan, pool: Any) -> str | None:
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


def _waiting(node: NodePlan, pool: Any, most_here: int) -> str | None:
    spent = pool.spent(node.program)
    if not (most_here and spent.waits and spent.waited_s >= ENOUGH_S):
        return None
    wall_s, cpu_s = spent.run_s / spent.tasks, spent.cpu_s / spent.tasks
    workers, at_once = pool.max_workers, spent.at_once
    process_s = ceil(at_once / workers) * wall_s
    here_s = max(ceil(at_once / most_here) * wall_s, at_once * cpu_s)
    if here_s >= process_s * GAIN:
        return None
    return (
        f"its calls wait: {ms(wall_s)} each in a worker, {ms(cpu_s)} of it CPU time. {at_once} were there at once: they take "
        f"{ms(process_s)} in {workers} workers, {ms(here_s)} in this process. Leave it to 'auto'"
    )


def _of_thread(node: NodePlan) -> str | None:
    profile = node.meter
    if not profile.is_heavy or profile.spent_s < ENOUGH_S or not 0 < profile.lanes < 1.3:
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
