"""The run's inbox: outcomes arrive from any thread or process and are taken by the one driver that waits for them."""

from __future__ import annotations

import threading
from collections import deque

from mpflow._messages import Notify, Outcome


class Mailbox:
    """Outcomes in arrival order. `post` is called from any thread; `take` and `wait` by the run's driver alone.

    ``notify``, when set, is called after a post: a driver that waits elsewhere (an event loop, a pool's poll) is woken
    through it. It must be cheap, callable from any thread, and must not raise.
    """

    __slots__ = ("_asleep", "_bell", "items", "notify")

    def __init__(self) -> None:
        self.items: deque[Outcome] = deque()
        self.notify: Notify | None = None
        self._bell = threading.Lock()
        self._bell.acquire()
        self._asleep = False

    def post(self, outcome: Outcome) -> None:
        self.items.append(outcome)
        notify = self.notify
        if notify is not None:
            notify()
        elif self._asleep:
            self.ring()

    def ring(self) -> None:
        """Wake a driver that is blocked in `wait`; harmless if none is."""
        self._asleep = False
        try:
            self._bell.release()
        except RuntimeError:  # already rung: the driver has not taken the bell yet
            pass

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until something was posted, `ring` was called or the time is up; whether there is something to take."""
        if self.items:
            return True
        self._asleep = True
        # A post between the check above and the line before it saw a driver awake and rang no bell.
        if not self.items:
            self._bell.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s))
        self._asleep = False
        return bool(self.items)

    def take(self) -> list[Outcome]:
        """All that has arrived."""
        items = self.items
        taken = []
        while items:
            taken.append(items.popleft())
        return taken
