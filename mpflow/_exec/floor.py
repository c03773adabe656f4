"""What the foreman and those who work for it share: the queue, the crew, what is shipped, and what is to be handed out."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from mpflow._exec import outcomes
from mpflow._exec.admission import Admission
from mpflow._exec.calm import Calm
from mpflow._exec.outcomes import Deliveries
from mpflow._exec.parcels import Parcels
from mpflow._exec.queues import Queue
from mpflow._exec.roster import Roster
from mpflow._exec.stalls import Stalls
from mpflow._messages import CANCELLED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mpflow._messages import Attempt
    from mpflow.errors import PoolClosedError


class Floor:
    """One pool's. Nobody who works here posts an outcome: it goes into `outgoing`, in order."""

    def __init__(self, roster: Roster, arena_bytes: int, tidy: Callable[[], None]) -> None:
        self.roster = roster
        self.most = roster.max_workers
        self.parcels = Parcels(arena_bytes, tidy)
        self.queue = Queue()
        self.stalls = Stalls(self.queue)
        self.callers = self.stalls.callers
        self.calm = Calm(roster, self.stalls)
        self.admission = Admission(self.queue, self.parcels.shipments, self.most, roster.counts, self.stalls)
        self.outgoing: Deliveries = deque()
        self.closed: PoolClosedError | None = None
        """Why attempts are cancelled from now on."""

    def end(self, attempts: Sequence[Attempt], kind: int, payload: Any) -> None:
        if attempts:
            if kind == CANCELLED:
                payload = self.closed
            self.roster.counts["ended"] += len(attempts)
            self.outgoing.append((outcomes.endings, (kind, deque(attempts), payload)))
