"""How a batch of a store's operations is performed, wherever the items lie: reads, embedding, ranking, then writes.

A generator asks for embeddings; the sync and the async methods grant them in their own way. Storage is what the drivers
define.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, cast

from mpflow.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    validate_namespace,
)
from mpflow.store.base.embed import Embeddings, cosine, ensure_embeddings, get_text_at_path, tokenize_path

Vectors = dict[str, list[float]]
"""What a value is like, by the path in it that was embedded."""

Where = tuple[tuple[str, ...], str]
"""A namespace and a key."""


class Entry(Protocol):
    """An item as a driver found it, with its vectors."""

    @property
    def item(self) -> Item: ...

    @property
    def vectors(self) -> Vectors: ...


class Ask(NamedTuple):
    """A batch's wish to have texts embedded, which its sync and its async driver grant in their own way."""

    kind: Literal["queries", "documents"]
    texts: list[str]

    def embed(self, by: Embeddings) -> list[list[float]]:
        if self.kind == "documents":
            return by.embed_documents(self.texts)
        return [by.embed_query(text) for text in self.texts]

    async def aembed(self, by: Embeddings) -> list[list[float]]:
        if self.kind == "documents":
            return await by.aembed_documents(self.texts)
        return [await by.aembed_query(text) for text in self.texts]


Asks = Generator[Ask, Any, "list[Result]"]


def step(work: Asks, vectors: list[list[float]] | None) -> Ask | list[Result]:
    """Go on with a batch until it asks for the next vectors, or is done."""
    try:
        return work.send(vectors)
    except StopIteration as done:
        return cast("list[Result]", done.value)


class PerformingStore(BaseStore):
    """A store that performs a batch at a time: reads see the store as it was before it, the last put of a key wins."""

    __slots__ = ("embeddings", "index_config", "ttl_config")

    supports_ttl = True

    def __init__(self, index: IndexConfig | None, ttl: TTLConfig | None) -> None:
        self.ttl_config = ttl
        self.index_config = index
        self.embeddings: Embeddings | None = None if index is None else ensure_embeddings(index.get("embed"))

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        work = self._perform(list(ops))
        reached = step(work, None)
        while isinstance(reached, Ask):
            reached = step(work, reached.embed(cast(Embeddings, self.embeddings)))
        return reached

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        work = self._perform(list(ops))
        reached = await self._astep(work, None)
        while isinstance(reached, Ask):
            reached = await self._astep(work, await reached.aembed(cast(Embeddings, self.embeddings)))
        return reached

    async def _astep(self, work: Asks, vectors: list[list[float]] | None) -> Ask | list[Result]:
        """Go on with a batch, which for items in memory takes no time to speak of."""
        return step(work, vectors)

    # -- what a driver defines ----------------------------------------------------------------------------------------

    @abstractmethod
    def _read(self, op: GetOp) -> Item | None:
        """The item, unless its time is over."""

    @abstractmethod
    def _candidates(self, op: SearchOp, limit: int | None, with_vectors: bool) -> Sequence[Entry]:
        """The items below the namespace that pass the filter, in the order they came; no more than `limit`."""

    @abstractmethod
    def _namespaces(self, op: ListNamespacesOp) -> Iterable[tuple[str, ...]]:
        """The namespaces that have items, in any order; `namespaces_listed` picks what was asked for."""

    @abstractmethod
    def _refresh(self, entries: Sequence[Entry]) -> None:
        """Let the items live as long again as they were given."""

    @abstractmethod
    def _write(self, puts: Mapping[Where, PutOp], vectors: Mapping[Where, Vectors]) -> None:
        """Store, replace and delete items: all or none."""

    # -- the batch ----------------------------------------------------------------------------------------------------

    def _perform(self, ops: Sequence[Op]) -> Asks:
        results: list[Any] = [None] * len(ops)
        puts: dict[Where, PutOp] = {}
        searches: list[tuple[int, SearchOp, Sequence[Entry]]] = []
        for position, op in enumerate(ops):
            if isinstance(op, GetOp):
                results[position] = self._read(op)
            elif isinstance(op, SearchOp):
                ranks = bool(op.query) and self.embeddings is not None
                found = self._candidates(op, None if ranks else op.offset + op.limit, ranks)
                searches.append((position, op, found))
            elif isinstance(op, ListNamespacesOp):
                results[position] = _listed(self._namespaces(op), op)
            elif isinstance(op, PutOp):
                if op.value is not None:
                    validate_namespace(op.namespace)
                puts[(op.namespace, op.key)] = op
            else:
                raise ValueError(f"a store takes GetOp, SearchOp, PutOp and ListNamespacesOp, got {op!r}")
        # Embedding may take long, so nothing is locked over it.
        queries = {op.query: [0.0] for _, op, _ in searches if op.query and self.embeddings is not None}
        if queries:
            queries = dict(zip(queries, (yield Ask("queries", list(queries))), strict=True))
        for position, op, found in searches:
            results[position] = self._page(op, found, queries.get(op.query or ""))
        texts = self._texts_of(puts.values())
        embedded = (yield Ask("documents", [text for _, _, text in texts])) if texts else []
        vectors: dict[Where, Vectors] = {}
        for (where, path, _), vector in zip(texts, embedded, strict=True):
            vectors.setdefault(where, {})[path] = vector
        if puts:
            self._write(puts, vectors)
        return results

    def _page(self, op: SearchOp, found: Sequence[Entry], query: list[float] | None) -> list[SearchItem]:
        scored: list[tuple[Entry, float | None]] = [(entry, None) for entry in found]
        if query is not None:
            near = [
                (entry, max(cosine(query, vector) for vector in entry.vectors.values()))
                for entry in found
                if entry.vectors
            ]
            near.sort(key=lambda pair: pair[1], reverse=True)
            scored = [*near, *((entry, None) for entry in found if not entry.vectors)]
        page = scored[op.offset : op.offset + op.limit]
        if op.refresh_ttl:
            self._refresh([entry for entry, _ in page])
        return [_search_item(entry.item, score) for entry, score in page]

    def _texts_of(self, puts: Iterable[PutOp]) -> list[tuple[Where, str, str]]:
        """What to embed: where it belongs, under which path, and the text."""
        if self.index_config is None:
            return []
        usual = self.index_config.get("fields") or ["$"]
        texts: list[tuple[Where, str, str]] = []
        for op in puts:
            if op.value is None or op.index is False:
                continue
            for path in usual if op.index is None else op.index:
                found = get_text_at_path(dict(op.value), tokenize_path(path))
                for number, text in enumerate(found):
                    texts.append(((op.namespace, op.key), path if len(found) == 1 else f"{path}.{number}", text))
        return texts


