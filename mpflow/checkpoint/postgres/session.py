"""A driver's session with the server: statements that are tried again when the connection is lost, and locks on threads.

Generators that yield what the hands of a colour do, ``(method, *arguments)``, and get its result or its error thrown in.
So retries and locks are written once. It must not know rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Final

from mpflow.checkpoint.log.driver import RESUMABLE
from mpflow.checkpoint.postgres import connecting, statements
from mpflow.errors import CheckpointVersionError, RunOwnedElsewhere, StorageError

Steps = Generator[tuple[Any, ...], Any, Any]

RETRY_S: Final = 8.0
"""For how long a lost server is tried again."""
_FIRST_WAIT_S: Final = 0.02
_LONGEST_WAIT_S: Final = 0.5

_registry_lock = threading.Lock()
_sessions: dict[tuple[str, int], Session] = {}
"""This process's sessions, by server and the process id that the server gave them."""


def perform(steps: Steps, hands: Any) -> Any:
    """Do what the steps ask; their result."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            method, *arguments = steps.send(answer) if error is None else steps.throw(error)
        except StopIteration as stop:
            return stop.value
        try:
            answer, error = getattr(hands, method)(*arguments), None
        except BaseException as raised:
            answer, error = None, raised


async def aperform(steps: Steps, hands: Any) -> Any:
    """As `perform`, awaiting."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            method, *arguments = steps.send(answer) if error is None else steps.throw(error)
        except StopIteration as stop:
            return stop.value
        try:
            answer, error = await getattr(hands, method)(*arguments), None
        except BaseException as raised:
            answer, error = None, raised


