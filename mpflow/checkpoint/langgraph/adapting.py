"""Savers of langgraph-checkpoint behind mpflow's contract, and the other way round.

The contracts are the same; what differs are the classes of sends and interrupts, which each side's serializer knows by
its own names. They are exchanged where the engines put them: as a value, or as the items of a list or tuple.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from mpflow import types as ours
from mpflow.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from mpflow.checkpoint.langgraph.passing import Exchange, Passing

__all__ = ("LangGraphSaver", "to_langgraph")


def _their_types() -> Any:
    try:
        from langgraph import types
    except ImportError:
        raise ImportError('this needs LangGraph: pip install "langgraph>=1.0"') from None
    return types


def _exchange(source: Any, target: Any) -> Exchange:
    """Builds of the source's classes the target's."""
    builders: dict[type, Exchange] = {
        source.Send: lambda send: target.Send(send.node, exchanged(send.arg), timeout=send.timeout),
        source.Interrupt: lambda one: target.Interrupt(value=one.value, id=one.id),
        source.Overwrite: lambda one: target.Overwrite(one.value),
    }

    def exchanged(value: Any) -> Any:
        build = builders.get(type(value))
        if build is not None:
            return build(value)
        if type(value) in (list, tuple) and any(type(item) in builders for item in value):
            return type(value)(exchanged(item) for item in value)
        return value

    return exchanged


class LangGraphSaver(Passing, BaseCheckpointSaver[Any]):
    """A saver of langgraph-checkpoint, for mpflow's graphs: ``compile(checkpointer=LangGraphSaver(saver))`` (D-9).

    What it saves LangGraph reads as its own. `saver` is opened and closed by the caller. Raises ImportError without
    langgraph, TypeError for what is no saver of it.
    """

    found_as = CheckpointTuple

    def __init__(self, saver: Any) -> None:
        theirs = _their_types()
        from langgraph.checkpoint.base import BaseCheckpointSaver as TheirSaver

        if not isinstance(saver, TheirSaver):
            raise TypeError(f"expected a saver of langgraph-checkpoint, got {type(saver).__name__}")
        super().__init__(serde=saver.serde)
        self.saver = saver
        self.outwards, self.inwards = _exchange(ours, theirs), _exchange(theirs, ours)

    @property
    def config_specs(self) -> list[Any]:
        return list(self.saver.config_specs)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> LangGraphSaver:
        wider = self.saver.with_allowlist(extra_allowlist)
        return self if wider is self.saver else LangGraphSaver(wider)


def to_langgraph(saver: Any) -> Any:
    """A saver of mpflow as one of langgraph-checkpoint, for LangGraph's own graphs.

    Give `saver` the classes of the values to be kept (``types=[...]``): it has no graph of mpflow to learn them from. It
    is opened and closed by the caller. Raises ImportError without langgraph.
    """
    theirs = _their_types()
    from langgraph.checkpoint.base import BaseCheckpointSaver as TheirSaver
    from langgraph.checkpoint.base import CheckpointTuple as TheirTuple

    class LentSaver(Passing, TheirSaver[Any]):
        """Passes on what LangGraph saves."""

        found_as = TheirTuple

        def __init__(self) -> None:
            super().__init__()
            self.saver = saver
            self.outwards, self.inwards = _exchange(theirs, ours), _exchange(ours, theirs)

        def with_allowlist(self, extra_allowlist: Any) -> LentSaver:
            return self

    return LentSaver()
