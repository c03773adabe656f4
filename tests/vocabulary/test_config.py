"""Config, runtime and managed values (section 17; ST-13)."""

from __future__ import annotations

import pickle
from typing import Any, get_type_hints

import pytest

from mpflow import config as config_module
from mpflow._names import MISSING
from mpflow.config import (
    RunnableConfig,
    ensure_config,
    get_config,
    get_store,
    get_stream_writer,
    merge_configs,
    patch_config,
)
from mpflow.constants import END, START, TAG_HIDDEN, TAG_NOSTREAM
from mpflow.managed import IsLastStep, RemainingSteps
from mpflow.managed.base import is_managed_value
from mpflow.runtime import ExecutionInfo, RunControl, Runtime, ServerInfo, get_runtime


def test_cf1_later_configs_win_key_by_key() -> None:
    merged = merge_configs(
        {"tags": ["a"], "metadata": {"a": 1, "b": 1}, "configurable": {"x": 1}, "recursion_limit": 5, "run_name": "r"},
        None,
        {"tags": ["b"], "metadata": {"b": 2}, "configurable": {"y": 2}, "recursion_limit": 7, "run_name": None},
    )
    assert merged == {
        "tags": ["a", "b"],
        "metadata": {"a": 1, "b": 2},
        "configurable": {"x": 1, "y": 2},
        "recursion_limit": 7,
        "run_name": "r",
    }


def test_cf1_merging_leaves_its_arguments_alone() -> None:
    one: RunnableConfig = {"tags": ["a"], "metadata": {"a": 1}, "configurable": {"x": 1}, "callbacks": [1]}
    merged = merge_configs(one, {})
    merged["tags"].append("b")
    merged["metadata"]["b"] = merged["configurable"]["y"] = 2
    merged["callbacks"].append(2)
    assert one == {"tags": ["a"], "metadata": {"a": 1}, "configurable": {"x": 1}, "callbacks": [1]}


class Manager:
    """Stands in for a langchain callback manager."""

    def __init__(self, handlers: Any = ()) -> None:
        self.handlers = list(handlers)

    def copy(self) -> Manager:
        return Manager(self.handlers)

    def add_handler(self, handler: Any, inherit: bool = True) -> None:
        self.handlers.append(handler)

    def merge(self, other: Manager) -> Manager:
        return Manager(self.handlers + other.handlers)


@pytest.mark.parametrize(
    ("one", "other", "handlers"),
    [
        ([1], [2], [1, 2]),
        ([1], Manager([2]), [2, 1]),
        (Manager([1]), [2], [1, 2]),
        (Manager([1]), Manager([2]), [1, 2]),
        (None, Manager([2]), [2]),
    ],
)
def test_cf1_callbacks_of_both_are_kept(one: Any, other: Any, handlers: list[int]) -> None:
    merged = merge_configs({"callbacks": one}, {"callbacks": other})["callbacks"]
    assert getattr(merged, "handlers", merged) == handlers


def test_cf1_a_runs_config_is_complete() -> None:
    complete = ensure_config({"configurable": {"thread_id": "t", "user": "u"}, "stray": 3})
    assert complete == {
        "tags": [],
        "metadata": {"thread_id": "t"},
        "callbacks": None,
        "recursion_limit": config_module.DEFAULT_RECURSION_LIMIT,
        "configurable": {"thread_id": "t", "user": "u", "stray": 3},
    }
    assert ensure_config({"metadata": {"thread_id": "mine"}, "configurable": {"thread_id": "t"}})["metadata"] == {
        "thread_id": "mine"
    }


def test_patching_callbacks_begins_another_run() -> None:
    old: RunnableConfig = {"run_name": "a", "configurable": {"a": 1}}
    assert patch_config(old, callbacks=[1], configurable={"b": 2}, recursion_limit=3, max_concurrency=4) == {
        "callbacks": [1],
        "configurable": {"a": 1, "b": 2},
        "recursion_limit": 3,
        "max_concurrency": 4,
    }
    assert patch_config(None, run_name="r") == {"run_name": "r"}


@pytest.mark.parametrize("ask", [get_config, get_store, get_stream_writer, get_runtime])
def test_cf3_outside_of_a_task_there_is_no_config(ask: Any) -> None:
    with pytest.raises(RuntimeError, match="Called get_config outside of a runnable context"):
        ask()


def test_cf5_a_runtime_merges_overrides_and_patches() -> None:
    control = RunControl()
    base = Runtime(context={"a": 1}, previous=2, store="s", control=control)  # type: ignore[arg-type]
    merged = base.merge(Runtime(previous=3, heartbeat=print))
    assert (merged.context, merged.previous, merged.store, merged.heartbeat) == ({"a": 1}, 3, "s", print)
    assert merged.stream_writer is base.stream_writer
    assert base.override(previous=None).previous is None
    with pytest.raises(RuntimeError, match="execution_info"):
        base.patch_execution_info(task_id="t")
    inside = base.override(execution_info=ExecutionInfo("c", "ns", "t"))
    info = inside.patch_execution_info(node_attempt=2).execution_info
    assert info == ExecutionInfo("c", "ns", "t", node_attempt=2)
    with pytest.raises(AttributeError):
        base.previous = 1  # type: ignore[misc]


def test_cf7_draining_is_asked_through_the_control() -> None:
    control = RunControl()
    runtime: Runtime[None] = Runtime(control=control)
    assert (runtime.drain_requested, runtime.drain_reason) == (False, None)
    control.request_drain("deploy")
    assert (runtime.drain_requested, runtime.drain_reason) == (True, "deploy")
    assert (Runtime().drain_requested, Runtime().drain_reason) == (False, None)


def test_the_idempotency_key_is_the_same_in_each_attempt() -> None:
    first = ExecutionInfo("c", "ns", "task", thread_id="t", run_id="r1")
    again = first.patch(node_attempt=2, run_id="r2")
    assert first.idempotency_key == again.idempotency_key == Runtime(execution_info=again).idempotency_key
    unsaved = [ExecutionInfo("", "ns", "task", run_id=run).idempotency_key for run in ("r1", "r2")]
    assert unsaved[0] != unsaved[1]
    with pytest.raises(RuntimeError, match="belongs to no task"):
        Runtime().idempotency_key


def test_cf8_server_info_is_a_value() -> None:
    assert ServerInfo("a", "g") == ServerInfo(assistant_id="a", graph_id="g", user=None)


class State:
    last: IsLastStep
    left: RemainingSteps


def test_st13_managed_values_tell_how_near_the_limit_is() -> None:
    hints = get_type_hints(State, globals(), include_extras=True)
    last, left = (hints[name].__metadata__[-1] for name in ("last", "left"))
    assert is_managed_value(last)
    assert is_managed_value(left)
    assert not is_managed_value(int)
    at = [type("Scratch", (), {"step": step, "stop": 5}) for step in (3, 4)]
    assert [(last.get(scratch), left.get(scratch)) for scratch in at] == [(False, 2), (True, 1)]


def test_mod8_constants() -> None:
    assert (START, END, TAG_HIDDEN, TAG_NOSTREAM) == ("__start__", "__end__", "langsmith:hidden", "nostream")


def test_missing_is_one_object_in_every_process() -> None:
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING
    assert not MISSING
