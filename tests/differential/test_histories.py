"""Saved states and changes to them are LangGraph's (SA-1 to SA-13, EX-11, EX-12, CP-2, CP-5)."""

from __future__ import annotations

import operator
from typing import Annotated, Any
from uuid import UUID

import pytest
from typing_extensions import TypedDict

from tests.colours import Run
from tests.differential.scenarios import check, tried

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    last: str


def _saver(lib: Any) -> Any:
    return lib.checkpoint_memory.InMemorySaver()


def _says(name: str, **more: Any) -> Any:
    def say(state: Any) -> Any:
        return {"log": [name], "last": name, **more}

    say.__name__ = name
    return say


def _chain(lib: Any, *names: str, **options: Any) -> Any:
    builder = lib.graph.StateGraph(State)
    previous = "__start__"
    for name in names:
        builder.add_node(_says(name)).add_edge(previous, name)
        previous = name
    return builder.compile(checkpointer=_saver(lib), **options)


def _all(run: Run, graph: Any) -> list[Any]:
    return [run.get_state(graph, THREAD), run.history(graph, THREAD)]


def a_chain(lib: Any, run: Run) -> Any:
    graph = _chain(lib, "a", "b")
    run.invoke(graph, {"log": ["in"]}, THREAD)
    run.invoke(graph, {"log": ["more"]}, THREAD)
    return _all(run, graph)


def a_root_state_with_sends_and_nodes(lib: Any, run: Run) -> Any:
    builder = lib.graph.StateGraph(Annotated[list, operator.add])
    for name in ("first", "each", "other", "end"):
        builder.add_node(name, lambda state, name=name: [name, str(state)])
    builder.add_edge("__start__", "first")
    builder.add_conditional_edges(
        "first", lambda state: [lib.types.Send("each", 1), lib.types.Send("each", 2), "other"]
    )
    builder.add_edge("each", "end")
    graph = builder.compile(checkpointer=_saver(lib))
    chunks = run.stream(graph, ["in"], THREAD, stream_mode=["tasks", "checkpoints"])
    return [sorted(chunks, key=repr) and len(chunks), *_all(run, graph)]


def a_value_of_a_single_key(lib: Any, run: Run) -> Any:
    graph = _chain(lib, "a")
    return run.stream(graph, {"log": []}, THREAD, stream_mode=["values", "updates", "tasks"], output_keys="last")


def several_writes_to_one_key(lib: Any, run: Run) -> Any:
    def twice(state: State) -> Any:
        return [lib.types.Command(update={"log": ["x"]}), {"log": ["y"]}]

    graph = lib.graph.StateGraph(State).add_node(twice).add_edge("__start__", "twice").compile(checkpointer=_saver(lib))
    chunks = run.stream(graph, {"log": []}, THREAD, stream_mode=["updates", "tasks"])
    return [chunks, *_all(run, graph)]


def a_failed_step(lib: Any, run: Run) -> Any:
    fails = [True]

    def b(state: State) -> Any:
        if fails:
            fails.pop()
            raise KeyError("b")
        return {"log": ["b"]}

    builder = lib.graph.StateGraph(State).add_node("a", _says("a")).add_node(b).add_edge("__start__", "a")
    graph = builder.add_edge("a", "b").compile(checkpointer=_saver(lib))
    seen = [tried(lambda: run.invoke(graph, {"log": []}, THREAD)), *_all(run, graph)]
    return [*seen, run.stream(graph, None, THREAD, stream_mode=["updates", "values", "checkpoints"]), *_all(run, graph)]


def _updates(*changes: tuple[Any, ...]) -> Any:
    def scenario(lib: Any, run: Run) -> Any:
        seen = []
        for change in changes:
            graph = _chain(lib, "a", "b", "c", interrupt_before=["b"])
            run.invoke(graph, {"log": ["in"]}, THREAD)
            seen += [tried(lambda graph=graph, change=change: run.update_state(graph, THREAD, *change))]
            seen += _all(run, graph)
            seen += [tried(lambda graph=graph: run.invoke(graph, None, THREAD))]
            seen += [tried(lambda graph=graph: _all(run, graph))]
        return seen

    return scenario


