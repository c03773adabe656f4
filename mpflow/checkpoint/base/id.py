"""Ids that sort by the time at which they were made, for savers written by users (LangGraph's `uuid6`)."""

from __future__ import annotations

from uuid import UUID

from mpflow.checkpoint.ids import new_checkpoint_id

__all__ = ("uuid6",)


def uuid6(node: int | None = None, clock_seq: int | None = None) -> UUID:
    """A UUID of version 6, after all that this process made before. `node` has 48 bits, random if None, `clock_seq` 14."""
    made = int(new_checkpoint_id(clock_seq or 0).replace("-", ""), 16)
    if node is not None:
        made = made >> 48 << 48 | node & (1 << 48) - 1
    return UUID(int=made)
