"""Small programs of each kind of behaviour come to what they come to under LangGraph."""

import operator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel
from typing_extensions import TypedDict

from tests.colours import Run
from tests.differential.scenarios import check, tried

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    count: int


class Input(TypedDict):
    log: list[Any]


class Output(TypedDict):
    count: int


class Private(TypedDict):
    secret: str


@dataclass
class Record:
    log: Annotated[list[Any], operator.add] = field(default_factory=list)
    count: Any = 0


@dataclass
class Context:
    user: str
    limit: int = 3


class Checked(BaseModel):
    user: str
    limit: int = 3


def _saver(lib: Any) -> Any:
    return lib.checkpoint_memory.InMemorySaver()


def _build(lib: Any, *nodes: Any, schema: Any = State, chain: bool = True, **schemas: Any) -> Any:
    builder = lib.graph.StateGraph(schema, **schemas)
    previous = "__start__"
    for node in nodes:
        builder.add_node(node).add_edge(previous, node.__name__)
        previous = node.__name__ if chain else previous
    return builder


def _named(name: str, action: Any) -> Any:
    action.__name__ = name
    return action


def _says(name: str) -> Any:
    return _named(name, lambda state: {"log": [name]})


def input_and_output_schemas(lib: Any, run: Run) -> Any:
    """GB-1, ST-14"""
    graph = _build(lib, _named("a", lambda state: {"count": len(state), "log": sorted(state)}), output_schema=Output)
    narrow = _build(lib, _named("a", lambda state: {"count": len(state), "log": sorted(state)}), input_schema=Input)
    given = {"log": ["in"], "count": 7, "unknown": 1}
    return [run.invoke(built.compile(), given) for built in (graph, narrow)]


def destinations_draw_and_do_not_route(lib: Any, run: Run) -> Any:
    """GB-6"""
    builder = lib.graph.StateGraph(State)
    builder.add_node("a", _says("a"), destinations=("b", "c")).add_node("b", _says("b")).add_node("c", _says("c"))
    graph = builder.add_edge("__start__", "a").compile()
    return [run.invoke(graph, {"log": []}), graph.get_graph().draw_mermaid()]


def entry_and_finish_points(lib: Any, run: Run) -> Any:
    """GB-10"""
    plain = lib.graph.StateGraph(State).add_node("a", _says("a")).set_entry_point("a").set_finish_point("a")
    asked = lib.graph.StateGraph(State).add_node("a", _says("a")).add_node("b", _says("b"))
    asked.set_conditional_entry_point(
        lambda state: "second" if state["log"] else "first", {"first": "a", "second": "b"}
    )
    return [run.invoke(plain.compile(), {"log": []})] + [run.invoke(asked.compile(), {"log": log}) for log in ([], [1])]


def options_of_compile(lib: Any, run: Run) -> Any:
    """GB-12, IN-10"""
    builder = _build(lib, _says("a"), _says("b"))
    seen: list[Any] = [builder.compile().name, builder.compile(name="mine").name]
    for options in ({"interrupt_before": ["b"]}, {"interrupt_after": "*"}, {"interrupt_before": [], "debug": False}):
        seen += [run.invoke(builder.compile(checkpointer=_saver(lib), **options), {"log": []}, THREAD)]
    for options in ({"interrupt_before": ["b"]}, {"interrupt_before": []}, {"interrupt_after": ["a"]}):
        seen += [run.invoke(builder.compile(checkpointer=_saver(lib)), {"log": []}, THREAD, **options)]
    return [*seen, tried(lambda: builder.compile(interrupt_before=["nobody"])), tried(lambda: builder.compile("saver"))]


def nodes_that_nothing_leads_to_or_from(lib: Any, run: Run) -> Any:
    """GB-14"""
    builder = _build(lib, _says("a"), _says("b"), chain=False).add_node("alone", _says("alone"))
    return run.stream(builder.compile(), {"log": []}, stream_mode="values")


def keys_that_no_channel_has(lib: Any, run: Run) -> Any:
    """GB-18, RT-2"""
    seen: list[Any] = []
    builder = _build(lib, _named("a", lambda state: {"log": ["a"], "nobody": 1}), _says("b"), chain=False)
    builder.add_conditional_edges("a", lambda state: seen.append(dict(state)) or "__end__")  # type: ignore[func-returns-value]
    result = run.invoke(builder.compile(), {"log": [], "nothing": 2})
    return [result, seen]


def private_state(lib: Any, run: Run) -> Any:
    """ST-15, ST-16, ST-17"""
    seen: list[Any] = []

    def write(state: State) -> Any:
        seen.append(sorted(state))
        return {"secret": "s"}

    def read(state: Private) -> Any:
        seen.append(sorted(state))
        return {"log": [state["secret"]]}

    def see(state: State) -> Any:
        seen.append(sorted(state))
        return {"count": 1}

    graph = _build(lib, write, read, see).compile(checkpointer=_saver(lib))
    return [run.invoke(graph, {}, THREAD), seen, run.get_state(graph, THREAD).values]


