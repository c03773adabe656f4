"""What the checks speak of: one saver in one colour, threads that grow step by step, and expectations with a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mpflow.checkpoint.base import Checkpoint, CheckpointTuple, empty_checkpoint
from mpflow.checkpoint.ids import new_checkpoint_id
from mpflow.config import RunnableConfig
from mpflow.testing.colours import Colour


def same(got: Any, expected: Any, what: str) -> None:
    """Raise AssertionError unless both are equal."""
    if got != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {got!r}")


def holds(condition: Any, what: str) -> None:
    """Raise AssertionError unless it does."""
    if not condition:
        raise AssertionError(what)


def address(thread_id: str, ns: str = "", checkpoint_id: str | None = None) -> RunnableConfig:
    """The config that addresses a checkpoint, or the latest."""
    where: dict[str, Any] = {"thread_id": thread_id, "checkpoint_ns": ns}
    if checkpoint_id is not None:
        where["checkpoint_id"] = checkpoint_id
    return {"configurable": where}


class Probe:
    """A saver with the protocol's methods under their sync names, whichever the colour."""

    def __init__(self, saver: Any, colour: Colour) -> None:
        self.saver = saver
        self.colour = colour

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self.colour.call(self.saver, "get_tuple", config)  # type: ignore[no-any-return]

    def found(self, config: RunnableConfig) -> CheckpointTuple:
        """The checkpoint that must be there."""
        found = self.get_tuple(config)
        if found is None:
            raise AssertionError(f"get_tuple found nothing at {config!r}")
        return found

    def list(self, config: RunnableConfig | None, **narrowing: Any) -> list[CheckpointTuple]:
        return self.colour.listed(self.saver, "list", config, **narrowing)

    def steps(self, config: RunnableConfig | None, **narrowing: Any) -> list[Any]:  # type: ignore[valid-type]
        """The step of each listed checkpoint."""
        return [found.metadata.get("step") for found in self.list(config, **narrowing)]

    def put(self, config: RunnableConfig, checkpoint: Any, metadata: Any, versions: Any) -> RunnableConfig:
        return self.colour.call(self.saver, "put", config, checkpoint, metadata, versions)  # type: ignore[no-any-return]

    def put_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str) -> None:
        self.colour.call(self.saver, "put_writes", config, writes, task_id, f"~{task_id}")

    def forget(self, method: str, *args: Any, **kw: Any) -> None:
        """One of the methods that change whole threads, which the protocol leaves to each saver to have."""
        try:
            self.colour.call(self.saver, method, *args, **kw)
        except NotImplementedError:
            text = f'the saver has no {method}(); if that is meant, let the suite say so: lacks = frozenset({{"{method}"}})'
            raise AssertionError(text) from None


class Thread:
    """A thread (or a namespace of one) that is saved step by step, as a run saves it."""

    def __init__(self, probe: Probe, thread_id: str = "thread", ns: str = "") -> None:
        self.probe = probe
        self.where = address(thread_id, ns)
        self.values: dict[str, Any] = {}
        self.versions: dict[str, Any] = {}
        self.count = 0

    def step(self, changes: Mapping[str, Any], gone: Sequence[str] = (), **metadata: Any) -> RunnableConfig:
        """Save the next checkpoint: the last one's values with these changes; the config that addresses it."""
        next_version = self.probe.saver.get_next_version
        changed = {
            name: next_version(max(self.versions.values(), default=None), None)
            for name in dict.fromkeys((*changes, *gone))
        }
        self.versions = {**self.versions, **changed}
        self.values = {name: value for name, value in {**self.values, **changes}.items() if name not in gone}
        checkpoint = self.checkpoint()
        about = {"source": "loop", "step": self.count, "parents": {}, **metadata}
        self.where = self.probe.put(self.where, checkpoint, about, changed)
        self.count += 1
        return self.where

    def checkpoint(self) -> Checkpoint:
        made = empty_checkpoint()
        made["id"] = new_checkpoint_id(self.count)
        made["channel_values"] = dict(self.values)
        made["channel_versions"] = dict(self.versions)
        return made

    def saved(self, config: RunnableConfig | None = None) -> dict[str, Any]:
        """The values at a checkpoint, the last one unless told otherwise."""
        return self.probe.found(config or self.where).checkpoint["channel_values"]
