"""What a consumer is told, in which order and shape, and what becomes of a run it walks away from (SM-*)."""

from __future__ import annotations

import asyncio
import operator
import threading
from typing import Annotated, Any, TypedDict

import pytest

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.config import get_stream_writer
from mpflow.errors import InvalidUpdateError
from mpflow.graph import START, StateGraph
from mpflow.types import Send, interrupt
from tests.colours import Run


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]
    n: int


def chain(*actions: Any, **options: Any) -> Any:
    graph = StateGraph(State)
    names = [START]
    for action in actions:
        names.append("abc"[len(names) - 1])
        graph.add_node(names[-1], action).add_edge(names[-2], names[-1])
    return graph.compile(**options)


def says(text: str) -> Any:
    return lambda state: {"log": [text]}


def talks(state: State, writer) -> dict:  # type: ignore[no-untyped-def]
    writer("one")
    get_stream_writer()({"two": 2})
    return {"log": ["talked"]}


def informs(state: State, runtime: Any) -> None:
    runtime.stream_writer("three")


def test_sm2_the_default_is_updates_and_one_mode_gives_bare_chunks(run: Run) -> None:
    graph = chain(says("a"), lambda state: None)
    assert run.stream(graph, {}) == [{"a": {"log": ["a"]}}, {"b": None}]
    assert run.stream(graph, {"log": []}, stream_mode="values") == [{"log": []}, {"log": ["a"]}]
    assert run.stream(graph, {}, stream_mode=["updates"]) == [
        ("updates", {"a": {"log": ["a"]}}),
        ("updates", {"b": None}),
    ]


def test_sm2_subgraphs_show_with_their_namespace(run: Run) -> None:
    graph = chain(chain(says("in")))
    (inner, mode, chunk), outer = run.stream(graph, {}, stream_mode=["updates"], subgraphs=True)
    assert (inner[0].partition(":")[0], mode, chunk) == ("a", "updates", {"a": {"log": ["in"]}})
    assert outer == ((), "updates", {"a": {"log": ["in"]}})
    assert run.stream(graph, {}, subgraphs=True)[1] == ((), {"a": {"log": ["in"]}})
    assert run.stream(graph, {}) == [{"a": {"log": ["in"]}}]


def test_sm3_values_come_after_the_steps_that_changed_them(run: Run) -> None:
    graph = chain(lambda state: {"n": 1}, lambda state: None, says("c"))
    assert run.stream(graph, {}, stream_mode="values") == [{"log": [], "n": 1}, {"log": ["c"], "n": 1}]
    assert run.stream(graph, {}, stream_mode="values", output_keys="n") == [1]


def test_sm4_updates_come_as_tasks_end_and_writes_are_merged_by_name(run: Run) -> None:
    told = threading.Event()
    graph = StateGraph(State)
    graph.add_node("first", lambda state: told.wait(30) and {"log": ["first"]}).add_edge(START, "first")
    graph.add_node("second", lambda state: told.set() or {"log": ["second"]}).add_edge(START, "second")
    chunks = run.stream(graph.compile(), {}, stream_mode=["updates", "values"])
    assert sorted(name for mode, chunk in chunks if mode == "updates" for name in chunk) == ["first", "second"]
    assert chunks[-1] == ("values", {"log": ["first", "second"]})


def test_sm4_each_send_is_told_by_its_nodes_name(run: Run) -> None:
    graph = StateGraph(State).add_node("w", lambda arg: {"log": [arg]}, executor="inline")
    graph.add_conditional_edges(START, lambda state: [Send("w", 1), Send("w", 2)])
    assert run.stream(graph.compile(), {}) == [{"w": {"log": [1]}}, {"w": {"log": [2]}}]


@pytest.mark.parametrize("executor", ["thread", "inline", "process"])
def test_sm5_custom_chunks_come_as_they_were_given_and_before_the_end(run: Run, executor: str) -> None:
    graph = chain(talks, informs, executor=executor)
    assert run.stream(graph, {}, stream_mode="custom") == ["one", {"two": 2}, "three"]
    assert run.stream(graph, {}, stream_mode=["updates", "custom"])[:3] == [
        ("custom", "one"),
        ("custom", {"two": 2}),
        ("updates", {"a": {"log": ["talked"]}}),
    ]
    assert run.invoke(graph, {})["log"] == ["talked"]  # nobody listens: a no-op


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_sm5_who_asks_for_a_nested_runs_custom_chunks_has_them_to_himself(run: Run, executor: str) -> None:
    child = chain(informs)

    def relays(state: State, writer) -> None:  # type: ignore[no-untyped-def]
        for chunk in child.stream({}, stream_mode="custom"):
            writer(f"relayed {chunk}")

    graph = chain(relays, executor=executor)
    chunks = run.stream(graph, {}, stream_mode="custom", subgraphs=True)
    assert chunks == [((), "relayed three")]


