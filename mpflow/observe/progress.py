"""A progress bar on stderr. The one module, beside the command line's own, that imports rich, and only to draw.

It is silent when stderr is no terminal, touches no signal, and knows nothing of graphs: others tell it what happens.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """Counts finished tasks against expected ones and shows both while it is open.

    Use it as a context manager. `expect` and `advance` may be called from any thread; both are free when nothing is
    shown. ``show=None`` asks whether stderr is a terminal.
    """

    def __init__(self, title: str, show: bool | None = None) -> None:
        self.title = title
        self.expected = 0
        self.finished = 0
        self._show = sys.stderr.isatty() if show is None else show
        self._bar: Any = None
        self._row: Any = None

    def __enter__(self) -> Progress:
        if self._show:
            self._bar = _bar()
            self._row = self._bar.add_task(self.title, total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def expect(self, count: int | None) -> None:
        """Add `count` to the tasks that are to finish; None if nobody can tell how many there are."""
        if count is None:
            return
        self.expected += count
        if self._bar is not None:
            self._bar.update(self._row, total=self.expected)

    def advance(self, count: int = 1) -> None:
        """Say that `count` more tasks have finished."""
        self.finished += count
        if self._bar is not None:
            self._bar.update(self._row, completed=self.finished)

    def close(self) -> None:
        """Stop drawing and leave the bar as it stands. May be called again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        # What the user's nodes print must go where it went before, and only beside a terminal can it be kept off the bar.
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=True,
    )
