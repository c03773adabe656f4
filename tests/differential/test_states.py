"""Saved states are LangGraph's, whichever the saver: looking at them, changing them, going back (SA-1 to SA-13, SG-3 to SG-6)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
from typing_extensions import TypedDict

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.testing import PlainSaver
from tests.colours import Run
from tests.differential.scenarios import check, tried

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    count: int


def says(name: str) -> Any:
    def node(state: State) -> State:
        return {"log": [name], "count": state.get("count", 0) + 1}

    node.__name__ = name
    return node


def chain(lib: Any, *names: str, **options: Any) -> Any:
    """Nodes one after another, on a saver of its own unless told otherwise."""
    builder = lib.graph.StateGraph(State)
    previous = "__start__"
    for name in names:
        builder.add_node(name, says(name)).add_edge(previous, name)
        previous = name
    options.setdefault("checkpointer", lib.new_saver())
    return builder.compile(**options)


def asks(lib: Any, name: str) -> Any:
    def node(state: State) -> State:
        return {"log": [f"{name}: {lib.types.interrupt(f'{name}?')}"]}

    return node


def next_is(states: list[Any], *names: str) -> Any:
    """The config of the newest state at which these are due."""
    return next(state.config for state in states if state.next == names)


# -- looking ----------------------------------------------------------------------------------------------------------


def narrowed(lib: Any, run: Run) -> Any:
    graph = chain(lib, "a", "b", "c")
    for _ in range(2):
        run.invoke(graph, {"log": ["in"]}, THREAD)
    run.update_state(graph, THREAD, {"log": ["edit"]}, "b")
    states = run.history(graph, THREAD)
    middle = states[4].config
    return [
        states,
        run.history(graph, THREAD, limit=3),
        run.history(graph, THREAD, before=middle),
        run.history(graph, THREAD, before=middle, limit=2),
        run.history(graph, THREAD, filter={"source": "update"}),
        run.history(graph, THREAD, filter={"step": 2}),
        run.history(graph, THREAD, filter={"source": "loop", "step": 1}, before=middle),
        run.history(graph, THREAD, filter={"source": "nothing"}),
        run.history(graph, middle),
        run.history(graph, {"configurable": {"thread_id": "nobody"}}),
        [run.get_state(graph, state.config) for state in states],
    ]


def nowhere(lib: Any, run: Run) -> Any:
    graph = chain(lib, "a")
    run.invoke(graph, {"log": ["in"]}, THREAD)
    missing = {"configurable": {"thread_id": "1", "checkpoint_id": "1ef00000-0000-6000-8000-000000000000"}}
    without = chain(lib, "a", checkpointer=None)
    return [
        run.get_state(graph, {"configurable": {"thread_id": "nobody"}}),
        run.get_state(graph, missing),
        tried(lambda: run.get_state(without, THREAD)),
        tried(lambda: run.history(without, THREAD)),
        tried(lambda: run.update_state(without, THREAD, {})),
        tried(lambda: run.invoke(graph, None, {"configurable": {"thread_id": "nobody"}})),
        tried(lambda: run.invoke(graph, {"log": []}, {"configurable": {}})),
        run.get_state(graph, {"configurable": {"thread_id": 1}}),
    ]


def metadata(lib: Any, run: Run) -> Any:
    graph = chain(lib, "a")
    config = {
        "configurable": {"thread_id": "1", "who": "me", "__private": 1},
        "metadata": {"note": "n", "deep": {"a": 1}},
        "tags": ["t"],
        "run_id": UUID(int=1),
    }
    run.invoke(graph, {"log": ["in"]}, config)
    run.update_state(graph, config, {"log": ["edit"]})
    return [
        run.history(graph, THREAD),
        run.history(graph, THREAD, filter={"note": "n"}),
        run.history(graph, THREAD, filter={"who": "you"}),
    ]


def durabilities(lib: Any, run: Run) -> Any:
    seen = []
    for durability in ("sync", "async", "exit"):
        graph = chain(lib, "a", "b", interrupt_before=["b"])
        run.invoke(graph, {"log": ["in"]}, THREAD, durability=durability)
        seen += [run.history(graph, THREAD), run.get_state(graph, THREAD)]
        run.invoke(graph, None, THREAD, durability=durability)
        seen += [run.history(graph, THREAD)]
    return seen


def many_due(lib: Any, run: Run) -> Any:
    """Tasks of a step: in which order they are shown, with what some of them have done."""
    builder = lib.graph.StateGraph(State)
    for name in ("zed", "ask", "mid"):
        builder.add_node(name, asks(lib, name) if name == "ask" else lambda state, name=name: {"log": [name]})
        builder.add_edge("__start__", name)
    builder.add_node("one", lambda item: {"log": [f"one {item}"]})
    builder.add_conditional_edges("__start__", lambda state: [lib.types.Send("one", n) for n in (2, 1)], ["one"])
    graph = builder.compile(checkpointer=lib.new_saver())
    run.invoke(graph, {"count": 0}, THREAD)
    seen = [run.get_state(graph, THREAD), run.history(graph, THREAD)]
    run.invoke(graph, lib.types.Command(resume="yes"), THREAD)
    return [*seen, run.history(graph, THREAD)]


def failed(lib: Any, run: Run) -> Any:
    def breaks(state: State) -> State:
        raise ValueError("no")

    builder = lib.graph.StateGraph(State).add_node("a", says("a")).add_node("breaks", breaks).add_node("b", says("b"))
    builder.add_edge("__start__", "a").add_edge("a", "breaks").add_edge("breaks", "b")
    graph = builder.compile(checkpointer=lib.new_saver())
    seen = [tried(lambda: run.invoke(graph, {"log": ["in"]}, THREAD)), run.get_state(graph, THREAD)]
    seen += [run.history(graph, THREAD), tried(lambda: run.invoke(graph, None, THREAD)), run.get_state(graph, THREAD)]
    edited = run.update_state(graph, THREAD, {"log": ["instead"]}, "breaks")
    seen += [run.get_state(graph, THREAD), run.get_state(graph, edited), run.invoke(graph, None, THREAD)]
    return [*seen, run.history(graph, THREAD)]


def failed_and_handled(lib: Any, run: Run) -> Any:
    """EH-2, ER-3: the record of the step shows the error as its text."""

    class Broken(Exception):
        pass

    def breaks(state: State) -> State:
        raise Broken("no")

    def mend(state: State, error: Any) -> State:
        return {"log": [error.node, str(error.error)]}

    mend.__annotations__["error"] = lib.errors.NodeError  # not the text of it, by which LangGraph gives it nothing
    builder = lib.graph.StateGraph(State).set_node_defaults(error_handler=mend)
    builder.add_node("breaks", breaks, error_handler=mend).add_node("raises", breaks)
    graph = (
        builder.add_edge("__start__", "breaks").add_edge("__start__", "raises").compile(checkpointer=lib.new_saver())
    )
    seen = [run.invoke(graph, {"log": ["in"]}, THREAD), graph.get_graph().draw_mermaid()]
    return [*seen, [{task.name: task.error for task in state.tasks} for state in run.history(graph, THREAD)]]


# -- changing ---------------------------------------------------------------------------------------------------------


def updates(lib: Any, run: Run) -> Any:
    graph = chain(lib, "a", "b", "c", interrupt_before=["b"])
    seen = [tried(lambda: run.update_state(graph, THREAD, {"log": ["first"]}))]
    seen += [run.get_state(graph, THREAD)]
    for values, as_node in (
        ({"log": ["x"]}, None), ({"log": ["y"]}, "a"), (None, None), ({"count": 7}, "c"), ({}, "b"), ({"nonsense": 1}, "a"),
        ({"log": ["z"]}, "nobody"), ([("log", ["p"]), ("log", ["q"])], "a"), (7, "a"), ({"log": ["in again"]}, "__input__"),
        (None, "__input__"), (None, "__end__"), ({"log": ["end"]}, "__end__"), (None, "__copy__"), ({"log": ["start"]}, "__start__"),
    ):  # fmt: skip
        seen += [
            (
                values,
                as_node,
                tried(lambda values=values, as_node=as_node: run.update_state(graph, THREAD, values, as_node)),
            )
        ]
        seen += [run.get_state(graph, THREAD)]
    return [*seen, run.invoke(graph, None, THREAD), run.history(graph, THREAD)]


def branches(lib: Any, run: Run) -> Any:
    """An update runs the edges of the node in whose name it is made."""
    builder = lib.graph.StateGraph(State).add_node("a", says("a")).add_node("b", says("b")).add_node("c", says("c"))
    builder.add_edge("__start__", "a").add_edge(["b", "c"], "__end__")
    builder.add_conditional_edges("a", lambda state: ["b", "c"] if state["count"] > 5 else "b", ["b", "c"])
    builder.add_conditional_edges("b", lambda state: [lib.types.Send("c", {"count": n}) for n in (1, 2)], ["c"])
    graph = builder.compile(checkpointer=lib.new_saver())
    seen = []
    for values, as_node in (
        ({"count": 1}, "a"),
        ({"count": 9}, "a"),
        ({"log": ["b"]}, "b"),
        (lib.types.Command(goto="c"), "a"),
    ):
        seen += [tried(lambda values=values, as_node=as_node: run.update_state(graph, THREAD, values, as_node))]
        seen += [run.get_state(graph, THREAD)]
    return [*seen, tried(lambda: run.invoke(graph, None, THREAD)), run.history(graph, THREAD)]


def joins(lib: Any, run: Run) -> Any:
    """A node that waits for two, one of which is an update."""
    builder = lib.graph.StateGraph(State).add_node("a", says("a")).add_node("b", lambda state: {"log": ["b"]})
    builder.add_node("both", says("both")).add_node("late", says("late"), defer=True)
    builder.add_edge("__start__", "a").add_edge(["a", "b"], "both").add_edge("a", "late")
    graph = builder.compile(checkpointer=lib.new_saver())
    seen = [run.invoke(graph, {"log": ["in"]}, THREAD), run.get_state(graph, THREAD)]
    run.update_state(graph, THREAD, {"log": ["for b"]}, "b")
    seen += [run.get_state(graph, THREAD), run.invoke(graph, None, THREAD), run.get_state(graph, THREAD)]
    return [*seen, run.history(graph, THREAD)]


def ambiguous(lib: Any, run: Run) -> Any:
    builder = lib.graph.StateGraph(State)
    for name in "ab":
        builder.add_node(name, lambda state, name=name: {"log": [name]}).add_edge("__start__", name)
    graph = builder.compile(checkpointer=lib.new_saver())
    run.invoke(graph, {"log": ["in"]}, THREAD)
    seen = [tried(lambda: run.update_state(graph, THREAD, {"log": ["x"]}))]
    seen += [tried(lambda: run.update_state(graph, THREAD, {"log": ["x"]}, "a")), run.get_state(graph, THREAD)]
    return [*seen, tried(lambda: run.update_state(graph, THREAD, {"log": ["y"]})), run.history(graph, THREAD)]


def in_bulk(lib: Any, run: Run) -> Any:
    """SA-8"""
    graph, update = chain(lib, "a", "b", "c"), lib.types.StateUpdate
    seen: list[Any] = []
    for steps in (
        [], [[]], [[update({"log": ["in"]}, "__input__")]], [[update({"log": ["1"]}, "a")], [update({"log": ["2"]}, "b")]],
        [[update({"log": ["3"]}, "a"), update({"log": ["4"]}, "c")], [update({"log": ["5"]}, "b")]],
        [[update({"log": ["6"]}, "a"), update(None, "__end__")]], [[update({"log": ["7"]}, "nobody")]],
        [[update({"log": ["8"]}, None)], [update(None, "__end__")]], [[update({"log": ["9"]}, None), update({"log": ["9"]}, "a")]],
    ):  # fmt: skip
        seen += [
            tried(lambda steps=steps: run.call(graph, "bulk_update_state", THREAD, steps)),
            run.get_state(graph, THREAD),
        ]
    return [*seen, run.history(graph, THREAD)]


def copies(lib: Any, run: Run) -> Any:
    graph = chain(lib, "a", "b", "c")
    run.invoke(graph, {"log": ["in"]}, THREAD)
    states = run.history(graph, THREAD)
    at_b = next_is(states, "b")
    seen = [run.update_state(graph, at_b, None, "__copy__"), run.get_state(graph, THREAD)]
    seen += [run.invoke(graph, None, THREAD), run.history(graph, THREAD)]
    seen += [
        tried(lambda: run.update_state(graph, at_b, [({"log": ["instead"]}, "b")], "__copy__")),
        run.get_state(graph, THREAD),
    ]
    return [*seen, run.invoke(graph, None, THREAD), run.history(graph, THREAD)]


def clears(lib: Any, run: Run) -> Any:
    """What is due is taken away; what finished of it is applied first."""
    builder = lib.graph.StateGraph(State).add_node("ask", asks(lib, "ask")).add_node("done", says("done"))
    graph = builder.add_edge("__start__", "ask").add_edge("__start__", "done").compile(checkpointer=lib.new_saver())
    run.invoke(graph, {"log": ["in"]}, THREAD)
    seen = [run.update_state(graph, THREAD, None, "__end__"), run.get_state(graph, THREAD), run.history(graph, THREAD)]
    return [
        *seen,
        tried(lambda: run.invoke(graph, None, THREAD)),
        run.invoke(graph, {"log": ["more"]}, THREAD),
        run.get_state(graph, THREAD),
    ]


# -- going back -------------------------------------------------------------------------------------------------------


def replays(lib: Any, run: Run) -> Any:
    graph = chain(lib, "a", "b", "c")
    run.invoke(graph, {"log": ["in"]}, THREAD)
    seen = []
    for state in run.history(graph, THREAD):
        seen += [tried(lambda state=state: run.invoke(graph, None, state.config)), run.get_state(graph, THREAD)]
    return [*seen, run.history(graph, THREAD)]


def streams_again(lib: Any, run: Run) -> Any:
    graph = chain(lib, "a", "b", "c")
    run.invoke(graph, {"log": ["in"]}, THREAD)
    at_b = next_is(run.history(graph, THREAD), "b")
    return [run.stream(graph, None, at_b, stream_mode=["values", "updates", "checkpoints"]), run.history(graph, THREAD)]


def forks(lib: Any, run: Run) -> Any:
    """SA-10"""
    graph = chain(lib, "a", "b", "c")
    run.invoke(graph, {"log": ["in"]}, THREAD)
    at_b = next_is(run.history(graph, THREAD), "b")
    edited = run.update_state(graph, at_b, {"log": ["edit"]})
    seen = [edited, run.get_state(graph, edited), run.get_state(graph, THREAD), run.invoke(graph, None, edited)]
    seen += [run.invoke(graph, {"log": ["new"]}, at_b), run.get_state(graph, THREAD)]
    as_c = run.update_state(graph, at_b, {"log": ["as c"]}, "c")
    return [*seen, run.invoke(graph, None, as_c), run.history(graph, THREAD)]


def asks_again(lib: Any, run: Run) -> Any:
    """Going back to before a question asks it again; the head's own id does not."""
    builder = (
        lib.graph.StateGraph(State).add_node("a", says("a")).add_node("ask", asks(lib, "ask")).add_node("b", says("b"))
    )
    graph = (
        builder.add_edge("__start__", "a")
        .add_edge("a", "ask")
        .add_edge("ask", "b")
        .compile(checkpointer=lib.new_saver())
    )
    resume = lib.types.Command(resume="yes")
    seen = [run.invoke(graph, {"log": ["in"]}, THREAD)]
    head = run.get_state(graph, THREAD).config
    seen += [run.invoke(graph, resume, head)]
    seen += [
        run.invoke(graph, None, head),
        run.get_state(graph, THREAD),
        run.invoke(graph, lib.types.Command(resume="no"), THREAD),
    ]
    before = next_is(run.history(graph, THREAD), "a")
    seen += [run.invoke(graph, None, before), run.get_state(graph, THREAD)]
    edited = run.update_state(graph, before, {"log": ["edit"]}, "a")
    seen += [run.invoke(graph, None, edited), run.invoke(graph, resume, THREAD)]
    return [*seen, run.history(graph, THREAD)]


