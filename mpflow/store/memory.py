"""`InMemoryStore`: items in this process, gone with it; searched by filter and, if told how to embed, by meaning."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple, cast

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
from mpflow.store.embed import Embeddings, cosine, ensure_embeddings, get_text_at_path, tokenize_path

__all__ = ("InMemoryStore",)

Vectors = dict[str, list[float]]


class _Ask(NamedTuple):
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


Asks = Generator[_Ask, Any, "list[Result]"]


def _step(work: Asks, vectors: list[list[float]] | None) -> _Ask | list[Result]:
    try:
        return work.send(vectors)
    except StopIteration as done:
        return cast("list[Result]", done.value)


class _Entry:
    __slots__ = ("expires_at_s", "item", "ttl_s", "vectors")

    def __init__(self, item: Item, ttl_s: float | None, expires_at_s: float | None) -> None:
        self.item = item
        self.vectors: Vectors = {}
        self.ttl_s = ttl_s
        self.expires_at_s = expires_at_s


class InMemoryStore(BaseStore):
    """A store that keeps everything in this process's memory. Thread safe.

    `index` says how to compare by meaning; without it a `query` is ignored. `ttl` sets defaults for how long items
    live. `clock` counts the seconds that this is measured in.
    """

    __slots__ = ("_clock", "_data", "_lock", "embeddings", "index_config", "ttl_config")

    supports_ttl = True

    def __init__(
        self,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._data: dict[tuple[str, ...], dict[str, _Entry]] = {}
        self._lock = threading.RLock()
        self._clock = clock
        self.ttl_config = ttl
        self.index_config = index
        self.embeddings: Embeddings | None = None if index is None else ensure_embeddings(index.get("embed"))

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        work = self._perform(list(ops))
        step = _step(work, None)
        while isinstance(step, _Ask):
            step = _step(work, step.embed(cast(Embeddings, self.embeddings)))
        return step

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        work = self._perform(list(ops))
        step = _step(work, None)
        while isinstance(step, _Ask):
            step = _step(work, await step.aembed(cast(Embeddings, self.embeddings)))
        return step

    def sweep_ttl(self) -> int:
        """Drop the items whose time is over, and return how many there were. Reads skip them anyway."""
        with self._lock:
            return sum([self._drop_expired(namespace) for namespace in list(self._data)])

    def _perform(self, ops: Sequence[Op]) -> Asks:
        results: list[Any] = [None] * len(ops)
        puts: dict[tuple[tuple[str, ...], str], PutOp] = {}
        searches: list[tuple[int, SearchOp, list[_Entry]]] = []
        with self._lock:
            for position, op in enumerate(ops):
                if isinstance(op, GetOp):
                    results[position] = self._read(op)
                elif isinstance(op, SearchOp):
                    searches.append((position, op, self._candidates(op)))
                elif isinstance(op, ListNamespacesOp):
                    results[position] = self._namespaces(op)
                elif isinstance(op, PutOp):
                    if op.value is not None:
                        validate_namespace(op.namespace)
                    puts[(op.namespace, op.key)] = op
                else:
                    raise ValueError(f"a store takes GetOp, SearchOp, PutOp and ListNamespacesOp, got {op!r}")
        # Embedding may take long, so the lock is not held over it.
        queries = {op.query: [0.0] for _, op, _ in searches if op.query and self.embeddings is not None}
        if queries:
            queries = dict(zip(queries, (yield _Ask("queries", list(queries))), strict=True))
        for position, op, found in searches:
            results[position] = self._ranked(op, found, queries.get(op.query or ""))
        texts = self._texts_of(puts.values())
        vectors = (yield _Ask("documents", [text for _, _, text in texts])) if texts else []
        embedded: dict[tuple[tuple[str, ...], str], Vectors] = {}
        for (where, path, _), vector in zip(texts, vectors, strict=True):
            embedded.setdefault(where, {})[path] = vector
        with self._lock:
            for where, op in puts.items():
                self._write(op, embedded.get(where, {}))
        return results

    def _live(self, entry: _Entry, refresh: bool) -> bool:
        if entry.expires_at_s is None:
            return True
        now = self._clock()
        if now >= entry.expires_at_s:
            return False
        if refresh and entry.ttl_s is not None:
            entry.expires_at_s = now + entry.ttl_s
        return True

    def _drop_expired(self, namespace: tuple[str, ...]) -> int:
        entries = self._data.get(namespace, {})
        stale = [key for key, entry in entries.items() if not self._live(entry, refresh=False)]
        for key in stale:
            del entries[key]
        if not entries:
            self._data.pop(namespace, None)
        return len(stale)

    def _read(self, op: GetOp) -> Item | None:
        entry = self._data.get(op.namespace, {}).get(op.key)
        if entry is None or not self._live(entry, op.refresh_ttl):
            return None
        return entry.item

    def _candidates(self, op: SearchOp) -> list[_Entry]:
        prefix = tuple(op.namespace_prefix)
        tests = (op.filter or {}).items()
        return [
            entry
            for namespace, entries in self._data.items()
            if namespace[: len(prefix)] == prefix
            for entry in entries.values()
            if self._live(entry, refresh=False)
            and all(matches(entry.item.value.get(key), wanted) for key, wanted in tests)
        ]

    def _ranked(self, op: SearchOp, found: list[_Entry], query: list[float] | None) -> list[SearchItem]:
        scored: list[tuple[_Entry, float | None]] = [(entry, None) for entry in found]
        if query is not None:
            near = [
                (entry, max(cosine(query, vector) for vector in entry.vectors.values()))
                for entry in found
                if entry.vectors
            ]
            near.sort(key=lambda pair: pair[1], reverse=True)
            scored = [*near, *((entry, None) for entry in found if not entry.vectors)]
        page = scored[op.offset : op.offset + op.limit]
        with self._lock:
            for entry, _ in page:
                self._live(entry, op.refresh_ttl)
        return [_search_item(entry.item, score) for entry, score in page]

    def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        listed = {
            namespace if op.max_depth is None else namespace[: op.max_depth]
            for namespace, entries in self._data.items()
            if all(_path_matches(condition, namespace) for condition in op.match_conditions or ())
            and any(self._live(entry, refresh=False) for entry in entries.values())
        }
        return sorted(listed)[op.offset : op.offset + op.limit]

    def _texts_of(self, puts: Iterable[PutOp]) -> list[tuple[tuple[tuple[str, ...], str], str, str]]:
        """What to embed: where it belongs, under which path, and the text."""
        if self.index_config is None:
            return []
        usual = self.index_config.get("fields") or ["$"]
        texts: list[tuple[tuple[tuple[str, ...], str], str, str]] = []
        for op in puts:
            if op.value is None or op.index is False:
                continue
            for path in usual if op.index is None else op.index:
                found = get_text_at_path(dict(op.value), tokenize_path(path))
                for number, text in enumerate(found):
                    texts.append(((op.namespace, op.key), path if len(found) == 1 else f"{path}.{number}", text))
        return texts

    def _write(self, op: PutOp, vectors: Vectors) -> None:
        entries = self._data.get(op.namespace, {})
        if op.value is None:
            entries.pop(op.key, None)
            if not entries:
                self._data.pop(op.namespace, None)
            return
        now = datetime.now(timezone.utc)
        before = entries.get(op.key)
        is_new = before is None or not self._live(before, refresh=False)
        created_at = now if before is None or is_new else before.item.created_at
        item = Item(value=dict(op.value), key=op.key, namespace=op.namespace, created_at=created_at, updated_at=now)
        ttl_s = None if op.ttl is None else op.ttl * 60
        entry = _Entry(item, ttl_s, None if ttl_s is None else self._clock() + ttl_s)
        entry.vectors = vectors
        self._data.setdefault(op.namespace, {})[op.key] = entry


def _search_item(item: Item, score: float | None) -> SearchItem:
    return SearchItem(
        namespace=item.namespace,
        key=item.key,
        value=item.value,
        created_at=item.created_at,
        updated_at=item.updated_at,
        score=score,
    )


def _path_matches(condition: MatchCondition, namespace: tuple[str, ...]) -> bool:
    path = condition.path
    if len(path) > len(namespace):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[-len(path) :]
    return all(wanted in ("*", label) for wanted, label in zip(path, part, strict=True))


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
