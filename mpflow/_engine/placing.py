"""Moving the tasks of one run between threads and workers, for nodes that say nothing of where they run.

It asks `decide` with what was measured, has nodes tried before it trusts them, sends their tasks as those of nodes that
were asked to run in workers are sent, and takes back what turned out to belong here. Every outcome of a moved task passes
it before the scheduler sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from mpflow._columns import Attempts, Span, lead
from mpflow._engine.crowds import Abroad, Crowd, batch
from mpflow._exec.cpu import cores
from mpflow._exec.place import has_gil
from mpflow._exec.placement.costs import CostBook, book_of
from mpflow._exec.placement.decide import CROWD, GAIN, MANY, PROCESS, THREAD, Verdict, decide
from mpflow._exec.placement.guard import GuardedProgram
from mpflow._exec.placement.profile import heavy as underway
from mpflow._exec.placement.profile import peek
from mpflow._exec.placement.standing import Standing, Trial
from mpflow._exec.pools import has_workers
from mpflow._exec.thread import HURRY
from mpflow._messages import CANCELLED, CLOSED_MANY, DONE_MANY, EVENT, FAILED, Attempt, Outcome
from mpflow.errors import PoolClosedError, WrongProcessError

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan
    from mpflow._engine.places import Places
    from mpflow._exec.placement.profile import Profile

_node_of = attrgetter("task.node")
LOOK_S = 0.02
"""How often tasks that wait for a thread are reconsidered."""
PART = 512
"""So many of a crowd tell of the others; fewer may be the long ones of them, or the short ones."""

away: dict[int, int] = {}
"""How many moved tasks each run's director has under way."""