def dataclass_states_are_not_coerced(lib: Any, run: Run) -> Any:
    """ST-20, ST-21"""
    kinds: list[str] = []

    def a(state: Any) -> Any:
        kinds.append(type(state).__name__ + type(state.count).__name__)
        return Record(log=["a"])

    graph = _build(lib, a, schema=Record).compile()
    return [run.invoke(graph, {"log": ["in"], "count": "7"}), run.invoke(graph, Record(count=5)), kinds]


def what_is_none_by_default(lib: Any, run: Run) -> Any:
    """ST-20: a dataclass writes it, a pydantic model only where it was set."""

    @dataclass
    class Loose:
        log: Annotated[list[Any], operator.add] = field(default_factory=list)
        count: Any = None

    class Strict(BaseModel):
        log: Annotated[list[Any], operator.add] = []
        count: Any = None

    seen = []
    for schema in (Loose, Strict):
        for update in (schema(log=["a"]), schema(log=["a"], count=None)):
            graph = _build(lib, _named("a", lambda state, update=update: update), schema=schema).compile()
            seen += [run.invoke(graph, {"log": []}), run.invoke(graph, {"count": 1})]
            seen += [run.stream(graph, update)]
    return seen


def siblings_share_what_they_are_given(lib: Any, run: Run) -> Any:
    """ST-23, EX-1: what a node changes in place is seen by whom comes later, in threads and inline (D-2)."""
    graph = _build(lib, _named("a", lambda state: state["log"].append("a")), _says("b")).compile()
    return run.invoke(graph, {"log": ["in"]})


def sends_of_several_nodes(lib: Any, run: Run) -> Any:
    """EX-2, EX-3, SN-1, SN-5: sends queue by who sent them; what follows their target runs once."""
    builder = _build(lib, _says("z"), _says("m"), chain=False)
    for name in ("z", "m"):
        builder.add_conditional_edges(name, lambda _, name=name: [lib.types.Send("each", f"{name}{n}") for n in (2, 1)])
    builder.add_node("each", lambda given: {"log": [given]}).add_node("end", _says("end")).add_edge("each", "end")
    return run.stream(builder.compile(), {"log": []}, stream_mode="values")


def the_step_before_the_first(lib: Any, run: Run) -> Any:
    """EX-4, CP-2"""
    graph = _build(lib, _says("a")).compile(checkpointer=_saver(lib))
    run.invoke(graph, {"log": ["in"]}, THREAD)
    return [(state.next, state.metadata, state.values) for state in run.history(graph, THREAD)]


def branches_that_raise(lib: Any, run: Run) -> Any:
    """RT-3, RT-6, RY-2"""
    seen = []
    for answer in (KeyError("no"), None, "__start__", [], "nobody", ["__end__", "b"]):
        calls: list[int] = []

        def path(state: Any, answer: Any = answer, calls: list[int] = calls) -> Any:
            calls.append(1)
            if isinstance(answer, Exception) and len(calls) < 3:
                raise answer
            return "b" if isinstance(answer, Exception) else answer

        builder = lib.graph.StateGraph(State).add_node("b", _says("b"))
        policy = lib.types.RetryPolicy(initial_interval=0.001, jitter=False, retry_on=KeyError)
        builder.add_node("a", _says("a"), retry_policy=policy).add_edge("__start__", "a")
        graph = builder.add_conditional_edges("a", path).compile()
        seen += [tried(lambda graph=graph: run.invoke(graph, {"log": []})), len(calls)]
    return seen


def sends_that_were_done_before_a_pause(lib: Any, run: Run) -> Any:
    """SN-4, ER-3"""
    calls: list[Any] = []

    def each(given: Any) -> Any:
        calls.append(given)
        if given == 2 and calls.count(2) == 1:
            raise KeyError("two")
        return {"log": [given]}

    builder = lib.graph.StateGraph(State).add_node(each)
    builder.add_conditional_edges("__start__", lambda _: [lib.types.Send("each", n) for n in (1, 2, 3)], ["each"])
    graph = builder.compile(checkpointer=_saver(lib))
    config: Any = {**THREAD, "max_concurrency": 1}
    seen = [tried(lambda: run.invoke(graph, {"log": []}, config))]
    return [*seen, run.invoke(graph, None, config)]


