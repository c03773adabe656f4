"""A log as runs in worker processes reach it: rows are made there, and kept by the saver in the parent, which alone has a driver.

Owns what the two ends say to each other. It must not know how they say it: `ask` is the worker's.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mpflow.checkpoint.base import BaseCheckpointSaver
from mpflow.checkpoint.log import operations
from mpflow.checkpoint.log.carrying import CarriedCoder, Carrying
from mpflow.checkpoint.log.coding import Coder, SerdeCoder, coder_of
from mpflow.checkpoint.log.driver import Batch, Drop, Row
from mpflow.checkpoint.log.operations import Calls
from mpflow.checkpoint.log.saver import LogSaver
from mpflow.checkpoint.log.sealing import layout_of

Ask = Callable[..., Any]
"""``ask(method, *arguments)``: what `serve` answers in the parent."""

PlainRow = Sequence[Any]
"""A row as it travels: its fields in order."""

KEPT_BACK_S = 0.025
"""A run of its own in a worker sends what it posted along with its result, or after this time: sooner than a kill may cost."""
KEPT_BACK_BYTES = 1 << 20


def serve(saver: LogSaver, method: str, arguments: Sequence[Any]) -> Any:
    """In the parent: do what a worker's end asks for."""
    if method == "coder":
        return saver.coder.told()
    if method in ("append", "post"):
        thread_id, rows = arguments
        return getattr(saver, method)(thread_id, saver.received(thread_id, rows))
    return _plain(saver, arguments, saver.reach(*_with_rows(saver, method, arguments)))


async def aserve(saver: LogSaver, method: str, arguments: Sequence[Any]) -> Any:
    """As `serve`, for asyncio."""
    if method == "coder":
        return saver.coder.told()
    if method in ("append", "post"):
        thread_id, rows = arguments
        return await getattr(saver, "a" + method)(thread_id, saver.received(thread_id, rows))
    return _plain(saver, arguments, await saver.areach(*_with_rows(saver, method, arguments)))


def sent(saver: LogSaver, thread_id: str, rows: Iterable[Row]) -> list[PlainRow]:
    """A thread's rows as they travel."""
    return [list(row) for row in saver.sent(thread_id, rows)]


def rows_of(plain: Iterable[PlainRow]) -> list[Row]:
    return [Row(*row) for row in plain]


def _with_rows(saver: LogSaver, method: str, arguments: Sequence[Any]) -> Sequence[Any]:
    """The driver's method and arguments: what travelled plain in them as rows."""
    if method == "append_all":
        return "append", [(thread_id, saver.received(thread_id, rows)) for thread_id, rows in arguments[0]]
    if method == "rewrite":
        return (method, *arguments[:-1], saver.received(arguments[0], arguments[-1]))
    return (method, *arguments)


def _plain(saver: LogSaver, arguments: Sequence[Any], found: Any) -> Any:
    """The driver's answer: rows as their fields, of the thread that was asked for or each with its own."""
    if not isinstance(found, (list, tuple)):
        return found
    if found and type(found[0]) is not Row:
        return [[owner, *sent(saver, owner, (row,))] for owner, row in found]
    return sent(saver, arguments[0], found) if found else []