def edits_at_a_pause(lib: Any, run: Run) -> Any:
    builder = lib.graph.StateGraph(State).add_node("ask", asks(lib, "ask")).add_node("b", says("b"))
    graph = builder.add_edge("__start__", "ask").add_edge("ask", "b").compile(checkpointer=lib.new_saver())
    run.invoke(graph, {"log": ["in"]}, THREAD)
    seen = [run.update_state(graph, THREAD, {"log": ["edit"]}, "__start__"), run.get_state(graph, THREAD)]
    seen += [run.invoke(graph, None, THREAD), run.invoke(graph, lib.types.Command(resume="yes"), THREAD)]
    run.invoke(graph, {"log": ["in"]}, THREAD)
    seen += [run.update_state(graph, THREAD, {"log": ["instead"]}, "ask"), run.get_state(graph, THREAD)]
    return [*seen, run.invoke(graph, None, THREAD), run.history(graph, THREAD)]


# -- graphs within graphs ---------------------------------------------------------------------------------------------


def nested(lib: Any, lasting: bool = False, depth: int = 1) -> Any:
    builder = lib.graph.StateGraph(State).add_node("first", says("first")).add_node("ask", asks(lib, "ask"))
    inner = (
        builder.add_edge("__start__", "first").add_edge("first", "ask").compile(checkpointer=True if lasting else None)
    )
    for level in range(depth):
        builder = lib.graph.StateGraph(State).add_node("before", says(f"before {level}")).add_node("inner", inner)
        builder.add_edge("__start__", "before").add_edge("before", "inner")
        inner = builder.compile(checkpointer=lib.new_saver() if level == depth - 1 else None)
    return inner


