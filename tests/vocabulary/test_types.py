"""Send, Command, Interrupt, policies and the like (sections 6, 7, 9, 10, 11 of the behaviours)."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
import typing
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpflow import errors, types
from mpflow.types import (
    CachePolicy,
    Command,
    GraphOutput,
    Interrupt,
    Overwrite,
    RetryPolicy,
    Send,
    TimeoutPolicy,
    default_cache_key,
    default_retry_on,
    ensure_valid_checkpointer,
    interrupt,
)


def test_mod3_every_name_is_there() -> None:
    for name in types.__all__:
        assert getattr(types, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        types.no_such_name


def test_importing_the_vocabulary_loads_nothing_heavy() -> None:
    code = (
        "import sys, mpflow.types, mpflow.channels, mpflow.errors, mpflow.config, mpflow.runtime, mpflow.managed, "
        "mpflow.checkpoint.base, mpflow.store.base, mpflow.cache.base; "
        "print(*sorted({'asyncio', 'pydantic', 'langchain_core', 'typing_extensions', 'multiprocessing', 'numpy'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    allowed = {"typing_extensions"} if sys.version_info < (3, 11) else set()
    assert set(done.stdout.split()) <= allowed


def test_sn1_send_is_a_value() -> None:
    send = Send("a", 1)
    assert repr(send) == "Send(node='a', arg=1)"
    assert (send, hash(send)) == (Send(node="a", arg=1), hash(Send("a", 1)))
    assert send != Send("a", 1, timeout=3)
    assert send != Send("b", 1)
    assert send != ("a", 1)
    assert not hasattr(send, "__dict__")
    assert pickle.loads(pickle.dumps(Send("a", [1], timeout=2))) == Send("a", [1], timeout=2)


def test_sn6_send_takes_a_timeout_in_any_of_its_forms() -> None:
    limit = TimeoutPolicy(run_timeout=2.0)
    assert Send("a", 1, timeout=2).timeout == limit
    assert Send("a", 1, timeout=timedelta(seconds=2)).timeout == limit
    assert Send("a", 1, timeout=limit).timeout == limit


def test_cm1_command_is_frozen_keyword_only_and_shows_what_it_has() -> None:
    command: Command[str] = Command(update={"x": 1}, goto="b")
    assert repr(command) == "Command(update={'x': 1}, goto='b')"
    assert repr(Command(update={})) == "Command()"
    with pytest.raises(dataclasses.FrozenInstanceError):
        command.goto = "c"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Command("x")  # type: ignore[misc]
    assert (Command.PARENT, Command[str]) == ("__parent__", Command[str])
    assert dataclasses.replace(command, graph=Command.PARENT).update == {"x": 1}
    assert pickle.loads(pickle.dumps(command)) == command


@dataclasses.dataclass
class Point:
    x: int = 1
    y: int | None = None


@pytest.mark.parametrize(
    ("update", "writes"),
    [
        (None, []),
        ({"x": 1}, [("x", 1)]),
        ([("x", 1), ("x", 2)], [("x", 1), ("x", 2)]),
        ([("x", 1, 2)], [("__root__", [("x", 1, 2)])]),
        (3, [("__root__", 3)]),
        (Point(), [("x", 1), ("y", None)]),
    ],
)
def test_cm2_a_commands_update_is_a_list_of_writes(update: Any, writes: Any) -> None:
    assert list(Command(update=update)._update_as_tuples()) == writes


def test_st20_a_pydantic_model_writes_what_it_holds_but_for_unset_none() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("M", a=(int, 1), b=(int | None, None), c=(int | None, 5))
    assert Command(update=model())._update_as_tuples() == [("a", 1), ("c", 5)]
    assert Command(update=model(b=None, c=None))._update_as_tuples() == [("a", 1), ("b", None), ("c", None)]


def test_st20_a_subclass_writes_the_fields_of_its_bases_too() -> None:
    class Base:
        a: int
        b: int = 2

    class Heir(Base):
        c: int = 3

    heir = Heir()
    heir.a = 1
    assert dict(Command(update=heir)._update_as_tuples()) == {"a": 1, "b": 2, "c": 3}


def test_in3_an_interrupt_is_known_by_value_and_id() -> None:
    assert Interrupt("q", "i") == Interrupt(value="q", id="i")
    assert repr(Interrupt("q")) == "Interrupt(value='q', id='placeholder-id', response_schema=None)"
    assert pickle.loads(pickle.dumps(Interrupt("q", "i"))) == Interrupt("q", "i")
    with pytest.warns(DeprecationWarning):
        assert Interrupt("q", "i").interrupt_id == "i"


def test_d13_the_id_of_an_interrupt_is_a_hash_of_its_namespace() -> None:
    one = Interrupt.from_ns("q", "a:1")
    assert one.id == Interrupt.from_ns("other", "a:1").id != Interrupt.from_ns("q", "a:2").id
    assert (len(one.id), int(one.id, 16) >= 0) == (32, True)
    assert Interrupt("q", ns=["a", "b"]).id == Interrupt.from_ns("q", "a|b").id


def test_interrupt_outside_of_a_task_says_so() -> None:
    with pytest.raises(RuntimeError, match="outside of a runnable context"):
        interrupt("q")


def test_st6_overwrite_is_a_value() -> None:
    assert Overwrite([1]) == Overwrite(value=[1])
    assert Overwrite(1).type == "__overwrite__"


def test_ry1_the_defaults_of_a_retry_policy() -> None:
    assert RetryPolicy()._asdict() == {
        "initial_interval": 0.5,
        "backoff_factor": 2.0,
        "max_interval": 128.0,
        "max_attempts": 3,
        "jitter": True,
        "retry_on": default_retry_on,
    }


class HTTPStatusError(Exception):
    def __init__(self, status: int) -> None:
        self.response = type("Response", (), {"status_code": status})


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (ConnectionResetError(), True),
        (Exception(), True),
        (AssertionError(), True),
        (errors.NodeTimeoutError("n", 1, kind="run", run_timeout=1), True),
        (ValueError(), False),
        (KeyError(), False),
        (RecursionError(), False),
        (TimeoutError(), False),
        (FileNotFoundError(), False),
        (errors.PoisonTaskError("n", "t"), False),
        (HTTPStatusError(503), True),
        (HTTPStatusError(404), False),
    ],
)
def test_ry3_what_is_retried_by_default(error: Exception, retried: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", sys.modules[__name__])  # a stand-in with HTTPStatusError alone
    assert default_retry_on(error) is retried


@pytest.mark.parametrize("value", [0, -1, float("nan"), timedelta(0), TimeoutPolicy(idle_timeout=0)])
def test_to1_a_timeout_must_be_above_zero(value: Any) -> None:
    with pytest.raises(ValueError, match="_timeout must be greater than 0"):
        TimeoutPolicy.coerce(value)


def test_to1_a_timeout_is_coerced_to_seconds() -> None:
    assert TimeoutPolicy.coerce(None) is None
    policy = TimeoutPolicy.coerce(TimeoutPolicy(run_timeout=timedelta(minutes=1), refresh_on="heartbeat"))
    assert policy == TimeoutPolicy(run_timeout=60.0, refresh_on="heartbeat")
    with pytest.raises(ValueError, match="refresh_on"):
        TimeoutPolicy.coerce(TimeoutPolicy(run_timeout=1, refresh_on="never"))  # type: ignore[arg-type]


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=3)),
    max_leaves=8,
)


def reversed_dicts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_dicts(item) for key, item in reversed(value.items())}
    return [reversed_dicts(item) for item in value] if isinstance(value, list) else value


@given(plain)
def test_ca2_equal_inputs_have_equal_keys_whatever_their_order_and_identity(value: Any) -> None:
    twin = reversed_dicts(pickle.loads(pickle.dumps(value)))
    assert default_cache_key(value, a=1) == default_cache_key(twin, a=1)


@given(plain, plain)
def test_ca2_unequal_inputs_have_unequal_keys(one: Any, other: Any) -> None:
    told_apart = json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)
    assert (default_cache_key(one) != default_cache_key(other)) is told_apart


def test_ca2_sets_mixed_keys_and_cycles_can_be_keys() -> None:
    assert default_cache_key({3, "a"}) == default_cache_key({"a", 3})
    assert default_cache_key({1: 2, "a": 3}) == default_cache_key({"a": 3, 1: 2})

    class Ring:
        def __init__(self) -> None:
            self.me = self

    Ring.__qualname__ = "Ring"
    globals()["Ring"] = Ring
    assert default_cache_key(Ring()) == default_cache_key(Ring())
    assert CachePolicy().key_func is default_cache_key


def test_sm12_graph_output_warns_on_item_access() -> None:
    output = GraphOutput({"a": 1}, (Interrupt("q", "i"),))
    with pytest.warns(DeprecationWarning):
        assert output["a"] == 1
    with pytest.warns(DeprecationWarning):
        assert output["__interrupt__"] == output.interrupts
    with pytest.warns(DeprecationWarning):
        assert "__interrupt__" in output
    with pytest.warns(DeprecationWarning), pytest.raises(KeyError):
        GraphOutput(Point())["z"]
    with pytest.warns(DeprecationWarning):
        assert GraphOutput(Point(x=4))["x"] == 4


def test_gb13_a_checkpointer_is_known_by_what_it_can_do() -> None:
    class Saver:
        get_tuple = put = put_writes = print

    for valid in (None, True, False, Saver()):
        assert ensure_valid_checkpointer(valid) is valid  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Invalid checkpointer provided"):
        ensure_valid_checkpointer(3)  # type: ignore[arg-type]


def test_sm12_stream_shapes_are_generic_typed_dicts() -> None:
    part = types.ValuesStreamPart[dict]  # type: ignore[type-arg]
    assert typing.get_origin(part) is types.ValuesStreamPart
    assert types.TaskPayload.__required_keys__ >= {"id", "name", "input", "triggers"}
