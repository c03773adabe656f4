"""Group commit: rows of many runs are committed together, by a thread that lives while there are some, or by whoever waits.

It keeps the order in which rows were given, and makes sure that nothing is committed after what failed. It must not know
what rows hold.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Sequence
from weakref import WeakSet

from mpflow.checkpoint.log.driver import Batch, Row

GATHER_S = 0.005
"""How long the thread lets rows gather. With a commit's own time far below the 50 ms that a crash may cost."""
IDLE_S = 0.05
"""How long the thread waits for more before it ends."""
MOST_WAITING_BYTES = 64 << 20
"""Beyond this whoever gives rows commits them itself: a run must not outrun its disk."""
LEAVE_S = 5.0
"""How long the program's end waits for a commit that is under way."""

_writers: WeakSet[GroupWriter] = WeakSet()
os.register_at_fork(after_in_child=_writers.clear)


@atexit.register
def _end_threads() -> None:
    """Python stops daemon threads where they are, one that commits with its lock: whoever closes its saver later would hang."""
    for writer in tuple(_writers):
        writer.end_thread(LEAVE_S)


class GroupWriter:
    """Commits what it is given by ``commit``. Thread-safe.

    A failure is every later caller's who gives rows for the same thread, until `forget`: rows after a gap are refused.
    """

    def __init__(self, commit: Callable[[Sequence[Batch]], None]) -> None:
        self._commit = commit
        self._waiting: list[Batch] = []
        self._waiting_bytes = 0
        self._failures: dict[str, BaseException] = {}
        self._changed = threading.Condition()
        self._committing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        _writers.add(self)

    def post(self, thread_id: str, rows: Sequence[Row]) -> None:
        """Have the rows committed soon. Raises what failed before for this thread."""
        if self._failures:
            self._raise(thread_id)
        with self._changed:
            self._waiting.append((thread_id, rows))
            self._waiting_bytes += sum([len(row.data) for row in rows])
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mpflow-saver", daemon=True)
                self._thread.start()
            elif len(self._waiting) == 1:
                self._changed.notify()
            full = self._waiting_bytes > MOST_WAITING_BYTES
        if full:
            self.flush(thread_id)

    def write(self, thread_id: str, rows: Sequence[Row]) -> None:
        """Commit the rows in the calling thread, with all that waits before them; they are durable on return."""
        if self._failures:
            self._raise(thread_id)
        self._write(((thread_id, rows),))
        if self._failures:
            self._raise(thread_id)

    def write_all(self, batches: Sequence[Batch]) -> dict[str, BaseException]:
        """As `write`, rows of many threads, none of some; what failed for them, by thread, now or before."""
        self._write([batch for batch in batches if batch[1]])
        failures = self._failures
        return {thread_id: failures[thread_id] for thread_id, _ in batches if thread_id in failures} if failures else {}

    def _write(self, batches: Sequence[Batch]) -> None:
        if self._committing.acquire(blocking=False):
            try:
                self._commit_waiting(batches)
            finally:
                self._committing.release()
        else:  # whoever comes next commits what has gathered
            with self._changed:
                self._waiting.extend(batches)
            self._drain()

    def flush(self, thread_id: str | None = None) -> None:
        """Commit all that waits. Raises what failed for this thread."""
        self._drain()
        if thread_id is not None and self._failures:
            self._raise(thread_id)

    def forget(self, thread_id: str) -> None:
        """What failed for a thread is over: it starts again from what was committed."""
        self._failures.pop(thread_id, None)

    def close(self) -> None:
        """Commit all that waits and end the thread. As the interpreter ends, that has been done."""
        if not sys.is_finalizing():
            self._drain()
            self.end_thread()

    def end_thread(self, timeout_s: float | None = None) -> None:
        """Have the thread end, which commits what waits before it does, and wait for that."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify()
        if thread is not None:
            thread.join(timeout_s)

    def _raise(self, thread_id: str) -> None:
        error = self._failures.get(thread_id)
        if error is not None:
            raise error

    def _drain(self) -> None:
        with self._committing:  # one at a time: the order of rows is that of their commits
            self._commit_waiting()

    def _commit_waiting(self, last: Sequence[Batch] = ()) -> None:
        batches = last
        if self._waiting:
            with self._changed:
                batches = [*self._waiting, *last]
                self._waiting = []
                self._waiting_bytes = 0
        if self._failures:
            batches = [batch for batch in batches if batch[0] not in self._failures]
        if not batches:
            return
        try:
            self._commit(batches)
        except BaseException as error:
            self._failures.update((thread_id, error) for thread_id, _ in batches)
            if not isinstance(error, Exception):
                raise

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    if not self._closed:
                        self._changed.wait(IDLE_S)
                    if not self._waiting:
                        self._thread = None
                        self._closed = False
                        return
                if not self._closed:
                    self._changed.wait(GATHER_S)
            self._drain()
