"""What a storage must do for the log, and the rows it is given. It knows no checkpoint, channel or value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

STEP, RESULT = 0, 1
"""Kinds of row."""
RESUMABLE = "the last commit is whole, and the thread can be resumed from it"
"""What to say of a storage that was at work and failed."""
NEAR = 4
"""How many steps after a checkpoint are looked at for results beside it: a run's next step carries them along, and others
have hardly got between."""


class Row(NamedTuple):
    """One row of a log. ``data`` is opaque to a driver: bytes, checksummed by the log.

    ``base`` is set on steps: the id of the whole step that the fold of this one starts from, itself if it is whole.
    Ids of checkpoints compare as text (by code point, in SQL: ``COLLATE BINARY`` or ``"C"``), and a child's is greater
    than its parent's unless the child is whole; so a fold needs the rows from ``base`` to the id, ends included.
    """

    ns: str
    checkpoint_id: str
    kind: int
    base: str
    data: Any


row_of: Callable[[tuple[str, str, int, str, Any]], Row] = partial(tuple.__new__, Row)
"""A row of its fields: a call less than `Row`, for whoever makes one each step."""

Batch = tuple[str, Sequence[Row]]
"""A thread's id and rows for it."""

Drop = tuple[str, str, int]
"""Namespace, checkpoint id and kind: the rows to delete."""


class Driver(Protocol):
    """A storage for logs. A driver that is awaited has the same methods as coroutines.

    Everything given is data: thread ids, namespaces and checkpoint ids are any text and must be bound, never put into
    a statement. Called from any thread, also at once; whoever cannot do that serialises. Errors of the storage are
    raised as `mpflow.errors.StorageError`, naming the file or server.
    """

    def append(self, batches: Sequence[Batch]) -> None:
        """Add the rows, in their order, all or none; durable when it returns."""
        ...

    def chain(self, thread_id: str, ns: str, checkpoint_id: str | None) -> Sequence[Row]:
        """The rows that the fold of a step needs; empty if there is no such step. None: the step with the greatest id.

        That is all rows of the namespace whose checkpoint id is between the step's ``base`` and its own, and, where an
        id was given, the next `NEAR` steps after it. They are ordered by checkpoint id; the results of one id are in the
        order in which they were added. One round trip.
        """
        ...

    def chains(self, thread_ids: Sequence[str], ns: str) -> Sequence[tuple[str, Row]]:
        """The `chain` of the latest step of each of these threads, where it has one: rows with their thread's id.

        Those of a thread follow one another. No more round trips than for one.
        """
        ...

    def steps(
        self, thread_id: str | None, ns: str | None, before: str | None, limit: int | None
    ) -> Sequence[tuple[str, Row]]:
        """Steps with their thread's id, the newest of all first, equals by thread and namespace; the first `limit`.

        None stands for any thread, for any namespace. `before`: only those whose id is less.
        """
        ...

    def rows(self, thread_id: str) -> Sequence[Row]:
        """All rows of a thread, by namespace and as they were added."""
        ...

    def rewrite(self, thread_id: str, drops: Sequence[Drop], rows: Sequence[Row]) -> None:
        """Delete rows and add others, all or nothing."""
        ...

    def delete_thread(self, thread_id: str) -> None:
        """Delete all rows of a thread."""
        ...

    def claim(self, thread_id: str) -> None:
        """Keep other processes from running the thread until `release`, or until this process ends in any manner.

        Raises `mpflow.errors.RunOwnedElsewhere` at once if another process has it. Within one process a thread may be
        claimed several times, and is free when each claim was released.
        """
        ...

    def release(self, thread_id: str) -> None:
        """Undo one `claim`."""
        ...

    def vacuum(self) -> None:
        """Give the space of deleted rows back, where the storage can."""
        ...
