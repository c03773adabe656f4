"""What a run takes over from the task it is started in: its config, its saver, its place among the graphs around it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mpflow._names import PRIVATE_CONF_PREFIX
from mpflow._scope import SCOPE_KEY, TaskScope, current
from mpflow.config import default_config, ensure_config
from mpflow.errors import GraphRecursionError

if TYPE_CHECKING:
    from mpflow._core.plan import Plan
    from mpflow._engine.setting import Setting

PASSED_KEY = "__pregel_stream"
"""Where a nested run finds the modes that the runs around it stream from it."""
MAX_DEPTH = 64
"""Graphs within graphs: beyond this a graph is taken to contain itself."""


_HANDED_ON = frozenset(("tags", "metadata", "callbacks", "max_concurrency"))
_THEIR_LIMIT = 25
"""Of any runnable of langchain that was given none."""


class Nest(NamedTuple):
    """What a run finds around it.

    ``config`` is the run's, ``called_back`` whether it has callbacks of the user's, ``passed`` are the modes that the runs
    around it stream from it. ``around`` is the task it is nested in; ``outside`` the one whose code started it, which is
    another where the run has a thread of its own: that one is a root, wherever it is started (SG-3).
    """

    config: dict[str, Any]
    called_back: bool = False
    passed: Sequence[str] = ()
    around: TaskScope | None = None
    outside: TaskScope | None = None
    depth: int = 0
    namespace: str = ""


def nest_of(setting: Setting, config: Any) -> Nest:
    """What is around a run that is started here, with this config. Raises GraphRecursionError and ValueError."""
    defaults = setting.defaults
    if not config and not defaults and current.get() is None and (setting.is_part or config_around() is None):
        return Nest({} if setting.is_part else default_config())  # type: ignore[arg-type]
    around = scope_around(config, defaults)
    outside = current.get() if around is None else around
    called_back: bool = False
    passed: Sequence[str] = ()
    if setting.is_part:
        complete = config_of_part(config, around)
        if around is not None:
            return Nest(complete, around=around, outside=outside, depth=around.facts.depth, namespace=around.namespace)
    else:
        complete, called_back, passed = config_of_run(config, defaults, outside, is_root=around is None)
    depth = 0 if outside is None else depth_below(outside, setting.plan)
    namespace = "" if around is None else namespace_below(around, lasts=setting.checkpointer is True)
    return Nest(complete, called_back, passed, around, outside, depth, namespace)


def depth_below(parent: TaskScope, plan: Plan) -> int:
    """How many graphs are around a run that is started in `parent`. Raises GraphRecursionError."""
    depth: int = parent.facts.depth + 1
    if depth > MAX_DEPTH:
        raise GraphRecursionError(
            f"graph '{plan.name}' runs inside itself: it was started by node '{parent.name}', {depth} graphs "
            "deep. A graph must not be a node of itself, nor be invoked by one of its nodes without end"
        )
    return depth


def namespace_below(parent: TaskScope, *, lasts: bool) -> str:
    """The namespace of the next run that is started in `parent` (SG-3)."""
    namespace = lasting_namespace(parent.namespace) if lasts else parent.namespace
    number = parent.next_graph()
    return f"{namespace}|{number}" if number else namespace


def config_of_run(
    config: Any, defaults: Any, outside: TaskScope | None, *, is_root: bool
) -> tuple[dict[str, Any], bool, Sequence[str]]:
    """The config of a run; whether it has callbacks of the user's; the modes that the runs around it stream from it."""
    base: Any = config_around() if outside is None else None
    if not config and not defaults and outside is None and base is None:
        return dict(default_config()), False, ()
    if base is not None:
        base = {key: value for key, value in base.items() if not (config or {}).get(key)}
    if outside is not None and not passes_on(
        config, outside
    ):  # a config that was passed on has all that the task's has
        base = outside.config
        if is_root:
            base = {key: value for key, value in base.items() if key != "configurable"}
    merged: dict[str, Any] = dict(ensure_config(base, defaults, config))
    if merged["recursion_limit"] < 1:
        raise ValueError(f"recursion_limit must be at least 1, got {merged['recursion_limit']}")
    called_back = merged.get("callbacks") is not None
    if outside is not None and called_back:
        from mpflow._engine.messages import without_ours

        merged["callbacks"] = without_ours(merged["callbacks"])
    configurable = dict(merged.get("configurable") or {})
    configurable.pop(SCOPE_KEY, None)
    passed = configurable.pop(PASSED_KEY, ())
    merged["configurable"] = configurable
    return merged, called_back, passed


