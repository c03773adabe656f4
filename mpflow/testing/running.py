"""Checks of runs: what a graph does with the saver must be what it does with the saver in memory."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, TypedDict

from mpflow.checkpoint.memory import InMemorySaver
from mpflow.constants import END, START
from mpflow.graph.state import StateGraph
from mpflow.testing.colours import Colour, SyncColour
from mpflow.testing.plain import PlainSaver
from mpflow.testing.probe import address, holds, same
from mpflow.testing.suite import Suite
from mpflow.types import Command, Send, interrupt

DURABILITIES = ("sync", "async", "exit")

Story = list[Any]
Scenario = Callable[[Colour, Any, str], Story]


class State(TypedDict, total=False):
    """What the scenarios' graphs keep."""

    log: Annotated[list[str], operator.add]
    count: Annotated[int, operator.add]
    last: str
    items: list[int]


def history(colour: Colour, graph: Any, config: Any) -> Story:
    """A thread's states, newest first, without what differs from run to run: ids and times."""
    found = colour.listed(graph, "get_state_history", config)
    order = {snapshot.config["configurable"]["checkpoint_id"]: place for place, snapshot in enumerate(found)}
    return [
        (
            snapshot.metadata.get("source"),
            snapshot.metadata.get("step"),
            snapshot.values,
            snapshot.next,
            order.get((snapshot.parent_config or {}).get("configurable", {}).get("checkpoint_id")),
            [
                (task.name, _text(task.error), [one.value for one in task.interrupts], task.result)
                for task in snapshot.tasks
            ],
        )
        for snapshot in found
    ]


def _text(error: Any) -> str | None:
    return None if error is None else error if isinstance(error, str) else repr(error)


def _note(name: str) -> Callable[[State], State]:
    def node(state: State) -> State:
        return {"log": [name], "count": 1, "last": name}

    return node


def loops(colour: Colour, saver: Any, durability: str) -> Story:
    """Twenty steps of a loop, and a second run of the thread."""

    def work(state: State) -> State:
        return {"log": [f"step {state['count']}"], "count": 1}

    builder = StateGraph(State).add_node("work", work).add_edge(START, "work")
    builder.add_conditional_edges("work", lambda state: "work" if state["count"] % 20 else END, ["work", END])
    graph = builder.compile(checkpointer=saver)
    config: Any = address("loops")
    results = [colour.call(graph, "invoke", {"count": 0}, config, durability=durability)]
    results.append(colour.call(graph, "invoke", {"count": 1}, config, durability=durability))
    return [results, history(colour, graph, config)]


def fans_out(colour: Colour, saver: Any, durability: str) -> Story:
    """Sends beside nodes that join."""
    builder = StateGraph(State)
    for side in ("left", "right"):
        builder.add_node(side, lambda state, side=side: {"log": [side]})
    builder.add_node("one", lambda item: {"log": [f"item {item}"], "count": item})
    builder.add_node("join", _note("join"), defer=True)
    builder.add_conditional_edges(
        START, lambda state: ["left", "right", *(Send("one", item) for item in state["items"])]
    )
    builder.add_edge(["left", "right"], "join").add_edge("one", "join")
    graph = builder.compile(checkpointer=saver)
    config: Any = address("fan")
    result = colour.call(graph, "invoke", {"items": [3, 1, 2]}, config, durability=durability)
    return [result, history(colour, graph, config)]


def asks(colour: Colour, saver: Any, durability: str) -> Story:
    """Two questions at once, one of them asked by a node that asks again; answered one by one."""

    def asker(name: str, *questions: str) -> Callable[[State], State]:
        return lambda state: {"log": [f"{name} {interrupt(question)}" for question in questions]}

    builder = StateGraph(State).add_node("a", asker("a", "first", "second")).add_node("b", asker("b", "other"))
    builder.add_node("c", _note("c")).add_edge(START, "a").add_edge(START, "b").add_edge(START, "c")
    graph = builder.compile(checkpointer=saver)
    config: Any = address("asks")
    told: Story = [colour.call(graph, "invoke", {"count": 0}, config, durability=durability)]
    for answer in ("one", "two", "three"):
        state = colour.call(graph, "get_state", config)
        told.append((state.next, sorted(one.value for one in state.interrupts), state.values))
        ids = {one.value: one.id for one in state.interrupts}
        resume = {ids[sorted(ids)[0]]: answer}
        told.append(colour.call(graph, "invoke", Command(resume=resume), config, durability=durability))
    told = [
        {key: value for key, value in one.items() if key != "__interrupt__"} if isinstance(one, dict) else one
        for one in told
    ]
    return [told, history(colour, graph, config)]


def fails_in_part(colour: Colour, saver: Any, durability: str) -> Story:
    """A step of which one task fails: what the others did is kept, and only the failed one runs again."""
    starts: list[str] = []

    def worker(name: str) -> Callable[[State], State]:
        def node(state: State) -> State:
            starts.append(name)
            if name == "weak" and starts.count("weak") == 1:
                raise RuntimeError("not yet")
            return {"log": [name], "count": 1}

        return node

    builder = StateGraph(State).add_node("weak", worker("weak")).add_node("strong", worker("strong"))
    builder.add_node("after", worker("after")).add_edge(START, "weak").add_edge(START, "strong")
    builder.add_edge(["weak", "strong"], "after")
    graph = builder.compile(checkpointer=saver)
    config: Any = address("fails")
    try:
        colour.call(graph, "invoke", {"count": 0}, config, durability=durability)
    except RuntimeError as error:
        told: Story = [repr(error)]
    else:
        told = ["no error"]
    state = colour.call(graph, "get_state", config)
    told += [state.next, state.values, [_text(task.error) for task in state.tasks]]
    told.append(colour.call(graph, "invoke", None, config, durability=durability))
    return [told, sorted(starts), history(colour, graph, config)]