def commands_as_input(lib: Any, run: Run) -> Any:
    """CM-6, CM-7, CM-8, EX-10"""
    command = lib.types.Command
    seen = []
    for given in (
        command(update={"log": ["x"]}),
        command(goto="b"),
        command(update={"log": ["x"]}, goto=["b", "a"]),
        command(update=[("log", ["p"]), ("log", ["q"])]),
        command(goto=lib.types.Send("b", {"log": []})),
        command(goto="__end__"),
        command(goto="nobody"),
        command(resume="r"),
        command(graph=command.PARENT, update={"log": ["x"]}),
    ):
        graph = _build(lib, _says("a"), _says("b")).compile(checkpointer=_saver(lib))
        run.invoke(graph, {"log": ["in"]}, THREAD)
        seen += [tried(lambda graph=graph, given=given: run.invoke(graph, given, THREAD))]
        fresh = _build(lib, _says("a"), _says("b")).compile()
        seen += [tried(lambda fresh=fresh, given=given: run.invoke(fresh, given))]
    return seen


def commands_from_nodes(lib: Any, run: Run) -> Any:
    """CM-2, CM-3, CM-8"""
    command = lib.types.Command
    seen = []
    for answer in (
        command(update={"log": ["u"]}, goto="c"),
        command(goto="__end__"),
        command(update=[("log", ["p"]), ("count", 2)]),
        [command(update={"log": ["1"]}), {"log": ["2"]}, command(goto=["c"])],
        [command(goto=lib.types.Send("c", {})), command(update={"log": ["s"]})],
        command(update=Record(log=["r"], count=3)),
        command(goto=7),
        7,
        "text",
        [{"log": ["1"]}],
    ):
        builder = _build(lib, _named("a", lambda state, answer=answer: answer), _says("b")).add_node("c", _says("c"))
        seen += [tried(lambda built=builder: run.invoke(built.compile(), {"log": []}))]
    return seen


def updates_that_clash(lib: Any, run: Run) -> Any:
    """ER-5, ST-4, ST-6"""
    over = lib.types.Overwrite
    seen = []
    for one, two in (
        ({"count": 1}, {"count": 1}),
        ({"log": over([1])}, {"log": [2]}),
        ({"log": over([1])}, {"log": over([2])}),
        ({"log": {"__overwrite__": [1]}}, {"log": [2]}),
        ({"log": 7}, {"log": [2]}),
    ):
        nodes = (_named("a", lambda state, one=one: one), _named("b", lambda state, two=two: two))
        graph = _build(lib, *nodes, chain=False).compile(checkpointer=_saver(lib))
        error = tried(lambda graph=graph: run.invoke(graph, {"log": ["in"]}, THREAD))
        seen += ["an error" if isinstance(error, Exception) else error]
        seen += [tried(lambda graph=graph: run.get_state(graph, THREAD).values)]
    return seen


def savers_that_fail(lib: Any, run: Run) -> Any:
    """CP-9"""
    seen = []
    for method in ("get_tuple", "put", "put_writes", "get_next_version"):
        for durability in ("sync", "async", "exit"):

            def fail(*args: Any, **kwargs: Any) -> Any:
                raise OSError("the disk is full")

            async def afail(*args: Any, **kwargs: Any) -> Any:
                raise OSError("the disk is full")

            base = lib.checkpoint_memory.InMemorySaver
            broken = type("Broken", (base,), {method: fail, f"a{method}": afail})
            graph = _build(lib, _says("a"), _says("b")).compile(checkpointer=broken())
            seen += [
                (
                    method,
                    durability,
                    tried(lambda graph=graph, d=durability: run.invoke(graph, {"log": []}, THREAD, durability=d)),
                )
            ]
    return seen


def contexts(lib: Any, run: Run) -> Any:
    """CF-4"""
    seen: list[Any] = []
    for schema in (None, Context, Checked, Private):
        for given in (None, {"user": "u"}, Context("o"), {"limit": 1}, "text"):

            def tell(state: State, runtime: Any) -> Any:
                return {"log": [runtime.context]}

            graph = _build(lib, tell, context_schema=schema).compile()
            seen += [tried(lambda graph=graph, given=given: run.invoke(graph, {"log": []}, context=given))]
    return [str(found) if not isinstance(found, Exception) else found for found in seen]


def facts_of_an_execution(lib: Any, run: Run) -> Any:
    """CF-6"""

    def tell(state: State, runtime: Any) -> Any:
        info = runtime.execution_info
        return {"log": [info.checkpoint_ns.split(":")[0], info.thread_id, info.node_attempt, bool(info.checkpoint_id)]}

    child = _build(lib, tell).compile()
    builder = lib.graph.StateGraph(State).add_node("child", child).add_edge("__start__", "child")
    return [
        run.invoke(builder.compile(checkpointer=_saver(lib)), {"log": []}, THREAD),
        run.invoke(_build(lib, tell).compile(checkpointer=_saver(lib)), {"log": []}, THREAD),
    ]


