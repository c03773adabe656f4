"""For how long nobody needs to listen to the workers.

While each has plenty of work left, what they send lies safe in their sockets: the process that runs the graph takes it in
later, all at once, and costs them less of the cores. Whoever comes to the end of its work, or says anything but small results,
knocks (see `door`). It stays away for longer where nobody waits for single results. Must not read anything.
"""

from __future__ import annotations

from time import monotonic
from typing import Final

from mpflow._exec.crew import READY
from mpflow._exec.door import await_knocks, expect_none
from mpflow._exec.roster import Roster
from mpflow._exec.stalls import Stalls

LONGEST_S: Final = 0.1
WATCHED_S: Final = 0.005
"""The longest where results are streamed or saved one by one."""
_SHORTEST_S: Final = 0.001
_WARY_S: Final = 1.0
"""For so long after a worker has said anything but small results, all of them are listened to: more of it may follow, and a
task may wait for an answer, or its socket may be full."""
SMALL_BYTES: Final = 1 << 15


class Calm:
    """Of one pool."""

    def __init__(self, roster: Roster, stalls: Stalls) -> None:
        self._roster = roster
        self._stalls = stalls
        self._wary_until = 0.0

    def disturb(self) -> None:
        """Something came that cannot wait."""
        self._wary_until = monotonic() + _WARY_S

    def begin(self) -> float:
        """How long it lasts, unless somebody knocks, in seconds; 0 if somebody should listen. If not 0, `end` follows."""
        if not self.lasts_s():
            return 0.0
        await_knocks(self._roster.crew)
        # Whoever had come to its last batch before it was asked to knock has not.
        calm_s = self.lasts_s()
        if not calm_s:
            self.end()
        return calm_s

    def end(self) -> None:
        """Somebody listens again."""
        expect_none(self._roster.crew)

    def lasts_s(self) -> float:
        """For how long nobody needs to listen to workers that knock: while one runs its last batch, for half of the time in
        which it will have started the last task of it."""
        calm_s = LONGEST_S
        crew = self._roster.crew
        if not crew or self._stalls or self._wary_until > monotonic():
            return 0.0
        for worker in crew:
            if worker.state != READY or worker.wants_out or not worker.window or not worker.is_measured:
                return 0.0
            if worker.taken_back:  # what was taken back still counts as waiting there
                return 0.0
            if not worker.has_more:
                calm_s = min(calm_s, worker.waiting * worker.mean_s / 2)
            if not worker.window.is_unwatched:
                calm_s = min(calm_s, WATCHED_S)
        return calm_s if calm_s >= _SHORTEST_S else 0.0
