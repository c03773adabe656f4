"""Supersteps, routes, sends, commands and graphs within graphs (EX-*, RT-*, SN-*, CM-*, SG-*)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.errors import EmptyInputError, GraphRecursionError, InvalidUpdateError, ParentCommand
from mpflow.graph import END, START, StateGraph
from mpflow.types import Command, Send
from tests.colours import Run


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]
    n: int


def says(name: str, **more: Any) -> Callable[[Any], Any]:
    return lambda state: {"log": [name], **more}


def counts(state: State) -> dict:
    return {"log": [state.get("n", 0)], "n": state.get("n", 0) + 1}


def graph_of(*edges: tuple[Any, str], **actions: Any) -> StateGraph:
    """Nodes that log their name unless an action is given, and edges."""
    graph = StateGraph(State)
    names = {name for start, end in edges for name in ([start] if isinstance(start, str) else start) + [end]}
    for name in sorted((names | set(actions)) - {START, END}):
        action = actions.get(name) or says(name)
        graph.add_node(name, *action[:1], **action[1]) if isinstance(action, tuple) else graph.add_node(name, action)
    for start, end in edges:
        graph.add_edge(start, end)
    return graph


def log(run: Run, graph: Any, given: Any = None, config: Any = None) -> list[Any]:
    compiled = graph.compile() if isinstance(graph, StateGraph) else graph
    return run.invoke(compiled, {} if given is None else given, config)["log"]


# -- supersteps --------------------------------------------------------------------------------------------------------


def test_ex1_the_nodes_of_a_step_do_not_see_each_others_writes(run: Run) -> None:
    seen = lambda state: {"log": [len(state["log"])]}  # noqa: E731
    assert log(run, graph_of((START, "a"), (START, "b"), (["a", "b"], "c"), a=seen, b=seen, c=seen)) == [0, 0, 2]


def test_ex2_ex3_writes_are_merged_by_name_and_then_in_the_order_of_the_sends(run: Run) -> None:
    send = lambda name: lambda state: Command(goto=[Send("w", f"{name}1"), Send("w", f"{name}2")])  # noqa: E731
    edges = [(START, name) for name in ("zed", "b", "a", "m")]
    graph = graph_of(*edges, b=send("b"), a=send("a"), w=lambda arg: {"log": [arg]})
    graph.add_edge("m", "last").add_node("last", says("last"))
    assert log(run, graph) == ["m", "zed", "last", "a1", "a2", "b1", "b2"]


def test_ex5_a_node_with_a_plain_and_a_waiting_edge_runs_for_each(run: Run) -> None:
    graph = graph_of((START, "a"), (START, "b"), ("a", "d"), ("b", "c"), (["a", "c"], "d"), (START, "a"))
    assert log(run, graph) == ["a", "b", "c", "d", "d"]


def test_ex6_a_waiting_edge_waits_again_in_a_loop(run: Run) -> None:
    graph = graph_of((START, "a"), (START, "b"), ("b", "c"), (["a", "c"], "d"), d=counts)
    graph.add_conditional_edges("d", lambda state: ["a", "b"] if state["n"] < 2 else END)
    assert log(run, graph) == ["a", "b", "c", 0, "a", "b", "c", 1]


def test_ex7_a_deferred_node_runs_once_when_nothing_else_is_left(run: Run) -> None:
    late = (says("late"), {"defer": True})
    graph = graph_of((START, "a"), (START, "late"), ("a", "b"), ("b", "c"), ("c", "late"), ("late", "end"), late=late)
    assert log(run, graph) == ["a", "b", "c", "late", "end"]


def test_ex7_a_deferred_join_waits_for_the_end_too(run: Run) -> None:
    late = (says("late"), {"defer": True})
    assert log(run, graph_of((START, "a"), (START, "x"), ("x", "y"), (["a"], "late"), late=late)) == [
        "a",
        "x",
        "y",
        "late",
    ]


def test_ex8_end_ends_one_way_and_not_the_others(run: Run) -> None:
    graph = graph_of((START, "a"), ("a", END), b=says("b")).add_conditional_edges("a", lambda state: ["b", END])
    assert log(run, graph) == ["a", "b"]


def test_ex13_start_to_end_gives_back_the_input_reduced(run: Run) -> None:
    graph = graph_of((START, END)).compile()
    assert run.invoke(graph, {"log": [1]}) == {"log": [1]}


@pytest.mark.parametrize("given", [None, 3, "text", []])
def test_ex10_an_input_with_nothing_usable_is_refused(run: Run, given: Any) -> None:
    with pytest.raises((EmptyInputError, InvalidUpdateError)):
        run.invoke(graph_of((START, "a")).compile(), given)
    assert run.invoke(graph_of((START, "a")).compile(), {"unknown": 1}) == {"log": ["a"]}


@pytest.mark.parametrize(("limit", "fails"), [(3, True), (4, False)])
def test_ex9_a_chain_of_k_nodes_needs_a_limit_of_k_plus_one(run: Run, limit: int, fails: bool) -> None:
    graph = graph_of((START, "a"), ("a", "b"), ("b", "c")).compile()
    seen: list[Any] = []
    if not fails:
        assert run.invoke(graph, {}, {"recursion_limit": limit})["log"] == ["a", "b", "c"]
        return
    with pytest.raises(RecursionError, match=f"Recursion limit of {limit} reached") as caught:
        run.invoke(
            graph_of((START, "a"), ("a", "a"), a=lambda s: seen.append(1)).compile(), {}, {"recursion_limit": limit}
        )
    assert isinstance(caught.value, GraphRecursionError)
    assert "GRAPH_RECURSION_LIMIT" in str(caught.value)
    assert len(seen) == limit


def test_ex9_a_limit_below_one_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="recursion_limit must be at least 1"):
        run.invoke(graph_of((START, "a")).compile(), {}, {"recursion_limit": 0})


def test_ex14_a_task_has_one_id_and_each_run_others(run: Run) -> None:
    graph = graph_of((START, "a"), ("a", "b")).compile()
    ids = lambda: [chunk["id"] for chunk in run.stream(graph, {}, stream_mode="tasks")]  # noqa: E731
    first, second = ids(), ids()
    assert [first.index(task_id) for task_id in first] == [0, 0, 2, 2]
    assert not set(first) & set(second)


def test_ex14_a_resumed_task_has_the_id_that_it_had(run: Run) -> None:
    builder = graph_of((START, "a"), ("a", "b"))
    saver, config = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    run.invoke(builder.compile(checkpointer=saver, interrupt_before=["b"]), {}, config)
    again = builder.compile(checkpointer=saver)
    (due,) = run.get_state(again, config).tasks
    assert [chunk["id"] for chunk in run.stream(again, None, config, stream_mode="tasks")] == [due.id] * 2


# -- routes ------------------------------------------------------------------------------------------------------------


def test_rt1_a_path_sees_its_own_nodes_writes_and_not_its_siblings(run: Run) -> None:
    seen: list[Any] = []
    graph = graph_of((START, "a"), (START, "b"))
    for name in "ab":
        graph.add_conditional_edges(name, lambda state: seen.append(tuple(state["log"])) or END)
    log(run, graph)
    assert sorted(seen) == [("a",), ("b",)]


def test_rt2_a_path_sees_what_else_its_node_returned(run: Run) -> None:
    seen: list[Any] = []
    graph = graph_of((START, "a"), a=says("a", extra=3))
    graph.add_conditional_edges("a", lambda state: seen.append(state["extra"]) or END)
    log(run, graph)
    assert seen == [3]


def test_rt2_a_path_with_a_schema_of_its_own_reads_that(run: Run) -> None:
    class Other(TypedDict, total=False):
        n: int

    seen: list[Any] = []

    def path(state: Other) -> str:
        seen.append(dict(state))
        return END

    path.__annotations__["state"] = Other  # a local class is not found by its name
    log(run, graph_of((START, "a"), a=says("a", n=3, extra=3)).add_conditional_edges("a", path))
    assert seen == [{"n": 3}]


@pytest.mark.parametrize("answer", [None, START])
def test_rt3_an_answer_that_is_no_destination_is_refused(run: Run, answer: Any) -> None:
    graph = graph_of((START, "a")).add_conditional_edges("a", lambda state: answer)
    with pytest.raises(ValueError, match=r"did not return a valid destination.*'a'"):
        log(run, graph)


def test_rt3_no_destination_is_an_answer_and_one_the_map_lacks_is_not(run: Run) -> None:
    assert log(run, graph_of((START, "a")).add_conditional_edges("a", lambda state: [])) == ["a"]
    with pytest.raises(KeyError):
        log(run, graph_of((START, "a")).add_conditional_edges("a", lambda state: "x", {"y": END}))


def test_rt5_all_edges_of_a_node_apply(run: Run) -> None:
    def other(state: State) -> str:
        return "d"

    graph = graph_of((START, "a"), ("a", "b"), c=says("c"), d=says("d"))
    graph.add_conditional_edges("a", lambda state: "c").add_conditional_edges("a", other)
    assert log(run, graph) == ["a", "b", "c", "d"]


def test_rt7_triggers_have_langgraphs_names(run: Run) -> None:
    graph = graph_of((START, "a"), (START, "b"), (["a", "b"], "c"))
    graph.add_conditional_edges("c", lambda state: Send("d", {})).add_node("d", says("d"))
    chunks = run.stream(graph.compile(), {}, stream_mode="tasks")
    assert {chunk["name"]: chunk["triggers"] for chunk in chunks if "triggers" in chunk} == {
        "a": ("branch:to:a",),
        "b": ("branch:to:b",),
        "c": ("branch:to:c", "join:a+b:c"),
        "d": ("__pregel_push",),
    }


# -- sends and commands ------------------------------------------------------------------------------------------------


def test_sn1_sn5_each_send_is_a_task_and_its_edges_fire_once(run: Run) -> None:
    graph = graph_of((START, "a"), ("w", "after"), w=lambda arg: {"log": [arg]})
    graph.add_conditional_edges("a", lambda state: [Send("w", 1), Send("w", 1), Send("w", 2), "w2"]).add_node(
        "w2", says("w2")
    )
    assert log(run, graph) == ["a", "w2", 1, 1, 2, "after"]


@pytest.mark.parametrize("where", ["branch", "command"])
def test_sn3_nothing_can_be_sent_to_the_end(run: Run, where: str) -> None:
    if where == "branch":
        graph = graph_of((START, "a")).add_conditional_edges("a", lambda state: Send(END, 1))
    else:
        graph = graph_of((START, "a"), a=lambda state: Command(goto=Send(END, 1)))
    with pytest.raises(InvalidUpdateError, match=r"Cannot send a packet to the END node.*'?a'?"):
        log(run, graph)


@pytest.mark.parametrize(
    ("goto", "expected"),
    [
        ("b", ["a", "b", "e"]),
        (Send("w", 7), ["a", "e", 7]),
        (["b", Send("w", 7), END], ["a", "b", "e", 7]),
        (END, ["a", "e"]),
        ((), ["a", "e"]),
    ],
)
def test_cm2_cm8_a_command_updates_and_adds_destinations(run: Run, goto: Any, expected: list[Any]) -> None:
    action = lambda state: Command(update={"log": ["a"]}, goto=goto)  # noqa: E731
    graph = graph_of((START, "a"), ("a", "e"), a=action, b=says("b"), w=lambda arg: {"log": [arg]})
    assert log(run, graph) == expected


def test_cm3_a_list_of_commands_applies_in_order(run: Run) -> None:
    both = lambda state: [Command(update={"log": [1]}, goto="b"), {"log": [2]}, Command(update={"log": [3]}, goto="c")]  # noqa: E731
    assert log(run, graph_of((START, "a"), a=both, b=says("b"), c=says("c"))) == [1, 2, 3, "b", "c"]


def test_cm4_a_command_to_the_parent_leaves_the_childs_own_writes_behind(run: Run) -> None:
    up = lambda state: Command(graph=Command.PARENT, update={"log": ["up"]}, goto="b")  # noqa: E731
    child = graph_of((START, "first"), ("first", "up"), up=up).compile()
    assert log(run, graph_of((START, "sub"), ("sub", "static"), sub=child, b=says("b"))) == ["up", "b", "static"]


def test_cm4_two_levels_up_takes_two_commands_and_the_root_has_no_parent(run: Run) -> None:
    up = lambda state: Command(graph=Command.PARENT, update={"log": ["up"]})  # noqa: E731
    graph = graph_of((START, "up"), up=up).compile()
    with pytest.raises(ParentCommand):
        log(run, graph)
    assert log(run, graph_of((START, "sub"), sub=graph_of((START, "in"), **{"in": graph}).compile())) == ["up"]


def test_cm5_a_command_can_name_an_ancestor(run: Run) -> None:
    up = lambda state: Command(graph="outer", update={"log": ["up"]}, goto="b")  # noqa: E731
    child = graph_of((START, "in"), **{"in": graph_of((START, "up"), up=up).compile()}).compile()
    assert log(run, graph_of((START, "outer"), outer=child, b=says("b"))) == ["up", "b"]


# -- graphs within graphs ----------------------------------------------------------------------------------------------


def test_sg1_a_subgraphs_output_is_reduced_again_in_its_parent(run: Run) -> None:
    child = graph_of((START, "c")).compile()
    assert log(run, graph_of((START, "sub"), sub=child), {"log": ["in"]}) == ["in", "in", "c"]


def test_sg2_a_graph_called_in_a_node_is_nested_by_context(run: Run) -> None:
    child = graph_of((START, "c")).compile()

    def call(state: State) -> dict:
        return {"log": child.invoke({"log": []})["log"]}

    async def acall(state: State) -> dict:
        return {"log": (await child.ainvoke({"log": []}))["log"]}

    graph = graph_of((START, "sub"), sub=call if run.colour == "sync" else acall).compile()
    assert log(run, graph) == ["c"]
    spaces = [ns for ns, _ in run.stream(graph, {}, subgraphs=True)]
    assert [[part.partition(":")[0] for part in ns] for ns in spaces] == [["sub"], []]


def test_sg2_the_config_passed_on_by_hand_nests_as_well(run: Run) -> None:
    child = graph_of((START, "c"), c=lambda state, config: {"log": [config["tags"], config["configurable"]["mine"]]})
    inner = child.compile()

    def call(state: State, config) -> dict:  # type: ignore[no-untyped-def]
        return {"log": inner.invoke({}, config)["log"]}

    assert log(run, graph_of((START, "sub"), sub=call), {}, {"tags": ["t"], "configurable": {"mine": 1}}) == [["t"], 1]


def test_sg9_the_limit_counts_per_graph(run: Run) -> None:
    child = graph_of((START, "a"), ("a", "b"), ("b", "c")).compile()
    graph = graph_of((START, "x"), ("x", "sub"), ("sub", "y"), sub=child)
    assert log(run, graph, {}, {"recursion_limit": 4})[-1] == "y"


def test_a_graph_that_contains_itself_is_told_so(run: Run) -> None:
    compiled: list[Any] = []

    def again(state: State) -> dict:
        return compiled[0].invoke(state)

    async def agreed(state: State) -> dict:
        return await compiled[0].ainvoke(state)

    compiled.append(graph_of((START, "me"), me=again if run.colour == "sync" else agreed).compile(executor="inline"))
    with pytest.raises(GraphRecursionError, match=r"runs inside itself.*'me'"):
        log(run, compiled[0])


# -- wide steps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 7])
def test_a_step_that_is_handed_out_in_slices_runs_each_task_once_and_in_order(run: Run, limit: int | None) -> None:
    graph = graph_of(w=lambda arg: {"log": [arg]})
    graph.add_conditional_edges(START, lambda state: [Send("w", number) for number in range(1300)], ["w"])
    assert log(run, graph, config={"max_concurrency": limit}) == list(range(1300))


def test_a_failure_in_the_first_slice_of_a_step_ends_the_run(run: Run) -> None:
    graph = graph_of(w=(lambda arg: {"log": [1 // arg]}, {"executor": "inline"}))
    graph.add_conditional_edges(START, lambda state: [Send("w", number) for number in range(1300)], ["w"])
    with pytest.raises(ZeroDivisionError):
        run.invoke(graph.compile(), {})