def channels_of_all_kinds(lib: Any, run: Run) -> Any:
    """ST-7, ST-8, ST-9"""
    kinds = lib.channels

    class Kinds(TypedDict, total=False):
        passing: Annotated[str, kinds.EphemeralValue]
        topic: Annotated[list[str], kinds.Topic(str)]
        kept: Annotated[list[str], kinds.Topic(str, accumulate=True)]
        some: Annotated[str, kinds.AnyValue]
        unsaved: Annotated[str, kinds.UntrackedValue]

    def write(state: Any) -> Any:
        return dict.fromkeys(("passing", "topic", "kept", "some", "unsaved"), "w")

    def more(state: Any) -> Any:
        return {"topic": ["x", "y"], "kept": ["x"]}

    graph = _build(lib, write, more, _named("none", lambda state: None), schema=Kinds)
    graph = graph.compile(checkpointer=_saver(lib))
    chunks = run.stream(graph, {"kept": "in"}, THREAD, stream_mode=["values", "updates"])
    return [chunks, run.get_state(graph, THREAD).values]


def managed_values(lib: Any, run: Run) -> Any:
    """ST-13, EX-9"""

    class Managed(TypedDict, total=False):
        log: Annotated[list[Any], operator.add]
        left: lib.managed.RemainingSteps
        is_last: lib.managed.IsLastStep

    def loop(state: Any) -> Any:
        return {"log": [(state["left"], state["is_last"])], "left": 100}

    builder = lib.graph.StateGraph(Managed).add_node(loop).add_edge("__start__", "loop")
    builder.add_conditional_edges("loop", lambda state: "__end__" if state["is_last"] else "loop")
    return [
        tried(lambda limit=limit: run.invoke(builder.compile(), {}, {"recursion_limit": limit}))
        for limit in (0, 1, 2, 4)
    ]


def dicts_as_nodes(lib: Any, run: Run) -> Any:
    """GB-2: a dict of callables is branches that run side by side"""
    both = {"log": lambda state: [len(state["log"])], "count": lambda state: 2}
    builder = lib.graph.StateGraph(State).add_node("both", both).add_edge("__start__", "both")
    steps = lib.pregel.NodeBuilder().subscribe_only("input").do({"one": lambda x: x + 1, "two": lambda x: x + 2})
    channels = {"input": lib.channels.LastValue(int), "output": lib.channels.LastValue(dict)}
    low = {"nodes": {"both": steps.write_to("output")}, "input_channels": "input", "output_channels": "output"}
    return [run.invoke(builder.compile(), {"log": ["in"]}), run.invoke(lib.pregel.Pregel(channels=channels, **low), 1)]


def what_a_graph_within_streams(lib: Any, run: Run) -> Any:
    """Whole values by default where it is handed its node's config, else what it would alone"""
    child = _build(lib, _says("a"), _says("b")).compile()
    seen: list[Any] = []
    if run.colour == "async":

        async def alone(state: State) -> None:
            seen.append([chunk async for chunk in child.astream({"log": []})])

        async def handed(state: State, config: RunnableConfig) -> None:
            seen.append([chunk async for chunk in child.astream({"log": []}, config)])
    else:

        def alone(state: State) -> None:  # type: ignore[misc]
            seen.append(list(child.stream({"log": []})))

        def handed(state: State, config: RunnableConfig) -> None:  # type: ignore[misc]
            seen.append(list(child.stream({"log": []}, config)))

    run.invoke(_build(lib, alone, handed).compile(), {"log": []})
    return seen


def threads_without_a_name(lib: Any, run: Run) -> Any:
    """CP-1"""
    graph = _build(lib, _says("a")).compile(checkpointer=_saver(lib))
    named: list[Any] = [{"thread_id": ""}, {}, {"thread_id": 3}]
    return [tried(lambda where=where: run.invoke(graph, {"log": []}, {"configurable": where})) for where in named]


SCENARIOS = [
    dicts_as_nodes,
    what_a_graph_within_streams,
    threads_without_a_name,
    input_and_output_schemas,
    destinations_draw_and_do_not_route,
    entry_and_finish_points,
    options_of_compile,
    nodes_that_nothing_leads_to_or_from,
    keys_that_no_channel_has,
    private_state,
    dataclass_states_are_not_coerced,
    what_is_none_by_default,
    siblings_share_what_they_are_given,
    sends_of_several_nodes,
    the_step_before_the_first,
    branches_that_raise,
    sends_that_were_done_before_a_pause,
    commands_as_input,
    commands_from_nodes,
    updates_that_clash,
    savers_that_fail,
    contexts,
    facts_of_an_execution,
    channels_of_all_kinds,
    managed_values,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_programs(scenario: Any) -> None:
    check(scenario)