def config_around() -> dict[str, Any] | None:
    """The config of the langchain runnable in whose code we are, as far as a graph that is called there takes it over."""
    theirs = sys.modules.get("langchain_core.runnables.config")
    found = None if theirs is None else theirs.var_child_runnable_config.get()
    if not found:
        return None
    base = {key: value for key, value in found.items() if key in _HANDED_ON and value}
    if found.get("recursion_limit", _THEIR_LIMIT) != _THEIR_LIMIT:
        base["recursion_limit"] = found["recursion_limit"]
    configurable = found.get("configurable") or {}
    base["configurable"] = {
        key: value
        for key, value in configurable.items()
        if not key.startswith(PRIVATE_CONF_PREFIX) and key not in _ADDRESS_KEYS[1:]
    }
    return base


def config_of_part(config: Any, around: TaskScope | None) -> dict[str, Any]:
    """The config of a part of a task: as it was given, else the task's; without the task itself, which does not travel."""
    given: Any = config or (around.facts.config if around is not None else None) or {}
    merged = dict(given)
    configurable = merged.get("configurable")
    if configurable and SCOPE_KEY in configurable:
        merged["configurable"] = {key: value for key, value in configurable.items() if key != SCOPE_KEY}
    return merged


_ADDRESS_KEYS = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
SAVER_KEYS = ("thread_id", "checkpoint_ns", "checkpoint_id")


def saver_of(asked: Any, parent: TaskScope | None) -> Any:
    """The saver of a run: its graph's own, or within another run that one's (SG-4). Raises RuntimeError."""
    if asked is False:
        return None
    if parent is not None:
        local = parent.facts.local
        if local is not None and local.saver is not None:
            return local.saver
        return None if asked is True else asked
    if asked is True:
        raise RuntimeError("checkpointer=True cannot be used for root graphs.")
    return asked


def without_ids(namespace: str) -> str:
    """A namespace without the ids of tasks and the counts of calls: the path of nodes that leads to a graph (SG-3)."""
    return "|".join(part.split(":")[0] for part in namespace.split("|") if not part.isdigit())


def lasting_namespace(namespace: str) -> str:
    """A namespace without the ids of tasks, which is where a graph with ``checkpointer=True`` keeps its state."""
    return "|".join(part.split(":")[0] for part in namespace.split("|"))


def scope_around(config: Any, defaults: Any = None) -> TaskScope | None:
    """The task this run is started from: named by the config that was passed on, else by the context.

    None for a run whose config, or its graph's, addresses checkpoints of its own: that is a root wherever it is started.
    """
    if config:
        configurable = config.get("configurable")
        if configurable:
            scope = configurable.get(SCOPE_KEY)
            if isinstance(scope, TaskScope):
                return scope
    found = current.get()
    return None if found is not None and (_has_address(config) or _has_address(defaults)) else found


def _has_address(config: Any) -> bool:
    configurable = (config or {}).get("configurable") or {}
    return any(configurable.get(key) for key in _ADDRESS_KEYS)


def passes_on(config: Any, scope: TaskScope) -> bool:
    """Whether a config was made from that of the task in `scope`."""
    return bool(config) and (config.get("configurable") or {}).get(SCOPE_KEY) is scope


def concurrency_of(config: Mapping[str, Any]) -> int | None:
    """The run's ``max_concurrency``, at the top of a config or under ``configurable``. Raises ValueError."""
    limit = config.get("max_concurrency")
    if limit is None:
        limit = (config.get("configurable") or {}).get("max_concurrency")
    if limit is None:
        return None
    if not isinstance(limit, int) or limit < 1:
        raise ValueError(f"'max_concurrency' must be a count of at least 1, got {limit!r}")
    return limit
