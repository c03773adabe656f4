"""Moving the tasks of one run between threads and workers, for nodes that say nothing of where they run.

It asks `decide` with what was measured, has nodes tried before it trusts them, hands tasks to the pool a few at a time, and
takes back what turned out to belong here. Every outcome of a moved task passes it before the scheduler sees it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from mpflow._exec.cpu import cpu_count
from mpflow._exec.place import has_gil
from mpflow._exec.placement.costs import CostBook, book_of
from mpflow._exec.placement.decide import PROCESS, THREAD, Figures, Verdict, decide
from mpflow._exec.placement.guard import GuardedProgram
from mpflow._exec.placement.profile import heavy as underway
from mpflow._exec.placement.profile import peek
from mpflow._exec.placement.standing import Standing, Trial, taken_apart
from mpflow._exec.thread import HURRY
from mpflow._messages import CANCELLED, DONE, DONE_MANY, EVENT, FAILED, Attempt, Outcome, one_by_one
from mpflow.errors import PoolClosedError, WrongProcessError

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan
    from mpflow._engine.places import Places
    from mpflow._exec.placement.profile import Profile

LOOK_S = 0.02
"""How often tasks that wait for a thread are reconsidered."""
AHEAD_S = 0.03
"""The pool is given so much work ahead for each worker: enough not to wait for us, and little to take back."""

away: dict[int, Profile] = {}
"""The moved tasks under way, of all runs: by the id of their attempt, their node's profile."""


class Stretch:
    """A time in which the pool always had a call of a node."""

    __slots__ = ("_cpu_s", "_ended", "_since")

    def __init__(self, now: float) -> None:
        self._since = now
        self._ended = 0
        self._cpu_s = 0.0

    def lanes(self, now: float, cpu_s: float, workers: int) -> float:
        """Take in an end; how many processors were kept busy, 0 while too few have ended to say."""
        self._ended += 1
        self._cpu_s += cpu_s
        return self._cpu_s / (now - self._since) if self._ended > 4 * workers and now > self._since else 0.0


