"""What is known of one node's fitness to move: the walk's word, the trial's result, and where it stands now.

A node that the walk let through is tried before it is trusted: one of its tasks is run a second and a third time, in two
workers, for the result and the figures alone. Two workers that disagree hold the node, as does whatever its guard sees.
"""

from __future__ import annotations

import threading
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mpflow._columns import Attempts, inputs_of
from mpflow._exec.functions import Watched
from mpflow._exec.placement import surroundings
from mpflow._exec.placement.decide import THREAD, Verdict
from mpflow._exec.placement.guard import GuardedProgram, Stays
from mpflow._exec.placement.profile import Pace
from mpflow._exec.placement.safety import walk
from mpflow._exec.placement.values import are_flat, survey
from mpflow._messages import CANCELLED, DONE, FAILED, LOST, Attempt, Outcome, one_by_one
from mpflow._wire.codec import Codec
from mpflow._wire.errors import WireError
from mpflow.errors import NodeNotPicklableError

if TYPE_CHECKING:
    from mpflow._exec.placement.costs import CostBook
    from mpflow._exec.placement.profile import Profile
    from mpflow._exec.program import NodeProgram

MOST_CHANGES = 3
"""A node whose globals or outer variables are bound anew more often than this has state after all."""
MOST_FAILURES = 3
COPIES = 2

_codec = Codec(trust=True)


