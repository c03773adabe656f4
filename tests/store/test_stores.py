"""The contract of stores, over each of ours, in both colours (KV-1 to KV-3)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mpflow.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchItem,
    SearchOp,
)
from mpflow.store.base.embed import get_text_at_path, tokenize_path
from mpflow.store.memory import InMemoryStore
from mpflow.store.sqlite import AsyncSqliteStore, SqliteStore


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Sync:
    """The store's methods, called in the sync colour."""

    def __init__(self, store: Any) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self.store, name)  # type: ignore[no-any-return]


class Async(Sync):
    """The same, in the async colour."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: asyncio.run(getattr(self.store, f"a{name}")(*args, **kwargs))


@pytest.fixture(params=[InMemoryStore, SqliteStore, AsyncSqliteStore])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes a store of one kind, by its constructor's options."""
    opened = []

    def make_one(**options: Any) -> Any:
        if request.param is InMemoryStore:
            return InMemoryStore(**options)
        opened.append(sqlite3.connect(":memory:", check_same_thread=False))
        return request.param(opened[-1], **options)

    yield make_one
    for connection in opened:
        connection.close()


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def store(colour: Callable[[Any], Any], make: Callable[..., Any]) -> Any:
    return colour(make())


def sweep(store: Any) -> int:
    swept = store.sweep_ttl()
    return swept if isinstance(swept, int) else asyncio.run(swept)


def found(items: list[SearchItem]) -> list[str]:
    return [item.key for item in items]


def test_kv2_what_is_put_can_be_got_and_deleted(store: Any) -> None:
    store.put(("users", "1"), "prefs", {"a": 1})
    item = store.get(("users", "1"), "prefs")
    assert (item.value, item.key, item.namespace) == ({"a": 1}, "prefs", ("users", "1"))
    store.delete(("users", "1"), "prefs")
    store.delete(("users", "1"), "prefs")
    assert store.get(("users", "1"), "prefs") is None
    assert store.list_namespaces() == []


def test_kv3_an_item_keeps_its_creation_time_when_it_changes(store: Any) -> None:
    store.put(("n",), "k", {"a": 1})
    first = store.get(("n",), "k")
    store.put(("n",), "k", {"a": 2})
    second = store.get(("n",), "k")
    assert (second.value, second.created_at) == ({"a": 2}, first.created_at)
    assert second.updated_at >= first.updated_at
    assert first.value == {"a": 1}


def test_kv3_items_are_values_and_turn_into_json() -> None:
    fields: dict[str, Any] = {
        "value": {"a": 1},
        "key": "k",
        "namespace": ["n"],
        "created_at": "2024-01-01T00:00:00+00:00",
        "updated_at": "2024-01-02T00:00:00+00:00",
    }
    item = Item(**fields)
    assert item.dict() == fields
    assert (item, hash(item)) == (Item(**fields), hash(Item(**fields)))
    assert "score" not in repr(item)
    assert SearchItem(**fields, score=0.5).dict() == {**fields, "score": 0.5}


@pytest.mark.parametrize("namespace", [(), ("",), ("a.b",), (1,), ("langgraph", "a"), "ab", ["a"]])
def test_kv2_namespaces_that_nothing_can_be_stored_under(store: Any, namespace: Any) -> None:
    with pytest.raises(InvalidNamespaceError):
        store.put(namespace, "k", {})
    with pytest.raises(InvalidNamespaceError):
        store.batch([PutOp(namespace if not isinstance(namespace, list) else tuple("."), "k", {})])


