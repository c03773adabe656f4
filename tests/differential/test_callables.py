"""What nodes, paths, tasks and reducers may be made of, what they are called, and when they run, is as in LangGraph."""

import operator
from functools import partial
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from tests.colours import Run
from tests.differential.scenarios import check, tried

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    count: int


def _chain(lib: Any, *nodes: Any, schema: Any = State) -> Any:
    builder = lib.graph.StateGraph(schema)
    previous = "__start__"
    for node in nodes:
        builder.add_node(node).add_edge(previous, node.__name__)
        previous = node.__name__
    return builder


class Refused(Exception):
    pass


def bad(state: State) -> Any:
    return {"n": 7}


def good(state: State) -> Any:
    return {"n": 1}


def reducers_that_raise(lib: Any, run: Run) -> Any:
    """FAULTS row 26: what they raise is caught as what it is, by callers and by the policies of a graph around."""
    seen: list[Any] = []
    for kind in (ValueError, OSError, Refused):

        def adds(old: int, new: int) -> int:
            if new == 7:
                raise kind(3, "seven")  # noqa: B023 - called in this round
            return old + new

        schema: Any = TypedDict("schema", {"n": Annotated[int, adds]})  # type: ignore[misc]
        child = _chain(lib, bad, schema=schema).compile()
        retry = lib.types.RetryPolicy(initial_interval=0.001, max_attempts=2, jitter=False, retry_on=kind)
        around = (
            lib.graph.StateGraph(schema).add_node("child", child, retry_policy=retry).add_edge("__start__", "child")
        )
        saved = _chain(lib, good, schema=schema).compile(checkpointer=lib.new_saver())
        for call in (
            lambda child=child: run.invoke(child, {"n": 1}),
            lambda around=around: run.invoke(around.compile(), {"n": 1}),
            lambda saved=saved: run.invoke(saved, {"n": 7}, THREAD),
            lambda saved=saved: run.update_state(saved, THREAD, {"n": 7}, "good"),
        ):
            try:
                call()
            except kind as error:
                seen.append((kind.__name__, error.args, getattr(error, "errno", None)))
    return seen


def generators_as_nodes(lib: Any, run: Run) -> Any:
    """GB-2, GB-16"""

    def yields(state: State) -> Any:
        yield {"log": ["one"]}
        yield {"log": ["two"]}

    async def ayields(state: State) -> Any:
        yield {"log": ["three"]}

    one, both = _chain(lib, yields).compile(), _chain(lib, yields, ayields).compile()
    return [run.invoke(one, {"log": []}), tried(lambda: run.invoke(both, {"log": []}))]


def names_of_what_has_none(lib: Any, run: Run) -> Any:
    """GB-2, GB-8, FN-9"""

    class Bare:
        def __call__(self, state: State, *_: Any) -> Any:
            return "plain"

    def plain(state: State, *_: Any) -> Any:
        return "plain"

    seen: list[Any] = []
    for callable_ in (plain, partial(plain), lambda state: "plain", Bare(), Bare().__call__):
        builder = lib.graph.StateGraph(State).add_node(callable_)
        builder.add_conditional_edges("__start__", callable_)
        seen.append([*builder.nodes, *builder.branches["__start__"]])
        seen.append(tried(lambda: builder.add_conditional_edges("__start__", callable_) and None))  # noqa: B023
    task = lib.func.task(partial(plain, 1))

    def work(n: int) -> Any:
        return task().result()

    async def awork(n: int) -> Any:
        return await task()

    awork.__name__ = "work"
    if run.colour == "async":
        task = lib.func.task(partial(_awaited, 1))
    return [*seen, run.stream(lib.func.entrypoint()(work if run.colour == "sync" else awork), 1)]


async def _awaited(n: int) -> int:
    return n


def sends_are_started_before_what_edges_start(lib: Any, run: Run) -> Any:
    """EX-2, SN-1: although what nodes write that edges started is merged first."""

    def makes(name: str) -> Any:
        def node(state: State) -> Any:
            return {"log": [(name, state.get("count"))]}

        async def anode(state: State) -> Any:
            return node(state)

        return node if run.colour == "sync" else anode

    def spreads(state: State) -> Any:
        return ["last", lib.types.Send("each", {"count": 1}), "first", lib.types.Send("each", {"count": 2})]

    builder = lib.graph.StateGraph(State).add_node("spread", lambda state: None).add_edge("__start__", "spread")
    for name in ("last", "each", "first"):
        builder.add_node(name, makes(name))
    builder.add_conditional_edges("spread", spreads, ["last", "each", "first"])
    return run.stream(builder.compile(), {"log": []}, {"max_concurrency": 1}, stream_mode=["updates", "values"])


SCENARIOS = [
    reducers_that_raise,
    generators_as_nodes,
    names_of_what_has_none,
    sends_are_started_before_what_edges_start,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_callables(scenario: Any) -> None:
    check(scenario)