class Standing:
    """One node's, shared by the runs of its graph and by their threads; ``lock`` is held for changes of trust."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.lock = threading.Lock()
        self.place = THREAD
        self.verdict: Verdict | None = None
        self.held: str | None = None
        self.proven = False
        self.guarded: GuardedProgram | None = None
        self.digest = ""
        """Of all that the walk let through: tried once, the node need not be tried again while this is the same."""
        self.trial: Trial | None = None
        self.missed_s = 0.0
        """What its tasks would have been done earlier by, had they not run in threads."""
        self.trial_at_s = 0.0
        """It is tried, for the first time or again, when it has missed so much."""
        self.failures = 0
        self.returned = 0
        """Tasks that came back from a worker to be run in a thread."""
        self._changes = 0
        self._clearing = threading.Lock()
        self._clearance: Any = None
        self._classes: dict[type, Any] = {}
        self._heard = Watched()
        """What workers have measured, as far as it is in the profile."""

    def hear(self, pool: Any, costs: CostBook) -> None:
        """Take in what workers have measured lately."""
        if self.guarded is None:
            return
        watched = pool.watched(self.guarded)
        calls = watched.calls
        with self.lock:
            last = self._heard
            if calls <= last.calls:
                return
            self._heard = now = Watched(calls, watched.own_s, watched.cpu_s, watched.waited_s)
            profile = self.profile
            calls -= last.calls
            taken_s = now.cpu_s - last.cpu_s + now.waited_s - last.waited_s
            profile.note_away(calls, now.own_s - last.own_s, taken_s + calls * profile.input_bytes / costs.bytes_per_s)

    def hold(self, reason: str) -> None:
        """Keep the node in this process from now on."""
        with self.lock:
            if self.held is None:
                self.held = reason
            self.proven = False
            self.place = THREAD

    def reason_to_stay(self, program: NodeProgram) -> str | None:
        """Why the node must not move, as of now; None if it may. Walks where it must, and notices what was bound anew."""
        with self._clearing:  # a run of another thread may look at the same moment
            return self._reason_to_stay(program)

    def _reason_to_stay(self, program: NodeProgram) -> str | None:
        if self.held is not None:
            return self.held
        if self._clearance is not None:
            seen = (self._clearance, *self._classes.values())
            changed = next((name for name in (clearance.changed() for clearance in seen) if name is not None), None)
            if changed is None:
                return None
            self._changes += 1
            self.proven = False
            if self._changes > MOST_CHANGES:
                self.hold(f"'{changed}' changes again and again")
                return self.held
        self._clear(program)
        return self.held

    def _clear(self, program: NodeProgram) -> None:
        self._classes.clear()
        reason = needs_of(program)
        if reason is None:
            self._clearance = clearance = walk(program.callables.source)
            reason = clearance.held
            self.guarded = GuardedProgram(program, clearance.entries, clearance.imports, surroundings.look())
            self._heard = Watched()
            self.digest = clearance.digest()
            self.proven = reason is None and self.digest == self.profile.proven_as
        if reason is not None:
            self.hold(reason)

    def takes(self, attempts: Attempts) -> Attempts:
        """Those whose inputs may be copied; holds the node if some may not."""
        inputs = inputs_of(attempts)
        if are_flat(inputs):
            return attempts
        seen: dict[int, bool] = {}
        good = [attempt for attempt, input in zip(attempts, inputs, strict=True) if self._takes(input, seen)]
        return attempts if len(good) == len(inputs) else good

    def _takes(self, input: Any, seen: dict[int, bool]) -> bool:
        found = seen.get(id(input))
        if found is None:
            found = seen[id(input)] = self._may_copy(input)
        return found

    def _may_copy(self, input: Any) -> bool:
        given = survey(input, "its input")
        self.profile.input_bytes += (given.size_bytes - self.profile.input_bytes) * 0.125
        if given.odd is not None:
            self.hold(given.odd)
            return False
        for kind in given.classes.difference(self._classes):
            clearance = self._classes[kind] = walk(kind)
            if clearance.held is None and issubclass(kind, Path) and self._clearance is not None:
                clearance.held = self._clearance.moves
            if clearance.held is not None:
                self.hold(clearance.held)
                return False
        return True

    def failed(self, error: Any) -> bool:
        """Judge a failure in a worker; whether the node is held for it."""
        if isinstance(error, Stays):
            self.hold(str(error))
        elif isinstance(error, NodeNotPicklableError):
            self.hold(f"it cannot travel: {error.path} ({error.detail})")
        elif isinstance(error, WireError):
            self.hold(f"what it returns cannot travel: {error}")
        else:
            self.failures += 1
            if self.failures >= MOST_FAILURES and self.failures * 10 > self.profile.sent:
                self.hold(f"{self.failures} of its calls failed in a worker, the last with {type(error).__name__}")
        return self.held is not None


def needs_of(program: NodeProgram) -> str | None:
    """What a node needs that only this process has, by the shape of its callable; None if nothing is plain to see."""
    callables = program.callables
    if callables.func is None:
        return "it is async: it runs on the event loop"
    if callables.inject:
        return f"it is given '{callables.inject[0]}', which belongs to this process"
    if hasattr(callables.source, "get_subgraphs"):
        return "it is a graph: its own nodes are placed one by one"
    return None


class Trial:
    """Copies of one task, in two workers at once. An outbox of its own takes what comes of them, whenever that is."""

    def __init__(self, standing: Standing, costs: CostBook) -> None:
        self._standing = standing
        self._costs = costs
        self._pool: Any = None
        self._open = COPIES
        self._results: list[bytes] = []
        self._started_at = 0.0
        self._was_started = False
        self._heard = False

    def begin(self, attempt: Attempt, pool: Any) -> bool:
        """Send copies of an attempt that has not started. False if they cannot be; the node is then held."""
        standing = self._standing
        assert standing.guarded is not None
        started = perf_counter()
        try:
            data = _codec.encode(attempt.input)
            inputs = [_codec.decode(data) for _ in range(COPIES)]
        except WireError as error:
            standing.hold(f"its input cannot travel: {error}")
            return False
        self._costs.note_bytes(len(data), perf_counter() - started)
        with standing.lock:
            if standing.trial is not None:  # a run of another thread has just begun one
                return True
            standing.trial = self
        standing.profile.input_bytes = float(len(data))
        standing.missed_s = 0.0
        standing.trial_at_s = max(self._costs.start_s, 2 * standing.trial_at_s)
        self._pool = pool
        self._was_started = self._costs.is_started
        self._started_at = perf_counter()
        copies = [self._copied(attempt, input) for input in inputs]
        try:
            pool.submit(copies)
        except Exception as error:  # a pool that is closed, or another process's
            standing.trial = None
            standing.hold(f"the pool does not take its tasks: {type(error).__name__}")
            return False
        return True

    def _copied(self, attempt: Attempt, input: Any) -> Attempt:
        guarded = self._standing.guarded
        copy = Attempt(None, 1, guarded, input, attempt.facts, attempt.path, attempt.triggers)
        copy.outbox = self
        # As if it must not run twice: such attempts travel alone, and so go to two workers.
        copy.rerun_on_loss = False
        return copy

    def post(self, outcome: Outcome) -> None:
        """Take an outcome, from whichever thread reads the workers."""
        for single in one_by_one((outcome,)):
            self._post(single)

    def _post(self, outcome: Outcome) -> None:
        standing = self._standing
        kind, _, payload, seconds = outcome
        with standing.lock:
            if kind == DONE:
                self._take(payload, seconds)
            elif kind not in (FAILED, LOST, CANCELLED):
                return  # something said on the way
            self._open -= 1
        if kind == FAILED:
            standing.failed(payload)
        elif kind == LOST:
            standing.failed(RuntimeError("its worker died"))
        if not self._open:
            self._conclude()

    def _take(self, diff: Any, seconds: float) -> None:
        data = _codec.encode(diff)
        self._results.append(data)
        self._standing.profile.output_bytes = float(len(data))
        if not self._heard:
            self._heard = True
            self._costs.note_trip(perf_counter() - self._started_at - seconds, started=self._was_started)

    def _conclude(self) -> None:
        standing = self._standing
        if len(self._results) == COPIES:
            if self._results[0] == self._results[1]:
                standing.proven = standing.held is None
            else:
                standing.hold("two workers gave different results for one task")
            standing.profile.away_pace = Pace()
            standing.hear(self._pool, self._costs)
            self._costs.sound(self._pool)
        standing.trial = None