@pytest.mark.parametrize(
    ("filter", "keys"),
    [
        (None, ["a", "b", "c"]),
        ({"n": 1}, ["b"]),
        ({"n": {"$eq": 1}}, ["b"]),
        ({"n": {"$ne": 1}}, ["a", "c"]),
        ({"n": {"$gt": 0}}, ["b", "c"]),
        ({"n": {"$gte": 1, "$lt": 2}}, ["b"]),
        ({"n": {"$lte": 0}}, ["a"]),
        ({"d": {"x": 2}}, ["c"]),
        ({"d": {"x": {"$lt": 2}}}, ["a", "b"]),
        ({"when": {"$gt": "2024-01-01"}}, ["b", "c"]),
        ({"n": 1, "d": {"x": 2}}, []),
        ({"missing": {"$gt": 0}}, []),
        ({"missing": None}, ["a", "b", "c"]),
        ({"n": {"x": 1}}, []),
    ],
)
def test_kv3_filters(store: Any, filter: Any, keys: list[str]) -> None:
    for number, key in enumerate("abc"):
        store.put(("n", key), key, {"n": number, "d": {"x": number}, "when": f"2024-0{number + 1}-01"})
    store.put(("other",), "z", {"n": 1})
    assert found(store.search(("n",), filter=filter)) == keys


def test_kv3_an_unknown_operator_is_refused(store: Any) -> None:
    store.put(("n",), "k", {"n": 1})
    with pytest.raises(ValueError, match=r"\$near"):
        store.search(("n",), filter={"n": {"$near": 1}})


def test_kv2_search_pages(store: Any) -> None:
    for number in range(5):
        store.put(("n",), str(number), {})
    assert found(store.search(("n",), limit=2, offset=1)) == ["1", "2"]
    assert found(store.search((), limit=100)) == list("01234")


@pytest.mark.parametrize(
    ("arguments", "namespaces"),
    [
        ({}, [("a", "b", "c"), ("a", "d"), ("e",)]),
        ({"prefix": ("a",)}, [("a", "b", "c"), ("a", "d")]),
        ({"suffix": ("d",)}, [("a", "d")]),
        ({"prefix": ("a", "*", "c")}, [("a", "b", "c")]),
        ({"max_depth": 1}, [("a",), ("e",)]),
        ({"limit": 1, "offset": 1}, [("a", "d")]),
    ],
)
def test_kv2_listing_namespaces(store: Any, arguments: Any, namespaces: Any) -> None:
    for namespace in [("a", "d"), ("e",), ("a", "b", "c")]:
        store.put(namespace, "k", {})
    assert store.list_namespaces(**arguments) == namespaces


def test_kv2_a_batch_reads_the_store_as_it_was_and_the_last_put_wins(store: Any) -> None:
    store.put(("n",), "k", {"a": 0})
    got, first, last, listed, searched = store.batch(
        [
            GetOp(("n",), "k"),
            PutOp(("n",), "k", {"a": 1}),
            PutOp(("n",), "k", {"a": 2}),
            ListNamespacesOp((MatchCondition("prefix", ("n",)),)),
            SearchOp(("n",)),
        ]
    )
    assert (got.value, first, last, listed) == ({"a": 0}, None, None, [("n",)])
    assert searched[0].value == {"a": 0}
    assert store.get(("n",), "k").value == {"a": 2}
    with pytest.raises(ValueError, match="GetOp"):
        store.batch([3])


def test_the_ttl_of_an_item_counts_in_minutes_and_reading_refreshes_it(colour: Any, make: Any) -> None:
    clock = Clock()
    inner = make(clock=clock)
    store = colour(inner)
    store.put(("n",), "k", {"a": 1}, ttl=2)
    clock.now += 119
    assert store.get(("n",), "k", refresh_ttl=False) is not None
    assert found(store.search(("n",))) == ["k"]
    clock.now += 119
    assert store.get(("n",), "k", refresh_ttl=False) is not None
    clock.now += 1
    assert store.get(("n",), "k") is None
    assert store.search(("n",)) == []
    assert store.list_namespaces() == []
    assert (sweep(inner), sweep(inner)) == (1, 0)