def updates_of_an_older_state(lib: Any, run: Run) -> Any:
    seen = []
    for change in (({"log": ["edit"]}, "a"), ({"log": ["edit"]}, "b"), (None, "__end__"), (None, "__copy__"), (None,)):
        graph = _chain(lib, "a", "b", "c")
        run.invoke(graph, {"log": ["in"]}, THREAD)
        base = run.history(graph, THREAD)[2].config
        run.update_state(graph, base, {"log": ["sibling"]}, "b")
        config = tried(lambda graph=graph, change=change, base=base: run.update_state(graph, base, *change))
        seen += [config]
        if not isinstance(config, Exception):
            seen += [
                run.get_state(graph, config),
                tried(lambda graph=graph, config=config: run.invoke(graph, None, config)),
            ]
        seen += _all(run, graph)
    return seen


def clearing_an_older_state_leaves_out_its_edits(lib: Any, run: Run) -> Any:
    graph = _chain(lib, "a", "b", interrupt_before=["b"])
    run.invoke(graph, {"log": ["in"]}, THREAD)
    base = run.get_state(graph, THREAD).config
    run.update_state(graph, THREAD, {"log": ["later"]}, "a")
    run.update_state(graph, base, {"log": ["edit"]}, "b")
    cleared = run.update_state(graph, base, None, "__end__")
    return [run.get_state(graph, cleared), run.get_state(graph, base), *_all(run, graph)]


def updates_on_a_new_thread(lib: Any, run: Run) -> Any:
    seen = []
    for change in (
        ({"log": ["x"]},),
        ({"log": ["x"]}, "a"),
        ({"log": ["x"]}, "__input__"),
        (None, "__copy__"),
        (None,),
    ):
        graph = _chain(lib, "a", "b")
        seen += [tried(lambda graph=graph, change=change: run.update_state(graph, THREAD, *change)), *_all(run, graph)]
        seen += [tried(lambda graph=graph: run.invoke(graph, None, THREAD)), *_all(run, graph)]
    return seen


def replays(lib: Any, run: Run) -> Any:
    graph = _chain(lib, "a", "b", "c")
    run.invoke(graph, {"log": ["in"]}, THREAD)
    seen = []
    for place in (0, 1, 2, 3):
        config = run.history(graph, THREAD)[place].config
        seen += [run.stream(graph, None, config, stream_mode=["updates", "values"]), *_all(run, graph)]
    return seen


def new_input_at_an_older_state(lib: Any, run: Run) -> Any:
    graph = _chain(lib, "a", "b")
    run.invoke(graph, {"log": ["in"]}, THREAD)
    config = run.history(graph, THREAD)[1].config
    return [run.invoke(graph, {"log": ["new"]}, config), *_all(run, graph)]


def new_input_at_an_older_state_of_a_graph_that_lasts(lib: Any, run: Run) -> Any:
    """SG-4: the graph within goes on from what it had last."""
    child = lib.graph.StateGraph(State).add_node(_says("child")).add_edge("__start__", "child")
    builder = lib.graph.StateGraph(State).add_node("p", child.compile(checkpointer=True)).add_edge("__start__", "p")
    graph = builder.compile(checkpointer=_saver(lib))
    run.invoke(graph, {"log": ["in"]}, THREAD)
    updated = run.update_state(graph, THREAD, {"log": ["edit"]})
    answers = [run.invoke(graph, {"log": ["more"]}, THREAD), run.invoke(graph, {"log": ["again"]}, updated)]
    return answers + [run.invoke(graph, {"log": [at]}, run.history(graph, THREAD)[at].config) for at in (2, 4, -1)]


def listings(lib: Any, run: Run) -> Any:
    """SA-4"""
    graph = _chain(lib, "a", "b")
    run.invoke(graph, {"log": ["in"]}, {**THREAD, "metadata": {"mine": 1}})
    run.invoke(graph, {"log": ["in"]}, THREAD)
    middle = run.history(graph, THREAD)[3].config
    return [
        run.history(graph, THREAD, limit=2),
        run.history(graph, THREAD, before=middle),
        run.history(graph, THREAD, filter={"source": "input"}),
        run.history(graph, THREAD, filter={"mine": 1}, limit=1),
        run.get_state(graph, {"configurable": {"thread_id": "nobody"}}),
        run.history(graph, {"configurable": {"thread_id": "nobody"}}),
        tried(lambda: run.get_state(graph.copy({"checkpointer": None}), THREAD)),
    ]


