"""Where the tasks of one run go: resolves what the user asked for to places, and hands attempts out to them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mpflow._columns import Attempts, Span
from mpflow._exec.patience import check_timeout
from mpflow._exec.place import in_worker
from mpflow._exec.placement import profile as profiles
from mpflow._exec.placement.decide import MANY
from mpflow._exec.placement.profile import ENOUGH_S, Profile
from mpflow._exec.thread import HURRY, ThreadPlace, default_threads
from mpflow._messages import Attempt, Outcome

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan, Plan
    from mpflow._engine.placing import Director
    from mpflow._engine.portions import Portions
    from mpflow._engine.run import Run
    from mpflow._exec.foreign import ForeignPlace
    from mpflow._exec.process import WorkerPool
    from mpflow._scope import TaskScope

INLINE, THREAD, PROCESS, LOOP = "inline", "thread", "process", "loop"
LOADING_S = 0.8
"""Moving nodes takes 60 ms of imports first, which hold up the threads: not before there is so much to compute."""
TASK_S = 0.00001
"""What the run adds to each: of tiny ones most of what they take."""
SLOW_S = 0.05
"""When tasks have waited for a thread so long, those that hold the threads are looked at."""


class Routes(dict["NodePlan", Any]):
    """Where the nodes of a plan run, as far as that was asked; and which of them are bound to no place."""

    __slots__ = ("asked", "auto", "may_call")

    def __init__(self) -> None:
        super().__init__()
        self.auto: set[NodePlan] = set()
        self.may_call: set[NodePlan] = set()
        """Those that may call tasks for all that is known of them: not in the driver's own thread, which serves the calls."""
        self.asked: list[NodePlan] = []
        """The measured nodes that are bound to a place, while nothing was said about that."""


CALLING = "calling"
"""A thread too, never the driver's own: what runs there may call tasks, and wait for the driver to serve them."""