def test_a_default_ttl_holds_unless_a_put_says_otherwise(colour: Any, make: Any) -> None:
    clock = Clock()
    store = colour(make(ttl={"default_ttl": 1, "refresh_on_read": False}, clock=clock))
    store.put(("n",), "mortal", {})
    store.put(("n",), "immortal", {}, ttl=None)
    clock.now += 59
    assert store.get(("n",), "mortal") is not None
    clock.now += 1
    assert found(store.search(("n",))) == ["immortal"]


def lengths(texts: Any) -> list[list[float]]:
    return [[float(len(text)), 1.0] for text in texts]


async def lengths_async(texts: Any) -> list[list[float]]:
    return lengths(texts)


def test_kv3_search_by_meaning_ranks_by_likeness_and_pages(colour: Any, make: Any) -> None:
    store = colour(make(index={"dims": 2, "embed": lengths, "fields": ["text", "notes[*].t"]}))
    store.put(("d",), "short", {"text": "a"})
    store.put(("d",), "noted", {"text": "a", "notes": [{"t": "four"}, {"t": "b"}]})
    store.put(("d",), "long", {"text": "x" * 40})
    store.put(("d",), "unindexed", {"text": "four"}, index=False)
    store.put(("d",), "own field", {"text": "a", "title": "three"}, index=["title"])
    hits = store.search(("d",), query="4444")
    assert found(hits) == ["noted", "own field", "long", "short", "unindexed"]
    assert [hit.score is not None and round(hit.score, 2) for hit in hits] == [1.0, 1.0, 0.98, 0.86, False]
    assert found(store.search(("d",), query="4444", limit=1, offset=1)) == ["own field"]
    store.put(("d",), "noted", {"text": "z"})
    assert found(store.search(("d",), query="4444", limit=1)) == ["own field"]


def test_kv3_an_async_embedding_serves_the_async_methods_alone(make: Any) -> None:
    store = make(index={"dims": 2, "embed": lengths_async})
    with pytest.raises(RuntimeError, match="async"):
        store.put(("d",), "k", {"text": "a"})
    asyncio.run(store.aput(("d",), "k", {"text": "a"}))
    assert found(asyncio.run(store.asearch(("d",), query="a"))) == ["k"]


def test_kv3_without_an_index_a_query_is_ignored(store: Any) -> None:
    store.put(("d",), "k", {"text": "a"})
    assert [(hit.key, hit.score) for hit in store.search(("d",), query="a")] == [("k", None)]


def test_kv3_an_index_needs_something_that_embeds(make: Any) -> None:
    with pytest.raises(ValueError, match="embed must be provided"):
        make(index={"dims": 2})


@pytest.mark.parametrize(
    ("path", "tokens"),
    [("a.b[0].c[*]", ["a", "b", "[0]", "c", "[*]"]), ("$", ["$"]), ("{a,b}.c", ["{a,b}", "c"]), ("", [])],
)
def test_paths_are_split_into_steps(path: str, tokens: list[str]) -> None:
    assert tokenize_path(path) == tokens


def test_a_path_that_is_not_closed_is_refused() -> None:
    with pytest.raises(ValueError, match="not closed"):
        tokenize_path("a[0")


@pytest.mark.parametrize(
    ("value", "path", "texts"),
    [
        ({"a": {"b": [{"c": 1}, {"c": "x"}]}}, "a.b[*].c", ["1", "x"]),
        ({"b": [1], "a": "ü"}, "$", ['{"a": "ü", "b": [1]}']),
        ({"a": {"b": "p", "c": "q"}}, "{a.b,a.c}", ["p", "q"]),
        ({"a": {"b": "p", "c": "q"}}, "a.{b, c}", ["p", "q"]),
        ({"a": {"b": "p", "c": "q"}}, "a.*", ["p", "q"]),
        ({"a": ["x", "y"]}, "a[-1]", ["y"]),
        ({"a": ["x"]}, "a[3]", []),
        ({"a": None}, "a", []),
        ({"a": 1}, "a.b", []),
        (None, "$", []),
    ],
)
def test_texts_are_found_by_path(value: Any, path: str, texts: list[str]) -> None:
    assert get_text_at_path(value, path) == texts
