"""A run as its tasks in a worker reach it: what is local to the parent there, and asked of it here.

Loaded with the first task that asks for its run's saver, store, cache or control. It knows no engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from mpflow._messages import Luggage, StepFacts
from mpflow._names import PRIVATE_CONF_PREFIX
from mpflow._scope import NO_ANSWER, Answers, Emit, TaskScope
from mpflow.cache.base import BaseCache, FullKey, Namespace
from mpflow.checkpoint.base import BaseCheckpointSaver
from mpflow.store.base import BaseStore

Ask = Callable[..., Any]
"""``ask(target, method, *arguments)``: what the run answers."""


class Away:
    """Stands for the run's `Local` in a worker."""

    is_away = True
    sees_all = True
    around: FarTask | None = None
    """The task that the run is a part of."""
    loop = None
    over = False

    def __init__(
        self, luggage: Luggage, ask: Ask, ask_later: Ask, wait: Callable[..., None], control: Callable[[], Any]
    ) -> None:
        self.luggage = luggage
        self.ask = ask
        self.ask_later = ask_later
        self.wait = wait
        self._control = control
        self.durability = luggage.durability
        self.answers_by_id = luggage.answers_by_id
        self.entrances = luggage.entrances

    @cached_property
    def saver(self) -> Any:
        luggage = self.luggage
        if luggage.has_far_log:
            from mpflow.checkpoint.log.far import FarLog

            return FarLog(partial(self.ask, "log"))
        return FarSaver(self.ask, luggage.counts_versions) if luggage.has_saver else None

    @cached_property
    def store(self) -> Any:
        return FarStore(self.ask) if self.luggage.has_store else None

    @cached_property
    def cache(self) -> Any:
        return FarCache(self.ask) if self.luggage.has_cache else None

    @cached_property
    def replay(self) -> Any:
        return None if self.luggage.replay is None else FarReplay(self.luggage.replay, self.ask)

    @cached_property
    def control(self) -> Any:
        return self._control()

    def drainable(self) -> Any:
        return self.control


class FarTask(TaskScope):
    """The task that a run is a part of, as the parts of it that are in a worker find it: what it counts is asked for."""

    def __init__(self, state: dict[str, Any], local: Away, emit: Emit) -> None:
        task = state.pop("task")
        self.started_at = task.pop("started_at")
        facts = StepFacts.__new__(StepFacts)
        facts.__dict__.update(state, local=local)
        super().__init__(facts, **task, emit=emit)
        self._ask = local.ask

    def interrupt(self, value: Any, response_schema: Any = None) -> Any:
        return self._ask("around", "interrupt", value, response_schema)

    @cached_property
    def answers(self) -> Answers | None:  # type: ignore[override]
        """What graphs within it may take of its answers."""
        found = self._ask("around", "untaken")
        return found and Answers([], _FarAnswer(found[0], self._ask), found[1])

    def next_graph(self) -> int:
        number: int = self._ask("around", "next_graph")
        return number

    def next_call(self) -> int:
        return 0  # counted where the call is served


class _FarAnswer(list[Any]):
    """The answer that names no question, if there is one: taken in the parent, where others may come first."""

    def __init__(self, held: list[Any], ask: Ask) -> None:
        super().__init__(held)
        self._ask = ask

    def pop(self, index: Any = -1) -> Any:
        super().pop(index)
        taken = self._ask("around", "take_untaken")
        return taken[0] if taken else NO_ANSWER


class FarSaver(BaseCheckpointSaver[Any]):
    """The run's saver, called in the parent."""

    def __init__(self, ask: Ask, counts_versions: bool) -> None:
        super().__init__()
        self._ask = ask
        self._counts_versions = counts_versions

    def get_tuple(self, config: Any) -> Any:
        return self._ask("saver", "get_tuple", _bare(config))

    def list(
        self,
        config: Any,
        *,
        filter: dict[str, Any] | None = None,
        before: Any = None,
        limit: int | None = None,
    ) -> Iterator[Any]:
        yield from self._ask("saver", "list", _bare(config), _bare(before), limit, filter)

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        return self._ask("saver", "put", _bare(config), checkpoint, metadata, new_versions)

    def put_writes(self, config: Any, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        self._ask("saver", "put_writes", _bare(config), writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        self._ask("saver", "delete_thread", thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._ask("saver", "delete_for_runs", run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self._ask("saver", "copy_thread", source_thread_id, target_thread_id)

    def get_next_version(self, current: Any, channel: None) -> Any:
        if self._counts_versions:
            return super().get_next_version(current, channel)
        return self._ask("saver", "get_next_version", current, None)


class FarStore(BaseStore):
    """The run's store, called in the parent."""

    __slots__ = ("_ask",)

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def batch(self, ops: Iterable[Any]) -> list[Any]:
        found: list[Any] = self._ask("store", "batch", list(ops))
        return found

    async def abatch(self, ops: Iterable[Any]) -> list[Any]:
        from asyncio import to_thread

        return await to_thread(self.batch, list(ops))


class FarCache(BaseCache[Any]):
    """The run's cache, called in the parent."""

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self._ask = ask

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        found: dict[FullKey, Any] = self._ask("cache", "get", keys)
        return found

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        self._ask("cache", "set", dict(pairs))

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        self._ask("cache", "clear", namespaces)

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        from asyncio import to_thread

        return await to_thread(self.get, keys)

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        from asyncio import to_thread

        await to_thread(self.set, pairs)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        from asyncio import to_thread

        await to_thread(self.clear, namespaces)


class FarReplay:
    """Where graphs within a run that goes back in time start from; who was visited is the parent's to know."""

    def __init__(self, checkpoint_id: str, ask: Ask) -> None:
        self.checkpoint_id = checkpoint_id
        self._ask = ask

    def is_first_visit(self, ns: str) -> bool:
        return bool(self._ask("replay", "is_first_visit", ns))


def _bare(config: Any) -> Any:
    """What a saver reads of a config; the rest is our own, or cannot travel."""
    if config is None:
        return None
    configurable = config.get("configurable") or {}
    kept = {key: value for key, value in configurable.items() if not key.startswith(PRIVATE_CONF_PREFIX)}
    return {"configurable": kept}
