"""A run's config: its shape, how two of them merge, and how user code finds the one it runs under.

The keys are langchain-core's, whose own dicts pass as they are; langchain itself is not imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict, cast

from mpflow._names import CHECKPOINT_ID, CHECKPOINT_NS, CONF, THREAD_ID

if TYPE_CHECKING:
    from uuid import UUID

    from mpflow.store.base import BaseStore
    from mpflow.types import StreamWriter

DEFAULT_RECURSION_LIMIT = int(os.environ.get("LANGGRAPH_DEFAULT_RECURSION_LIMIT", "10007"))
"""Supersteps a run may take where its config does not say (EX-9)."""


class RunnableConfig(TypedDict, total=False):
    """How to run: which thread, which limits, and what to tell traces (CF-1). Every key may be left out."""

    tags: list[str]
    metadata: dict[str, Any]
    callbacks: Any
    run_name: str
    max_concurrency: int | None
    recursion_limit: int
    configurable: dict[str, Any]
    run_id: UUID | None


CONFIG_KEYS = (
    "tags",
    "metadata",
    "callbacks",
    "run_name",
    "max_concurrency",
    "recursion_limit",
    "configurable",
    "run_id",
)
_TO_METADATA = (THREAD_ID, CHECKPOINT_ID, CHECKPOINT_NS, "task_id", "run_id", "assistant_id", "graph_id")


def merge_configs(*configs: RunnableConfig | Mapping[str, Any] | None) -> RunnableConfig:
    """Return one config from several, later ones winning (CF-1).

    ``metadata`` and ``configurable`` are merged key by key, ``tags`` and ``callbacks`` appended. None counts as not
    given, for a config as for a value in it. The arguments stay as they are.
    """
    merged: dict[str, Any] = {}
    configurable: dict[str, Any] = {}
    for config in configs:
        for key, value in (config or {}).items():
            if value is None or (not value and key not in ("recursion_limit", "max_concurrency")):
                continue
            if key == CONF:
                configurable.update(cast("Mapping[str, Any]", value))
            elif key == "metadata":
                merged[key] = {**merged.get(key, {}), **cast("Mapping[str, Any]", value)}
            elif key == "tags":
                merged[key] = [*merged.get(key, ()), *cast("list[str]", value)]
            elif key == "callbacks":
                merged[key] = _merge_callbacks(merged.get(key), value)
            else:
                merged[key] = value
    merged[CONF] = configurable
    return cast(RunnableConfig, merged)


def _merge_callbacks(base: Any, new: Any) -> Any:
    """Handlers of both. Each is None, a list of handlers or a langchain callback manager, told by its methods."""
    if base is None:
        return list(new) if isinstance(new, list) else new
    if isinstance(base, list) and isinstance(new, list):
        return base + new
    if isinstance(base, list) or isinstance(new, list):
        handlers, manager = (base, new) if isinstance(base, list) else (new, base)
        manager = manager.copy()
        for handler in handlers:
            manager.add_handler(handler, inherit=True)
        return manager
    return base.merge(new)


def patch_config(
    config: RunnableConfig | None,
    *,
    callbacks: Any = None,
    recursion_limit: int | None = None,
    max_concurrency: int | None = None,
    run_name: str | None = None,
    configurable: dict[str, Any] | None = None,
) -> RunnableConfig:
    """Return a copy of `config` with what is given put in its place; `configurable` is merged into the old one.

    New `callbacks` begin another run, so the old run's name and id go with the old callbacks.
    """
    patched: RunnableConfig = config.copy() if config is not None else {}
    if callbacks is not None:
        patched["callbacks"] = callbacks
        patched.pop("run_name", None)
        patched.pop("run_id", None)
    if recursion_limit is not None:
        patched["recursion_limit"] = recursion_limit
    if max_concurrency is not None:
        patched["max_concurrency"] = max_concurrency
    if run_name is not None:
        patched["run_name"] = run_name
    if configurable is not None:
        patched["configurable"] = {**(patched.get("configurable") or {}), **configurable}
    return patched


def default_config() -> RunnableConfig:
    """The config of a run that was given none."""
    return {
        "tags": [],
        "metadata": {},
        "callbacks": None,
        "recursion_limit": DEFAULT_RECURSION_LIMIT,
        "configurable": {},
    }


def ensure_config(*configs: RunnableConfig | Mapping[str, Any] | None) -> RunnableConfig:
    """Return the config of a run: `configs` merged over the defaults.

    Keys that a config does not have move to ``configurable``; the ids of thread, checkpoint and the like show in
    ``metadata`` too, unless it has them. The surrounding task's config is not looked at.
    """
    merged = merge_configs(*configs)
    configurable = {key: value for key, value in merged.items() if key not in CONFIG_KEYS}
    configurable.update(merged["configurable"])
    metadata = dict(merged.get("metadata") or {})
    for key in _TO_METADATA:
        value = configurable.get(key)
        if value and key not in metadata:
            metadata[key] = value
    complete = default_config()
    complete["metadata"] = metadata
    complete["configurable"] = configurable
    for key in ("tags", "callbacks", "recursion_limit", "run_name", "run_id", "max_concurrency"):
        if key in merged:
            complete[key] = merged[key]  # type: ignore[literal-required]
    return complete


def get_config() -> RunnableConfig:
    """Return the config of the running task. Raises `RuntimeError` outside of one (CF-3)."""
    from mpflow._scope import current_scope

    return cast(RunnableConfig, current_scope().config)


def get_store() -> BaseStore:
    """Return the store the graph was compiled with. Raises `RuntimeError` outside of a task (KV-1)."""
    from mpflow._scope import current_scope

    return cast("BaseStore", current_scope().runtime.store)


def get_stream_writer() -> StreamWriter:
    """Return the function that writes to ``stream_mode="custom"``. Raises `RuntimeError` outside of a task (SM-5)."""
    from mpflow._scope import current_scope

    return current_scope().runtime.stream_writer
