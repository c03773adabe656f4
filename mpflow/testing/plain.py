"""`PlainSaver`: a saver reduced to LangGraph's protocol, as one that somebody else wrote to it."""

from __future__ import annotations

from typing import Any

from mpflow.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from mpflow.checkpoint.langgraph.passing import Passing


class PlainSaver(Passing, BaseCheckpointSaver[Any]):
    """Passes the calls of the protocol to `saver` and hides all else, so that runs take no shorter way to it."""

    found_as = CheckpointTuple

    def __init__(self, saver: Any) -> None:
        super().__init__()
        self.saver = saver