class FarDriver:
    """The driver of the parent's saver, asked from a worker. Rows that a run of its own posts may wait here for a while."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self._own: str | None = None
        self._chain: Sequence[Row] | None = None
        self._kept: list[PlainRow] = []
        self._kept_bytes = 0
        self._written: set[str] = set()
        self._sent_at = 0.0

    def begin(self, thread_id: str, chain: Sequence[PlainRow] | None) -> None:
        """From now on a run of its own is on this thread, whose latest chain is known; None if it must be asked for."""
        self._own = thread_id
        self._chain = None if chain is None else rows_of(chain)
        self._kept = []
        self._kept_bytes = 0
        self._written.clear()
        self._sent_at = time.perf_counter()

    def end(self) -> list[PlainRow]:
        """The run has ended: its rows that were not sent."""
        kept, self._kept = self._kept, []
        self._own = None
        return kept

    def send(self) -> None:
        """Have the parent post what was kept back."""
        if self._kept:
            kept, self._kept, self._kept_bytes = self._kept, [], 0
            self.ask("post", self._own, kept)
            self._sent_at = time.perf_counter()

    def post(self, thread_id: str, rows: Sequence[Row]) -> None:
        if thread_id != self._own:
            self.ask("post", thread_id, [list(row) for row in rows])
            return
        for row in rows:
            self._kept.append(list(row))
            self._kept_bytes += len(row.data)
            self._written.add(row.ns)
        if self._kept_bytes > KEPT_BACK_BYTES or time.perf_counter() - self._sent_at > KEPT_BACK_S:
            self.send()

    def write(self, thread_id: str, rows: Sequence[Row]) -> None:
        """Rows that are durable on return."""
        plain: list[PlainRow] = [list(row) for row in rows]
        if thread_id == self._own:
            plain = self._kept + plain
            self._kept, self._kept_bytes = [], 0
            self._written.update(row.ns for row in rows)
        self.ask("append", thread_id, plain)

    # -- the contract -------------------------------------------------------------------------------------------------

    def append(self, batches: Sequence[Batch]) -> None:
        self.send()
        self._written.update(row.ns for _, rows in batches for row in rows)
        self.ask("append_all", [(thread_id, [list(row) for row in rows]) for thread_id, rows in batches])

    def chain(self, thread_id: str, ns: str, checkpoint_id: str | None) -> Sequence[Row]:
        chain = self._chain
        if chain is not None and thread_id == self._own and checkpoint_id is None and ns not in self._written:
            if not ns:
                return chain
            if not chain:  # nothing of this thread was there when the run began
                return ()
        self.send()
        return rows_of(self.ask("chain", thread_id, ns, checkpoint_id))

    def chains(self, thread_ids: Sequence[str], ns: str) -> Sequence[tuple[str, Row]]:
        self.send()
        return [(owner, Row(*row)) for owner, row in self.ask("chains", list(thread_ids), ns)]

    def steps(
        self, thread_id: str | None, ns: str | None, before: str | None, limit: int | None
    ) -> Sequence[tuple[str, Row]]:
        self.send()
        return [(owner, Row(*row)) for owner, row in self.ask("steps", thread_id, ns, before, limit)]

    def rows(self, thread_id: str) -> Sequence[Row]:
        self.send()
        return rows_of(self.ask("rows", thread_id))

    def rewrite(self, thread_id: str, drops: Sequence[Drop], rows: Sequence[Row]) -> None:
        self.send()
        self._chain = None
        self.ask("rewrite", thread_id, [list(drop) for drop in drops], [list(row) for row in rows])

    def delete_thread(self, thread_id: str) -> None:
        self.send()
        self._chain = None
        self.ask("delete_thread", thread_id)

    def vacuum(self) -> None:
        self.ask("vacuum")


class FarLog(LogSaver):
    """The saver of a run in a worker process: the parent's, of which only the driver is far away.

    Whoever drives the run in the parent claims its thread, and waits until what was posted is durable.
    """

    def __init__(self, ask: Ask) -> None:
        BaseCheckpointSaver.__init__(self)
        self.driver: FarDriver = FarDriver(ask)
        self.known = OrderedDict()
        self._twins = {}
        self._told = set()

        self._coder: Coder | None = None

    @property
    def coder(self) -> Coder:
        """Asked for by those alone that save something."""
        if self._coder is None:
            kind, what = self.driver.ask("coder")
            self._coder = (
                coder_of(frozenset(what)) if kind == "data" else SerdeCoder(what) if kind == "serde" else CarriedCoder()
            )
        return self._coder

    @coder.setter
    def coder(self, coder: Coder) -> None:
        self._coder = coder

    @property
    def layout(self) -> Any:
        return Carrying if type(self.coder) is CarriedCoder else layout_of(getattr(self.coder, "serde", None))

    def _perform(self, calls: Calls) -> Any:
        return operations.perform(calls, self.driver)

    def _knowing_all(self) -> LogSaver:
        return self  # its coder is the one that the run was given

    def append(self, thread_id: str, rows: Sequence[Row]) -> None:
        self.driver.write(thread_id, rows)

    def post(self, thread_id: str, rows: Sequence[Row]) -> None:
        self.driver.post(thread_id, rows)

    def flush(self, thread_id: str) -> None:
        return

    def claim(self, thread_id: str) -> None:
        return

    def release(self, thread_id: str) -> None:
        return