class Director:
    """The placing of one run's tasks. Used by the run's driver alone."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._cores = cores()
        self._next_look = 0.0
        self._costs: CostBook | None = None
        self._abroad: dict[NodePlan, Abroad] = {}
        self._recalled: set[int] = set()
        """The attempts that were asked back, by their ids."""
        self._crowd: Crowd | None = None
        self._ended: Crowd | None = None
        """One whose tasks have ended, and which the run is still busy with."""

    # -- tasks come ----------------------------------------------------------------------------------------------------

    def place(self, attempts: Attempts) -> Attempts:
        """Send to the pool what belongs there; return what is for threads."""
        self.settle()
        if not self._next_look:
            self._next_look = monotonic() + LOOK_S
        groups = _by_node(attempts)
        considered = {node: len(group) for node, group in groups.items() if self._considers(node, len(group))}
        # Those that wait already, and those that are sent below, count once.
        tasks = sum(considered.values()) + sum(away.values()) + _running_heavy()
        if tasks == 1 and (beside := batch.get()) is not None:
            tasks = max(1, beside.under_way)  # the others are about to come
        stay: Attempts = []
        for node, group in groups.items():
            if node not in considered:
                left = group
            elif lead(group).alone and node.meter.standing is not None and node.meter.standing.guarded is not None:
                self._send(node, group)  # it may have killed a worker: not here
                continue
            else:
                left = self._placed(node, group, tasks)
            if len(groups) > 1:
                stay = [*stay, *left]
            elif left:
                stay = left
                self._join_crowd(node, THREAD, len(left))
        return stay

    def keeps(self, attempt: Attempt) -> bool:
        """Whether a step's only attempt is for the driver's own thread; else it has been sent to the pool."""
        if not _is_heavy(attempt.task.node):
            return True
        stays = bool(self.place([attempt]))
        self._crowd = None
        return stays

    def _considers(self, node: NodePlan, tasks: int) -> bool:
        if node not in self._places.auto or node.meter is None:
            return False
        return (
            _is_heavy(node)
            or node.meter.moves
            or (tasks >= MANY and self._places.run.scheduler.keeps_columns is not None)
        )

    def _placed(self, node: NodePlan, group: Attempts, tasks: int) -> Attempts:
        standing = standing_of(node.meter)
        verdict = self._judge(node, standing, tasks)
        if verdict.place is THREAD or not standing.proven:
            self._missed(node, standing, tasks, group[-1])
            return group
        standing.place = PROCESS
        return self._sent(node, standing, group)

    def _sent(self, node: NodePlan, standing: Standing, group: Attempts) -> list[Attempt]:
        """Send those that may be; return the others."""
        good = standing.takes(group)
        left: list[Attempt] = []
        if len(good) < len(group):
            chosen = set(map(id, good))
            left = [attempt for attempt in group if id(attempt) not in chosen]
        if good:
            self._send(node, good)
        return left

    def _judge(self, node: NodePlan, standing: Standing, tasks: int) -> Verdict:
        """What to do with so many tasks now; walks over the node only if it would move."""
        book = self._book()
        self._hear(node)
        # To be tried costs nobody anything but the pool's start: that is weighed in `_missed`.
        costs = book.costs()._replace(is_started=book.is_started or not standing.proven)
        figures = node.meter.figures()
        # Tried, and never seen by the crowd in workers: it has the benefit of the doubt.
        place = PROCESS if standing.proven and not figures.away_each_s else standing.place
        verdict = decide(figures, costs, tasks, cores=self._cores, has_gil=True, place=place, held=standing.held)
        if verdict.place is PROCESS:
            held = standing.reason_to_stay(node.program)
            if held is not None:
                verdict = decide(figures, costs, tasks, cores=self._cores, has_gil=True, place=place, held=held)
        if verdict.place is THREAD and standing.place is PROCESS and tasks > 1:
            # It did no better there: it is tried anew before it is sent again, and ever more rarely.
            standing.place = THREAD
            standing.proven = False
        if tasks > 1 or standing.verdict is None:
            standing.verdict = verdict
        return verdict

    def _hear(self, node: NodePlan) -> None:
        standing = node.meter.standing
        if standing.guarded is not None and self._places.pool is not None:
            standing.hear(self._places.pool, self._book())

    def _book(self) -> CostBook:
        if self._costs is None:
            with HURRY:
                pool = self._places.any_pool()
                self._costs = book_of(pool)
                if not self._costs.is_started:
                    self._costs.is_started = has_workers(pool)
        return self._costs

    def _missed(self, node: NodePlan, standing: Standing, tasks: int, waiting: Attempt) -> None:
        """These go to threads. Where they might be done earlier in workers, have the node tried once that adds up.

        A node that was tried and did no better is tried again, ever more rarely: a machine is not always as busy.
        """
        book = self._book()
        if standing.held is not None or standing.trial is not None:
            return
        hoped = node.meter.figures()._replace(sent=0, away_each_s=0.0)
        costs = book.costs()._replace(is_started=True)
        # What was never tried is only supposed to take so long: a trial is worth it where that is near what threads take.
        place = THREAD if standing.trial_at_s else PROCESS
        verdict = decide(hoped, costs, tasks, cores=self._cores, has_gil=True, place=place, held=None)
        if verdict.place is THREAD:
            return
        standing.missed_s += max(verdict.thread_s - verdict.process_s, (1 - GAIN) * verdict.thread_s)
        if standing.missed_s < (standing.trial_at_s or (0.0 if book.is_started else book.start_s)):
            return
        if standing.reason_to_stay(node.program) is not None:
            return
        if standing.takes([waiting]):
            with HURRY:
                begun = Trial(standing, book).begin(waiting, self._places.processes())
            if not begun:
                self._places.pool = None

    # -- tasks go out -------------------------------------------------------------------------------------------------

    def _send(self, node: NodePlan, attempts: Attempts) -> None:
        _give_program(attempts, node.meter.standing.guarded)
        if type(attempts) is not Span:
            for attempt in attempts:
                attempt.outbox = self._places.run.mailbox
        abroad = self._abroad.setdefault(node, Abroad())
        abroad.add(attempts)
        away[id(self)] = away.get(id(self), 0) + len(attempts)
        self._join_crowd(node, PROCESS, len(attempts))
        try:
            self._places.to_processes(attempts)
        except (PoolClosedError, WrongProcessError) as error:
            # Nobody asked for the pool: that it is gone fails no run.
            self._places.pool = None
            node.meter.standing.hold(f"its pool is gone ({type(error).__name__})")
            self._note_ended(node, attempts)
            self._bring_back(node, attempts)

    def _bring_back(self, node: NodePlan, attempts: Attempts) -> None:
        """Let threads run these after all."""
        self._crowd = None
        _give_program(attempts, node.program)
        self._places.threads().submit(attempts)

    def _recall(self, node: NodePlan) -> None:
        """Ask the pool for what it has not started."""
        attempts = [attempt for attempt in self._abroad[node].all() if id(attempt) not in self._recalled]
        if attempts:
            self._recalled.update(map(id, attempts))
            self._places.from_processes(attempts, kill=False)

    # -- what a crowd takes ----------------------------------------------------------------------------------------------

    def _join_crowd(self, node: NodePlan, place: str, tasks: int) -> None:
        """So many more of a node's tasks are at a place. They are a crowd if next to nothing else of the run is under way."""
        crowd = self._crowd
        if crowd is None or crowd.node is not node or crowd.place is not place:
            crowd = Crowd(node, place, self._places.since)
        crowd.total += tasks
        crowd.waiting += tasks
        running = self._places.run.scheduler.running
        self._crowd = crowd if running - crowd.waiting <= running // 8 else None

    def _note_done(self, node: NodePlan, count: int) -> None:
        """So many of a node's tasks have ended."""
        crowd = self._crowd
        if crowd is None or crowd.node is not node:
            return
        crowd.waiting -= count
        if crowd.waiting <= 0:
            self._crowd = None
            self._ended = crowd

    def settle(self) -> None:
        """The run has done what it had to with the results it was given, and is about to do something else."""
        crowd, self._ended = self._ended, None
        if crowd is not None:
            if crowd.place is PROCESS:
                self._hear(crowd.node)
            crowd.note()

    # -- outcomes come back -------------------------------------------------------------------------------------------

    def heard(self, outcomes: list[Outcome]) -> list[Outcome]:
        """The outcomes for the scheduler; looks at the waiting tasks now and then."""
        self.settle()
        if id(self) in away:
            heard = [outcome if self._is_others(outcome) else self._heard_one(outcome) for outcome in outcomes]
            outcomes = [outcome for outcome in heard if outcome is not None]
        elif self._crowd is not None and outcomes:
            # Next to nothing else is under way: whose they are need not be asked.
            events = [outcome[0] for outcome in outcomes].count(EVENT)
            self._note_done(self._crowd.node, len(outcomes) - events)
        if monotonic() >= self._next_look:
            self._look()
        return outcomes

    def _is_others(self, outcome: Outcome) -> bool:
        """Whether it is of no moved task; those of threads are counted."""
        kind, attempts = outcome[0], outcome[1]
        if kind is EVENT:
            return True
        if kind is DONE_MANY or kind is CLOSED_MANY:
            return type(lead(attempts).program) is not GuardedProgram
        if type(attempts.program) is GuardedProgram:
            return False
        self._note_done(attempts.task.node, 1)
        return True

    def _heard_one(self, outcome: Outcome) -> Outcome | None:
        kind, attempt, payload, _ = outcome
        if kind is DONE_MANY:
            node = attempt[0].task.node
            self._note_ended(node, attempt)
            self._note_done(node, len(attempt))
            return outcome
        node = attempt.task.node
        is_recalled = kind is CANCELLED and id(attempt) in self._recalled
        self._note_ended(node, [attempt])
        if kind is FAILED:
            # Whatever it was, a thread shows what it is: nothing the node did in the worker can have been seen.
            standing = node.meter.standing
            standing.returned += 1
            if standing.failed(payload):
                self._recall(node)
        elif not is_recalled:
            self._note_done(node, 1)
            return outcome
        self._bring_back(node, [attempt])
        return None

    def _note_ended(self, node: NodePlan, attempts: Attempts) -> None:
        self._abroad[node].ended(attempts)
        left = away[id(self)] = away[id(self)] - len(attempts)
        if not left:
            del away[id(self)]
            self._recalled.clear()

    def _look(self) -> None:
        """Reconsider what waits for a thread, and what waits for a worker."""
        self._next_look = monotonic() + LOOK_S
        self._places.since = perf_counter()
        threads = self._places.threads()
        waiting = {node: group for node, group in _by_node(threads.waiting()).items() if node.meter is not None}
        unseen = {node.meter for node in waiting if not node.meter.seen}
        if unseen:
            peek(unseen)
        crowd = self._crowd
        if crowd is not None and crowd.place is THREAD and crowd.done >= PART:
            crowd.note()
        considered = {node: group for node, group in waiting.items() if self._considers(node, len(group))}
        tasks = sum(map(len, considered.values())) + sum(away.values()) + _running_heavy()
        for node, group in considered.items():
            standing = standing_of(node.meter)
            if self._judge(node, standing, tasks).place is THREAD or not standing.proven:
                self._missed(node, standing, tasks, group[-1])
                continue
            standing.place = PROCESS
            taken = threads.withdraw(set(map(id, group)))
            left = self._sent(node, standing, taken)
            if len(taken) < PART:
                self._crowd = None
            if left:
                threads.submit(left)
        for node, abroad in self._abroad.items():
            if abroad.open >= CROWD and crowd is not None and crowd.node is node and crowd.done >= PART:
                self._hear(node)
                crowd.note()
                self._judge(node, standing_of(node.meter), tasks)
                if node.meter.standing.place is THREAD:
                    self._recall(node)

    def patience_s(self) -> float | None:
        """How long the driver may wait before it should look again; None for as long as it likes."""
        self.settle()
        if not self._places.threads().has_queued:
            return None
        return max(0.0, self._next_look - monotonic())

    # -- tasks are given up -------------------------------------------------------------------------------------------

    def cancel(self, attempts: Sequence[Attempt], *, kill: bool) -> list[Attempt]:
        """Cancel what is with the pool; return what is not."""
        moved = [attempt for attempt in attempts if type(attempt.program) is GuardedProgram]
        if not moved:
            return list(attempts)
        self._recalled.difference_update(map(id, moved))
        self._places.from_processes(moved, kill=kill)
        return [attempt for attempt in attempts if type(attempt.program) is not GuardedProgram]

    def close(self) -> None:
        """The run is over: what it moved is no load any more."""
        self.settle()
        away.pop(id(self), None)
        for node in self._abroad:
            self._hear(node)


def _by_node(attempts: Attempts) -> dict[NodePlan, Attempts]:
    if type(attempts) is Span:
        return {attempts[0].task.node: attempts}
    nodes = set(map(_node_of, attempts))
    if len(nodes) == 1:
        return {nodes.pop(): attempts}
    groups: dict[NodePlan, list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault(attempt.task.node, []).append(attempt)
    return {**groups}


def _give_program(attempts: Attempts, program: Any) -> None:
    if type(attempts) is Span:
        attempts.column.program = program
        attempts = list(attempts.column.made.values())
    for attempt in attempts:
        attempt.program = program


def standing_of(profile: Profile) -> Standing:
    if profile.standing is None:
        profile.standing = Standing(profile)
    return profile.standing


def may_move() -> bool:
    """Whether moving nodes can be of any use in this process."""
    return has_gil() and cores() > 1


def _is_heavy(node: NodePlan) -> bool:
    return node.meter is not None and node.meter.is_heavy


def _running_heavy() -> int:
    return len(underway)
