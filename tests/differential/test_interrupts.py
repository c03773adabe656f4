"""Questions, answers and pauses are LangGraph's (IN-1 to IN-14)."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from tests.colours import Run
from tests.differential.scenarios import check, tried

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    count: int


class Decision(BaseModel):
    approved: bool
    note: str | None = None


class Typed(TypedDict):
    amount: int


@dataclass
class Form:
    name: str
    age: int = 3


def _graph(lib: Any, *nodes: Any, chain: bool = False, **options: Any) -> Any:
    builder = lib.graph.StateGraph(State)
    previous = "__start__"
    for node in nodes:
        builder.add_node(node)
        builder.add_edge(previous, node.__name__)
        if chain:
            previous = node.__name__
    options.setdefault("checkpointer", lib.checkpoint_memory.InMemorySaver())
    return builder.compile(**options)


def _asking(lib: Any, name: str, *questions: Any, **options: Any) -> Any:
    def node(state: State) -> Any:
        answers = [lib.types.interrupt(question, **options) for question in questions]
        return {"log": [f"{name}:{answer}" for answer in answers]}

    node.__name__ = name
    return node


def _resume(lib: Any, answer: Any, **rest: Any) -> Any:
    return lib.types.Command(resume=answer, **rest)


def _ids(run: Run, graph: Any) -> dict[Any, str]:
    return {asked.value: asked.id for asked in run.get_state(graph, THREAD).interrupts}


def one_question(lib: Any, run: Run) -> Any:
    graph = _graph(lib, _asking(lib, "a", "A"))
    return [
        run.stream(graph, {"log": ["in"]}, THREAD, stream_mode=["updates", "values"]),
        run.get_state(graph, THREAD),
        run.stream(graph, _resume(lib, "yes"), THREAD, stream_mode=["updates", "values"]),
        run.history(graph, THREAD),
    ]


def several_questions_of_a_node(lib: Any, run: Run) -> Any:
    graph = _graph(lib, _asking(lib, "a", "A", "B", "C"))
    seen = [run.stream(graph, {"log": ["in"]}, THREAD)]
    for answer in ("1", "2", "3"):
        seen += [run.stream(graph, _resume(lib, answer), THREAD, stream_mode=["updates", "values"])]
        seen += [run.get_state(graph, THREAD)]
    return seen


def several_questions_answered_by_id(lib: Any, run: Run) -> Any:
    """IN-7"""
    graph = _graph(lib, _asking(lib, "a", "A", "B"))
    run.invoke(graph, {"log": ["in"]}, THREAD)
    first = _ids(run, graph)
    seen = [run.invoke(graph, _resume(lib, {first["A"]: "1"}), THREAD)]
    second = _ids(run, graph)
    return [*seen, run.invoke(graph, _resume(lib, {second["B"]: "2"}), THREAD), run.get_state(graph, THREAD)]


def an_answer_with_an_update(lib: Any, run: Run) -> Any:
    graph = _graph(lib, _asking(lib, "a", "A", "B"))
    run.invoke(graph, {"log": ["in"]}, THREAD)
    return [
        run.stream(graph, _resume(lib, "1", update={"log": ["more"]}), THREAD, stream_mode=["updates", "values"]),
        run.get_state(graph, THREAD),
        run.stream(graph, _resume(lib, "2", update={"log": ["again"]}), THREAD, stream_mode=["updates", "values"]),
        run.get_state(graph, THREAD),
    ]


def an_answer_with_a_destination(lib: Any, run: Run) -> Any:
    graph = _graph(lib, _asking(lib, "a", "A"), _asking(lib, "b"), chain=True)
    run.invoke(graph, {"log": ["in"]}, THREAD)
    chunks = run.stream(graph, _resume(lib, "1", goto="b"), THREAD, stream_mode=["updates", "values"])
    return [sorted(chunks, key=str), run.get_state(graph, THREAD)]  # updates come as tasks end


def questions_side_by_side(lib: Any, run: Run) -> Any:
    graph = _graph(lib, _asking(lib, "a", "A"), _asking(lib, "b", "B"), _asking(lib, "c"))
    seen = [sorted(run.stream(graph, {"log": ["in"]}, THREAD), key=str), run.get_state(graph, THREAD)]
    seen += [tried(lambda: run.invoke(graph, _resume(lib, "which?"), THREAD))]
    ids = _ids(run, graph)
    seen += [run.invoke(graph, _resume(lib, {ids["B"]: "2"}), THREAD), run.get_state(graph, THREAD)]
    seen += [run.stream(graph, _resume(lib, "1"), THREAD, stream_mode=["updates", "values"])]
    return [*seen, run.get_state(graph, THREAD)]


def all_questions_answered_at_once(lib: Any, run: Run) -> Any:
    graph = _graph(lib, _asking(lib, "a", "A"), _asking(lib, "b", "B"))
    run.invoke(graph, {"log": ["in"]}, THREAD)
    ids = _ids(run, graph)
    return [run.invoke(graph, _resume(lib, {ids["A"]: "1", ids["B"]: "2"}), THREAD), run.get_state(graph, THREAD)]


def questions_of_sends(lib: Any, run: Run) -> Any:
    def node(state: Any) -> Any:
        return {"log": [f"{state['n']}:{lib.types.interrupt(state['n'])}"]}

    builder = lib.graph.StateGraph(State).add_node("node", node)
    builder.add_conditional_edges("__start__", lambda _: [lib.types.Send("node", {"n": n}) for n in "abc"], ["node"])
    graph = builder.compile(checkpointer=lib.checkpoint_memory.InMemorySaver())
    run.invoke(graph, {"log": []}, THREAD)
    ids = _ids(run, graph)
    seen = [run.invoke(graph, _resume(lib, {ids["c"]: 3}), THREAD), run.get_state(graph, THREAD)]
    return [*seen, run.invoke(graph, _resume(lib, {ids["a"]: 1, ids["b"]: 2}), THREAD)]


def _nested(lib: Any, *nodes: Any, own: Any = None, function: bool = False, **options: Any) -> Any:
    child = _graph(lib, *nodes, checkpointer=own, **options)

    def call(state: State) -> Any:
        return {"log": [f"called:{len(child.invoke(state)['log'])}"]}

    async def acall(state: State) -> Any:
        return {"log": [f"called:{len((await child.ainvoke(state))['log'])}"]}

    builder = lib.graph.StateGraph(State)
    builder.add_node("child", (acall if function == "async" else call) if function else child)
    builder.add_edge("__start__", "child")
    return builder.compile(checkpointer=lib.checkpoint_memory.InMemorySaver())


def questions_side_by_side_in_a_graph_within(lib: Any, run: Run) -> Any:
    graph = _nested(lib, _asking(lib, "a", "A"), _asking(lib, "b", "B"))
    seen = [run.invoke(graph, {"log": []}, THREAD), run.get_state(graph, THREAD, subgraphs=True)]
    seen += [tried(lambda: run.invoke(graph, _resume(lib, "which?"), THREAD))]
    ids = _ids(run, graph)
    seen += [run.invoke(graph, _resume(lib, {ids["A"]: "1"}), THREAD), run.get_state(graph, THREAD, subgraphs=True)]
    seen += [run.invoke(graph, _resume(lib, {ids["B"]: "2"}), THREAD), run.get_state(graph, THREAD, subgraphs=True)]
    return seen


def two_questions_in_a_row_in_a_graph_within(lib: Any, run: Run) -> Any:
    graph = _nested(lib, _asking(lib, "a", "A"), _asking(lib, "b", "B", "C"), chain=True)
    seen = [run.invoke(graph, {"log": []}, THREAD)]
    for answer in "123":
        seen += [run.invoke(graph, _resume(lib, answer), THREAD), run.get_state(graph, THREAD, subgraphs=True)]
    return seen


def a_graph_within_called_by_a_function(lib: Any, run: Run) -> Any:
    graph = _nested(lib, _asking(lib, "a", "A"), _asking(lib, "b", "B"), function=run.colour, chain=True)
    seen = [run.invoke(graph, {"log": []}, THREAD)]
    for answer in "12":
        seen += [run.invoke(graph, _resume(lib, answer), THREAD), run.get_state(graph, THREAD)]
    return seen


def a_lasting_graph_within(lib: Any, run: Run) -> Any:
    graph = _nested(lib, _asking(lib, "a", "A"), _asking(lib, "b", "B"), own=True, chain=True)
    seen = [run.invoke(graph, {"log": []}, THREAD)]
    for _ in range(2):
        for answer in "12":
            seen += [run.invoke(graph, _resume(lib, answer), THREAD), run.get_state(graph, THREAD, subgraphs=True)]
        seen += [run.invoke(graph, {"log": ["new"]}, THREAD)]
    return seen


def the_same_lasting_graph_called_again_in_one_run(lib: Any, run: Run) -> Any:
    child = _graph(lib, _asking(lib, "a"), _asking(lib, "b", "B"), checkpointer=True, chain=True)

    def call(state: State) -> Any:
        return {"log": [f"called:{len(child.invoke({'log': ['x']})['log'])}"]}

    async def acall(state: State) -> Any:
        return {"log": [f"called:{len((await child.ainvoke({'log': ['x']}))['log'])}"]}

    def again(state: State) -> Any:
        count = state.get("count", 0) + 1
        return lib.types.Command(goto="call" if count < 3 else "__end__", update={"count": count})

    builder = lib.graph.StateGraph(State).add_node("call", acall if run.colour == "async" else call).add_node(again)
    builder.add_edge("__start__", "call").add_edge("call", "again")
    graph = builder.compile(checkpointer=lib.checkpoint_memory.InMemorySaver())
    seen = [run.invoke(graph, {"log": []}, THREAD)]
    for answer in "123":
        seen += [run.invoke(graph, _resume(lib, answer), THREAD)]
    return seen


def a_failure_after_an_answer(lib: Any, run: Run) -> Any:
    fails = [True]

    def node(state: State) -> Any:
        answer = lib.types.interrupt("A")
        if fails:
            fails.pop()
            raise KeyError("after")
        return {"log": [f"{answer}"]}

    graph = _graph(lib, node)
    run.invoke(graph, {"log": []}, THREAD)
    seen = [tried(lambda: run.invoke(graph, _resume(lib, "1"), THREAD)), run.get_state(graph, THREAD)]
    return [*seen, tried(lambda: run.invoke(graph, None, THREAD)), run.get_state(graph, THREAD)]


def a_question_after_a_failure_is_retried(lib: Any, run: Run) -> Any:
    fails = [True]

    def node(state: State) -> Any:
        answer = lib.types.interrupt("A")
        if fails:
            fails.pop()
            raise ConnectionError
        return {"log": [answer, lib.types.interrupt("B")]}

    builder = lib.graph.StateGraph(State)
    builder.add_node("node", node, retry_policy=lib.types.RetryPolicy(initial_interval=0.001, jitter=False))
    graph = builder.add_edge("__start__", "node").compile(checkpointer=lib.checkpoint_memory.InMemorySaver())
    run.invoke(graph, {"log": []}, THREAD)
    return [run.invoke(graph, _resume(lib, answer), THREAD) for answer in "12"]


def a_question_that_is_swallowed(lib: Any, run: Run) -> Any:
    def node(state: State) -> Any:
        try:
            return {"log": [lib.types.interrupt("A")]}
        except Exception as error:
            return {"log": [type(error).__name__]}

    return run.invoke(_graph(lib, node), {"log": []}, THREAD)


def questions_without_a_saver(lib: Any, run: Run) -> Any:
    """IN-5"""
    graph = _graph(lib, _asking(lib, "a", "A"), _asking(lib, "b"), checkpointer=None)
    return [
        sorted(run.stream(graph, {"log": ["in"]}, stream_mode=["updates", "values"]), key=str),
        tried(lambda: run.invoke(graph, _resume(lib, 1))),
    ]


def questions_without_a_saver_end_an_invoke(lib: Any, run: Run) -> Any:
    return run.invoke(_graph(lib, _asking(lib, "a", "A"), checkpointer=None), {"log": ["in"]})


def resuming_without_an_answer_asks_again(lib: Any, run: Run) -> Any:
    graph = _graph(lib, _asking(lib, "a", "A", "B"))
    # Where LangGraph has saved an answer before it was taken, it gives it to the next question too.
    given = ({"log": ["in"]}, None, _resume(lib, "1"), None, _resume(lib, "2"))
    return [run.invoke(graph, one, THREAD, durability="exit") for one in given]


def new_input_drops_the_question(lib: Any, run: Run) -> Any:
    graph = _graph(lib, _asking(lib, "a", "A"))
    run.invoke(graph, {"log": ["in"]}, THREAD)
    return [run.invoke(graph, {"log": ["other"]}, THREAD), run.invoke(graph, _resume(lib, "1"), THREAD)]


def answers_that_are_falsy(lib: Any, run: Run) -> Any:
    seen = []
    for answer in (0, "", [], False, {}):
        graph = _graph(lib, _asking(lib, "a", "A"))
        run.invoke(graph, {"log": ["in"]}, THREAD)
        seen += [tried(lambda graph=graph, answer=answer: run.invoke(graph, _resume(lib, answer), THREAD))]
    return seen


def answers_to_nobody(lib: Any, run: Run) -> Any:
    graph = _graph(lib, _asking(lib, "a"))
    run.invoke(graph, {"log": ["in"]}, THREAD)
    return [run.invoke(graph, _resume(lib, "1"), THREAD), run.invoke(graph, _resume(lib, {"0" * 32: 1}), THREAD)]


def _answered(schema: Any, *answers: Any) -> Any:
    def scenario(lib: Any, run: Run) -> Any:
        graph = _graph(lib, _asking(lib, "a", "A", response_schema=schema))
        seen = [run.invoke(graph, {"log": []}, THREAD), run.get_state(graph, THREAD)]
        for answer in answers:
            error = tried(lambda answer=answer: run.invoke(graph, _resume(lib, answer), THREAD))
            seen += [error, lib.errors.is_invalid_resume(error) if isinstance(error, Exception) else None]
            seen += [run.get_state(graph, THREAD)]
        return seen

    return scenario


def a_bad_answer_beside_a_good_one(lib: Any, run: Run) -> Any:
    graph = _graph(
        lib,
        _asking(lib, "a", "A", response_schema=Decision),
        _asking(lib, "b", "B", response_schema=Decision),
    )
    run.invoke(graph, {"log": []}, THREAD)
    ids = _ids(run, graph)
    both = {ids["A"]: {"approved": "never"}, ids["B"]: {"approved": True}}
    seen = [tried(lambda: run.invoke(graph, _resume(lib, both), THREAD)), run.get_state(graph, THREAD)]
    return [*seen, run.invoke(graph, _resume(lib, {ids["A"]: {"approved": False}}), THREAD)]


def a_bad_second_answer(lib: Any, run: Run) -> Any:
    graph = _graph(lib, _asking(lib, "a", "A", "B", response_schema=Typed))
    run.invoke(graph, {"log": []}, THREAD)
    seen = []
    for answer in ({"amount": 1}, {"amount": "x"}, {"amount": "2"}):
        seen += [tried(lambda answer=answer: run.invoke(graph, _resume(lib, answer), THREAD))]
        seen += [run.get_state(graph, THREAD)]
    return seen


def a_bad_answer_within(lib: Any, run: Run) -> Any:
    graph = _nested(lib, _asking(lib, "a", "A", response_schema=Decision))
    run.invoke(graph, {"log": []}, THREAD)
    seen = []
    for answer in ({"approved": "never"}, {"approved": True}):
        seen += [tried(lambda answer=answer: run.invoke(graph, _resume(lib, answer), THREAD))]
        seen += [run.get_state(graph, THREAD, subgraphs=True)]
    return seen


def breakpoints(lib: Any, run: Run) -> Any:
    seen = []
    for options in ({"interrupt_before": ["b"]}, {"interrupt_after": ["a"]}, {"interrupt_before": "*"}):
        graph = _graph(lib, _asking(lib, "a"), _asking(lib, "b"), _asking(lib, "c"), chain=True, **options)
        seen += [run.stream(graph, {"log": ["in"]}, THREAD, stream_mode=["updates", "values"])]
        for _ in range(4):
            seen += [run.get_state(graph, THREAD), run.stream(graph, None, THREAD, stream_mode=["updates", "values"])]
    return seen


def breakpoints_in_a_graph_within(lib: Any, run: Run) -> Any:
    graph = _nested(lib, _asking(lib, "a"), _asking(lib, "b"), chain=True, interrupt_before=["b"])
    seen = [run.invoke(graph, {"log": ["in"]}, THREAD), run.get_state(graph, THREAD, subgraphs=True)]
    return [*seen, run.invoke(graph, None, THREAD), run.get_state(graph, THREAD, subgraphs=True)]


def a_breakpoint_and_a_question(lib: Any, run: Run) -> Any:
    graph = _graph(lib, _asking(lib, "a", "A"), _asking(lib, "b"), chain=True, interrupt_after=["a"])
    seen = [run.invoke(graph, {"log": ["in"]}, THREAD)]
    for given in (_resume(lib, 1), None, None):
        seen += [run.stream(graph, given, THREAD, stream_mode=["updates", "values"]), run.get_state(graph, THREAD)]
    return seen


def an_entrypoint_that_asks(lib: Any, run: Run) -> Any:
    """FN-7"""

    @lib.func.task
    def ask(n: int) -> Any:
        return lib.types.interrupt(f"task {n}")

    @lib.func.entrypoint(checkpointer=lib.checkpoint_memory.InMemorySaver())
    def work(n: int) -> Any:
        return [lib.types.interrupt("own"), ask(n).result(), ask(n + 1).result()]

    seen = [run.stream(work, 1, THREAD)]
    for answer in "abc":
        seen += [run.stream(work, _resume(lib, answer), THREAD), run.get_state(work, THREAD)]
    return seen


def strict_answers(lib: Any, run: Run) -> Any:
    """IN-12"""
    strict: Any = {"configurable": {"thread_id": "1", "__pregel_strict_resume": True}}
    graph = _graph(lib, _asking(lib, "a", "A"), _asking(lib, "b", "B"))
    run.invoke(graph, {"log": []}, THREAD)
    ids = _ids(run, graph)
    seen = []
    for answer in ("which?", {}, {"0" * 32: 1}, {ids["A"]: 1}, {ids["A"]: 2}, {ids["B"]: 2}):
        error = tried(lambda answer=answer: run.invoke(graph, _resume(lib, answer), strict))
        seen += [error, getattr(error, "reason", None), getattr(error, "interrupt_ids", None)]
        seen += [sorted(getattr(error, "pending_ids", ())) == sorted(ids.values())]
    return seen


def the_same_run_asked_for_again(lib: Any, run: Run) -> Any:
    again: Any = {**THREAD, "metadata": {"run_id": "r1"}}
    graph = _graph(lib, _asking(lib, "a"), _asking(lib, "b"), chain=True, interrupt_before=["b"])
    seen = [run.invoke(graph, {"log": ["in"]}, again), run.invoke(graph, {"log": ["ignored"]}, again)]
    return [*seen, run.invoke(graph, {"log": ["new"]}, {**THREAD, "metadata": {"run_id": "r2"}})]


SCENARIOS = [
    one_question,
    several_questions_of_a_node,
    several_questions_answered_by_id,
    an_answer_with_an_update,
    an_answer_with_a_destination,
    questions_side_by_side,
    all_questions_answered_at_once,
    questions_of_sends,
    questions_side_by_side_in_a_graph_within,
    two_questions_in_a_row_in_a_graph_within,
    a_graph_within_called_by_a_function,
    a_lasting_graph_within,
    the_same_lasting_graph_called_again_in_one_run,
    a_failure_after_an_answer,
    a_question_after_a_failure_is_retried,
    a_question_that_is_swallowed,
    questions_without_a_saver,
    questions_without_a_saver_end_an_invoke,
    resuming_without_an_answer_asks_again,
    new_input_drops_the_question,
    answers_that_are_falsy,
    answers_to_nobody,
    a_bad_answer_beside_a_good_one,
    a_bad_second_answer,
    a_bad_answer_within,
    breakpoints,
    breakpoints_in_a_graph_within,
    a_breakpoint_and_a_question,
    an_entrypoint_that_asks,
    strict_answers,
    the_same_run_asked_for_again,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_questions(scenario: Any) -> None:
    check(scenario)


@pytest.mark.parametrize(
    ("schema", "answers"),
    [
        (Decision, [{"approved": "never"}, {"approved": "yes"}]),
        (Typed, [{"amount": "x"}, {"amount": "3"}]),
        (Form, [{"age": 1}, {"name": "n"}]),
        ({"type": "object"}, [{"any": "thing"}]),
        (int, ["x", "3"]),
    ],
)
def test_answers_are_checked_by_their_schema(schema: Any, answers: list[Any]) -> None:
    check(_answered(schema, *answers))