class Places:
    """The places of one run. `route` says where a node runs; the rest is made at first use."""

    def __init__(self, run: Run, *, awaits: bool) -> None:
        self.run = run
        self.awaits = awaits
        self.default = run.options.get("executor")
        self._pool: WorkerPool | None = run.options.get("pool")
        self.pool: WorkerPool | None = None  # set once it is in use
        self.portions: Portions | None = None
        """Set once a run whose results are to be durable one by one uses the pool."""
        self._threads: ThreadPlace[Attempt] | None = None
        self._foreign: dict[int, ForeignPlace] = {}
        around = run.local.around
        self.is_away = in_worker() or (around is not None and _is_away(around))
        calling = sys.modules.get("mpflow._exec.calling")
        self._may_be_calls = calling is not None and calling.TaskCallable.exists and not run.is_part
        self.routes = _routes_of(run.plan, awaits, self.is_away, self.default, self._may_be_calls)
        self.auto = self.routes.auto
        """The sync nodes that say nothing of where they run."""
        self._teller = run.performer.teller
        self.director: Director | None = None
        """Set once one of them is worth moving."""
        self.since = perf_counter()
        """When the run's loop was last given something that tasks may come of."""
        for node in self.auto:
            meter = node.meter
            if meter.is_heavy or (meter.standing is not None and meter.moves):
                self._direct()
                break

    def route(self, node: NodePlan) -> Any:
        """INLINE, THREAD, CALLING, PROCESS, LOOP, or the user's own executor."""
        found = self.routes.get(node)
        if found is None:
            found = self.routes[node] = self._resolve(node)
            if found is THREAD or found is PROCESS:
                self._measure(node, found)
            if found is THREAD and self._may_be_calls and not self.awaits:
                from mpflow._exec.placement.safety import walk

                if walk(node.program.callables.source).held is not None:
                    self.routes.may_call.add(node)
        return found

    def _measure(self, node: NodePlan, route: str) -> None:
        """Have a node's calls measured from now on; one that is bound to no place may be moved for what is found."""
        if node.hidden or self.is_away:
            return
        if node.meter is None:
            node.meter = Profile(node.name)
            if profiles.recall is not None:
                profiles.recall(node.meter, node.program.callables.source)
        if route is THREAD and (node.executor or self.default or "auto") == "auto":
            self.routes.auto.add(node)
        else:
            self.routes.asked.append(node)

    def _direct(self) -> None:
        """Have the tasks of this run placed one by one from now on, if that can be worth it."""
        if "mpflow._exec.process" not in sys.modules and self._computing_s() < LOADING_S:
            return
        with HURRY:
            from mpflow._engine.placing import Director, may_move

        if may_move():
            self.director = Director(self)
        else:
            self.auto = set()

    def _computing_s(self) -> float:
        """What the nodes that may be moved have computed in this program, and will for what waits."""
        meters = [node.meter for node in self.auto]
        if any(
            meter.proven_as is not None for meter in meters
        ):  # an earlier run of the program found it worth its while
            return LOADING_S
        waiting = 0 if self._threads is None else self._threads.queued
        spent_s: float = sum(meter.spent_s + meter.calls * TASK_S for meter in meters)
        return spent_s + waiting * float(max((meter.cpu_s for meter in meters), default=0.0))

    def close(self) -> None:
        """The run is over: nothing of it is under way any more. Says what its places cost, if that is a lot."""
        if self.director is not None:
            self.director.close()
        for node in self.routes.asked:
            if node.meter.spent_s >= ENOUGH_S or (self.pool is not None and self.routes[node] is PROCESS):
                from mpflow._engine.hints import hint

                if hint(node, self.routes[node], self.pool, self._most_here(node)):
                    with suppress(ValueError):  # another run of the graph may have said it at the same time
                        self.routes.asked.remove(node)
                    break

    def _heard(self, outcomes: list[Outcome]) -> list[Outcome]:
        if self.director is None:
            if self._threads is None or not self._threads.has_queued:
                return outcomes  # nothing is left to be moved: the next run will see
            if outcomes:
                for node in self.auto:
                    if node.meter.is_heavy:
                        break
                else:
                    return outcomes
            self._direct()
        return outcomes if self.director is None else self.director.heard(outcomes)

    def patience_s(self, timeout_s: float | None) -> float | None:
        """How long to wait for outcomes before it is time to think about those that have not started."""
        if self.director is not None:
            look_s = self.director.patience_s()
        else:
            look_s = SLOW_S if self._threads is not None and self._threads.has_queued else None
        if look_s is None:
            return timeout_s
        return look_s if timeout_s is None else min(look_s, timeout_s)

    def _resolve(self, node: NodePlan) -> Any:
        if node.timeout is not None:
            callables = node.program.callables
            awaits = self.awaits or callables.func is None
            check_timeout(node.name, callables, node.executor or self.default, node.timeout, awaits=awaits)
        asked = node.executor if node.executor is not None else self.default
        if asked is None:
            asked = "auto"
        if not isinstance(asked, str):
            return asked
        if asked == "process" and not self.is_away:
            return PROCESS
        program = node.program
        if self.awaits and program.callables.afunc is not None:
            return LOOP
        if asked == "auto" and node.timeout_s is not None and not program.is_async and not self.is_away:
            return PROCESS  # only there can a sync node be ended at its deadline (D-4)
        if asked == "inline":
            return INLINE
        return CALLING if self._may_be_calls and sys.modules["mpflow._exec.calling"].may_call(program) else THREAD

    def threads(self) -> ThreadPlace[Attempt]:
        if self._threads is None:
            self._threads = ThreadPlace(self.run.performer.perform, self._limit)
        return self._threads

    @property
    def _limit(self) -> int:
        return self.run.scheduler.max_concurrency or default_threads()

    def _most_here(self, node: NodePlan) -> int:
        """How many tasks of a node that waits could be under way at once in this process."""
        callables = node.program.callables
        if self.awaits and callables.afunc is not None:
            return self.run.scheduler.max_concurrency or sys.maxsize
        return 0 if callables.func is None else self._limit

    def untaken(self) -> Attempt | None:
        """An attempt that waits for a thread, for the caller to perform instead."""
        return None if self._threads is None else self._threads.take()

    def processes(self) -> WorkerPool:
        if self.pool is None:
            from mpflow._engine.entrances import entrances

            self.run.local.entrances = entrances(self.run)
            self.pool = self.any_pool()
        return self.pool

    def any_pool(self) -> WorkerPool:
        """The pool, whether or not this run uses it."""
        if self._pool is None:
            from mpflow._exec.pools import default_pool

            self._pool = default_pool()
        return self._pool

    def foreign(self, executor: Any) -> Any:
        from mpflow._exec.foreign import ForeignPlace

        place = self._foreign.get(id(executor))
        if place is None:
            place = self._foreign[id(executor)] = ForeignPlace(executor, self.run.performer.perform)
        return place

    def submit(self, route: Any, attempts: Attempts) -> None:
        mailbox = self.run.mailbox
        if type(attempts) is Span:
            attempts.outbox = mailbox
        else:
            for attempt in attempts:
                attempt.outbox = mailbox
        if route is THREAD or route is CALLING:
            if route is THREAD:
                if self.director is None and len(attempts) >= MANY and self.auto:
                    self._direct()
                if self.director is not None:
                    attempts = self.director.place(attempts)
                if not attempts:
                    return
            threads = self.threads()
            threads.spare = self.run.scheduler.lent
            threads.submit(attempts)
        elif route is PROCESS:
            self.to_processes(attempts)
        else:
            self.foreign(route).submit(attempts)

    def to_processes(self, attempts: Attempts) -> None:
        """Have the pool run attempts; a message at a time, if a kill may cost no more than that (durability "sync")."""
        pool = self.processes()
        if self._teller is not None:
            self._teller.left(attempts)
        persistence = self.run.persistence
        if persistence is None or persistence.durability != "sync":
            pool.submit(attempts)
            return
        if self.portions is None:
            from mpflow._engine.portions import Portions

            self.portions = Portions(pool, self.run.mailbox)
        self.portions.submit(attempts)

    def from_processes(self, attempts: Sequence[Attempt], *, kill: bool) -> None:
        """Cancel what `to_processes` was given."""
        (self.portions or self.processes()).cancel(attempts, kill=kill)

    def take(self) -> list[Outcome]:
        """What has come, less what is to be run once more elsewhere."""
        outcomes = self.run.mailbox.take()
        if self.portions is not None:
            self.portions.heard(outcomes)
        if self.auto:
            outcomes = self._heard(outcomes)
            self.since = perf_counter()
        return outcomes if self._teller is None or self.pool is None else self._teller.returned(outcomes)

    def cancel(self, attempts: Sequence[Attempt], *, kill: bool) -> None:
        if self.director is not None:
            attempts = self.director.cancel(attempts, kill=kill)
        for route, group in self.grouped(attempts):
            if route is THREAD or route is CALLING:
                self.threads().cancel(group, kill=kill)
            elif route is PROCESS:
                self.from_processes(group, kill=kill)
            elif not isinstance(route, str):
                self.foreign(route).cancel(group, kill=kill)

    def grouped(self, attempts: Attempts) -> list[tuple[Any, Attempts]]:
        """The attempts by route, in order. Only what goes to processes may stay a span."""
        if type(attempts) is Span:
            node = attempts[0].task.node
            route = self.route(node)
            if route is PROCESS or (route is THREAD and node.meter is not None and node.meter.moves):
                return [(route, attempts)]
        groups: dict[Any, tuple[Any, list[Attempt]]] = {}
        last: NodePlan | None = None
        group: list[Attempt] = []
        for attempt in attempts:
            node = attempt.task.node
            if node is not last:
                last = node
                route = self.route(node)
                _, group = groups.setdefault(route if isinstance(route, str) else id(route), (route, []))
            group.append(attempt)
        return [*groups.values()]


def _routes_of(plan: Plan, *circumstances: Any) -> Routes:
    found: Routes | None = plan.routes.get(circumstances)
    return plan.routes.setdefault(circumstances, Routes()) if found is None else found


def _is_away(scope: TaskScope | None) -> bool:
    """Whether a task runs in another process than its root run: what is nested in it stays there."""
    while scope is not None:
        if scope.facts.local is None or scope.facts.local.is_away:
            return True
        scope = scope.facts.local.around
    return False