def within(lib: Any, run: Run, **options: Any) -> Any:
    graph = nested(lib, **options)
    seen: list[Any] = []
    for answer in ("one", "two"):
        run.invoke(graph, {"log": ["in"]}, THREAD)
        state = run.get_state(graph, THREAD)
        seen += [state, run.get_state(graph, THREAD, subgraphs=True)]
        below = state.tasks[0].state
        seen += [run.get_state(graph, below), run.history(graph, below)]
        edited = run.update_state(graph, below, {"log": ["edit"]}, "first")
        seen += [edited, run.get_state(graph, below), run.get_state(graph, THREAD, subgraphs=True)]
        seen += [run.invoke(graph, lib.types.Command(resume=answer), THREAD), run.history(graph, below)]
    return [*seen, run.history(graph, THREAD), run.get_state(graph, THREAD, subgraphs=True)]


def within_lasting(lib: Any, run: Run) -> Any:
    return within(lib, run, lasting=True)


def two_below(lib: Any, run: Run) -> Any:
    graph = nested(lib, depth=2)
    run.invoke(graph, {"log": ["in"]}, THREAD)
    deep = run.get_state(graph, THREAD, subgraphs=True)
    below = deep.tasks[0].state.tasks[0].state
    seen = [deep, run.history(graph, below.config), run.get_state(graph, below.config)]
    run.update_state(graph, below.config, {"log": ["edit"]}, "first")
    seen += [run.invoke(graph, lib.types.Command(resume="yes"), THREAD)]
    return [*seen, run.history(graph, THREAD), run.get_state(graph, THREAD, subgraphs=True)]