def test_sm7_sm10_tasks_are_told_at_their_start_and_their_end(run: Run) -> None:
    def fails(state: State) -> None:
        raise KeyError("b")

    graph = chain(says("a"), fails)
    chunks: list[Any] = []

    def consume() -> None:
        chunks.extend(graph.stream({}, stream_mode=["tasks", "updates", "values"]))

    async def aconsume() -> None:
        async for chunk in graph.astream({}, stream_mode=["tasks", "updates", "values"]):
            chunks.append(chunk)

    with pytest.raises(KeyError):
        consume() if run.colour == "sync" else asyncio.run(aconsume())
    ids = [chunk.pop("id") for mode, chunk in chunks if mode == "tasks"]
    assert [ids[0] == ids[1], ids[0] == ids[2]] == [True, False]
    assert chunks[:4] == [
        ("tasks", {"name": "a", "input": {"log": []}, "triggers": ("branch:to:a",)}),
        ("updates", {"a": {"log": ["a"]}}),
        ("tasks", {"name": "a", "error": None, "result": {"log": ["a"]}, "interrupts": []}),
        ("values", {"log": ["a"]}),
    ]
    assert chunks[4:5] == [("tasks", {"name": "b", "input": {"log": ["a"]}, "triggers": ("branch:to:b",)})]


def test_sm11_the_next_step_starts_when_more_is_asked_for() -> None:
    ran: list[str] = []
    graph = chain(lambda state: ran.append("a"), lambda state: ran.append("b"))
    stream = graph.stream({})
    assert (next(stream), ran) == ({"a": None}, ["a"])
    assert (next(stream), ran) == ({"b": None}, ["a", "b"])

    async def main() -> None:
        ran.clear()
        chunks = graph.astream({})
        assert (await anext(chunks), ran) == ({"a": None}, ["a"])
        await chunks.aclose()

    asyncio.run(main())


def test_sm11_what_a_node_says_is_heard_while_it_runs() -> None:
    heard = threading.Event()

    def waits(state: State, writer) -> dict:  # type: ignore[no-untyped-def]
        writer("hear me")
        return {"n": int(heard.wait(30))}

    async def main() -> None:
        heard.clear()
        async for chunk in chain(waits).astream({}, stream_mode=["custom", "values"]):
            heard.set()
            last = chunk
        assert last == ("values", {"log": [], "n": 1})

    chunks = []
    for chunk in chain(waits).stream({}, stream_mode=["custom", "values"]):
        heard.set()
        chunks.append(chunk)
    assert chunks[-1] == ("values", {"log": [], "n": 1})
    asyncio.run(main())


def test_sm12_version_two_has_one_shape(run: Run) -> None:
    graph = chain(says("a"))
    assert run.stream(graph, {"n": 1}, stream_mode=["values", "updates"], version="v2")[1] == {
        "type": "updates",
        "ns": (),
        "data": {"a": {"log": ["a"]}},
    }
    output = run.invoke(graph, {}, version="v2")
    assert (output.value, output.interrupts) == ({"log": ["a"]}, ())


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"stream_mode": "vlaues"}, "vlaues"), ({"output_keys": ["nope"]}, "nope"), ({"version": "v3"}, "v3")],
)
def test_sm14_what_cannot_be_streamed_is_refused(run: Run, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run.stream(chain(says("a")), {}, **asked)


@pytest.mark.parametrize("how", ["break", "close", "drop"])
def test_sm13_a_run_that_is_walked_away_from_ends(how: str) -> None:
    ran: list[str] = []
    graph = chain(lambda state: ran.append("a"), lambda state: ran.append("b"))
    stream = graph.stream({})
    for _ in stream:
        break
    if how == "close":
        stream.close()
    elif how == "drop":
        del stream
    assert ran == ["a"]


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_as5_walking_away_cancels_async_nodes_and_waits_for_them(how: str) -> None:
    """FAULTS row 29"""
    seen: list[str] = []

    async def main() -> None:
        started = asyncio.Event()

        async def waits(state: State, writer) -> None:  # type: ignore[no-untyped-def]
            writer("started")
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)  # its tidying up may take turns of the loop
                seen.append("tidied")

        graph = chain(waits)
        if how == "close":
            chunks = graph.astream({}, stream_mode="custom")
            assert await anext(chunks) == "started"
            await chunks.aclose()
        else:
            task = asyncio.ensure_future(graph.ainvoke({}))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert seen == ["tidied"]

    asyncio.run(main())


def test_er5_what_ended_is_told_although_it_cannot_be_merged_beside_a_question(run: Run) -> None:
    graph = StateGraph(State)
    graph.add_node("ask", lambda state: interrupt("what?"))
    graph.add_node("write", lambda state: {"n": 1})
    graph.add_conditional_edges(START, lambda state: ["ask", Send("write", {}), Send("write", {})], ["ask", "write"])
    app = graph.compile(checkpointer=InMemorySaver())
    told: list[Any] = []

    async def listen(config: Any) -> None:
        async for chunk in app.astream({"log": []}, config, stream_mode="updates"):
            told.append(chunk)

    config = {"configurable": {"thread_id": "1"}}
    with pytest.raises(InvalidUpdateError):
        if run.colour == "async":
            asyncio.run(listen(config))
        told.extend(app.stream({"log": []}, config, stream_mode="updates"))
    assert sorted(name for chunk in told for name in chunk) == ["__interrupt__", "write", "write"]
