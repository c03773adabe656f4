"""A store that was made for LangGraph behind our contract, so that nodes in worker processes reach it as they reach ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mpflow.store.base import BaseStore, GetOp, Item, ListNamespacesOp, Op, PutOp, Result, SearchItem, SearchOp

_THEIRS: dict[type, str] = {op: op.__name__ for op in (GetOp, SearchOp, PutOp, ListNamespacesOp)}


class LentStore(BaseStore):
    """Passes operations on to `theirs`, which is opened and closed by its owner."""

    def __init__(self, theirs: Any) -> None:
        self.theirs = theirs
        self.ttl_config = theirs.ttl_config
        self.supports_ttl = theirs.supports_ttl

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        return [_ours(found) for found in self.theirs.batch([_theirs(op) for op in ops])]

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        return [_ours(found) for found in await self.theirs.abatch([_theirs(op) for op in ops])]


def _theirs(op: Any) -> Any:
    from langgraph.store import base

    fields = op._asdict()
    if conditions := fields.get("match_conditions"):
        fields["match_conditions"] = tuple(base.MatchCondition(*condition) for condition in conditions)
    return getattr(base, _THEIRS[type(op)])(**fields)


def _ours(found: Any) -> Any:
    if isinstance(found, list):
        return [_ours(item) for item in found]
    if not hasattr(found, "created_at"):
        return found
    fields = {name: getattr(found, name) for name in ("value", "key", "namespace", "created_at", "updated_at")}
    return SearchItem(**fields, score=found.score) if hasattr(found, "score") else Item(**fields)
