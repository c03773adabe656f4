"""The contract of a store: dicts by namespace and key, shared by all threads of a graph (KV-1 to KV-3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypedDict, Union, cast

from mpflow.store.base.embed import (
    AEmbeddingsFunc,
    Embeddings,
    EmbeddingsFunc,
    ensure_embeddings,
    get_text_at_path,
    tokenize_path,
)

__all__ = (
    "AEmbeddingsFunc",
    "BaseStore",
    "Embeddings",
    "EmbeddingsFunc",
    "GetOp",
    "IndexConfig",
    "InvalidNamespaceError",
    "Item",
    "ListNamespacesOp",
    "MatchCondition",
    "NOT_PROVIDED",
    "NamespaceMatchType",
    "NamespacePath",
    "NotProvided",
    "Op",
    "PutOp",
    "Result",
    "SearchItem",
    "SearchOp",
    "TTLConfig",
    "ensure_embeddings",
    "get_text_at_path",
    "tokenize_path",
    "validate_op_namespace",
)

NamespacePath = tuple[str, ...]
"""A namespace in which ``"*"`` matches any one label."""
NamespaceMatchType = Literal["prefix", "suffix"]


class InvalidNamespaceError(ValueError):
    """A namespace that nothing can be stored under."""


class NotProvided:
    """The type of `NOT_PROVIDED`: an argument that was not given, where None means something."""

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_PROVIDED = NotProvided()


def _time(value: datetime | str) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


class Item:
    """A stored value, with where and when. The times are UTC."""

    __slots__ = ("created_at", "key", "namespace", "updated_at", "value")

    def __init__(
        self,
        *,
        value: dict[str, Any],
        key: str,
        namespace: tuple[str, ...],
        created_at: datetime,
        updated_at: datetime,
    ) -> None:
        self.value = value
        self.key = key
        self.namespace = tuple(namespace)
        self.created_at = _time(created_at)
        self.updated_at = _time(updated_at)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Item) and all(
            getattr(self, name) == getattr(other, name)
            for name in ("value", "key", "namespace", "created_at", "updated_at")
        )

    def __hash__(self) -> int:
        return hash((self.namespace, self.key))

    def dict(self) -> dict[str, Any]:
        """Return the item as JSON knows it: a list for the namespace, ISO strings for the times."""
        return {
            "namespace": list(self.namespace),
            "key": self.key,
            "value": self.value,
            "created_at": self.created_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.dict().items())})"


class SearchItem(Item):
    """An item that a search found; `score` says how near it is to the query, if it was compared to one."""

    __slots__ = ("score",)

    def __init__(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: dict[str, Any],
        created_at: datetime,
        updated_at: datetime,
        score: float | None = None,
    ) -> None:
        super().__init__(value=value, key=key, namespace=namespace, created_at=created_at, updated_at=updated_at)
        self.score = score

    def dict(self) -> dict[str, Any]:
        return {**super().dict(), "score": self.score}


class GetOp(NamedTuple):
    """Read one item; the result is an `Item` or None."""

    namespace: tuple[str, ...]
    key: str
    refresh_ttl: bool = True


class SearchOp(NamedTuple):
    """Find items below a namespace; the result is a list of `SearchItem`."""

    namespace_prefix: tuple[str, ...]
    filter: dict[str, Any] | None = None
    limit: int = 10
    offset: int = 0
    query: str | None = None
    refresh_ttl: bool = True


class MatchCondition(NamedTuple):
    """Which namespaces to list: those that begin, or end, like `path`."""

    match_type: NamespaceMatchType
    path: NamespacePath


class ListNamespacesOp(NamedTuple):
    """List the namespaces that have items; the result is a sorted list of them."""

    match_conditions: tuple[MatchCondition, ...] | None = None
    max_depth: int | None = None
    limit: int = 100
    offset: int = 0


class PutOp(NamedTuple):
    """Store a value, or delete it if None; the result is None."""

    namespace: tuple[str, ...]
    key: str
    value: Mapping[str, Any] | None
    index: Literal[False] | list[str] | None = None  # type: ignore[assignment]  # LangGraph's name for it
    ttl: float | None = None


Op = Union[GetOp, SearchOp, PutOp, ListNamespacesOp]  # noqa: UP007 - evaluated
Result = Union[Item, list[Item], list[SearchItem], list[tuple[str, ...]], None]  # noqa: UP007


class TTLConfig(TypedDict, total=False):
    """How long items live. Times are in minutes, as in LangGraph."""

    refresh_on_read: bool
    omit_expired: bool
    default_ttl: float | None
    sweep_interval_minutes: int | None


class IndexConfig(TypedDict, total=False):
    """How a store compares items by meaning: what embeds text, in how many dimensions, and which fields of a value."""

    dims: int
    embed: Embeddings | EmbeddingsFunc | AEmbeddingsFunc | str
    fields: list[str] | None


def validate_namespace(namespace: Any) -> None:
    """Raise `InvalidNamespaceError` unless values can be stored under `namespace` (KV-2)."""
    if not isinstance(namespace, tuple):
        raise InvalidNamespaceError(f"namespace must be a tuple of strings, got {type(namespace).__name__}")
    if not namespace:
        raise InvalidNamespaceError("namespace must not be empty")
    for label in namespace:
        if not isinstance(label, str):
            raise InvalidNamespaceError(f"labels of a namespace must be strings, got {label!r} in {namespace!r}")
        if not label:
            raise InvalidNamespaceError(f"labels of a namespace must not be empty, as in {namespace!r}")
        if "." in label:
            raise InvalidNamespaceError(f"labels of a namespace must not contain periods: {label!r} in {namespace!r}")
    if namespace[0] == "langgraph":
        raise InvalidNamespaceError(f"the first label of a namespace must not be 'langgraph', as in {namespace!r}")


def validate_op_namespace(op: Op) -> None:
    """Raise `InvalidNamespaceError` if `op` would store under a namespace that is not allowed."""
    if isinstance(op, PutOp):
        validate_namespace(op.namespace)


class BaseStore(ABC):
    """Base of stores. A subclass has to do `batch` and `abatch`; the rest is said in terms of them.

    The reads of one batch see the store as it was before the batch; of several puts of one key, the last wins.
    """

    __slots__ = ("__weakref__",)

    supports_ttl: bool = False
    ttl_config: TTLConfig | None = None

    @abstractmethod
    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Perform several operations at once and return their results in order."""

    @abstractmethod
    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """`batch`, for asyncio."""

    def get(self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None) -> Item | None:
        """Return an item, or None. `refresh_ttl` says whether its time to live begins anew."""
        return cast("Item | None", self.batch([self._get_op(namespace, key, refresh_ttl)])[0])

    def search(
        self,
        namespace_prefix: tuple[str, ...],
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        """Return items at or below a namespace, nearest to `query` first if the store can compare.

        `filter` maps keys of the value to what they must equal, or to ``{"$gt": 3}`` and the like: ``$eq``, ``$ne``,
        ``$gt``, ``$gte``, ``$lt``, ``$lte``.
        """
        op = SearchOp(namespace_prefix, filter, limit, offset, query, self._refreshes(refresh_ttl))
        return cast("list[SearchItem]", self.batch([op])[0])

    def put(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
    ) -> None:
        """Store a dict, in place of what was there.

        `index` names the fields to compare by instead of the store's own, or is False for none. `ttl` is in minutes;
        None means for ever. Raises `InvalidNamespaceError`, or `NotImplementedError` for a `ttl` that the store
        cannot keep.
        """
        self.batch([self._put_op(namespace, key, value, index, ttl)])

    def delete(self, namespace: tuple[str, ...], key: str) -> None:
        """Delete an item, if it is there."""
        self.batch([PutOp(namespace, str(key), None)])

    def list_namespaces(
        self,
        *,
        prefix: NamespacePath | None = None,
        suffix: NamespacePath | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[tuple[str, ...]]:
        """Return the namespaces that have items, sorted; cut off at `max_depth` labels, each once."""
        op = ListNamespacesOp(_conditions(prefix, suffix), max_depth, limit, offset)
        return cast("list[tuple[str, ...]]", self.batch([op])[0])

    async def aget(self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None) -> Item | None:
        """`get`, for asyncio."""
        return cast("Item | None", await self._aone(self._get_op(namespace, key, refresh_ttl)))

    async def asearch(
        self,
        namespace_prefix: tuple[str, ...],
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        """`search`, for asyncio."""
        op = SearchOp(namespace_prefix, filter, limit, offset, query, self._refreshes(refresh_ttl))
        return cast("list[SearchItem]", await self._aone(op))

    async def aput(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
    ) -> None:
        """`put`, for asyncio."""
        await self._aone(self._put_op(namespace, key, value, index, ttl))

    async def adelete(self, namespace: tuple[str, ...], key: str) -> None:
        """`delete`, for asyncio."""
        await self._aone(PutOp(namespace, str(key), None))

    async def alist_namespaces(
        self,
        *,
        prefix: NamespacePath | None = None,
        suffix: NamespacePath | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[tuple[str, ...]]:
        """`list_namespaces`, for asyncio."""
        op = ListNamespacesOp(_conditions(prefix, suffix), max_depth, limit, offset)
        return cast("list[tuple[str, ...]]", await self._aone(op))

    async def _aone(self, op: Op) -> Result:
        return (await self.abatch([op]))[0]

    def _refreshes(self, refresh_ttl: bool | None) -> bool:
        if refresh_ttl is not None:
            return refresh_ttl
        return True if self.ttl_config is None else self.ttl_config.get("refresh_on_read", True)

    def _get_op(self, namespace: tuple[str, ...], key: str, refresh_ttl: bool | None) -> GetOp:
        return GetOp(namespace, str(key), self._refreshes(refresh_ttl))

    def _put_op(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None,
        ttl: float | NotProvided | None,
    ) -> PutOp:
        validate_namespace(namespace)
        if isinstance(ttl, NotProvided):
            ttl = None if self.ttl_config is None else self.ttl_config.get("default_ttl")
        elif ttl is not None and not self.supports_ttl:
            raise NotImplementedError(f"{type(self).__name__} keeps items for ever: it takes no ttl but None")
        return PutOp(namespace, str(key), value, index, ttl)


def _conditions(prefix: NamespacePath | None, suffix: NamespacePath | None) -> tuple[MatchCondition, ...] | None:
    given: list[MatchCondition] = []
    if prefix:
        given.append(MatchCondition("prefix", tuple(prefix)))
    if suffix:
        given.append(MatchCondition("suffix", tuple(suffix)))
    return tuple(given) or None