class Session:
    """One connection at a time, with its locks. Used by one caller at a time; the driver sees to that.

    The rows of a run go over the very connection that holds its lock: while rows can be added, nobody else runs the
    thread. A lock that was lost with its connection is taken again before anything else is done.
    """

    def __init__(self, hands: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self.hands = hands
        self.where: str = hands.where
        self.schema = ""
        self.is_set_up = False
        self._clock = clock
        # Claims of this process that this session's locks serve, and keys whose lock nobody needs any more.
        self._claims: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._untaken: list[int] = []
        self._unneeded: list[int] = []
        self._lent_by: dict[str, Session] = {}
        self._backend: tuple[str, int] | None = None

    # -- statements ---------------------------------------------------------------------------------------------------

    def run(self, statement: str, parameters: Any) -> Steps:
        """The rows of one statement, which must be such that doing it twice is doing it once.

        Raises StorageError, naming the server, once trying again has not helped, and for whatever else it refuses.
        """
        return (yield from self._told(lambda: self._once(statement, parameters)))

    def _once(self, statement: str, parameters: Any) -> Steps:
        yield from self._ready()
        found = yield "execute", statement, parameters
        yield from self._rest()
        return found

    def _told(self, attempt: Callable[[], Steps]) -> Steps:
        deadline: float | None = None
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                return (yield from attempt())
            except Exception as error:
                connection = self.hands.connection
                lost = connecting.is_lost(error, connection)
                if lost and connection is not None:
                    yield from self._drop()
                if not connecting.is_of_postgres(error):
                    raise
                now = self._clock()
                deadline = now + RETRY_S if deadline is None else deadline
                if not lost or not self.hands.can_reopen or now >= deadline:
                    detail = f"{type(error).__name__}: {str(error).strip() or 'no details'}"
                    raise StorageError(self.where, detail, RESUMABLE if self.is_set_up else "") from error
            yield "sleep", wait_s
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _ready(self) -> Steps:
        """Have a connection that holds what this session has locked."""
        if self.hands.connection is None:
            yield ("open",)
            connection = self.hands.connection
            self.where = connecting.described(connection)
            self._enter(connection)
            self._untaken, self._unneeded = list(self._keys.values()), []
        if not self.is_set_up:
            yield from self._set_up()
        if self._untaken:
            yield from self._take_again()
        if self._unneeded:
            keys, self._unneeded = self._unneeded, []
            yield "execute", statements.UNLOCK, (keys,)

    def _rest(self) -> Steps:
        """A pool's connection goes back to it, unless locks are held on it."""
        if not self._keys:
            yield ("give_back",)
            if self.hands.connection is None:
                self._leave()

    def _drop(self) -> Steps:
        self._leave()
        try:
            yield ("drop",)
        except Exception as error:
            if not connecting.is_of_postgres(error):
                raise

    def close(self) -> Steps:
        """Be done with the connection."""
        self._keys.clear()
        self._claims.clear()
        self._leave()
        yield ("give_back",)
        yield from self._drop()

    # -- schema -------------------------------------------------------------------------------------------------------

    def set_up(self) -> Steps:
        """Bring the database to this version's schema. Raises CheckpointVersionError for a later one."""

        def attempt() -> Steps:
            yield from self._ready()
            yield from self._rest()

        return (yield from self._told(attempt))

    def _set_up(self) -> Steps:
        latest = len(statements.MIGRATIONS)
        if (yield from self._version()) < latest:
            yield "execute", "BEGIN"
            try:
                # Whoever else migrates has come first: look again once it is done.
                yield "execute", "SELECT pg_advisory_xact_lock(%b::bigint)", (statements.MIGRATION_LOCK,)
                yield "execute", "CREATE TABLE IF NOT EXISTS mpflow_schema (version integer NOT NULL)"
                for migration in statements.MIGRATIONS[(yield from self._version()) :]:
                    for statement in migration.split(";"):
                        yield "execute", statement
                yield "execute", "DELETE FROM mpflow_schema"
                yield "execute", "INSERT INTO mpflow_schema VALUES (%b)", (latest,)
                yield "execute", "COMMIT"
            except BaseException:
                if not self.hands.connection.closed:
                    yield "execute", "ROLLBACK"
                raise
        self.is_set_up = True

    def _version(self) -> Steps:
        ((exists, schema),) = yield "execute", statements.HAS_SCHEMA
        self.schema = schema or ""
        if not exists:
            return 0
        ((version,),) = yield "execute", statements.VERSION
        if version > len(statements.MIGRATIONS):
            raise CheckpointVersionError(self.where, version, len(statements.MIGRATIONS))
        return version

    # -- locks --------------------------------------------------------------------------------------------------------

    def claim(self, thread_id: str) -> Steps:
        """Lock a thread against other processes. Raises RunOwnedElsewhere."""
        with _registry_lock:
            if thread_id in self._claims:
                self._claims[thread_id] += 1
                return
        yield from self._told(lambda: self._claim(thread_id))

    def _claim(self, thread_id: str) -> Steps:
        yield from self._ready()
        key = statements.lock_of(self.schema, thread_id)
        taken = yield "execute", statements.LOCK, ([key],)
        if not taken:
            self._keys[thread_id] = key
            self._claims[thread_id] = 1
            return
        found = yield "execute", *statements.owner(key)
        pid, name = found[0] if found else (0, "")
        with _registry_lock:
            lender = _sessions.get((self.where, pid))
            if lender is not None and thread_id in lender._claims:
                lender._claims[thread_id] += 1
                self._lent_by[thread_id] = lender
                return
        yield from self._rest()
        raise RunOwnedElsewhere(thread_id, f"{name or 'unknown'}, server process {pid}" if pid else "")

    def release(self, thread_id: str) -> Steps:
        """Undo one claim. The lock goes at once where this session has it, else with its next statement."""
        with _registry_lock:
            lender = self._lent_by.pop(thread_id, self)
            if thread_id not in lender._claims:
                return
            lender._claims[thread_id] -= 1
            if lender._claims[thread_id]:
                return
            del lender._claims[thread_id]
            lender._unneeded.append(lender._keys.pop(thread_id))
        if lender is self:
            if self.hands.connection is None:  # the lock went with it
                return

            def attempt() -> Steps:
                yield from self._ready()
                yield from self._rest()

            yield from self._told(attempt)

    def _take_again(self) -> Steps:
        """Lock what the lost connection had locked; the server may still be about to end it."""
        deadline = self._clock() + RETRY_S
        wait_s = _FIRST_WAIT_S
        while True:
            found = yield "execute", statements.LOCK, (self._untaken,)
            self._untaken = [key for (key,) in found]
            if not self._untaken:
                return
            if self._clock() >= deadline:
                key = self._untaken.pop()
                lost = next(thread_id for thread_id, one in self._keys.items() if one == key)
                del self._keys[lost], self._claims[lost]
                raise RunOwnedElsewhere(lost, "it was taken over while the connection was lost")
            yield "sleep", wait_s
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _enter(self, connection: Any) -> None:
        with _registry_lock:
            self._backend = (self.where, connection.info.backend_pid)
            _sessions[self._backend] = self

    def _leave(self) -> None:
        with _registry_lock:
            if self._backend is not None and _sessions.get(self._backend) is self:
                del _sessions[self._backend]
            self._backend = None
