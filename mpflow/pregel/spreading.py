"""How a batch is spread if nobody says: its first inputs are run here and measured, the rest where they are done sooner.

Runs that keep the interpreter busy gain by being given whole to workers, if nothing could tell: the graph remembers nothing
here, the safety walk lets all of its functions through, here and in the worker, and inputs are plain values. What fails
in a worker is run again here, so that an error is what it would have been.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mpflow._exec.cpu import cpu_count
from mpflow._exec.place import has_gil, in_worker
from mpflow._exec.placement.guard import Stays
from mpflow._exec.placement.safety import walk
from mpflow._exec.placement.standing import needs_of
from mpflow._exec.placement.values import survey
from mpflow._wire.errors import WireError
from mpflow.channels.binop import BinaryOperatorAggregate
from mpflow.errors import NodeNotPicklableError
from mpflow.runnables.batching import close_inputs

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan
    from mpflow.pregel.compiled import CompiledGraph
    from mpflow.pregel.items import Item

TRIAL_S = 0.03
"""So long runs are measured; and as long as starting the workers would take, if there are none yet."""
BUSY = (0.7, 1.3)
"""How many processors runs keep busy that would gain: less wait for something else, more are not held up by the GIL."""
START_S = 0.25
"""What starting workers takes."""

Checks = dict[str, dict[str, str]]
"""By function, what a walk over it came to."""
Part = tuple[str, Iterator["Item"], "Guard | None"]
"""Whether to run them by "nodes" or as "items", which, and under what guard."""


class Feed:
    """The inputs of a batch, of which one part after another is given out. What a part did not use goes into the next."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._returned: list[Item] = []
        self.stays = False
        """No more of it is to be run elsewhere."""

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> Item:
        return self._returned.pop() if self._returned else next(self._items)

    def give_back(self, item: Item) -> None:
        self._returned.append(item)

    def is_over(self) -> bool:
        """Whether there are no more inputs."""
        item = next(self, None)
        if item is not None:
            self.give_back(item)
        return item is None

    def until(self, is_over: Callable[[], bool]) -> Iterator[Item]:
        while not is_over():
            item = next(self, None)
            if item is None:
                return
            yield item

    def plain(self) -> Iterator[Item]:
        """The inputs up to the first that is not plain."""
        while not self.stays:
            item = next(self, None)
            if item is None:
                return
            given = survey((item[1], item[2]), "the input")
            if given.odd is not None or given.classes:
                self.give_back(item)
                return
            yield item

    def close(self) -> None:
        close_inputs(self._items)


class Trial:
    """The first runs of a batch, measured."""

    def __init__(self, graph: CompiledGraph) -> None:
        self._started_at = time.perf_counter()
        self._cpu_s = time.process_time()
        self._least_s = TRIAL_S if _are_there_workers(graph) else START_S

    def is_over(self) -> bool:
        return time.perf_counter() - self._started_at > self._least_s

    def is_busy(self) -> bool:
        """Whether the runs were held up by one another's computing."""
        share = (time.process_time() - self._cpu_s) / (time.perf_counter() - self._started_at)
        return BUSY[0] <= share <= BUSY[1]


def _are_there_workers(graph: CompiledGraph) -> bool:
    if "mpflow._exec.process" not in sys.modules:
        return False
    from mpflow._exec.pools import has_workers

    return has_workers(graph._options.get("pool"))


def parts_of(
    graph: CompiledGraph, items: Iterator[Item], limit: int | None, prefix: str | None, kwargs: dict[str, Any]
) -> Iterator[Part]:
    """One part of the batch after the other, to be taken to its end before the next is asked for.

    With a `prefix` each item has a thread to go on with, wherever it runs.
    """
    feed = Feed(items)
    try:
        if limit != 1 and reason_to_drive(graph, kwargs, goes_on=prefix is not None) is None:
            trial = Trial(graph)
            yield "nodes", feed.until(trial.is_over), None
            if trial.is_over() and trial.is_busy() and not feed.is_over():
                checks = checks_of(graph)
                if checks is not None:
                    yield "items", feed.plain(), Guard(checks, feed)
        yield "nodes", feed, None
    finally:
        feed.close()


class Guard:
    """What an item must pass in a worker, and where it goes if it does not."""

    __slots__ = ("_feed", "checks")

    def __init__(self, checks: Checks, feed: Feed) -> None:
        self.checks = checks
        self._feed = feed

    def give_back(self, item: Item, error: Any) -> None:
        """Have an item run here after all: whatever its error was, that shows what it is."""
        self._feed.give_back(item)
        if isinstance(error, (Stays, NodeNotPicklableError, WireError)):
            self._feed.stays = True


def reason_to_drive(graph: CompiledGraph, kwargs: dict[str, Any], *, goes_on: bool = False) -> str | None:
    """What is plain to see that keeps the runs of a graph here; None if nothing is.

    With `goes_on` a run that was begun elsewhere goes on here: a saver whose log workers can write is no reason then.
    """
    if in_worker() or not has_gil() or cpu_count() == 1:
        return "no other process would be of use"
    for what in ("checkpointer", "store", "cache", "step_timeout"):
        if getattr(graph, what) not in (None, False) and not (
            what == "checkpointer" and goes_on and getattr(graph.checkpointer, "has_far_log", False)
        ):
            return f"the graph has a {what}"
    for name, value in kwargs.items():
        if value is not None:
            return f"the runs are given {name}"
    if graph._options.get("executor") not in (None, "auto"):
        return "the graph says where its nodes run"
    if (graph.config or {}).get("callbacks"):
        return "the graph's config has callbacks"
    return next((reason for reason in map(_reason_of, graph._plan.nodes.values()) if reason is not None), None)


def _reason_of(node: NodePlan) -> str | None:
    if node.hidden:
        return None
    for what in ("handler", "cache", "subgraph", "timeout"):
        if getattr(node, what) is not None:
            return f"node '{node.name}' has a {what}"
    if node.executor not in (None, "auto") or not node.rerun_on_loss:
        return f"node '{node.name}' says how it is to run"
    if node.program.coerce is not None:
        return f"node '{node.name}' is given objects"
    reason = needs_of(node.program)
    return None if reason is None else f"node '{node.name}': {reason}"


def checks_of(graph: CompiledGraph) -> Checks | None:
    """What the safety walk found of the graph's functions, by their names; None if it held one of them."""
    checks: Checks = {}
    for name, function in functions_of(graph):
        clearance = walk(function)
        if clearance.held is not None:
            return None
        checks[name] = clearance.entries
    return checks


def functions_of(graph: CompiledGraph) -> Iterator[tuple[str, Any]]:
    """The user's functions that a run of the graph calls."""
    plan = graph._plan
    for node in plan.nodes.values():
        if not node.hidden:
            yield node.name, node.program.callables.source
        for branch in node.branches:
            yield f"{node.name}: {branch.name}", branch.callables.source
    for key, channel in plan.channels.items():
        if isinstance(channel, BinaryOperatorAggregate):
            yield f"{key}: reducer", channel.operator


def check(graph: CompiledGraph, checks: Checks) -> None:
    """In a worker: see that its functions are what they were in the parent. Raises Stays."""
    for name, function in functions_of(graph):
        clearance = walk(function)
        if clearance.held is not None or clearance.difference(checks[name]) is not None:
            raise Stays(f"'{name}' is another in a worker")