class Director:
    """The placing of one run's tasks. Used by the run's driver alone."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._cores = cpu_count()
        self._next_look = 0.0
        self._costs: CostBook | None = None
        self._mine: dict[int, Attempt] = {}
        self._reserves: dict[NodePlan, deque[Attempt]] = {}
        self._in_pool: dict[NodePlan, int] = {}
        self._stretches: dict[NodePlan, Stretch] = {}

    # -- tasks come ----------------------------------------------------------------------------------------------------

    def place(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Send to the pool what belongs there; return what is for threads."""
        groups: dict[NodePlan, list[Attempt]] = {}
        for attempt in attempts:
            groups.setdefault(attempt.task.node, []).append(attempt)
        auto = self._places.auto
        heavy = sum(len(group) for node, group in groups.items() if _is_heavy(node))
        stay: list[Attempt] = []
        for node, group in groups.items():
            if node not in auto or not _is_heavy(node):
                stay += group
            elif group[0].alone and node.meter.standing is not None and node.meter.standing.guarded is not None:
                self._send(node, group)  # it may have killed a worker: not here
            else:
                stay += self._placed(node, group, heavy)
        return stay

    def keeps(self, attempt: Attempt) -> bool:
        """Whether a step's only attempt is for the driver's own thread; else it has been sent to the pool."""
        return not _is_heavy(attempt.task.node) or bool(self.place([attempt]))

    def _placed(self, node: NodePlan, group: list[Attempt], heavy: int) -> list[Attempt]:
        standing = standing_of(node.meter)
        tasks = heavy + len(away) + _running_heavy()
        verdict = self._judge(node, standing, tasks)
        if verdict.place is THREAD or not standing.proven:
            self._missed(node, standing, tasks, group)
            return group
        standing.place = PROCESS
        good = [attempt for attempt in group if standing.takes(attempt)]
        if good:
            self._send(node, good)
        return [] if len(good) == len(group) else [attempt for attempt in group if attempt.program is node.program]

    def _judge(self, node: NodePlan, standing: Standing, tasks: int) -> Verdict:
        """What to do with so many tasks now; walks over the node only if it would move."""
        # To be tried costs nobody anything but the pool's start: that is weighed in `_missed`.
        costs = self._book().costs()._replace(is_started=self._book().is_started or not standing.proven)
        figures = figures_of(node.meter)
        place = standing.place
        verdict = decide(figures, costs, tasks, cores=self._cores, has_gil=True, place=place, held=standing.held)
        if verdict.place is PROCESS:
            held = standing.reason_to_stay(node.program)
            if held is not None:
                verdict = decide(figures, costs, tasks, cores=self._cores, has_gil=True, place=place, held=held)
        if verdict.place is THREAD and place is PROCESS and tasks > 1:
            # It did no better there: it is tried anew before it is sent again, and ever more rarely.
            standing.place = THREAD
            standing.proven = False
            node.meter.away_lanes = 0.0
        if tasks > 1 or standing.verdict is None:
            standing.verdict = verdict
        return verdict

    def _book(self) -> CostBook:
        if self._costs is None:
            with HURRY:
                self._costs = book_of(self._places.any_pool())
        return self._costs

    def _missed(self, node: NodePlan, standing: Standing, tasks: int, waiting: Sequence[Attempt]) -> None:
        """These go to threads. Where they might be done earlier in workers, have the node tried once that adds up.

        A node that was tried and did no better is tried again, ever more rarely: a machine is not always as busy.
        """
        book = self._book()
        if standing.held is not None or standing.trial is not None:
            return
        hoped = figures_of(node.meter)._replace(sent=0)
        costs = book.costs()._replace(is_started=True)
        verdict = decide(hoped, costs, tasks, cores=self._cores, has_gil=True, place=THREAD, held=None)
        if verdict.place is THREAD:
            return
        standing.missed_s += verdict.thread_s - verdict.process_s
        if standing.missed_s < (standing.trial_at_s or (0.0 if book.is_started else book.start_s)):
            return
        if standing.reason_to_stay(node.program) is not None:
            return
        copied = waiting[-1]
        if standing.takes(copied):
            with HURRY:
                begun = Trial(standing, book).begin(copied, self._places.processes())
            if not begun:
                self._places.pool = None

    # -- tasks go out -------------------------------------------------------------------------------------------------

    def _send(self, node: NodePlan, attempts: Sequence[Attempt]) -> None:
        guarded = node.meter.standing.guarded
        mailbox = self._places.run.mailbox
        for attempt in attempts:
            attempt.program = guarded
            attempt.outbox = mailbox
            self._mine[id(attempt)] = attempt
            away[id(attempt)] = node.meter
        self._reserves.setdefault(node, deque()).extend(attempts)
        self._top_up(node)

    def _top_up(self, node: NodePlan) -> None:
        """Let the pool have as many tasks of a node as keep it busy for a while."""
        reserve = self._reserves[node]
        in_pool = self._in_pool.get(node, 0)
        pool = self._places.processes()
        each_s = max(node.meter.away_s, 1e-5)
        window = pool.max_workers * max(2, min(64, round(AHEAD_S / each_s)))
        batch: list[Attempt] = []
        while reserve and in_pool + len(batch) < window:
            batch.append(reserve.popleft())
        if batch:
            if not in_pool:
                self._stretches[node] = Stretch(monotonic())
            self._in_pool[node] = in_pool + len(batch)
            try:
                pool.submit(batch)
            except (PoolClosedError, WrongProcessError) as error:
                # Nobody asked for the pool: that it is gone fails no run.
                self._places.pool = None
                node.meter.standing.hold(f"its pool is gone ({type(error).__name__})")
                self._in_pool[node] = in_pool
                self._bring_back([*batch, *reserve])
                reserve.clear()

    def _bring_back(self, attempts: Sequence[Attempt]) -> None:
        """Let threads run these after all."""
        for attempt in attempts:
            self._forget(attempt)
            attempt.program = attempt.task.node.program
        if attempts:
            self._places.threads().submit(attempts)

    def _forget(self, attempt: Attempt) -> None:
        self._mine.pop(id(attempt), None)
        away.pop(id(attempt), None)

    # -- outcomes come back -------------------------------------------------------------------------------------------

    def heard(self, outcomes: list[Outcome]) -> list[Outcome]:
        """The outcomes for the scheduler; looks at the waiting tasks now and then."""
        if self._mine:
            heard = (outcome if self._is_others(outcome) else self._heard_one(outcome) for outcome in _apart(outcomes))
            outcomes = [outcome for outcome in heard if outcome is not None]
        if monotonic() >= self._next_look:
            self._look()
        return outcomes

    def _is_others(self, outcome: Outcome) -> bool:
        return outcome[0] is EVENT or type(outcome[1]) is list or id(outcome[1]) not in self._mine

    def _heard_one(self, outcome: Outcome) -> Outcome | None:
        kind, attempt, payload, seconds = outcome
        node = attempt.task.node
        standing = node.meter.standing
        self._in_pool[node] -= 1
        self._forget(attempt)
        back = False
        if kind is DONE:
            payload, (cpu_s, waited_s, guard_s) = taken_apart(payload)
            meter = node.meter
            aside_s = guard_s + self._book().transfer_s(meter.input_bytes + meter.output_bytes)
            meter.note_away(cpu_s, waited_s, aside_s)
            lanes = self._stretches[node].lanes(monotonic(), cpu_s, self._book().workers)
            if lanes:
                meter.away_lanes += (lanes - meter.away_lanes) * (0.25 if meter.away_lanes else 1.0)
            outcome = kind, attempt, payload, seconds
        elif kind is FAILED:
            # Whatever it was, a thread shows what it is: nothing the node did in the worker can have been seen.
            back = True
            standing.failed(payload)
            standing.returned += 1
        reserve = self._reserves[node]
        if back:
            self._bring_back([attempt])
        if standing.place is THREAD and reserve:
            self._bring_back([*reserve])
            reserve.clear()
        elif reserve:
            self._top_up(node)
        return None if back else outcome

    def _look(self) -> None:
        """Reconsider what waits for a thread, and what waits for a worker."""
        self._next_look = monotonic() + LOOK_S
        threads = self._places.threads()
        waiting: dict[NodePlan, list[Attempt]] = {}
        for attempt in threads.waiting():
            if attempt.task.node.meter is not None:
                waiting.setdefault(attempt.task.node, []).append(attempt)
        unseen = {node.meter for node in waiting if not node.meter.seen}
        if unseen:
            peek(unseen)
        heavy = sum(len(group) for node, group in waiting.items() if _is_heavy(node)) + len(away) + _running_heavy()
        for node, group in waiting.items():
            if not _is_heavy(node) or node not in self._places.auto:
                continue
            standing = standing_of(node.meter)
            if self._judge(node, standing, heavy).place is THREAD or not standing.proven:
                self._missed(node, standing, heavy, group)
                continue
            standing.place = PROCESS
            taken = threads.withdraw(set(map(id, group)))
            good = [attempt for attempt in taken if standing.takes(attempt)]
            if len(good) < len(taken):
                chosen = set(map(id, good))
                threads.submit([attempt for attempt in taken if id(attempt) not in chosen])
            if good:
                self._send(node, good)
        for node, reserve in self._reserves.items():
            if reserve and self._judge(node, standing_of(node.meter), heavy).place is THREAD:
                self._bring_back([*reserve])
                reserve.clear()

    def patience_s(self) -> float | None:
        """How long the driver may wait before it should look again; None for as long as it likes."""
        if not self._places.threads().has_queued:
            return None
        return max(0.0, self._next_look - monotonic())

    # -- tasks are given up -------------------------------------------------------------------------------------------

    def cancel(self, attempts: Sequence[Attempt], *, kill: bool) -> list[Attempt]:
        """Cancel what is with the pool, or on its way there; return what is not."""
        others: list[Attempt] = []
        in_pool: list[Attempt] = []
        for attempt in attempts:
            if id(attempt) not in self._mine:
                others.append(attempt)
                continue
            try:
                self._reserves[attempt.task.node].remove(attempt)
            except ValueError:
                in_pool.append(attempt)
            else:
                self._forget(attempt)
                self._places.run.mailbox.post((CANCELLED, attempt, None, 0.0))
        if in_pool:
            self._places.processes().cancel(in_pool, kill=kill)
        return others

    def close(self) -> None:
        """The run is over: what it moved is no load any more."""
        for key in self._mine:
            away.pop(key, None)
        self._mine.clear()