def bulk_updates(lib: Any, run: Run) -> Any:
    """SA-8"""
    change = lib.types.StateUpdate
    graph = _chain(lib, "a", "b")
    steps = [[change({"log": ["1"]}, "a")], [change({"log": ["2"]}, "b"), change({"log": ["3"]}, "a")]]
    seen = [run.call(graph, "bulk_update_state", THREAD, steps), *_all(run, graph)]
    plain = [[tuple(update) for update in step] for step in steps]
    seen += [run.call(graph, "bulk_update_state", {"configurable": {"thread_id": "plain"}}, plain)]
    for wrong in ([], [[]], [[change(None, "__end__"), change(None, "a")]], [[change({"log": []}, "nobody")]]):
        seen += [tried(lambda wrong=wrong: run.call(graph, "bulk_update_state", THREAD, wrong))]
    return seen


def durabilities(lib: Any, run: Run) -> Any:
    seen = []
    for durability in ("sync", "async", "exit"):
        graph = _chain(lib, "a", "b", interrupt_before=["b"])
        options = {"durability": durability, "stream_mode": ["updates", "checkpoints"]}
        seen += [run.stream(graph, {"log": ["in"]}, THREAD, **options), *_all(run, graph)]
        seen += [run.stream(graph, None, THREAD, **options), *_all(run, graph)]
    return seen


def a_thread_that_is_no_string(lib: Any, run: Run) -> Any:
    """SA-1, CP-2: a thread's id is its text."""
    graph = _chain(lib, "a")
    config: Any = {"configurable": {"thread_id": UUID(int=5)}}
    seen = [run.stream(graph, {"log": []}, config, stream_mode=["updates", "checkpoints"])]
    text: Any = {"configurable": {"thread_id": str(UUID(int=5))}}
    return [*seen, run.get_state(graph, config), run.get_state(graph, text).values, run.history(graph, config)]


def an_entrypoint(lib: Any, run: Run) -> Any:
    @lib.func.task
    def falsy() -> bool:
        return False

    @lib.func.entrypoint(checkpointer=_saver(lib))
    def work(n: int, *, previous: Any = None) -> Any:
        falsy().result()
        answer = lib.types.interrupt("ask")
        return lib.func.entrypoint.final(value=[answer, previous], save=n)

    seen = []
    for durability in ("async", "exit"):
        options = {"durability": durability, "stream_mode": ["updates", "debug"]}
        config = {"configurable": {"thread_id": durability}}
        seen += [run.stream(work, 1, config, **options), run.get_state(work, config)]
        seen += [run.stream(work, lib.types.Command(resume="a"), config, **options), run.history(work, config)]
        seen += [run.invoke(work, 2, config), run.invoke(work, lib.types.Command(resume="b"), config)]
    return seen


SCENARIOS = [
    a_chain,
    a_root_state_with_sends_and_nodes,
    a_value_of_a_single_key,
    several_writes_to_one_key,
    a_failed_step,
    updates_of_an_older_state,
    clearing_an_older_state_leaves_out_its_edits,
    updates_on_a_new_thread,
    replays,
    new_input_at_an_older_state,
    new_input_at_an_older_state_of_a_graph_that_lasts,
    listings,
    bulk_updates,
    durabilities,
    a_thread_that_is_no_string,
    an_entrypoint,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_histories(scenario: Any) -> None:
    check(scenario)


@pytest.mark.parametrize(
    "change",
    [
        ({"log": ["x"]},),
        ({"log": ["x"]}, "a"),
        ({"log": ["x"]}, "b"),
        ({"log": ["x"]}, "c"),
        ({"log": ["x"]}, "nobody"),
        ({"unknown": ["x"]}, "a"),
        (None,),
        (None, "a"),
        (None, "__end__"),
        (None, "__copy__"),
        ({"log": ["x"]}, "__input__"),
        ([({"log": ["x"]}, "b")], "__copy__"),
    ],
    ids=str,
)
def test_changes_of_a_paused_thread(change: Any) -> None:
    check(_updates(change))
