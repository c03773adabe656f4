"""Text of stored values as vectors: paths into values, and adapters for whatever embeds. No storage here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from inspect import iscoroutinefunction
from typing import Any, Protocol, cast, runtime_checkable

EmbeddingsFunc = Callable[[Sequence[str]], list[list[float]]]
AEmbeddingsFunc = Callable[[Sequence[str]], Awaitable[list[list[float]]]]


@runtime_checkable
class Embeddings(Protocol):
    """What turns texts into vectors; langchain's classes fit as they are."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]: ...

    def embed_query(self, text: str) -> list[float]: ...

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]: ...

    async def aembed_query(self, text: str) -> list[float]: ...


class EmbeddingsLambda:
    """Makes `Embeddings` of a function, sync or async. An async one serves async stores' methods alone."""

    def __init__(self, function: EmbeddingsFunc | AEmbeddingsFunc) -> None:
        self._function = function
        self._is_async = iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self._is_async:
            raise RuntimeError("the store embeds by an async function, so only its async methods can search and put")
        return cast(EmbeddingsFunc, self._function)(texts)

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        if self._is_async:
            return await cast(AEmbeddingsFunc, self._function)(texts)
        import asyncio

        return await asyncio.to_thread(cast(EmbeddingsFunc, self._function), texts)

    async def aembed_query(self, text: str) -> list[float]:
        return (await self.aembed_documents([text]))[0]


def ensure_embeddings(embed: Embeddings | EmbeddingsFunc | AEmbeddingsFunc | str | None) -> Embeddings:
    """Return `Embeddings` for an object, a function, or langchain's ``"provider:model"``.

    Raises `ValueError` for None, and for a string while langchain is not installed.
    """
    if embed is None:
        raise ValueError("embed must be provided")
    if isinstance(embed, str):
        try:
            from langchain.embeddings import init_embeddings  # type: ignore[import-not-found, unused-ignore]
        except ImportError as missing:
            raise ValueError(
                f"embed={embed!r} asks for langchain's embeddings, which are not installed: pip install langchain, "
                f"or pass a function that takes texts and returns vectors"
            ) from missing
        return cast(Embeddings, init_embeddings(embed))
    if hasattr(embed, "embed_documents"):
        return cast(Embeddings, embed)
    return EmbeddingsLambda(embed)


def tokenize_path(path: str) -> list[str]:
    """Split a path into its steps: ``"a.b[0].{c,d}"`` into ``["a", "b", "[0]", "{c,d}"]``."""
    return list(_steps(path))


_CLOSES = {"[": "]", "{": "}"}


def _steps(path: str) -> Iterator[str]:
    word, at = "", 0
    while at < len(path):
        char = path[at]
        if char in _CLOSES:
            if word:
                yield word
                word = ""
            end = _closing(path, at)
            yield path[at : end + 1]
            at = end
        elif char == ".":
            if word:
                yield word
                word = ""
        else:
            word += char
        at += 1
    if word:
        yield word


def _closing(path: str, start: int) -> int:
    opens, closes, depth = path[start], _CLOSES[path[start]], 0
    for at in range(start, len(path)):
        depth += (path[at] == opens) - (path[at] == closes)
        if depth == 0:
            return at
    raise ValueError(f"path {path!r}: the {opens!r} at {start} is not closed")


def get_text_at_path(obj: Any, path: str | list[str]) -> list[str]:
    """Return the texts found at `path` in `obj`.

    A step is a key, ``[i]`` or ``[*]`` for lists, ``*`` for all values, or ``{a,b}`` for several paths at once;
    ``$`` is the whole. What is found and not a string is given as JSON; None and what is not there are left out.
    """
    steps = tokenize_path(path) if isinstance(path, str) else path
    return [] if obj is None else list(_texts(obj, [] if steps == ["$"] else steps))


def _texts(value: Any, steps: list[str]) -> Iterator[str]:
    if not steps:
        if isinstance(value, str):
            yield value
        elif isinstance(value, (bool, int, float)):
            yield str(value)
        elif isinstance(value, (list, dict)):
            import json

            yield json.dumps(value, sort_keys=True, ensure_ascii=False)
        return
    step, rest = steps[0], steps[1:]
    if step.startswith("{"):
        for field in step[1:-1].split(","):
            yield from _texts(value, [*tokenize_path(field.strip()), *rest])
    elif step.startswith("["):
        index = step[1:-1].strip()
        if not isinstance(value, list):
            return
        if index == "*":
            for item in value:
                yield from _texts(item, rest)
        elif index.lstrip("-").isdigit() and -len(value) <= int(index) < len(value):
            yield from _texts(value[int(index)], rest)
    elif step == "*":
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from _texts(item, rest)
    elif isinstance(value, dict) and step in value:
        yield from _texts(value[step], rest)


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """How nearly two vectors point the same way: 1 the same, 0 across, -1 opposite; 0 where one has no length."""
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    lengths = (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5
    return float(dot / lengths) if lengths else 0.0
