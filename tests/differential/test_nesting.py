"""Graphs within graphs are LangGraph's: what they are given, where they save, what they tell (SG-1 to SG-9, CF-8)."""

from __future__ import annotations

import operator
from functools import partial
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from tests.colours import Run
from tests.differential.scenarios import check, tried

THREAD: Any = {"configurable": {"thread_id": "1"}}
OWN: Any = {"configurable": {"thread_id": "own"}}


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    count: int


def _saver(lib: Any) -> Any:
    return lib.checkpoint_memory.InMemorySaver()


def _counting(lib: Any, **options: Any) -> Any:
    def count(state: State) -> Any:
        return {"count": state.get("count", 0) + 1, "log": ["counted"]}

    return lib.graph.StateGraph(State).add_node(count).add_edge("__start__", "count").compile(**options)


def _calling(lib: Any, run: Run, child: Any, configs: Any, **options: Any) -> Any:
    def call(state: State) -> Any:
        return {"log": [child.invoke({"log": ["below"]}, *given) for given in configs]}

    async def acall(state: State) -> Any:
        return {"log": [await child.ainvoke({"log": ["below"]}, *given) for given in configs]}

    builder = lib.graph.StateGraph(State).add_node("call", acall if run.colour == "async" else call)
    options.setdefault("checkpointer", _saver(lib))
    return builder.add_edge("__start__", "call").compile(**options)


def a_thread_of_its_own(lib: Any, run: Run) -> Any:
    saver = _saver(lib)
    child = _counting(lib, checkpointer=saver)
    graph = _calling(lib, run, child, [(OWN,)], checkpointer=saver)
    seen = []
    for _ in range(2):
        seen += [run.stream(graph, {"log": []}, THREAD, stream_mode=["updates", "values"], subgraphs=True)]
        seen += [run.get_state(child, OWN), len(run.history(child, OWN))]
    return seen


def the_thread_of_the_graph_around_by_name(lib: Any, run: Run) -> Any:
    child = _counting(lib, checkpointer=_saver(lib))
    graph = _calling(lib, run, child, [(THREAD,)])
    seen = [run.invoke(graph, {"log": []}, THREAD), run.invoke(graph, {"log": []}, THREAD)]
    return [*seen, run.get_state(child, THREAD), run.get_state(graph, THREAD)]


def a_thread_of_its_own_by_with_config(lib: Any, run: Run) -> Any:
    child = _counting(lib, checkpointer=_saver(lib)).with_config(OWN)
    graph = _calling(lib, run, child, [()])
    return [run.invoke(graph, {"log": []}, THREAD), run.invoke(graph, {"log": []}, THREAD), run.get_state(child, OWN)]


def another_key_of_the_config_keeps_it_nested(lib: Any, run: Run) -> Any:
    child = _counting(lib)
    graph = _calling(lib, run, child, [({"configurable": {"other": 1}},)])
    return run.stream(graph, {"log": []}, THREAD, stream_mode=["updates"], subgraphs=True)


def a_question_on_a_thread_of_its_own(lib: Any, run: Run) -> Any:
    def ask(state: State) -> Any:
        return {"log": [lib.types.interrupt("A")]}

    child = lib.graph.StateGraph(State).add_node(ask).add_edge("__start__", "ask").compile(checkpointer=_saver(lib))
    graph = _calling(lib, run, child, [(OWN,)])
    seen = [run.invoke(graph, {"log": []}, THREAD), run.get_state(child, OWN), run.get_state(graph, THREAD)]
    return [*seen, run.invoke(child, lib.types.Command(resume=1), OWN)]


def no_state_of_its_own(lib: Any, run: Run) -> Any:
    child = _counting(lib, checkpointer=False)
    builder = lib.graph.StateGraph(State).add_node("child", child).add_edge("__start__", "child")
    graph = builder.compile(checkpointer=_saver(lib))
    seen = [run.invoke(graph, {"log": []}, THREAD), run.history(graph, THREAD)]
    return [*seen, [name for name, _ in graph.get_subgraphs()]]


def _twice(own: Any) -> Any:
    def scenario(lib: Any, run: Run) -> Any:
        graph = _calling(lib, run, _counting(lib, checkpointer=own), [(), ()])
        seen = []
        for _ in range(2):
            seen += [tried(lambda: run.stream(graph, {"log": []}, THREAD, stream_mode="updates", subgraphs=True))]
            seen += [run.get_state(graph, THREAD, subgraphs=True)]
        return seen

    return scenario


