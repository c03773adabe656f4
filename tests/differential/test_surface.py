"""The public names and signatures of LangGraph are there, under the same paths (MOD-1 to MOD-13)."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any
from warnings import catch_warnings, simplefilter

import pytest

MODULES = [
    "cache.base",
    "cache.memory",
    "cache.sqlite",
    "callbacks",
    "channels",
    "channels.any_value",
    "channels.base",
    "channels.binop",
    "channels.delta",
    "channels.ephemeral_value",
    "channels.last_value",
    "channels.named_barrier_value",
    "channels.topic",
    "channels.untracked_value",
    "checkpoint.base",
    "checkpoint.base.id",
    "checkpoint.memory",
    "checkpoint.sqlite",
    "checkpoint.sqlite.aio",
    "config",
    "constants",
    "errors",
    "func",
    "graph",
    "graph.message",
    "graph.state",
    "graph.ui",
    "managed",
    "managed.base",
    "managed.is_last_step",
    "pregel",
    "pregel.main",
    "pregel.protocol",
    "pregel.types",
    "runtime",
    "store.base",
    "store.base.batch",
    "store.base.embed",
    "store.memory",
    "store.sqlite",
    "store.sqlite.aio",
    "types",
    "typing",
    "version",
    "warnings",
]

# What is otherwise, and why.
NOT_OURS = {
    # Constants and workings of LangGraph's own that its modules happen to show.
    "constants.CONFIG_KEY_CHECKPOINTER",
    "checkpoint.memory.PersistentDict",
    "checkpoint.sqlite.aio.T",
    "checkpoint.sqlite.SqliteSaver.cursor",
    "checkpoint.base.id.UUID",
    "pregel.protocol.StreamProtocol",
    "graph.state.CompiledStateGraph.attach_branch",
    "graph.state.CompiledStateGraph.attach_edge",
    "graph.state.CompiledStateGraph.attach_node",
    "store.base.batch.F",
    "*.MIGRATIONS",
    "*.VECTOR_MIGRATIONS",
    # The protocol of LangGraph's platform (SM-15).
    "*.stream_events",
}
OTHER_PARAMETERS = {
    # Made by `compile`, not by users.
    "graph.state.CompiledStateGraph",
    # Of LangGraph's own making of graphs, and of its platform.
    *(
        f"{module}.Pregel.{name}"
        for module in ("pregel", "pregel.main")
        for name in ("stream_transformers", "node_error_handler_map")
    ),
    # What LangGraph names in three ways: keys, mapping, pairs.
    "cache.memory.InMemoryCache.set.keys",
    "cache.memory.InMemoryCache.aset.keys",
    "cache.sqlite.SqliteCache.set.mapping",
    "cache.sqlite.SqliteCache.aset.mapping",
    # Internal names of what is only given by position.
    "func.task.__func_or_none__",
    # Savers and stores of ours keep data only, so their serializers and factories are others.
    "checkpoint.memory.InMemorySaver.factory",
    "checkpoint.memory.MemorySaver.factory",
    "store.sqlite.AsyncSqliteStore.deserializer",
    "store.sqlite.aio.AsyncSqliteStore.deserializer",
    "store.sqlite.SqliteStore.deserializer",
    "store.base.Embeddings",
}
OPEN = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def _public(module: Any) -> list[str]:
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
    return sorted(name for name in names if hasattr(module, name))


def _signature(value: Any) -> Any:
    try:
        return inspect.signature(value).parameters
    except (TypeError, ValueError):
        return None


def _default(value: Any) -> str:
    return getattr(value, "__name__", None) or repr(value)


def _differs(path: str, theirs: Any, ours: Any) -> list[str]:
    """What a call written for LangGraph may pass and ours does not take, or takes otherwise."""
    expected, found = _signature(theirs), _signature(ours)
    if expected is None or found is None or path in OTHER_PARAMETERS:
        return []
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in found.values())
    wrong = []
    for position, (name, parameter) in enumerate(expected.items()):
        if parameter.kind in OPEN or f"{path}.{name}" in OTHER_PARAMETERS:
            continue
        mine = found.get(name)
        if mine is None:
            if not takes_any:
                wrong.append(f"{path}: no parameter {name!r}")
            continue
        if parameter.kind is not parameter.KEYWORD_ONLY and list(found)[position : position + 1] != [name]:
            wrong.append(f"{path}: {name!r} is not at place {position}")
        is_private = _default(parameter.default).startswith("_")
        if (
            not is_private
            and parameter.default is not mine.default
            and _default(parameter.default) != _default(mine.default)
        ):
            wrong.append(f"{path}: {name!r} is {mine.default!r} by default, not {parameter.default!r}")
    for name, parameter in found.items():
        if name not in expected and parameter.default is parameter.empty and parameter.kind not in OPEN:
            if not any(f"{path}.{other}" in OTHER_PARAMETERS for other in expected):
                wrong.append(f"{path}: asks for {name!r}")
    return wrong


def _is_left_out(path: str) -> bool:
    return path in NOT_OURS or f"*.{path.rpartition('.')[2]}" in NOT_OURS


def _owner(cls: type, name: str) -> str:
    return next((base.__module__ for base in cls.__mro__ if name in vars(base)), "")


def _compare_class(path: str, theirs: type, ours: type) -> list[str]:
    wrong = []
    for name in dir(theirs):
        if name.startswith("_") or not _owner(theirs, name).startswith("langgraph") or _is_left_out(f"{path}.{name}"):
            continue
        if not hasattr(ours, name):
            if not _is_set_by_init(ours, name):
                wrong.append(f"{path}: no attribute {name!r}")
            continue
        if callable(getattr(theirs, name)):
            wrong += _differs(f"{path}.{name}", getattr(theirs, name), getattr(ours, name))
    return wrong


def _is_set_by_init(cls: type, name: str) -> bool:
    """Whether instances have what the class itself does not show."""
    return any(
        name in getattr(base, "__annotations__", {})
        or ("__init__" in vars(base) and name in base.__init__.__code__.co_names)
        for base in cls.__mro__
        if base.__module__.startswith("mpflow")
    )


REEXPORTS = {
    "checkpoint.base": ["EncryptedSerializer", "JsonPlusSerializer", "SerializerProtocol", "maybe_add_typed_methods"],
    "constants": ["ERROR", "INTERRUPT", "Interrupt", "NS_SEP", "Send"],
}
"""What programs import from where it is not kept."""


@pytest.mark.parametrize(("name", "names"), REEXPORTS.items(), ids=REEXPORTS)
def test_what_programs_import_from_elsewhere_is_there(name: str, names: list[str]) -> None:
    """MOD-8, MOD-10"""
    with catch_warnings():
        simplefilter("ignore")
        theirs, ours = import_module(f"langgraph.{name}"), import_module(f"mpflow.{name}")
        for public in names:
            their, our = getattr(theirs, public), getattr(ours, public)
            assert getattr(their, "__name__", their) == getattr(our, "__name__", our)


def test_a_constant_that_is_private_is_deprecated() -> None:
    """MOD-8"""
    from mpflow import constants
    from mpflow.warnings import LangGraphDeprecatedSinceV10

    with pytest.warns(LangGraphDeprecatedSinceV10, match="mpflow.types"):
        assert constants.Send is import_module("mpflow.types").Send
    with pytest.raises(AttributeError, match="NO_SUCH"):
        constants.NO_SUCH


@pytest.mark.parametrize("name", MODULES)
def test_what_langgraph_has_is_there(name: str) -> None:
    with catch_warnings():
        simplefilter("ignore")
        theirs, ours = import_module(f"langgraph.{name}"), import_module(f"mpflow.{name}")
        wrong = []
        for public in _public(theirs):
            path = f"{name}.{public}"
            if _is_left_out(path):
                continue
            if not hasattr(ours, public):
                wrong.append(f"{path} is missing")
                continue
            their, our = getattr(theirs, public), getattr(ours, public)
            if callable(their) and callable(our):
                wrong += _differs(path, their, our)
            if inspect.isclass(their) and inspect.isclass(our):
                wrong += _compare_class(path, their, our)
    assert wrong == []


def test_a_checkpoint_is_made_of_channels() -> None:
    """MOD-10, CP-4"""
    made = {}
    for package in ("langgraph", "mpflow"):
        base, last = import_module(f"{package}.checkpoint.base"), import_module(f"{package}.channels").LastValue(int)
        channels = {"set": last.from_checkpoint(3), "unversioned": last.from_checkpoint(4)}
        before = {**base.empty_checkpoint(), "channel_versions": {"set": 2, "gone": 1}, "channel_values": {"set": 1}}
        after = base.create_checkpoint(before, channels, 1, id="x")
        same = base.create_checkpoint(before, None, 1)
        made[package] = [after["id"], after["channel_values"], after["channel_versions"], same["channel_values"]]
        assert same["id"] > before["id"]
    assert made["mpflow"] == made["langgraph"]
