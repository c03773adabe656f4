"""What all runs of one compiled graph have in common, found once, and what one of them is asked for. It runs nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mpflow._engine.streams import PartStreams, Streams
from mpflow._exec.place import THREADED
from mpflow._names import PREVIOUS

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan, Plan

_NO_NAMES: frozenset[str] = frozenset()


class Asked(NamedTuple):
    """What a call asks of its run. ``output`` is None for the graph's own output."""

    context: Any = None
    stream_mode: Any = None
    print_mode: Any = ()
    output: Any = None
    subgraphs: bool = False
    version: str = "v1"
    control: Any = None
    durability: str | None = None
    pause_before: Collection[str] = _NO_NAMES
    pause_after: Collection[str] = _NO_NAMES

    @property
    def tells(self) -> bool:
        """Whether the run may have something to tell its consumer."""
        return bool(self.stream_mode or self.print_mode or self.subgraphs) or self.version != "v1"


NOTHING = Asked()


class Setting:
    """A graph as its runs find it: shared by all of them, and changed by none.

    ``defaults`` is the graph's own config. It does not hold the graph, which holds it: a graph ends with its last user. With `is_part` its runs are parts of the tasks that they are started from (see `Run`).
    With `helps` the thread that drives a run performs what no other thread has begun, rather than wait for it: for plans
    whose tasks end together, so that nobody minds when it hears late of one.
    """

    __slots__ = (
        "cache",
        "checkpointer",
        "defaults",
        "has_previous",
        "helps",
        "is_part",
        "keeps_columns",
        "kills_on_failure",
        "leaves",
        "lends",
        "on_error",
        "only_result",
        "options",
        "passing",
        "plan",
        "quiet",
        "step_timeout_s",
        "store",
    )

    def __init__(
        self,
        plan: Plan,
        options: Mapping[str, Any],
        *,
        defaults: Any = None,
        checkpointer: Any = None,
        store: Any = None,
        cache: Any = None,
        step_timeout_s: float | None = None,
        is_part: bool = False,
        helps: bool = False,
    ) -> None:
        self.plan = plan
        self.options = options
        self.defaults = defaults
        self.checkpointer = checkpointer
        self.store = store
        self.cache = cache
        self.step_timeout_s = step_timeout_s
        self.is_part = is_part
        self.helps = helps
        executor = options.get("executor")
        self.lends = executor in THREADED and not plan.call_retry
        """Whether its tasks can be lent to callers that wait for them, as far as the graph decides that."""
        self.leaves = plan.leaves or executor == "process"
        """Whether nodes run in other processes, which are told of a channel by its version."""
        self.keeps_columns = _unless_elsewhere if executor == "process" else _if_in_processes
        self.kills_on_failure = options.get("fail_fast") == "kill"
        self.on_error = options.get("on_error")
        self.has_previous = PREVIOUS in plan.kinds
        self.passing = not plan.fleeting.isdisjoint(plan.output_keys)
        """Whether a channel of the output may lose its value in a step that does not write it."""
        self.only_result = Asked(output=plan.output)
        """What is asked for its output alone."""
        self.quiet = self.streams(NOTHING)
        """The streams of every run that tells nobody anything: they keep nothing."""

    def streams(self, asked: Asked, **around: Any) -> Streams:
        """The streams of a run that may have something to tell."""
        shown = self.plan.stream
        return (PartStreams if self.is_part else Streams)(
            asked.stream_mode,
            output=shown if asked.output is None else asked.output,
            channels=shown,
            subgraphs=asked.subgraphs,
            version=asked.version,
            print_modes=asked.print_mode,
            **around,
        )


def _if_in_processes(node: NodePlan) -> bool:
    return bool(node.executor == "process" or (node.meter is not None and node.meter.moves))


def _unless_elsewhere(node: NodePlan) -> bool:
    return bool(node.executor is None or _if_in_processes(node))