def deep_histories(lib: Any, run: Run) -> Any:
    """SG-5"""
    inner = lib.graph.StateGraph(State).add_node("leaf", _counting(lib)).add_edge("__start__", "leaf").compile()
    middle = lib.graph.StateGraph(State).add_node("inner", inner).add_edge("__start__", "inner").compile()
    graph = lib.graph.StateGraph(State).add_node("middle", middle).add_edge("__start__", "middle")
    graph = graph.compile(checkpointer=_saver(lib))
    return [
        run.stream(graph, {"log": []}, THREAD, stream_mode=["updates", "tasks"], subgraphs=True),
        run.history(graph, THREAD),
        sorted(name for name, _ in graph.get_subgraphs(recurse=True)),
        [name for name, _ in graph.get_subgraphs(namespace="middle|inner", recurse=True)],
        [name for name, _ in graph.get_subgraphs(namespace="nothing", recurse=True)],
    ]


def what_a_server_says(lib: Any, run: Run) -> Any:
    class User:
        identity = "u"

    def tell(state: State, runtime: Any) -> Any:
        info = runtime.server_info
        return {"log": [info and (info.assistant_id, info.graph_id, getattr(info.user, "identity", None))]}

    child = lib.graph.StateGraph(State).add_node(tell).add_edge("__start__", "tell").compile()
    graph = lib.graph.StateGraph(State).add_node("child", child).add_edge("__start__", "child").compile()
    told: list[Any] = [{}, {"assistant_id": "a"}, {"graph_id": "g"}, {"langgraph_auth_user": User()}]
    told += [{"assistant_id": "a", "graph_id": "g", "langgraph_auth_user": {"identity": "none"}}]
    return [run.invoke(graph, {"log": []}, {"configurable": given}) for given in told]


def answers_where_nothing_is_saved(lib: Any, run: Run) -> Any:
    """SG-4, IN-6: a graph that saves nothing starts again, and finds the answer that was given to the run around it."""
    started: list[str] = []
    child = lib.graph.StateGraph(State).add_node("begin", lambda state: started.append("child"))
    child.add_node("ask", lambda state: {"log": [lib.types.interrupt("one"), lib.types.interrupt("two")]})
    child.add_edge("__start__", "begin").add_edge("begin", "ask")
    graph = lib.graph.StateGraph(State).add_node("child", child.compile(checkpointer=False))
    graph = graph.add_edge("__start__", "child").compile(checkpointer=_saver(lib))
    asked = [run.invoke(graph, {"log": []}, THREAD)["__interrupt__"][0].value]
    for answer in ("a", "b"):
        asked += [run.invoke(graph, lib.types.Command(resume=answer), THREAD)["__interrupt__"][0].value]
    return asked, started


def what_is_saved_at_the_end(lib: Any, run: Run, *, lasts: Any, asks: bool) -> Any:
    """CP-5: a graph within saves nothing there if it ended well, unless it lasts."""
    saver = _saver(lib)
    child = lib.graph.StateGraph(State).add_node("say", lambda state: {"log": ["child"]})
    child.add_node("last", lambda state: {"log": [lib.types.interrupt("?") if asks else "last"]})
    child = child.add_edge("__start__", "say").add_edge("say", "last").compile(checkpointer=lasts)
    graph = lib.graph.StateGraph(State).add_node("child", child).add_edge("__start__", "child").compile(saver)
    run.stream(graph, {"log": []}, THREAD, durability="exit")
    within = [found.config["configurable"]["checkpoint_ns"] for found in run.listed(saver, "list", THREAD)]
    # LangGraph's saver in memory lists by namespace, those on disk and ours by age.
    return sorted(within), run.get_state(graph, THREAD, subgraphs=True)


SCENARIOS = [
    a_thread_of_its_own,
    the_thread_of_the_graph_around_by_name,
    a_thread_of_its_own_by_with_config,
    another_key_of_the_config_keeps_it_nested,
    a_question_on_a_thread_of_its_own,
    no_state_of_its_own,
    deep_histories,
    what_a_server_says,
    answers_where_nothing_is_saved,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_graphs_within(scenario: Any) -> None:
    check(scenario)


@pytest.mark.parametrize("own", [None, False, True])
def test_a_graph_called_twice_by_one_node(own: Any) -> None:
    check(_twice(own))


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("lasts", [None, True])
def test_graphs_within_that_save_at_the_end(lasts: Any, asks: bool) -> None:
    check(partial(what_is_saved_at_the_end, lasts=lasts, asks=asks))
