"""What a run and its tasks have to say while it goes on: suspicions that are logged, events for its streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpflow._messages import EVENT, Attempt

if TYPE_CHECKING:
    from mpflow._core.plan import Plan
    from mpflow._engine.streams import Streams
    from mpflow._exec.mailbox import Mailbox
    from mpflow._scope import Emit


class Warnings:
    """Logs each suspicion once a run; raises it under ``compile(strict=True)``. Knows no run, which so is no cycle."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._said: set[str] | None = None

    def __call__(self, text: str) -> None:
        if self._plan.strict:
            from mpflow.errors import StrictGraphError

            what = text.removesuffix(", ignoring it.")
            raise StrictGraphError("unknown name", f"graph '{self._plan.name}'", what)
        if self._said is None:
            self._said = set()
        if text not in self._said:
            self._said.add(text)
            import logging

            logging.getLogger("mpflow").warning("%s", text)


class Emitters:
    """What the tasks of a run are given to say something with while they run."""

    def __init__(self, mailbox: Mailbox, streams: Streams) -> None:
        self._mailbox = mailbox
        self._streams = streams

    def __call__(self, attempt: Attempt) -> Emit:
        post = self._mailbox.post
        streams = self._streams
        upward = streams.upward

        def emit(kind: str, data: Any) -> None:
            if kind == "custom" and not streams.wants("custom"):
                if upward is not None and streams.is_part:
                    upward(kind, data)
                return
            post((EVENT, attempt, (kind, data), 0.0))

        return emit