def travels_within(lib: Any, run: Run, lasting: bool = False) -> Any:
    """From a checkpoint of the graph within: the graph around it goes back with it."""
    graph = nested(lib, lasting=lasting)
    run.invoke(graph, {"log": ["in"]}, THREAD)
    below = run.get_state(graph, THREAD).tasks[0].state
    states = run.history(graph, below)
    seen = [run.invoke(graph, lib.types.Command(resume="yes"), THREAD)]
    at_first = next_is(states, "first")
    seen += [run.invoke(graph, None, at_first), run.get_state(graph, THREAD, subgraphs=True)]
    seen += [run.invoke(graph, lib.types.Command(resume="again"), THREAD)]
    at_ask = next_is(states, "ask")
    edited = run.update_state(graph, at_ask, {"log": ["edit"]})
    seen += [edited, run.invoke(graph, None, edited), run.get_state(graph, THREAD, subgraphs=True)]
    return [*seen, run.history(graph, THREAD)]


def travels_within_lasting(lib: Any, run: Run) -> Any:
    return travels_within(lib, run, lasting=True)


def replays_around(lib: Any, run: Run, lasting: bool = False) -> Any:
    """SA-12: From a checkpoint of the outer graph: the graph within has the state that it had then."""
    graph = nested(lib, lasting=lasting)
    for number in range(2):
        run.invoke(graph, {"log": [f"in {number}"]}, THREAD)
        run.invoke(graph, lib.types.Command(resume=f"yes {number}"), THREAD)
    states = [state for state in run.history(graph, THREAD) if state.next == ("before",)]
    seen: list[Any] = []
    for state in states:
        seen += [run.invoke(graph, None, state.config), run.get_state(graph, THREAD, subgraphs=True)]
        seen += [run.invoke(graph, lib.types.Command(resume="again"), THREAD)]
    return [*seen, run.history(graph, THREAD)]


