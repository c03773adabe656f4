"""Who polls the workers: one thread at a time, for all that wait.

The first run that waits leads: it sleeps in epoll, and what it reads may end the waiting of others. The others follow:
they sleep on their mailbox until something is posted to it or the lead is handed to them. A run that begins in a signal
handler may find that the leader is interrupted further down its own stack, and then leads in its place. Owns epoll's
bell; must not know what is read.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections import deque
from threading import get_ident
from time import monotonic
from typing import Protocol

from mpflow._exec.door import Door
from mpflow._exec.mailbox import Mailbox

_FOREVER = float("inf")

Events = list[tuple[int, int]]


class _Waiter:
    __slots__ = ("is_promoted", "mailbox", "thread")

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.is_promoted = False
        self.thread = get_ident()


class Polled(Protocol):
    """What there is to poll for."""

    def handle(self, events: Events) -> None: ...
    def alarm_at(self) -> float:
        """When `handle` must be called without any event."""
        ...

    def begin_calm(self) -> float:
        """For how many seconds events may wait, unless somebody knocks. If for any, `end_calm` follows."""
        ...

    def end_calm(self) -> bool:
        """Whether somebody has knocked."""
        ...

    def unattended(self) -> None:
        """The last run that waited has left."""
        ...


class Polling:
    """The epoll of a pool and whose turn it is to wait on it. Each call names the pool: held, it would never be dropped."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.epoll.register(self._bell, select.EPOLLIN)
        self.door = Door()
        self._bell_and_door = select.poll()
        self._bell_and_door.register(self._bell, select.POLLIN)
        self._bell_and_door.register(self.door, select.POLLIN)
        # Whoever polls, under the key 0. A dict says by itself who that is, so that Ctrl-C between taking the lead and
        # remembering it loses nothing.
        self._leader: dict[int, _Waiter] = {}
        self._followers: deque[_Waiter] = deque()
        self.attended_at = 0.0
        """When a run last polled; infinite while one does."""
        self._wakes_at = 0.0
        self._is_closed = False

    @property
    def is_led(self) -> bool:
        """Whether somebody polls right now."""
        return bool(self._leader)

    def alarm(self, alarm_at: float) -> None:
        """Wake whoever polls if it would sleep longer than until then."""
        if alarm_at < self._wakes_at:
            self._ring()

    def wake(self) -> None:
        """Have whoever polls look again."""
        self._ring()

    def wait(self, pool: Polled, mailbox: Mailbox, timeout_s: float | None) -> None:
        """See `WorkerPool.wait`."""
        deadline = _FOREVER if timeout_s is None else monotonic() + timeout_s
        me = _Waiter(mailbox)
        try:
            while not mailbox.items:
                leader = self._leader.setdefault(0, me)
                if leader is me:
                    if self._is_closed:  # what a run still waits for comes from elsewhere
                        self._leave(pool, me)
                        mailbox.wait(None if deadline == _FOREVER else deadline - monotonic())
                    else:
                        self._lead(pool, mailbox, deadline)
                    return
                if leader.thread == me.thread:
                    self._stand_in(leader, me, pool, deadline)
                    return
                me.is_promoted = False
                self._followers.append(me)
                if self._leader:
                    mailbox.wait(None if deadline == _FOREVER else deadline - monotonic())
                with contextlib.suppress(ValueError):
                    self._followers.remove(me)
                if monotonic() >= deadline or (self._leader and not me.is_promoted):
                    return
        finally:
            self._leave(pool, me)

    def once(self, pool: Polled, *, attends: bool) -> None:
        """Handle what there is, unless somebody polls already. Never blocks. `attends`: the caller will be back."""
        me = _Waiter(_nobody)
        attended_at = monotonic() if attends else self.attended_at
        try:
            if self._leader.setdefault(0, me) is me and not self._is_closed:
                events = self.epoll.poll(0, 64)
                self._was_rung(events)
                pool.handle(events)
        finally:
            self._leave(pool, me)
            if self.attended_at != _FOREVER:
                self.attended_at = attended_at

    def close(self) -> None:
        """Close the descriptors, or have whoever sleeps on them wake up and do so."""
        self._is_closed = True
        me = _Waiter(_nobody)
        if self._leader.setdefault(0, me) is me:
            self.let_go()
            del self._leader[0]
        else:
            self._ring()

    def let_go(self) -> None:
        """Close the descriptors. For the leader, and for a forked child, where nobody leads."""
        self.epoll.close()
        self.door.close()
        bell, self._bell = self._bell, -1
        if bell >= 0:
            os.close(bell)

    def _lead(self, pool: Polled, mailbox: Mailbox, deadline: float) -> None:
        self.attended_at = _FOREVER
        poll = self.epoll.poll
        if mailbox._bell.acquire(blocking=False):  # rung before it was known that we lead
            return
        while not mailbox.items:
            self._wakes_at = _FOREVER  # before the alarm is read: whoever sets an earlier one from here on rings
            self._wakes_at = until = min(deadline, pool.alarm_at())
            mailbox.notify = self._ring
            try:
                is_wanted = not mailbox.items and self._rest(pool, until)
                timeout_s = None if until == _FOREVER else max(0.0, until - monotonic())
                if is_wanted:
                    timeout_s = 0
                events = poll(timeout_s, 64) if not mailbox.items else []
            finally:
                mailbox.notify = None
            self._wakes_at = 0.0
            rung = self._was_rung(events)
            pool.handle(events)
            if rung or monotonic() >= deadline:
                return

    def _rest(self, pool: Polled, until: float) -> bool:
        """Listen to the bell and the door alone, for as long as `pool` is calm; whether a worker has knocked."""
        calm_s = pool.begin_calm()
        if not calm_s:
            return False
        try:
            self._bell_and_door.poll(int(1000 * max(0.0, min(calm_s, until - monotonic()))))
        finally:
            has_knocked = pool.end_calm()
        return has_knocked

    def _stand_in(self, leader: _Waiter, me: _Waiter, pool: Polled, deadline: float) -> None:
        """Lead while the leader is interrupted by us."""
        self._leader[0] = me
        try:
            self._lead(pool, me.mailbox, deadline)
        finally:
            self._leader[0] = leader
            self._ring()  # it goes on sleeping where it was, though what it waits for may be there by now

    def _leave(self, pool: Polled, me: _Waiter) -> None:
        """Stop leading or following; see to it that somebody leads if somebody waits."""
        was_leader = self._leader.get(0) is me
        if was_leader:
            self.attended_at = monotonic()
            del self._leader[0]
            if self._is_closed:
                self.close()
        with contextlib.suppress(ValueError):
            self._followers.remove(me)
        if was_leader or me.is_promoted:
            try:
                # The last one: whoever came before it in its thread is interrupted, and wakes when it has left.
                heir = self._followers.pop()
            except IndexError:
                pool.unattended()
            else:
                heir.is_promoted = True
                heir.mailbox.ring()

    def _was_rung(self, events: Events) -> bool:
        if not any(fd == self._bell for fd, _ in events):
            return False
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        return True

    def _ring(self) -> None:
        try:
            os.eventfd_write(self._bell, 1)
        except (OSError, ValueError):  # closed: nobody sleeps there any more
            pass


_nobody = Mailbox()
