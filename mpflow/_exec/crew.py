"""One worker as the parent knows it: its link, its page, and its window: the attempts it was given and has not answered.

Owns descriptors and signals of that process. Must not decide what becomes of an attempt: the pool does.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterable
from typing import NamedTuple

from mpflow._exec import batches, facts, link, logs, slots
from mpflow._exec.functions import Shipment
from mpflow._exec.parcels import Inputs, Parcels
from mpflow._exec.shelf import Sheet
from mpflow._exec.spawn import Started
from mpflow._exec.window import Window
from mpflow._messages import WorkerDeath
from mpflow._wire.mappings import Mappings
from mpflow._wire.shm import Lease

STARTING = 0
READY = 1
LEAVING = 2  # told to end after its window, or killed by us
GONE = 3


class Wait(NamedTuple):
    """A task that waits for a task that it called."""

    question: int
    """That is answered by its result; or one of those that `link` names."""
    is_open: bool
    """Its worker may be lent tasks meanwhile."""


class Worker:
    """A worker process and what it has been sent."""

    __slots__ = (
        "baseline_rss",
        "begun",
        "exclusive",
        "facts",
        "given",
        "is_fresh",
        "killed_for",
        "last_batch",
        "leave_by",
        "mappings",
        "mean_s",
        "next_number",
        "note",
        "page",
        "pid",
        "pidfd",
        "programs",
        "reader",
        "sent_at",
        "sock",
        "spent",
        "state",
        "taken_back",
        "values",
        "waits",
        "wants_out",
        "window",
        "writer",
    )

    def __init__(self, started: Started, now: float) -> None:
        self.pid = started.pid
        self.pidfd = started.pidfd
        self.sock = started.sock
        self.page = started.page
        self.reader = link.Reader()
        self.writer = link.Writer()
        self.mappings = Mappings()
        self.state = STARTING
        self.window = Window()
        self.waits: dict[int, Wait] = {}
        """The tasks of its window that wait for what they called, by number."""
        self.begun: dict[int, float] = {}
        """When those began that waited once, and may be below what runs, by `time.monotonic`."""
        self.next_number = 1
        self.last_batch = 0
        """The number of the first task of the last batch that it was given."""
        self.programs: set[int] = set()
        self.facts: dict[int, None] = {}
        self.values: set[int] = set()
        """The numbers of the values on the shelf that it was sent."""
        self.mean_s = 0.0
        """What a task of its last batch was expected to take; infinite if it was not known."""
        self.given = 0
        self.is_fresh = True
        """It has not been given a task."""
        self.exclusive = False
        """Nothing may be queued behind what it runs."""
        self.taken_back = False
        """It was forbidden to start tasks and has not yet said which it skipped."""
        self.wants_out = False
        """Epoll tells when its socket takes more."""
        self.killed_for = ""
        """Why the pool killed it: "cancel", "timeout", "close", "protocol", "recycle"; "" if it did not."""
        self.spent = False
        """It is given no more, and ends when its window is empty: recycled."""
        self.sent_at = now
        self.note = ""
        self.leave_by = float("inf")
        self.baseline_rss = 0

    @property
    def running(self) -> int:
        """The number of the task it runs, 0 for none."""
        return int(self.page.words[slots.RUNNING])

    @property
    def waiting(self) -> int:
        """How many tasks it was given and has not started."""
        return self.next_number - 1 - self.page.last_started

    @property
    def has_more(self) -> bool:
        """It has batches behind the one that it runs."""
        return self.page.last_started < self.last_batch

    @property
    def is_loading(self) -> bool:
        """It unpickles the node of the task that it runs: what that imports is not the task's time."""
        return not self.page.words[slots.STARTED_NS]

    @property
    def started_at(self) -> float:
        """When the task that it runs began, by `time.monotonic`; when it was sent while its node is being imported."""
        return int(self.page.words[slots.STARTED_NS]) / 1e9 or self.sent_at

    @property
    def is_measured(self) -> bool:
        """It is known what the tasks of its last batch take."""
        return 0 < self.mean_s < float("inf")

    @property
    def has_worked(self) -> bool:
        """It has started a task."""
        return bool(self.page.words[slots.HAS_WORKED])

    # -- sending -------------------------------------------------------------------------------------------------------

    def send_batch(
        self, inputs: Inputs, shipment: Shipment, parcels: Parcels, lease: Lease | None, *, is_lent: bool = False
    ) -> None:
        """Queue a batch and whatever of its program, facts and shared files this worker lacks. `flush` sends it."""
        attempts = inputs.attempts
        queued_bytes = self.writer.queued
        writer = self.writer
        if shipment.number not in self.programs:
            self.programs.add(shipment.number)
            writer.add(link.PROGRAM, shipment.number.to_bytes(8, "little"), shipment.data)
        for sheet in inputs.each:
            if type(sheet) is Sheet:
                self._send_values(sheet)
        first = self.next_number
        small, large = batches.split(inputs.each)
        groups = batches.groups_of(attempts, first, shipment.number, parcels.facts_number, small, parcels.codec.encode)
        for group in groups:
            number = group[2]
            if number not in self.facts:
                self.facts[number] = None
                writer.add(link.FACTS, number.to_bytes(8, "little"), parcels.facts_data[number])
        ticket = self._ticket(lease)
        parts = batches.join((logs.is_replaced(), logs.level(), ticket, inputs.whole, groups), large)
        self.next_number = first + len(attempts)
        self.last_batch = first
        self.window.add(first, attempts)
        writer.add(link.LENT if is_lent else link.TASKS, *parts)
        facts.drop_oldest(self.facts)
        parcels.drop_oldest_facts()
        shipment.traffic.bytes_out += writer.queued - queued_bytes
        self.given += len(attempts)
        shipment.batches += 1
        self.is_fresh = False
        self.mean_s = shipment.mean_s if shipment.seen else float("inf")

    def _send_values(self, sheet: Sheet) -> None:
        for kept in sheet.numbered():
            if kept.number not in self.values:
                self.values.add(kept.number)
                ticket = self._ticket(kept.lease)
                self.writer.add(link.VALUE, kept.number.to_bytes(8, "little"), ticket.to_bytes(8, "little"), kept.data)

    def _ticket(self, lease: Lease | None) -> int:
        """Hold the blocks of a lease for this worker, and queue the files that it lacks."""
        if lease is None:
            return 0
        ticket, files = lease.send_to(self.pid)
        for body, fds in link.file_frames(files):
            self.writer.add(link.FILES, body, fds=fds)
        return ticket

    def drop_files(self, numbers: list[int]) -> None:
        """Queue word of files that were closed here."""
        if numbers:
            self.writer.add(link.DROP_FILES, batches.pack(numbers))

    def forget(self, values: Iterable[int], programs: Iterable[int]) -> bool:
        """Queue word of values and programs that no task will name again; whether it had been sent any of them."""
        mine, ran = self.values.intersection(values), self.programs.intersection(programs)
        if mine or ran:
            self.values -= mine
            self.programs -= ran
            self.writer.add(link.FORGET, batches.pack((list(mine), list(ran))))
        return bool(mine or ran)

    def release(self) -> None:
        """Queue word of the blocks of this worker's arena that nobody here reads any more."""
        tickets = self.mappings.take_releases()
        if tickets:
            self.writer.add(link.RELEASE, batches.pack(tickets))

    def add_files(self, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            self.mappings.add_file(number, self.reader.fds.popleft())

    def flush(self) -> bool:
        """Send what the socket takes; whether all is sent. A peer that is gone counts as sent: its death tells."""
        try:
            return self.writer.flush(self.sock)
        except (BrokenPipeError, ConnectionError):
            return True

    # -- signals and the end -------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """End it and all it started, now."""
        # Before its hello it may not lead its group yet; after its end the number may be another's.
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> bool:
        """Stop it; whether it stands still (False: it has ended)."""
        try:
            os.kill(self.pid, signal.SIGSTOP)
            outcome = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        except OSError:
            return False
        return outcome is not None and outcome.si_code == os.CLD_STOPPED

    def go_on(self) -> None:
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGCONT)

    def wait_for_end(self, timeout_s: float) -> bool:
        """Whether it ends within a short time. For the gap between its socket's end and its own."""
        if self.pidfd < 0:
            return True
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def reap(self) -> WorkerDeath | None:
        """How it ended, or None if it has not."""
        exit_code: int | None = None
        signal_number: int | None = None
        peak = 0
        try:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            # What it started and left behind goes with it; while it is a zombie its number is nobody else's.
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
            _, status, usage = os.wait4(self.pid, 0)
            if os.WIFSIGNALED(status):
                signal_number = os.WTERMSIG(status)
            else:
                exit_code = os.waitstatus_to_exitcode(status)
            # A child's peak begins at its parent's size, whose image it was for a moment: no measure unless exceeded.
            if usage.ru_maxrss * 1024 > self.baseline_rss > 0:
                peak = usage.ru_maxrss * 1024
        except ChildProcessError:  # reaped by other code of this process: how it ended is not known
            pass
        notes = "\n".join(text for text in (self.note, self.page.notes()) if text.strip())
        return WorkerDeath(self.pid, exit_code, signal_number, peak, notes)

    def close(self) -> None:
        """Close its descriptors. In a forked child of the parent too, where it must end nothing."""
        self.state = GONE
        self.sock.close()
        self.page.close()
        self.reader.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