def replays_around_lasting(lib: Any, run: Run) -> Any:
    return replays_around(lib, run, lasting=True)


def unknown_within(lib: Any, run: Run) -> Any:
    graph = nested(lib)
    run.invoke(graph, {"log": ["in"]}, THREAD)
    where = {"configurable": {"thread_id": "1", "checkpoint_ns": "nobody:1"}}
    return [
        tried(lambda: run.get_state(graph, where)),
        tried(lambda: run.update_state(graph, where, {"log": ["x"]}, "first")),
    ]


def functions(lib: Any, run: Run) -> Any:
    @lib.func.task
    def double(value: int) -> int:
        return 2 * value

    @lib.func.entrypoint(checkpointer=lib.new_saver())
    def work(value: int, *, previous: Any = None) -> Any:
        found = [double(value).result(), double(value + 1).result()]
        return lib.func.entrypoint.final(value=found, save=(previous or 0) + value)

    seen = [run.invoke(work, 1, THREAD), run.get_state(work, THREAD), run.invoke(work, 2, THREAD)]
    seen += [run.update_state(work, THREAD, 100), run.get_state(work, THREAD), run.invoke(work, 3, THREAD)]
    return [*seen, run.history(work, THREAD)]


def begins_with_a_command(lib: Any, run: Run) -> Any:
    """CM-6, CP-5: on a thread of which nothing is saved, and then on the same thread"""
    Command, Send = lib.types.Command, lib.types.Send
    builder = lib.graph.StateGraph(State)
    for name in ("a", "b"):
        builder.add_node(name, lambda state, name=name: {"log": [name]})
    builder.add_edge("__start__", "a").add_edge("a", "b")
    seen = []
    for command in (
        Command(update={"log": ["update"]}),
        Command(goto="b"),
        Command(update=[("log", ["pair"])], goto=["a", Send("b", {"log": []})]),
        Command(goto="__end__"),
    ):
        for durability in ("async", "exit"):
            graph = builder.compile(checkpointer=lib.new_saver())
            for given in (command, command, {"log": ["plain"]}):
                seen.append(run.stream(graph, given, THREAD, stream_mode="values", durability=durability))
                seen.append(run.history(graph, THREAD))
    return seen


