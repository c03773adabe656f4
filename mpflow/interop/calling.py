"""Calls of LangGraph's tasks, made within our runs: each becomes a call of ours, of the function unchanged.

Loaded at the first such call, in workers too. It builds no graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from mpflow._core.plan import NodePlan
from mpflow._engine.futures import call
from mpflow._exec.calling import CallProgram
from mpflow._exec.patience import check_timeout
from mpflow._names import PUSH
from mpflow._scope import TaskScope
from mpflow.interop.bridge import bridged_callables
from mpflow.interop.policies import caching, retries, timeout_policy
from mpflow.runnables.base import coerce, name_of

_plans: WeakKeyDictionary[Any, tuple[Any, NodePlan]] = WeakKeyDictionary()


def start_task(
    scope: TaskScope,
    func: Any,
    input: tuple[tuple[Any, ...], dict[str, Any]],
    *,
    retry_policy: Sequence[Any] | None = None,
    cache_policy: Any = None,
    timeout: Any = None,
    callbacks: Any = None,
) -> Any:
    """Start a task of LangGraph's within the task of `scope`; a future of its result. As LangGraph calls what is in a config."""
    options = retry_policy, cache_policy, timeout
    kept = _plans.get(func)
    if kept is None or kept[0] != options:
        kept = _plans[func] = options, _plan_of(func, *options)
    return call(scope, kept[1], input)


def _plan_of(func: Any, retry_policy: Any, cache_policy: Any, timeout: Any) -> NodePlan:
    name = name_of(func)
    policy = timeout_policy(timeout)
    callables = coerce(func, name)
    check_timeout(name, callables, None, policy)
    return NodePlan(
        name,
        CallProgram(name, bridged_callables(callables, _unchanged)),
        (PUSH,),
        (),
        retry=retries(retry_policy) or (),
        timeout=policy,
        cache=caching(cache_policy),
    )


def _unchanged(result: Any) -> Any:
    return result
