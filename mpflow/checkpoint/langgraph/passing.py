"""A saver that passes each call of the protocol on to another, with values exchanged on the way. It keeps nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

Exchange = Callable[[Any], Any]


def unchanged(value: Any) -> Any:
    return value


class Passing:
    """The protocol's methods over `saver`; a class beside it says whose saver it is.

    ``outwards`` exchanges values that go to the other saver, ``inwards`` those that come; ``found_as`` is the class of
    what is found.
    """

    saver: Any
    found_as: Callable[..., Any]
    outwards: Exchange = staticmethod(unchanged)
    inwards: Exchange = staticmethod(unchanged)

    def _checkpoint(self, checkpoint: Any) -> Any:
        values = {name: self.outwards(value) for name, value in checkpoint["channel_values"].items()}
        return {**checkpoint, "channel_values": values}

    def _writes(self, writes: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
        return [(channel, self.outwards(value)) for channel, value in writes]

    def _found(self, found: Any) -> Any:
        if found is None:
            return None
        config, checkpoint, metadata, parent_config, pending = found
        values = {name: self.inwards(value) for name, value in checkpoint["channel_values"].items()}
        writes = [(task_id, channel, self.inwards(value)) for task_id, channel, value in pending or ()]
        return self.found_as(config, {**checkpoint, "channel_values": values}, metadata, parent_config, writes)

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self.saver.get_next_version(current, channel)

    def get_tuple(self, config: Any) -> Any:
        return self._found(self.saver.get_tuple(config))

    def list(self, config: Any, *, filter: Any = None, before: Any = None, limit: Any = None) -> Iterator[Any]:
        for found in self.saver.list(config, filter=filter, before=before, limit=limit):
            yield self._found(found)

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        return self.saver.put(config, self._checkpoint(checkpoint), metadata, new_versions)

    def put_writes(self, config: Any, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        self.saver.put_writes(config, self._writes(writes), task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        self.saver.delete_thread(thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self.saver.delete_for_runs(run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self.saver.copy_thread(source_thread_id, target_thread_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self.saver.prune(thread_ids, strategy=strategy)

    async def aget_tuple(self, config: Any) -> Any:
        return self._found(await self.saver.aget_tuple(config))

    async def alist(
        self, config: Any, *, filter: Any = None, before: Any = None, limit: Any = None
    ) -> AsyncIterator[Any]:
        async for found in self.saver.alist(config, filter=filter, before=before, limit=limit):
            yield self._found(found)

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        return await self.saver.aput(config, self._checkpoint(checkpoint), metadata, new_versions)

    async def aput_writes(
        self, config: Any, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self.saver.aput_writes(config, self._writes(writes), task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        await self.saver.adelete_thread(thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        await self.saver.adelete_for_runs(run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await self.saver.acopy_thread(source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        await self.saver.aprune(thread_ids, strategy=strategy)