def _search_item(item: Item, score: float | None) -> SearchItem:
    return SearchItem(
        namespace=item.namespace,
        key=item.key,
        value=item.value,
        created_at=item.created_at,
        updated_at=item.updated_at,
        score=score,
    )


def _listed(namespaces: Iterable[tuple[str, ...]], op: ListNamespacesOp) -> list[tuple[str, ...]]:
    """Of all namespaces those that were asked for, cut to a depth, sorted, and the page of them."""
    listed = {
        namespace if op.max_depth is None else namespace[: op.max_depth]
        for namespace in namespaces
        if all(_path_matches(condition, namespace) for condition in op.match_conditions or ())
    }
    return sorted(listed)[op.offset : op.offset + op.limit]


def _path_matches(condition: MatchCondition, namespace: tuple[str, ...]) -> bool:
    path = condition.path
    if len(path) > len(namespace):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[-len(path) :]
    return all(wanted in ("*", label) for wanted, label in zip(path, part, strict=True))


def passes(value: Mapping[str, Any], filter: Mapping[str, Any] | None) -> bool:
    """Whether an item's value fits all of a filter."""
    return filter is None or all(matches(value.get(key), wanted) for key, wanted in filter.items())


def matches(value: Any, wanted: Any) -> bool:
    """Whether a field's value fits a filter: equality, operators, or a dict of filters for its own fields."""
    if not isinstance(wanted, dict):
        return bool(value == wanted)
    if any(str(key).startswith("$") for key in wanted):
        return all(_compare(value, operator, bound) for operator, bound in wanted.items())
    return isinstance(value, dict) and all(matches(value.get(key), part) for key, part in wanted.items())


def _compare(value: Any, operator: str, bound: Any) -> bool:
    if operator == "$eq":
        return bool(value == bound)
    if operator == "$ne":
        return bool(value != bound)
    if operator not in ("$gt", "$gte", "$lt", "$lte"):
        raise ValueError(f"filter operator {operator!r} is not one of $eq, $ne, $gt, $gte, $lt, $lte")
    try:
        value, bound = float(value), float(bound)
    except (TypeError, ValueError):
        pass  # not numbers: dates as strings, for example, compare as they are
    try:
        if operator == "$gt":
            return bool(value > bound)
        if operator == "$gte":
            return bool(value >= bound)
        return bool(value < bound) if operator == "$lt" else bool(value <= bound)
    except TypeError:
        return False
