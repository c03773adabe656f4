"""`InMemorySaver`: checkpoints in this process, gone with it. It keeps any value and never touches a disk."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mpflow.checkpoint.log.coding import AnyCoder
from mpflow.checkpoint.log.driver import Row
from mpflow.checkpoint.log.memory import MemoryDriver, Records
from mpflow.checkpoint.log.operations import Calls, perform
from mpflow.checkpoint.log.saver import LogSaver

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ("InMemorySaver", "MemorySaver")


class InMemorySaver(LogSaver):
    """A saver that keeps everything in this process's memory (CP-10). Thread-safe; for tests and short-lived runs.

    `serde` and `factory` are taken for LangGraph's sake and not used.
    """

    layout = Records

    def __init__(self, *, serde: Any = None, factory: Any = dict) -> None:
        super().__init__(MemoryDriver())
        self.coder = AnyCoder()
        if serde is not None:
            self.serde = serde

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    # Nothing waits here for a disk, so nothing is put off, or done in another thread.

    def _perform(self, calls: Calls) -> Any:
        return perform(calls, self.driver)

    async def _aperform(self, calls: Calls) -> Any:
        return perform(calls, self.driver)

    def for_types(self, types: Collection[type]) -> Self:
        return self

    def append(self, thread_id: str, rows: Sequence[Row]) -> None:
        self.driver.append([(thread_id, rows)])

    post = append

    def flush(self, thread_id: str) -> None:
        return None

    async def aappend(self, thread_id: str, rows: Sequence[Row]) -> None:
        self.driver.append([(thread_id, rows)])

    apost = aappend

    async def aflush(self, thread_id: str) -> None:
        return None


MemorySaver = InMemorySaver
"""The older name of `InMemorySaver`."""
