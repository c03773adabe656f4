"""Exceptions: LangGraph's hierarchy and messages, fields that survive pickling, families that say whose fault it was."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from mpflow import errors
from mpflow._messages import WorkerDeath
from mpflow.types import Command, Interrupt

ALL: list[tuple[Exception, dict[str, Any]]] = [
    (errors.EmptyChannelError(), {}),
    (errors.GraphRecursionError("too deep"), {}),
    (errors.InvalidUpdateError("no"), {}),
    (errors.EmptyInputError("none"), {}),
    (errors.TaskNotFound("t"), {}),
    (errors.GraphDrained("sigterm"), {"reason": "sigterm"}),
    (errors.GraphInterrupt((Interrupt("q", "i"),)), {"args": ((Interrupt("q", "i"),),)}),
    (errors.ParentCommand(Command(goto="a")), {"args": (Command(goto="a"),)}),
    (errors.NodeCancelledError("n"), {"node": "n"}),
    (
        errors.NodeTimeoutError("n", 2.5, kind="idle", idle_timeout=2.0),
        {"node": "n", "elapsed": 2.5, "kind": "idle", "timeout": 2.0, "idle_timeout": 2.0, "run_timeout": None},
    ),
    (
        errors.UnknownInterruptError("m", reason="not_pending", interrupt_ids=["a"], pending_ids=["b"]),
        {"reason": "not_pending", "interrupt_ids": ("a",), "pending_ids": ("b",)},
    ),
    (errors.ReducerError("xs", "boom"), {"channel": "xs", "detail": "boom"}),
    (errors.StrictGraphError("dead end", "node 'a'", "no edge leaves it"), {"kind": "dead end", "where": "node 'a'"}),
    (errors.GraphChangedError("node", "a", "thread", "check"), {"name": "a", "thread_id": "thread"}),
    (errors.NodeNotPicklableError("a", "closure.lock", "cannot pickle"), {"node": "a", "path": "closure.lock"}),
    (errors.PoolClosedError(), {}),
    (errors.WrongProcessError(1, 2), {"owner_pid": 1, "pid": 2}),
    (errors.PoisonTaskError("a", "tid", ["d1", "d2"]), {"node": "a", "task_id": "tid", "deaths": ("d1", "d2")}),
    (errors.OutcomeUnknown("a", "tid", "d"), {"node": "a", "task_id": "tid", "death": "d"}),
    (errors.WorkerStartError(3, "ImportError: x"), {"attempts": 3, "detail": "ImportError: x"}),
    (errors.EngineUnhealthy(["d"] * 5), {"deaths": ("d",) * 5}),
    (errors.ProtocolError("bad frame", 7, "a"), {"pid": 7, "node": "a"}),
    (errors.RunOwnedElsewhere("thread", "pid 9"), {"thread_id": "thread", "owner": "pid 9"}),
    (errors.InternalError("impossible", ["one", "two"]), {"story": ("one", "two")}),
]


@pytest.mark.parametrize(("error", "fields"), ALL, ids=lambda value: type(value).__name__)
def test_an_error_survives_pickling_with_fields_notes_and_message(error: Exception, fields: dict[str, Any]) -> None:
    errors.add_note(error, "During task with name 'a'")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.__notes__ == error.__notes__
        assert {name: getattr(twin, name) for name in fields} == fields


@pytest.mark.parametrize(("error", "fields"), ALL, ids=lambda value: type(value).__name__)
def test_a_message_names_what_its_fields_hold(error: Exception, fields: dict[str, Any]) -> None:
    for name in ("node", "channel", "thread_id", "path", "detail", "reason"):
        value = fields.get(name)
        if isinstance(value, str) and not isinstance(error, errors.UnknownInterruptError):
            assert value in str(error)


def test_mod5_the_hierarchy_is_langgraphs() -> None:
    assert issubclass(errors.GraphRecursionError, RecursionError)
    assert not issubclass(errors.NodeTimeoutError, TimeoutError)
    for steering in (errors.GraphInterrupt, errors.GraphDrained, errors.ParentCommand):
        assert issubclass(steering, errors.GraphBubbleUp)
    assert issubclass(errors.NodeInterrupt, errors.GraphInterrupt)
    assert str(errors.GraphDrained()) == "Graph drained: shutdown"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("ReducerError", errors.GraphFault),
        ("NodeNotPicklableError", errors.GraphFault),
        ("PoisonTaskError", errors.WorkerLost),
        ("ProtocolError", errors.WorkerLost),
        ("RunOwnedElsewhere", errors.ContentionError),
    ],
)
def test_whose_fault_it_was_is_in_the_type(name: str, family: type[Exception]) -> None:
    assert issubclass(getattr(errors, name), family)
    assert not issubclass(errors.InternalError, family)


class Refused(ValueError):
    """Its constructor takes something else than it passes on."""

    def __init__(self, code: int, *, why: str) -> None:
        super().__init__(f"{why} ({code})")
        self.code = code


@pytest.mark.parametrize(
    "raised",
    [ValueError("no"), KeyError("k"), FileNotFoundError(2, "gone", "f"), Refused(7, why="full"), Exception()],
    ids=lambda raised: type(raised).__name__,
)
def test_fault26_a_reducer_error_is_what_the_reducer_raised_too(raised: Exception) -> None:
    error = errors.ReducerError.around("xs", raised)
    for twin in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert isinstance(twin, type(raised))
        assert (twin.args, twin.channel) == (raised.args, "xs")
        assert str(twin) == f"the reducer of channel 'xs' failed: {twin.detail}; the step was not committed"
        assert getattr(twin, "code", None) == getattr(raised, "code", None)
        assert getattr(twin, "errno", None) == getattr(raised, "errno", None)


@pytest.mark.parametrize("raised", [StopIteration(1), errors.ReducerError("below", "no")])
def test_fault26_what_streams_may_not_raise_or_what_is_one_already_is_only_named(raised: Exception) -> None:
    error = errors.ReducerError.around("xs", raised)
    assert type(error) is errors.ReducerError
    assert type(raised).__name__ in error.detail


def test_a_quarantine_lists_all_its_deaths() -> None:
    deaths = [WorkerDeath(11, signal=9), WorkerDeath(12, exit_code=3), "third"]
    text = str(errors.PoisonTaskError("crash", "tid", deaths))
    assert "crash" in text
    assert all(part in text for part in ("SIGKILL", "exit code 3", "third"))


def test_node_interrupt_warns_and_pauses_by_its_value() -> None:
    with pytest.warns(DeprecationWarning, match="interrupt"):
        error = errors.NodeInterrupt("why?", "i")
    assert error.args == ([Interrupt("why?", "i")],)
    twin = pickle.loads(pickle.dumps(error))
    assert twin.args == error.args


def test_to3_a_timeout_needs_the_limit_that_struck() -> None:
    with pytest.raises(ValueError, match="run_timeout"):
        errors.NodeTimeoutError("n", 1.0, kind="run", idle_timeout=1.0)


def test_er6_the_code_shows_at_the_end_of_the_message() -> None:
    text = errors.create_error_message(message="Wrong.", error_code=errors.ErrorCode.MULTIPLE_SUBGRAPHS)
    assert text.startswith("Wrong.\n")
    assert "MULTIPLE_SUBGRAPHS" in text


def test_notes_are_kept_on_exceptions_that_take_them_and_harmless_on_others() -> None:
    class Closed(Exception):
        __slots__ = ()

        def __setattr__(self, name: str, value: Any) -> None:
            raise AttributeError(name)

    error = ValueError()
    errors.add_note(error, "one")
    errors.add_note(error, "two")
    assert error.__notes__ == ["one", "two"]
    errors.add_note(Closed(), "lost")


def test_in11_a_refused_answer_is_told_from_other_errors() -> None:
    error = ValueError()
    assert not errors.is_invalid_resume(error)
    errors.mark_invalid_resume(error)
    assert errors.is_invalid_resume(error)