def _apart(outcomes: list[Outcome]) -> Iterator[Outcome]:
    """Outcomes of many attempts that were moved, one by one; others as they are."""
    for outcome in outcomes:
        if outcome[0] == DONE_MANY and type(outcome[1][0].program) is GuardedProgram:
            yield from one_by_one((outcome,))
        else:
            yield outcome


def standing_of(profile: Profile) -> Standing:
    if profile.standing is None:
        profile.standing = Standing(profile)
    return profile.standing


def figures_of(profile: Profile) -> Figures:
    """The figures to decide with: those of the place where the node runs now."""
    standing = profile.standing
    cpu_s, lanes = profile.cpu_s, profile.lanes
    turn_s = cpu_s / lanes if lanes else 0.0
    if profile.sent and cpu_s and standing is not None and standing.place is PROCESS:
        # Threads have not run it lately: they would take as much more as it computes more.
        turn_s *= profile.away_cpu_s / cpu_s
        cpu_s = profile.away_cpu_s
    return Figures(
        profile.calls,
        cpu_s,
        profile.wall_s,
        turn_s,
        profile.sent,
        profile.away_s,
        profile.encode_s,
        profile.input_bytes + profile.output_bytes,
        profile.away_lanes,
    )


def may_move() -> bool:
    """Whether moving nodes can be of any use in this process."""
    return has_gil() and cpu_count() > 1


def _is_heavy(node: NodePlan) -> bool:
    return node.meter is not None and node.meter.is_heavy


def _running_heavy() -> int:
    return len(underway)