def tasks_of_each_kind(lib: Any, run: Run) -> Any:
    """SA-3, ST-9: their fields, before and after they ran; several writes to a key; the state of a graph within"""
    types = lib.types

    def twice(state: State) -> Any:
        return [types.Command(update={"log": ["one"]}), types.Command(update={"log": ["two"]})]

    def sent(state: Any) -> State:
        return {"log": [f"sent {state['count']}"]}

    def fails(state: State) -> State:
        raise ValueError("no")

    within = chain(lib, "within", checkpointer=None, interrupt_before=["within"])
    builder = lib.graph.StateGraph(State).add_node(twice).add_node(sent).add_node(fails).add_node("child", within)
    builder.add_edge("__start__", "twice").add_edge("__start__", "child")
    builder.add_conditional_edges("__start__", lambda state: [types.Send("sent", {"count": n}) for n in (1, 2)])
    builder.add_edge("sent", "fails")
    graph = builder.compile(checkpointer=lib.new_saver())
    seen: list[Any] = [types.PregelTask._fields, types.PregelTask("id", "name", ("path",))]
    for given in ({"log": []}, None):
        seen.append(tried(lambda given=given: run.invoke(graph, given, THREAD)))  # type: ignore[misc]
        for subgraphs in (False, True):
            snapshot = run.get_state(graph, THREAD, subgraphs=subgraphs)
            seen.append([sorted(map(repr, snapshot.next)), sorted(map(_told_task, snapshot.tasks))])
    seen.append([sorted(map(_told_task, snapshot.tasks)) for snapshot in run.history(graph, THREAD)])
    return seen


def _told_task(task: Any) -> str:
    state = task.state if task.state is None or isinstance(task.state, dict) else task.state.next
    return repr((task.name, task.path, task.error, task.interrupts, task.result, bool(task.id), bool(state)))


SCENARIOS = [
    tasks_of_each_kind, begins_with_a_command, narrowed, nowhere, metadata, durabilities, many_due, failed, failed_and_handled, updates, branches, joins, ambiguous, in_bulk, copies, clears,
    replays, streams_again, forks, asks_again, edits_at_a_pause, within, within_lasting, two_below, travels_within,
    travels_within_lasting, replays_around, replays_around_lasting, unknown_within, functions,
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_states_are_as_langgraph_has_them(scenario: Any, new_saver: Callable[[], Any]) -> None:
    check(scenario, new_saver)


@pytest.fixture(params=["memory", "plain", pytest.param("postgres", marks=pytest.mark.postgres)])
def new_saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    with ExitStack() as opened:
        count = iter(range(1000))

        def postgres() -> Any:
            from mpflow.checkpoint.postgres import PostgresSaver
            from tests.checkpoint.server import server

            return opened.enter_context(PostgresSaver.from_conn_string(server().conninfo(tmp_path / str(next(count)))))

        if request.param == "postgres":
            pytest.importorskip("psycopg")
        yield {"memory": InMemorySaver, "plain": lambda: PlainSaver(InMemorySaver()), "postgres": postgres}[
            request.param
        ]
