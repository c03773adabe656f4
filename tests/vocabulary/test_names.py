"""Names that programs import are where LangGraph has them, and one object wherever they are (MOD-1 to MOD-13)."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

# By id: module, names. What is listed under several modules is the same object in all.
NAMES: dict[str, dict[str, str]] = {
    "MOD-1": {"graph": "StateGraph START END MessagesState add_messages"},
    "MOD-2": {
        "graph.state": "StateGraph CompiledStateGraph",
        "graph.message": "MessagesState add_messages push_message REMOVE_ALL_MESSAGES",
        "graph": "StateGraph MessagesState add_messages",
    },
    "MOD-3": {
        "types": "All Checkpointer StreamMode StreamWriter StreamPart ValuesStreamPart UpdatesStreamPart MessagesStreamPart "
        "CustomStreamPart CheckpointStreamPart TasksStreamPart DebugStreamPart TaskPayload TaskResultPayload CheckpointTask "
        "CheckpointPayload DebugPayload RetryPolicy TimeoutPolicy CachePolicy TracePolicy omit_payload Interrupt StateUpdate "
        "PregelTask PregelExecutableTask StateSnapshot Send Command Durability interrupt Overwrite GraphOutput "
        "ensure_valid_checkpointer CacheKey",
        "pregel.types": "StateUpdate CachePolicy PregelTask RetryPolicy StateSnapshot",
    },
    "MOD-4": {"func": "task entrypoint"},
    "MOD-5": {
        "errors": "EmptyChannelError ErrorCode GraphDrained GraphRecursionError InvalidUpdateError GraphBubbleUp GraphInterrupt "
        "NodeCancelledError NodeError NodeInterrupt NodeTimeoutError ParentCommand EmptyInputError TaskNotFound "
        "UnknownInterruptError is_invalid_resume"
    },
    "MOD-6": {
        "channels": "BaseChannel AnyValue LastValue LastValueAfterFinish UntrackedValue EphemeralValue "
        "BinaryOperatorAggregate DeltaChannel NamedBarrierValue NamedBarrierValueAfterFinish Topic",
        "channels.base": "BaseChannel",
        "channels.any_value": "AnyValue",
        "channels.last_value": "LastValue LastValueAfterFinish",
        "channels.untracked_value": "UntrackedValue",
        "channels.ephemeral_value": "EphemeralValue",
        "channels.binop": "BinaryOperatorAggregate",
        "channels.delta": "DeltaChannel",
        "channels.named_barrier_value": "NamedBarrierValue NamedBarrierValueAfterFinish",
        "channels.topic": "Topic",
    },
    "MOD-7": {
        "config": "get_config get_store get_stream_writer",
        "runtime": "Runtime get_runtime ExecutionInfo ServerInfo RunControl BaseUser",
    },
    "MOD-8": {"constants": "START END TAG_HIDDEN TAG_NOSTREAM", "graph": "START END"},
    "MOD-9": {
        "managed": "IsLastStep RemainingSteps",
        "managed.is_last_step": "IsLastStep RemainingSteps",
        "managed.base": "ManagedValue",
    },
    "MOD-10": {
        "checkpoint.base": "BaseCheckpointSaver Checkpoint CheckpointMetadata CheckpointTuple ChannelVersions "
        "empty_checkpoint copy_checkpoint WRITES_IDX_MAP",
        "checkpoint.memory": "InMemorySaver MemorySaver",
        "checkpoint.sqlite": "SqliteSaver",
        "checkpoint.sqlite.aio": "AsyncSqliteSaver",
        "checkpoint.postgres": "PostgresSaver",
        "checkpoint.postgres.aio": "AsyncPostgresSaver",
    },
    "MOD-11": {
        "store.base": "BaseStore Item SearchItem GetOp PutOp SearchOp ListNamespacesOp InvalidNamespaceError",
        "store.memory": "InMemoryStore",
        "store.sqlite": "SqliteStore AsyncSqliteStore",
    },
    "MOD-12": {"cache.base": "BaseCache", "cache.memory": "InMemoryCache", "cache.sqlite": "SqliteCache"},
    "MOD-13": {"pregel": "Pregel NodeBuilder"},
}


@pytest.mark.parametrize("spec_id", NAMES)
def test_names_are_found_and_mean_the_same_everywhere(spec_id: str) -> None:
    found: dict[str, Any] = {}
    for module, names in NAMES[spec_id].items():
        for name in names.split():
            value = getattr(importlib.import_module(f"mpflow.{module}"), name)
            assert found.setdefault(name, value) is value


def test_names_that_go_together_do() -> None:
    """MOD-4, MOD-8, MOD-9, MOD-10"""
    from mpflow import constants
    from mpflow.checkpoint.memory import InMemorySaver, MemorySaver
    from mpflow.func import entrypoint
    from mpflow.managed import IsLastStep, RemainingSteps
    from mpflow.managed.base import ManagedValue, is_managed_value

    assert entrypoint.final(value=1, save=2).save == 2
    assert (constants.START, constants.END) == ("__start__", "__end__")
    assert (constants.TAG_HIDDEN, constants.TAG_NOSTREAM) == ("langsmith:hidden", "nostream")
    assert all(issubclass(hint.__metadata__[0], ManagedValue) for hint in (IsLastStep, RemainingSteps))
    assert all(is_managed_value(hint.__metadata__[0]) for hint in (IsLastStep, RemainingSteps))
    assert MemorySaver is InMemorySaver