def nests(colour: Colour, saver: Any, durability: str) -> Story:
    """A graph within a node that pauses and keeps its state over runs, beside one that forgets."""

    def ask(state: State) -> State:
        return {"log": [interrupt("inner")], "count": 1}

    def inner(lasting: bool) -> Any:
        builder = StateGraph(State).add_node("first", _note("first")).add_node("ask", ask)
        return builder.add_edge(START, "first").add_edge("first", "ask").compile(checkpointer=True if lasting else None)

    builder = StateGraph(State).add_node("lasting", inner(True)).add_node("passing", inner(False))
    builder.add_edge(START, "lasting").add_edge("lasting", "passing")
    graph = builder.compile(checkpointer=saver)
    config: Any = address("nests")
    told: Story = []
    for number in range(2):
        colour.call(graph, "invoke", {"log": [f"run {number}"]}, config, durability=durability)
        for answer in ("yes", "no"):
            state = colour.call(graph, "get_state", config, subgraphs=True)
            told.append((state.next, [(task.name, task.state.values, task.state.next) for task in state.tasks]))
            told.append(colour.call(graph, "invoke", Command(resume=answer), config, durability=durability))
    told = [
        {key: value for key, value in one.items() if key != "__interrupt__"} if isinstance(one, dict) else one
        for one in told
    ]
    return [told, history(colour, graph, config)]


def travels(colour: Colour, saver: Any, durability: str) -> Story:
    """Going back: replaying from an old state, branching off it, editing it."""
    builder = StateGraph(State)
    for name, after in (("a", START), ("b", "a"), ("c", "b")):
        builder.add_node(name, _note(name)).add_edge(after, name)
    graph = builder.compile(checkpointer=saver)
    config: Any = address("travels")
    told: Story = [colour.call(graph, "invoke", {"count": 0}, config)]
    states = colour.listed(graph, "get_state_history", config)
    before_b = next(state for state in states if state.next == ("b",))
    told.append(colour.call(graph, "invoke", None, before_b.config, durability=durability))
    edited = colour.call(graph, "update_state", before_b.config, {"log": ["edited"]}, "a")
    told.append(colour.call(graph, "invoke", None, edited, durability=durability))
    told.append([state.metadata["step"] for state in colour.listed(graph, "get_state_history", config, limit=2)])
    told.append(len(colour.listed(graph, "get_state_history", config, before=before_b.config)))
    told.append(
        [
            state.values["log"]
            for state in colour.listed(graph, "get_state_history", config, filter={"source": "update"})
        ]
    )
    return [told, history(colour, graph, config)]


SCENARIOS: tuple[Scenario, ...] = (loops, fans_out, asks, fails_in_part, nests, travels)


@cache
def _expected(scenario: Scenario, durability: str) -> Story:
    """What a scenario shows on the saver in memory, whichever the colour."""
    return scenario(SyncColour(), PlainSaver(InMemorySaver()), durability)


class Runs(Suite):
    """Graphs that run on the saver."""

    def _compare(self, colour: str, scenario: Scenario) -> None:
        for durability in DURABILITIES:
            expected = _expected(scenario, durability)
            for route in ("as it is", "by the protocol alone"):
                with self.opened(colour) as saver:
                    through = saver.saver if route == "as it is" else PlainSaver(saver.saver)
                    got = scenario(saver.colour, through, durability)
                for part, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
                    same(mine, theirs, f"{scenario.__name__}, durability {durability!r}, saver {route}, part {part}")

    def test_cp2_a_loop(self, colour: str) -> None:
        self._compare(colour, loops)

    def test_cp2_a_fan_out(self, colour: str) -> None:
        self._compare(colour, fans_out)

    def test_cp6_questions_and_answers(self, colour: str) -> None:
        self._compare(colour, asks)

    def test_cp6_a_step_that_failed_in_part(self, colour: str) -> None:
        self._compare(colour, fails_in_part)

    def test_sg4_graphs_within_graphs(self, colour: str) -> None:
        self._compare(colour, nests)

    def test_sa9_going_back(self, colour: str) -> None:
        self._compare(colour, travels)

    def test_cp9_an_error_of_the_saver_fails_the_run(self, colour: str) -> None:
        with self.opened(colour) as saver:
            graph = StateGraph(State).add_node("a", _note("a")).add_edge(START, "a")
            # At a run's end "exit" has no writes to save: every step is complete.
            fatal = [("put", durability) for durability in DURABILITIES]
            for method, durability in (*fatal, ("put_writes", "sync"), ("put_writes", "async")):
                broken = graph.compile(checkpointer=_Broken(saver.saver, method))
                config: Any = address(f"broken {method} {durability}")
                try:
                    saver.colour.call(broken, "invoke", {"count": 0}, config, durability=durability)
                except _Disk:
                    continue
                holds(False, f"the run went on though {method} failed, durability {durability!r}")


class _Disk(Exception):
    """Stands for what a saver raises that cannot save."""


class _Broken(PlainSaver):
    """A saver one of whose methods fails."""

    def __init__(self, saver: Any, method: str) -> None:
        super().__init__(saver)
        setattr(self, method, self._fail)
        setattr(self, f"a{method}", self._afail)

    def _fail(self, *args: Any, task_path: str = "") -> Any:
        raise _Disk("the disk is full")

    async def _afail(self, *args: Any, task_path: str = "") -> Any:
        raise _Disk("the disk is full")
