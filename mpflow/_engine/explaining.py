"""From what is known of a graph's nodes to an explanation of where they run, after a run or before the first one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mpflow._exec.cpu import cpu_count
from mpflow._exec.place import has_gil
from mpflow._exec.placement.decide import NO_LOCK, THREAD, decide, ms
from mpflow._exec.placement.profile import HEAVY_S
from mpflow._exec.placement.safety import walk
from mpflow._exec.placement.standing import needs_of
from mpflow.observe.explain import Explanation, NodePlacement

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan, Plan
    from mpflow._exec.placement.profile import Profile

_ASKED = {
    "thread": "executor='thread'",
    "process": "executor='process'",
    "inline": "executor='inline': in the thread that drives the run",
}


def explain(plan: Plan, default: Any, pool: Any) -> Explanation:
    """Explain every node of a plan. `default` is the graph's own executor, `pool` its worker pool, if it has one."""
    nodes = [_explained(node, default, pool) for node in plan.nodes.values() if not node.hidden]
    return Explanation(plan.name, tuple(nodes))


def _explained(node: NodePlan, default: Any, pool: Any) -> NodePlacement:
    asked = node.executor if node.executor is not None else default
    asked = "auto" if asked is None else asked
    name = asked if isinstance(asked, str) else type(asked).__name__
    profile: Profile | None = node.meter
    place, reason, can_move, held = name, _ASKED.get(name, f"executor={name}, as given"), None, None
    if name == "auto":
        place, reason, can_move, held = _auto(node, profile, pool)
    elif profile is not None and profile.calls:
        reason += f"; {ms(profile.wall_s)} a call, {ms(profile.cpu_s)} of it CPU time"
    here, sent, cpu_s, wall_s, away_s = 0, 0, 0.0, 0.0, 0.0
    if profile is not None:
        here, cpu_s, wall_s = profile.calls, profile.cpu_s, profile.wall_s
        sent, away_s = profile.sent, profile.away_s
    used = pool or _default_pool()
    memory_bytes = 0
    if used is not None and place == "process":
        moved = None if profile is None or profile.standing is None else profile.standing.guarded
        memory_bytes = used.memory(moved or node.program)
    if place == "process" and not sent and used is not None:
        spent = used.spent(node.program)
        if spent.tasks:
            sent, away_s, cpu_s = spent.tasks, spent.run_s / spent.tasks, spent.cpu_s / spent.tasks
            reason += f"; {ms(away_s)} a call in a worker, {ms(cpu_s)} of it CPU time"
            if spent.waits:
                reason += ": its calls wait, as they could in threads"
    return NodePlacement(
        node.name, name, place, reason, can_move, held, here, sent, cpu_s, wall_s, away_s, memory_bytes
    )


def _default_pool() -> Any:
    module = sys.modules.get("mpflow._exec.pools")
    return None if module is None else module.open_default_pool()


def _auto(node: NodePlan, profile: Profile | None, pool: Any) -> tuple[str, str, bool | None, str | None]:
    """Place, reason, whether it may move, and what keeps it from that."""
    program = node.program
    if program.callables.func is None:
        return "loop", "it is async: it runs on the event loop", False, None
    if node.timeout_s is not None:
        return "process", f"only a worker can be ended at its deadline of {node.timeout_s:g} s", True, None
    if not has_gil():
        measured = "" if profile is None or not profile.calls else f"{ms(profile.cpu_s)} of CPU time a call; "
        return "thread", measured + NO_LOCK, False, None
    standing = None if profile is None else profile.standing
    if standing is not None and standing.verdict is not None:
        held = standing.held
        reason = standing.verdict.reason
        if standing.place is THREAD and held is not None and held not in reason:
            reason = f"{ms(profile.cpu_s if profile else 0)} of CPU time a call, but {held}"
        return standing.place, reason, held is None, held
    held = _held(program)
    if profile is None or not profile.calls:
        if held is not None:
            return "thread", f"not run yet; it will stay: {held}", False, held
        return "thread", "not run yet; it moves to workers if its calls turn out to be worth it", True, None
    return "thread", _light(profile, held, pool), held is None, held


def _held(program: Any) -> str | None:
    calling = sys.modules.get("mpflow._exec.calling")
    if calling is not None and calling.may_call(program):
        return "it calls tasks, which are placed one by one"
    return needs_of(program) or walk(program.callables.source).held


def _light(profile: Profile, held: str | None, pool: Any) -> str:
    """Why a node stays that was never worth a closer look."""
    from mpflow._exec.placement.costs import CostBook, book_of

    if profile.company and profile.is_heavy:
        busy = (
            f"{ms(profile.cpu_s)} of CPU time a call; side by side they keep {profile.lanes:.1f} cores busy in threads"
        )
        return f"{busy}, but {held}" if held is not None else f"{busy}; the next run decides"
    if profile.wall_s > 4 * profile.cpu_s and profile.wall_s >= 2 * HEAVY_S:
        return f"its calls wait: {ms(profile.wall_s)} each, {ms(profile.cpu_s)} of it CPU time"
    book = CostBook(cpu_count()) if pool is None else book_of(pool)
    verdict = decide(profile.figures(), book.costs(), 1, cores=cpu_count(), has_gil=has_gil(), place=THREAD, held=held)
    return verdict.reason
